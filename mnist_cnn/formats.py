"""The files that a trained network is exported to: how each is written, and how it is run."""

import copy
import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnist_cnn import pretrained, webpage
from mnist_cnn.analysis import results
from mnist_cnn.data import mnist
from mnist_cnn.model import SHAPE
from mnist_cnn.pretrained import Probabilities, Trained

Predict = Callable[[Tensor], Tensor]  # uint8 (N, H, W) or (N, C, H, W) -> probabilities (N, K)

SHAPES = {"images": {0: torch.export.Dim("N")}}
OPSET = 18  # the one that PyTorch's exporter itself writes
PLACES = ("root", "path", "mirror")  # keys of data that name places


def describe(net: Trained) -> dict[str, Any]:
    """Return what each file says about its network, plain values."""
    shape = ", ".join(map(str, ("N", *net.example(1).shape[1:])))
    takes = [f"uint8 ({shape}), 0 to 255, not normalized: mean and std are inside the network"]
    if net.about["data"]["name"] in mnist.CLASSES:
        takes.append("white on black")
        if net.classes == mnist.DIGITS and net.shape == SHAPE:
            takes.append("each digit centred by mass, its longest side 20 pixels")
    return {
        **net.about,
        "data": portable(net.about["data"]),
        "classes": list(net.classes),
        "input": ", ".join(takes),
        "mnist_cnn": results.versions().get("mnist-cnn") or results.commit() or "unknown",
    }


def portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of data without places on the machine that trained the network."""
    return {
        key: portable(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in PLACES and not (isinstance(value, str) and os.path.isabs(value))
    }


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
    onnx.helper.set_model_props(model, {k: json.dumps(v) for k, v in describe(net).items()})
    onnx.save(model, str(path))
    onnx.checker.check_model(model, full_check=True)


def run_onnx(path: Path) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


# by a file's suffix, how it is written, and how to get a function that runs it
FORMATS: dict[str, tuple[Callable[[Trained, Path], object], Callable[[Path], Predict]]] = {
    "onnx": (write_onnx, run_onnx),
    "pt2": (write_pt2, lambda path: torch.export.load(path).module()),
    "safetensors": (
        lambda net, path: pretrained.write_weights(net.net, describe(net), path),
        pretrained.load,
    ),
    "html": (
        lambda net, path: path.write_text(webpage.webpage(net, describe(net)), "utf-8"),
        lambda path: webpage.run_webpage(path.read_text("utf-8")),
    ),
}
