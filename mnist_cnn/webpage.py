"""A trained network as one HTML file that reads drawings in a browser, without a server."""

import base64
import html
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from mnist_cnn.data import mnist
from mnist_cnn.model import SHAPE, Normalize
from mnist_cnn.pretrained import Trained

PAGE = Path(__file__).parent / "reading" / "page"
# the page may ask no machine for anything
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"

Layer = tuple[dict[str, Any], list[Tensor]]  # its settings, its weights
# functions with settings, as the modules that do the same
MODULES: dict[str, type[nn.Module]] = {"flatten": nn.Flatten, "max_pool2d": nn.MaxPool2d}


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return isinstance(module, Normalize) or super().is_leaf_module(module, qualified_name)


def digit_layers(net: Trained) -> list[Layer]:
    """The layers of a network as reading/page/network.js has them.

    Raises:
        ValueError: it reads no digits of 28x28, or is no chain of layers that network.js computes.
    """
    if net.classes != mnist.DIGITS or net.shape != SHAPE:
        raise ValueError(
            "html export needs a network trained on digits of 1 x 28 x 28, got one of "
            f"{net.about['data']['name']}, {' x '.join(map(str, net.shape))}"
        )
    try:
        nodes = list(_Tracer().trace(net.net).nodes)
    except Exception as error:  # a forward of the user's own may do anything
        raise ValueError(f"html export needs a chain of layers, got {error}") from None
    for before, node in pairwise(nodes):
        if node.all_input_nodes != [before]:
            raise ValueError(f"html export needs a chain of layers, got a branch at {node.name}")
    return [layer for node in nodes[1:-1] for layer in as_layer(_module(net.net, node))]


def _module(net: nn.Module, node: fx.Node) -> nn.Module | str:
    """The layer of a node; of a function the module that does the same, or the function's name."""
    if node.op == "call_module":
        return net.get_submodule(str(node.target))
    name = str(getattr(node.target, "__name__", node.target))
    options = {key: value for key, value in node.kwargs.items() if value is not None}
    return MODULES[name](*node.args[1:], **options) if name in MODULES else name


def as_layer(module: nn.Module | str) -> Iterator[Layer]:
    """A layer as network.js has it; nothing for one that changes nothing."""
    match module:
        case Normalize():
            if module.mean.any() or (module.std != 1).any():
                scale = 1 / module.std.flatten()
                yield {"kind": "affine"}, [scale, -module.mean.flatten() * scale]
        case nn.Conv2d(groups=1, dilation=(1, 1), padding_mode="zeros", padding=tuple()):
            options = {key: getattr(module, key) for key in ("stride", "padding")}
            options = {"kind": "convolution", "kernel": module.kernel_size, **options}
            yield options, [module.weight, _bias(module)]
        case nn.Linear():
            yield {"kind": "dense"}, [module.weight, _bias(module)]
        case nn.BatchNorm1d(running_mean=Tensor() as mean, running_var=Tensor() as variance) | (
            nn.BatchNorm2d(running_mean=Tensor() as mean, running_var=Tensor() as variance)
        ):
            gain, offset = (module.weight, module.bias) if module.affine else (1.0, 0.0)
            scale = torch.rsqrt(variance + module.eps) * gain
            yield {"kind": "affine"}, [scale, offset - mean * scale]
        case nn.MaxPool2d(
            padding=0, dilation=1, ceil_mode=False, kernel_size=int(size), stride=step
        ) if step == size:
            yield {"kind": "pool", "size": size}, []
        case nn.ReLU() | "relu":
            yield {"kind": "relu"}, []
        case nn.Dropout() | nn.Dropout2d() | "dropout":
            pass
        case nn.Flatten(start_dim=1, end_dim=-1) | nn.Identity():
            pass
        case _:
            raise ValueError(
                "html export needs a chain of convolutions, max-poolings, batch normalisations, "
                f"ReLUs and dense layers, got {module}"
            )


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    return torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias


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
    engine = MiniRacer()
    # a browser has atob, the engine alone has not
    engine.eval(f"const atob = () => {json.dumps(weights.decode('latin-1'))};\n{script}")
    engine.eval("const all = (images) => images.map(probabilities);")
    # in parts: each call sends its images as JSON
    return lambda images: torch.cat(
        [torch.tensor(engine.call("all", part.flatten(1).tolist())) for part in images.split(100)]
    )
