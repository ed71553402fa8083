"""A trained network as ONNX, torch.export program, safetensors or HTML file."""

import copy
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mnist_cnn import pretrained, webpage
from mnist_cnn.analysis import results
from mnist_cnn.data import mnist
from mnist_cnn.model import SHAPE
from mnist_cnn.pretrained import Probabilities, Trained

Predict = Callable[[Tensor], Tensor]  # uint8 (N, H, W) or (N, C, H, W) -> probabilities (N, K)

# the packages of the extra `export` that a format needs
EXTRA = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "html": ("py_mini_racer",)}
SHAPES = {"images": {0: torch.export.Dim("N")}}
OPSET = 18  # the one that PyTorch's exporter itself writes
PLACES = ("root", "path", "mirror")  # keys of data that name places


def describe(net: Trained) -> dict[str, Any]:
    """Return what each file says about its network, plain values."""
    return {
        **net.about,
        "data": portable(net.about["data"]),
        "classes": list(net.classes),
        "input": describe_input(net),
        "mnist_cnn": results.versions().get("mnist-cnn") or results.commit() or "unknown",
    }


def portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of data without places on the machine that trained the network."""
    found = {}
    for key, value in config.items():
        is_place = key in PLACES or (isinstance(value, str) and os.path.isabs(value))
        if not is_place:
            found[key] = portable(value) if isinstance(value, Mapping) else value
    return found


def describe_input(net: Trained) -> str:
    """The images that a network takes, in words."""
    shape = ", ".join(map(str, ("N", *net.example(1).shape[1:])))
    known = net.about["data"]["name"] in mnist.CLASSES
    digits = known and net.classes == mnist.DIGITS and net.shape == SHAPE
    parts = [
        f"uint8 ({shape}), 0 to 255",
        *["white on black"] * known,
        *["each digit centred by mass, its longest side 20 pixels"] * digits,
        "not normalized: mean and std are inside the network",
    ]
    return ", ".join(parts)


def write_safetensors(net: Trained, path: Path) -> None:
    """The weights, with `describe` in the file's metadata."""
    pretrained.write_weights(net.net, describe(net), path)


def write_pt2(net: Trained, path: Path) -> None:
    """The whole model as torch.export has it, with `describe` in its extra file about.json."""
    # torch.export.save warns of weights with the channels innermost as if they were parts of others
    plain = Probabilities(copy.deepcopy(net.net)).eval()
    plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    program = torch.export.export(plain, (net.example(2),), dynamic_shapes=SHAPES)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders of this machine
    torch.export.save(program, path, extra_files={"about.json": json.dumps(describe(net))})


def write_onnx(net: Trained, path: Path) -> None:
    """The whole model as one ONNX file, with `describe` in its metadata, each value as JSON."""
    import onnx

    with warnings.catch_warnings():
        # PyTorch's own use of a class of its that is on its way out
        warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
        program = torch.onnx.export(
            Probabilities(net.net).eval(),
            (net.example(2),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=SHAPES,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, model.graph):
        part.ClearField("metadata_props")  # PyTorch's notes, among them folders of this machine
    finish_onnx(model, net, path)
    onnx.checker.check_model(model, full_check=True)


def write_int8(net: Trained, path: Path, source: Path, images: Tensor) -> None:
    """The ONNX file `source` with 8-bit weights and activations in its layers.

    Args:
        images: uint8 (N, 28, 28), from which the ranges of the activations are taken.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(images.split(100))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.numpy()}

    prepared = path.with_name("prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared),
        str(path),
        Calibration(),
        # where the rest is 8-bit too, it took more than twice the time and read no better
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        per_channel=True,
    )
    finish_onnx(onnx.load(str(path)), net, path)


def finish_onnx(model: Any, net: Trained, path: Path) -> None:
    import onnx

    onnx.helper.set_model_props(model, {k: json.dumps(v) for k, v in describe(net).items()})
    onnx.save(model, str(path))


def write_html(net: Trained, path: Path) -> None:
    """The page to draw on with the network inside; see `webpage.webpage` for what is refused."""
    path.write_text(webpage.webpage(net, describe(net)), "utf-8")


WRITERS: dict[str, Callable[[Trained, Path], None]] = {
    "onnx": write_onnx,
    "pt2": write_pt2,
    "safetensors": write_safetensors,
    "html": write_html,
}
FORMATS = tuple(WRITERS)


def reader(path: Path) -> Predict:
    """Return a function that runs such a file."""
    if path.suffix == ".safetensors":
        return pretrained.load(path)
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    if path.suffix == ".html":
        return webpage.run_webpage(path.read_text("utf-8"))
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
