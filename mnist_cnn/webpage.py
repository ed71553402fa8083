"""A trained network as one HTML file that reads drawings in a browser, without a server."""

import base64
import html
import json
from collections.abc import Callable, Iterator, Mapping
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


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return isinstance(module, Normalize) or super().is_leaf_module(module, qualified_name)


def digit_layers(net: Trained) -> list[Layer]:
    """The layers of a network as reading/page/network.js has them.

    Raises:
        ValueError: it reads no digits of 28x28, or is no chain of layers that network.js computes.
    """
    if net.classes != mnist.DIGITS or net.shape != SHAPE:
        size = " x ".join(map(str, net.shape))
        raise ValueError(
            "html export needs a network trained on digits of 1 x 28 x 28, got one of "
            f"{net.about['data']['name']}, {size}"
        )
    try:
        graph = _Tracer().trace(net.net)
    except Exception as error:  # a forward of the user's own may do anything
        raise ValueError(f"html export needs a chain of layers, got {error}") from None
    layers: list[Layer] = []
    before: fx.Node | None = None
    for node in graph.nodes:
        if before is not None and node.all_input_nodes != [before]:
            raise ValueError(f"html export needs a chain of layers, got a branch at {node.name}")
        before = node
        if node.op not in ("placeholder", "output"):
            layers += as_layer(_module(net.net, node))
    return layers


def _module(net: nn.Module, node: fx.Node) -> nn.Module | str:
    """The layer of a node: of a function with settings the module that has them, else its name."""
    if node.op == "call_module":
        return net.get_submodule(str(node.target))
    name = str(getattr(node.target, "__name__", node.target))
    kinds: dict[str, Callable[..., nn.Module]] = {
        "flatten": nn.Flatten,
        "max_pool2d": nn.MaxPool2d,
    }
    if name not in kinds:
        return name
    options = {key: value for key, value in node.kwargs.items() if value is not None}
    return kinds[name](*node.args[1:], **options)


def as_layer(module: nn.Module | str) -> Iterator[Layer]:
    """A layer as network.js has it; nothing for one that changes nothing."""
    match module:
        case Normalize():
            if not module.identity:
                scale = 1 / module.std.flatten()
                yield {"kind": "affine"}, [scale, -module.mean.flatten() * scale]
        case nn.Conv2d(groups=1, dilation=(1, 1), padding_mode="zeros", padding=tuple()):
            options = {key: getattr(module, key) for key in ("stride", "padding")}
            bias = torch.zeros(module.out_channels) if module.bias is None else module.bias
            yield (
                {"kind": "convolution", "kernel": module.kernel_size, **options},
                [module.weight, bias],
            )
        case nn.Linear():
            bias = torch.zeros(module.out_features) if module.bias is None else module.bias
            yield {"kind": "dense"}, [module.weight, bias]
        case nn.BatchNorm1d(track_running_stats=True) | nn.BatchNorm2d(track_running_stats=True):
            assert module.running_mean is not None
            assert module.running_var is not None
            gain, offset = (module.weight, module.bias) if module.affine else (1.0, 0.0)
            scale = torch.rsqrt(module.running_var + module.eps) * gain
            yield {"kind": "affine"}, [scale, offset - module.running_mean * scale]
        case nn.MaxPool2d(
            padding=0, dilation=1, ceil_mode=False, kernel_size=int(size), stride=step
        ) if step == size:
            yield {"kind": "pool", "size": size}, []
        case nn.ReLU() | "relu":
            yield {"kind": "relu"}, []
        case nn.Flatten(start_dim=1, end_dim=-1) | nn.Identity():
            pass
        case nn.Dropout() | nn.Dropout2d() | "dropout":
            pass
        case _:
            raise ValueError(
                "html export needs a chain of convolutions, max-poolings, batch normalisations, "
                f"ReLUs and dense layers, got {module}"
            )


def webpage(net: Trained, about: Mapping[str, Any]) -> str:
    """The page to draw on with the network in it; `about` is its description."""
    layers = digit_layers(net)
    settings = [{**layer, "lengths": [w.numel() for w in weights]} for layer, weights in layers]
    numbers = torch.cat([w.detach().flatten() for _, weights in layers for w in weights])
    encoded = base64.b64encode(numbers.numpy().astype("<f4").tobytes()).decode()
    values = f"const LAYERS = {json.dumps(settings)};\nconst WEIGHTS = {json.dumps(encoded)};\n"
    files = ("index.html", "page.css", "page.js", "network.js")
    page, style, script, network = ((PAGE / name).read_text("utf-8") for name in files)
    description = html.escape(json.dumps(about))
    replacements = {
        '<link rel="stylesheet" href="page.css" />': (
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}" />\n'
            f'<meta name="description" content="{description}" />\n'
            f"<style>\n{style}</style>"
        ),
        '<script src="server.js"></script>': f'<script id="network">\n{values}{network}</script>',
        '<script src="page.js"></script>': f"<script>\n{script}</script>",
    }
    for tag, content in replacements.items():
        assert tag in page, tag
        page = page.replace(tag, content)
    return page


def run_webpage(page: str) -> Callable[[Tensor], Tensor]:
    """The network in such a page, run by the JavaScript engine V8: images -> probabilities."""
    from py_mini_racer import MiniRacer

    script = page.partition('<script id="network">')[2].partition("</script>")[0]
    weights = base64.b64decode(script.partition('const WEIGHTS = "')[2].partition('"')[0])
    # a browser has atob, the engine alone has not
    atob = f"const atob = () => {json.dumps(weights.decode('latin-1'))};\n"
    engine = MiniRacer()
    engine.eval(atob + script + "const all = (images) => images.map(probabilities);")
    # in parts: each call sends its images as JSON
    return lambda images: torch.cat(
        [torch.tensor(engine.call("all", part.flatten(1).tolist())) for part in images.split(100)]
    )
