"""A trained network as one HTML file that reads drawings in a browser, without a server."""

import base64
import html
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnist_cnn.data import mnist
from mnist_cnn.model import SHAPE
from mnist_cnn.pretrained import Trained

PAGE = Path(__file__).parent / "reading" / "page"
# the page may ask no machine for anything
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; worker-src blob:; "
    "style-src 'unsafe-inline'; img-src data:"
)
USUAL: list[Any] = [None, [1, 1], [0, 0]]  # bias, stride and padding of a convolution

Layer = tuple[dict[str, Any], list[Tensor]]  # its settings, its weights


def digit_layers(net: Trained, kind: str = "html") -> list[Layer]:
    """The layers of a network as reading/page/network.js has them.

    Args:
        kind: the format that the error message names.

    Raises:
        ValueError: it reads no digits of 28x28, or is no chain of layers that network.js computes.
    """
    if net.classes != mnist.DIGITS or net.shape != SHAPE:
        raise ValueError(
            f"{kind} export needs a network trained on digits of 1 x 28 x 28, got one of "
            f"{net.about['data']['name']}, {' x '.join(map(str, net.shape))}"
        )
    try:
        program = torch.export.export(net.net, (torch.zeros(2, *SHAPE),))
    except Exception as error:  # a forward of the user's own may do anything
        raise ValueError(f"{kind} export needs a chain of layers, got {error}") from None
    signature, state = program.graph_signature, program.state_dict
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    weights = {name: state[key] for name, key in names.items() if key in state}
    before = signature.user_inputs[0]
    layers: list[Layer] = []
    for node in program.graph.nodes:
        if node.op == "call_function":
            inputs = [each.name for each in node.all_input_nodes if each.name not in weights]
            name = str(node.target).split(".")[1]  # conv2d of aten.conv2d.default
            operation = name if inputs == [before] else f"a branch at {node}"
            layers += as_layers(kind, operation, [weights.get(str(a), a) for a in node.args[1:]])
            before = node.name
    return layers


def as_layers(kind: str, operation: str, arguments: Sequence[Any]) -> list[Layer]:
    """An operation of torch.export as network.js has it; none for one that changes nothing."""
    match operation, *arguments:
        case "sub", Tensor() as mean:
            return [({"kind": "affine"}, [torch.ones_like(mean), -mean])]
        case "div", Tensor() as std:
            return [({"kind": "affine"}, [1 / std, torch.zeros_like(std)])]
        case "conv2d", weight, *options if len(options) < 4:  # neither dilated nor in groups
            bias, stride, padding = [*options, *USUAL[len(options) :]]
            settings = {"kernel": weight.shape[2:], "stride": stride, "padding": padding}
            return [({"kind": "convolution", **settings}, [weight, bias_of(weight, bias)])]
        case "linear", weight, *bias:
            return [({"kind": "dense"}, [weight, bias_of(weight, *bias)])]
        case "batch_norm", Tensor() as gain, offset, Tensor() as mean, variance, _, _, eps, _:
            scale = torch.rsqrt(variance + eps) * gain
            return [({"kind": "affine"}, [scale, offset - mean * scale])]
        case "max_pool2d", [size, width], *step if size == width and step in ([], [[size, size]]):
            return [({"kind": "pool", "size": size}, [])]
        case ("relu" | "relu_",):
            return [({"kind": "relu"}, [])]
        case "dropout" | "feature_dropout" | "flatten", *_:
            return []
    raise ValueError(
        f"{kind} export needs a chain of convolutions, max-poolings, batch normalisations, "
        f"ReLUs and dense layers, got {operation}"
    )


def bias_of(weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.zeros(len(weight)) if bias is None else bias


def webpage(net: Trained, about: Mapping[str, Any]) -> str:
    """The page to draw on with the network in it; `about` is its description."""
    layers = digit_layers(net)
    settings = [{**layer, "lengths": [w.numel() for w in weights]} for layer, weights in layers]
    numbers = torch.cat([w.detach().flatten() for _, weights in layers for w in weights])
    encoded = base64.b64encode(numbers.numpy().astype("<f4").tobytes()).decode()
    values = f"const LAYERS = {json.dumps(settings)};\nconst WEIGHTS = {json.dumps(encoded)};\n"
    files = ("index.html", "page.css", "page.js", "network.js")
    page, style, script, network = ((PAGE / name).read_text("utf-8") for name in files)
    for tag, content in {
        '<link rel="stylesheet" href="page.css" />': (
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}" />\n'
            f'<meta name="description" content="{html.escape(json.dumps(about))}" />\n'
            f"<style>\n{style}</style>"
        ),
        '<script src="server.js"></script>': f'<script id="network">\n{values}{network}</script>',
        '<script src="page.js"></script>': f"<script>\n{script}</script>",
    }.items():
        assert tag in page, tag
        page = page.replace(tag, content)
    return page


def run_webpage(page: str) -> Callable[[Tensor], Tensor]:
    """The network in such a page, run by the JavaScript engine V8: images -> probabilities."""
    from py_mini_racer import MiniRacer

    script = page.partition('<script id="network">')[2].partition("</script>")[0]
    weights = base64.b64decode(script.partition('const WEIGHTS = "')[2].partition('"')[0])
    engine = finished(MiniRacer)
    # a browser has atob, the engine alone has not
    finished(engine.eval, f"const atob = () => {json.dumps(weights.decode('latin-1'))};\n{script}")
    finished(engine.eval, "const all = (images) => images.map(probabilities);")

    def predict(images: Tensor) -> Tensor:
        # in parts: each call sends its images as JSON
        pixels = [part.flatten(1).tolist() for part in images.split(100)]
        return torch.cat([torch.tensor(finished(engine.call, "all", part)) for part in pixels])

    return predict


def finished(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call returns; a signal that comes in it is answered at its end.

    A call of the engine that is left in the middle prints tracebacks as the program ends.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call, *arguments).result()
