"""Export formats: how a network is written for other programs, and how each file is verified."""

import copy
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnist_cnn.config.instantiate import targets
from mnist_cnn.config.schema import DataDescription
from mnist_cnn.data import mnist
from mnist_cnn.data.synthetic.sheet import SYMBOLS
from mnist_cnn.detection.trained import SHIPPED, shipped
from mnist_cnn.exporting import webpage
from mnist_cnn.model import SHAPE
from mnist_cnn.reading.networks import Digits, network_of
from mnist_cnn.weights import predictor
from mnist_cnn.weights.files import read_file, write_weights
from mnist_cnn.weights.predictor import Probabilities, Trained

Predict = Callable[[Tensor], Tensor]  # uint8 (N, H, W) or (N, C, H, W) -> probabilities (N, K)
Write = Callable[[Any, Path], object]  # a network, to a file
Check = Callable[[Path, Any], float]  # a file and its network -> the greatest difference

BATCHES = 1, 7, 992  # images that each file is verified on; several sizes, as N is dynamic
MOST = 992 * 48 * 48  # maximum number of values of such a batch
DIFFERENCE = 1e-5  # maximum difference of a probability
ROUNDED = 0.02  # the same for a network with 16-bit weights in the file
FREE = {"images": {0: torch.export.Dim("N")}}
OPSET = 18  # the native one of PyTorch's exporter


@torch.inference_mode()
def verify(name: str, predict: Predict, net: Trained) -> float:
    """Return the greatest difference between the probabilities of a file and of its network.

    They are of test digits if the network takes images of their size, else of random pixels.

    Raises:
        ValueError: it is too great, or an image is read as another class.
    """
    # fewer of large images, whose maps would take gigabytes
    batches = [min(n, max(8, MOST // math.prod(net.shape))) for n in BATCHES]
    images = net.example(sum(batches)).random_(generator=torch.Generator().manual_seed(0))
    if net.shape == SHAPE:
        images = mnist.load_split("mnist", "", "test")[0][: sum(batches)]
    expected, given = net(images), torch.cat([predict(batch) for batch in images.split(batches)])
    difference = (given - expected).abs().max().item()
    agreement = (given.argmax(1) == expected.argmax(1)).double().mean().item()
    if not (difference <= DIFFERENCE and agreement == 1):  # NaN is a failure too
        raise ValueError(
            f"{name} is not written: its probabilities must be within {DIFFERENCE:.0e} of "
            f"the network's, and all images read alike, got {difference:.1e} and {agreement:.1%}"
        )
    return difference


def describe(net: Trained) -> dict[str, Any]:
    """Return the description of a network that its files contain, without paths of its data."""
    data = net.data
    kept = (*DataDescription.model_fields, "fingerprint", "shape", "color", "size", "on_light")
    known = {key: data[key] for key in kept if key in data}
    if "path" in data:
        known["path"] = None  # of which kind the data were, but not where
    if "custom" in data:
        # its code, and how it divides the images
        kept = ("_target_", *DataDescription.model_fields, "fingerprint")
        known["custom"] = {key: data["custom"][key] for key in kept if key in data["custom"]}
    sizes = ", ".join(map(str, net.example(1).shape[1:]))
    taken = f"uint8 (N, {sizes}), 0 to 255, as in training: MNIST's are white on black and centred"
    about = {**net.about, "images": f"{taken}; the network itself normalizes them"}
    return {**about, "data": known, "classes": list(net.classes)}


def write_pt2(net: Trained, path: Path) -> None:
    """Write the model as torch.export does, with `describe` in its extra file about.json."""
    # torch.export.save warns of weights with channels last as if they were views of others
    plain = Probabilities(copy.deepcopy(net.net)).eval()
    plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    program = torch.export.export(plain, (net.example(2),), dynamic_shapes=FREE)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # contains paths of this machine
    torch.export.save(program, path, extra_files={"about.json": json.dumps(describe(net))})


def write_onnx(net: Trained, path: Path) -> None:
    """Write the model as one ONNX file, with `describe` in its metadata, each value as JSON."""
    import onnx

    with warnings.catch_warnings():
        # PyTorch uses a class that it deprecates
        warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
        program = torch.onnx.export(
            Probabilities(net.net).eval(),
            (net.example(2),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=FREE,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, model.graph):
        part.ClearField("metadata_props")  # PyTorch's notes, with paths of this machine
    onnx.helper.set_model_props(model, {k: json.dumps(v) for k, v in describe(net).items()})
    onnx.save(model, str(path))


def write_html(net: Trained | None, path: Path) -> None:
    """Write the page of a network that classifies pictures or digits, or of the reader alone.

    A page of digits has the reader of pictures, which finds them.
    """
    network = network_of(net)
    about = describe(net) if net else {}
    if isinstance(network, Digits):
        about["reader"] = {"model": read_file(SHIPPED)[1]["model"], "classes": [*SYMBOLS]}
    path.write_text(webpage.webpage(network, about), "utf-8")


@torch.inference_mode()
def check_html(path: Path, net: Trained | None) -> float:
    """Verify a page, see `verify`, and its reader of pictures, on a sheet of digits."""
    page = webpage.Engine(path.read_text("utf-8"))
    difference = verify(path.name, page.probabilities, net) if net else 0.0
    if not isinstance(network_of(net), Digits):
        return difference
    digits = mnist.load_split("mnist", "", "test")[0][:24].view(4, 6, 28, 28)
    ink = digits.transpose(1, 2).reshape(4 * 28, 6 * 28) / 255
    of_reader = page.difference(shipped(), ink)
    if not of_reader <= ROUNDED:  # NaN is a failure too
        raise ValueError(
            f"{path.name} is not written: its reader's probabilities must be within {ROUNDED} of "
            f"the network's, got {of_reader:.1e}"
        )
    return max(difference, of_reader)


def run_onnx(path: Path) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def by(run: Callable[[Path], Predict]) -> Check:
    """Return the check of files that `run` loads."""
    return lambda path, net: verify(path.name, run(path), net)


def run_safetensors(path: Path, net: Trained) -> Predict:
    """Load the file; the user's own code in it is that of the network, so it was allowed."""
    own = [str(name) for _, name in targets(net.model, "model")]
    return predictor.load(path, own)


def write_safetensors(net: Trained, path: Path) -> None:
    write_weights(net.net, describe(net), path)


# how a file is written and checked, by suffix; the keys are `exporting.KINDS`
FORMATS: dict[str, tuple[Write, Check]] = {
    "onnx": (write_onnx, by(run_onnx)),
    "pt2": (write_pt2, by(lambda path: torch.export.load(path).module())),
    "safetensors": (
        write_safetensors,
        lambda path, net: verify(path.name, run_safetensors(path, net), net),
    ),
    "html": (write_html, check_html),
}
