"""The page to draw on as one HTML file: networks that a browser runs, without a server."""

import base64
import html
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Node

from mnist_cnn.data import mnist
from mnist_cnn.data.synthetic.sheet import OTHER, SIGNS, STRIDE, SYMBOLS
from mnist_cnn.detection import decode, find, lines, loss
from mnist_cnn.detection.network import CHANNELS, COARSEST
from mnist_cnn.model import SHAPE
from mnist_cnn.pretrained import Trained
from mnist_cnn.reading.reading import THRESHOLD, UNKNOWN

PAGE = Path(__file__).parent / "reading" / "page"
# in place of the server's: each uses those before it
SCRIPTS = ("network.js", "decode.js", "lines.js", "reading.js", "drawing.js")
# the page may ask no machine for anything
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; worker-src blob:; "
    "style-src 'unsafe-inline'; img-src data:"
)
DEFAULTS: list[Any] = [None, [1, 1], [0, 0], [1, 1]]  # of a convolution, from its bias on
# what decode.js and lines.js read by, as detection/ does
READER = {
    "symbols": SYMBOLS,
    "signs": SIGNS,
    "other": OTHER,
    "first": dict(zip(CHANNELS, accumulate([0, *CHANNELS.values()]), strict=False)),
    "stride": STRIDE,
    "coarsest": COARSEST,
    "unit": loss.UNIT,
    "least": decode.LEAST,
    "same": decode.SAME,
    "near": decode.NEAR,
    "margin": find.MARGIN,
    "kept": lines.KEPT,
    "signed": lines.SIGNED,
    "ruled": lines.RULED,
    "inked": lines.INKED,
    "bare": lines.BARE,
    "rim": lines.RIM,
    "tall": lines.TALL,
    "rare": lines.LEAST,
    "aside": lines.ASIDE,
    "threshold": THRESHOLD,
    "unknown": UNKNOWN,
}
# by `Engine`, which gives and takes JSON
CALLED = """
const all = (images) => images.map(probabilities);
const mapsOf = ({ data, ...sides }) =>
  Array.from(computed("detector", { data: Float32Array.from(data), ...sides, channels: 1 }).data);
"""


class Layer(NamedTuple):
    """A layer as network.js computes it."""

    settings: dict[str, Any]  # its kind, and what this kind needs
    weights: list[Tensor]
    inputs: list[int]  # 0 is what the network is given, n the output of its n-th layer


def digit_layers(net: Trained, kind: str = "html") -> list[Layer]:
    """The layers of a network that reads digits.

    Args:
        kind: the format that the error message names.

    Raises:
        ValueError: it reads no digits of 28x28, or has a layer that network.js cannot compute.
    """
    if net.classes != mnist.DIGITS or net.shape != SHAPE:
        raise ValueError(
            f"{kind} export needs a network trained on digits of 1 x 28 x 28, got one of "
            f"{net.about['data']['name']}, {' x '.join(map(str, net.shape))}"
        )
    return layers_of(net.net, torch.zeros(2, *SHAPE), kind)


def layers_of(net: nn.Module, example: Tensor, kind: str = "html") -> list[Layer]:
    """The layers of a network that computes one map of another.

    Args:
        example: what the network takes.
        kind: the format that the error message names.

    Raises:
        ValueError: it has a layer that network.js cannot compute.
    """
    try:
        program = torch.export.export(net, (example,))
    except Exception as error:  # a forward of the user's own may do anything
        raise ValueError(f"{kind} export needs a plain network, got {error}") from None
    signature, state = program.graph_signature, program.state_dict
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    weights = {name: state[key].detach() for name, key in names.items() if key in state}
    outputs = {signature.user_inputs[0]: 0}  # by node
    layers: list[Layer] = []
    for node in program.graph.nodes:
        if node.op == "call_function":
            arguments = [weights.get(str(a), a) for a in node.args]
            inputs = [outputs[a.name] for a in arguments if isinstance(a, Node)]
            name = str(node.target).split(".")[1]  # conv2d of aten.conv2d.default
            if made := as_layer(kind, name, arguments[1:]):
                layers.append(Layer(*made, inputs))
                inputs = [len(layers)]
            outputs[node.name] = inputs[0]
    return layers


def as_layer(
    kind: str, operation: str, arguments: Sequence[Any]
) -> tuple[dict[str, Any], list[Tensor]] | None:
    """An operation of torch.export as network.js has it; None for one that changes nothing."""
    match operation, *arguments:
        case "sub", Tensor() as mean:
            return {"kind": "affine"}, [torch.ones_like(mean), -mean]
        case "div", Tensor() as std:
            return {"kind": "affine"}, [1 / std, torch.zeros_like(std)]
        case "conv2d", weight, *options if len(options) < 5:  # not in groups
            bias, *steps = [*options, *DEFAULTS[len(options) :]]
            names = ("stride", "padding", "dilation")
            settings = {"kernel": list(weight.shape[2:]), **dict(zip(names, steps, strict=True))}
            return {"kind": "convolution", **settings}, [weight, bias_of(weight, bias)]
        case "linear", weight, *bias:
            return {"kind": "dense"}, [weight, bias_of(weight, *bias)]
        case "batch_norm", Tensor() as gain, offset, Tensor() as mean, variance, _, _, eps, _:
            scale = torch.rsqrt(variance + eps) * gain
            return {"kind": "affine"}, [scale, offset - mean * scale]
        case "max_pool2d", [size, width], *step if size == width and step in ([], [[size, size]]):
            return {"kind": "pool", "size": size}, []
        case "upsample_nearest2d", None, [down, across] if down == across == int(down):
            return {"kind": "upsample", "factor": int(down)}, []
        case (("add" | "add_"), Node()):
            return {"kind": "add"}, []
        case ("relu" | "relu_",):
            return {"kind": "relu"}, []
        case "flatten", 1:
            return {"kind": "flatten"}, []
        case "dropout" | "feature_dropout", *_:
            return None
    raise ValueError(
        f"{kind} export needs convolutions, max-poolings, batch normalisations, ReLUs, dense "
        f"layers, additions and upsampling by whole factors, got {operation}"
    )


def bias_of(weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.zeros(len(weight)) if bias is None else bias


def folded(layers: Sequence[Layer]) -> list[Layer]:
    """The same function, where a normalisation is part of the convolution before it."""
    uses = Counter(n for layer in layers for n in layer.inputs)
    made: list[Layer] = []
    places = [0]  # of each output among those of what is made
    for layer in layers:
        inputs = [places[n] for n in layer.inputs]
        kinds = [made[n - 1].settings["kind"] if n else None for n in inputs]
        kinds.append(layer.settings["kind"])
        if kinds == ["convolution", "affine"] and uses[layer.inputs[0]] == 1:
            before = made[inputs[0] - 1]
            (scale, shift), (weight, bias) = layer.weights, before.weights
            weights = [weight * scale.view(-1, 1, 1, 1), bias * scale + shift]
            made[inputs[0] - 1] = before._replace(weights=weights)
            places.append(inputs[0])
        else:
            made.append(layer._replace(inputs=inputs))
            places.append(len(made))
    return made


def encoded(layers: Sequence[Layer], dtype: torch.dtype) -> tuple[list[dict[str, Any]], bytes]:
    """The settings of layers and the bytes of their weights, of a convolution (O, h, w, C)."""
    settings, content = [], b""
    for layer in layers:
        arrays = [w.permute(0, 2, 3, 1) if w.dim() == 4 else w for w in layer.weights]
        lengths = [w.numel() for w in arrays]
        settings.append({**layer.settings, "inputs": layer.inputs, "lengths": lengths})
        content += b"".join(w.to(dtype).contiguous().numpy().tobytes() for w in arrays)
    return settings, content


@torch.no_grad()
def webpage(detector: nn.Module, about: Mapping[str, Any], net: Trained | None = None) -> str:
    """The page to draw on with its networks in it.

    Args:
        detector: finds characters, as `detection.network.Detector` does; its weights are rounded
            to 16 bits.
        about: the description of the networks.
        net: reads what is found as digits; without it `detector` does.

    Raises:
        ValueError: a network has a layer that network.js cannot compute.
    """
    given = [("classifier", digit_layers(net), torch.float32)] if net else []
    side = 8 * COARSEST
    own = layers_of(detector, torch.zeros(1, 1, side, side))
    networks, weights = {}, b""
    # in this order numbers of 4 bytes begin at multiples of 4
    for name, layers, dtype in [*given, ("detector", own, torch.float16)]:
        settings, content = encoded(folded(layers), dtype)
        half = dtype == torch.float16
        networks[name] = {"layers": settings, "start": len(weights), "half": half}
        weights += content
    character: Tensor = detector.character_weights  # type: ignore[assignment]  # buffers
    line: Tensor = detector.line_weights  # type: ignore[assignment]
    scores = {"characterWeights": character.tolist(), "lineWeights": line.tolist()}
    values = {
        "READER": {**READER, **scores},
        "NETWORKS": networks,
        "WEIGHTS": base64.b64encode(weights).decode(),
    }
    constants = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
    files = ("index.html", "page.css", "page.js", *SCRIPTS)
    page, style, script, *own_scripts = ((PAGE / name).read_text("utf-8") for name in files)
    for tag, part in {
        '<link rel="stylesheet" href="page.css" />': (
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}" />\n'
            f'<meta name="description" content="{html.escape(json.dumps(about))}" />\n'
            f"<style>\n{style}</style>"
        ),
        '<script src="server.js"></script>': (
            f'<script id="network">\n{constants}{"".join(own_scripts)}</script>'
        ),
        '<script src="page.js"></script>': f"<script>\n{script}</script>",
    }.items():
        assert tag in page, tag
        page = page.replace(tag, part)
    return page


class Engine:
    """The networks of such a page, run by the JavaScript engine V8."""

    def __init__(self, page: str):
        from py_mini_racer import MiniRacer

        script = page.partition('<script id="network">')[2].partition("</script>")[0]
        weights = base64.b64decode(script.partition('const WEIGHTS = "')[2].partition('"')[0])
        self._engine = finished(MiniRacer)
        # a browser has atob, the engine alone has not
        bytes_as_text = json.dumps(weights.decode("latin-1"))
        finished(self._engine.eval, f"const atob = () => {bytes_as_text};\n{script}")
        finished(self._engine.eval, CALLED)

    def call(self, function: str, *arguments: Any) -> Any:
        """What a function of the page's script returns; all as JSON has it."""
        return finished(self._engine.call, function, *arguments)

    def probabilities(self, images: Tensor) -> Tensor:
        """Probabilities (N, 10) of uint8 images (N, 28, 28)."""
        # in parts: each call sends its images as JSON
        pixels = [part.flatten(1).tolist() for part in images.split(100)]
        return torch.cat([torch.tensor(self.call("all", part)) for part in pixels])

    def maps(self, ink: Tensor) -> Tensor:
        """The detector's maps (32, H / 4, W / 4) of ink (H, W)."""
        height, width = ink.shape
        given = {"data": ink.flatten().tolist(), "height": height, "width": width}
        maps = self.call("mapsOf", given)
        return torch.tensor(maps).view(height // STRIDE, width // STRIDE, -1).permute(2, 0, 1)

    def difference(self, detector: nn.Module, ink: Tensor) -> float:
        """How far the detector's probabilities for ink (H, W) are from the network's, at most."""
        own, given = (chances(maps) for maps in (detector(ink[None, None])[0], self.maps(ink)))
        return (given - own).abs().max().item()


def chances(maps: Tensor) -> Tensor:
    """What maps (32, h, w) say of places: of centres, of ruled lines, of each symbol's centre."""
    made = loss.split(maps[None])
    centre = made["centre"].sigmoid()
    return torch.cat([centre, made["rule"].sigmoid(), centre * made["symbol"].softmax(1)], 1)


def finished(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call returns; a signal that comes in it is answered at its end.

    A call of the engine that is left in the middle prints tracebacks as the program ends.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call, *arguments).result()
