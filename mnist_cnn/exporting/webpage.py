"""Export of the drawing page as one HTML file, whose networks run in the browser."""

import base64
import html
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mnist_cnn.data.synthetic.sheet import OTHER, SIGNS, STRIDE, SYMBOLS
from mnist_cnn.detection import decode, lines, loss
from mnist_cnn.detection.network import CHANNELS, COARSEST
from mnist_cnn.exporting.layers import Layer, classifier_layers, folded, layers_of
from mnist_cnn.reading import ink as inks
from mnist_cnn.reading.answers import constants
from mnist_cnn.reading.networks import Classes, Digits
from mnist_cnn.reading.reading import THRESHOLD, UNKNOWN
from mnist_cnn.weights.predictor import Trained

PAGE = Path(__file__).parents[1] / "reading" / "page"
# the page may not make any request
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; worker-src blob:; "
    "style-src 'unsafe-inline'; img-src data:"
)
MARGIN = 16  # pixels around a drawing: as many as around pictures take 1.5 to 2 times as long
# constants for decode.js, lines.js and reading.js
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
    "margin": MARGIN,
    "probable": lines.PROBABLE,
    "kept": lines.KEPT,
    "ruled": lines.RULED,
    "inked": lines.INKED,
    "bare": lines.BARE,
    "rim": lines.RIM,
    "tall": lines.TALL,
    "rare": lines.LEAST,
    "aside": lines.ASIDE,
    "edge": inks.EDGE,
    "fitted": inks.FITTED,
    "threshold": THRESHOLD,
    "unknown": UNKNOWN,
}
# functions for `Engine`, which exchanges JSON
CALLED = """
const all = (images) => images.map(probabilities);
const mapsOf = ({ data, ...sides }) =>
  Array.from(computed("detector", { data: Float32Array.from(data), ...sides, channels: 1 }).data);
"""


def encoded(layers: Sequence[Layer], dtype: torch.dtype) -> tuple[list[dict[str, Any]], bytes]:
    """Return the settings of layers and their weights as bytes, of convolutions (O, h, w, C)."""
    settings, content = [], b""
    for layer in layers:
        arrays = [w.permute(0, 2, 3, 1) if w.dim() == 4 else w for w in layer.weights]
        lengths = [w.numel() for w in arrays]
        settings.append({**layer.settings, "inputs": layer.inputs, "lengths": lengths})
        content += b"".join(w.to(dtype).contiguous().numpy().tobytes() for w in arrays)
    return settings, content


@torch.no_grad()
def webpage(network: Digits | Classes, about: Mapping[str, Any]) -> str:
    """Return the HTML of the page, including the networks.

    Args:
        network: what reads or classifies. The weights of its reader of pictures, if any, are
            rounded to 16 bits.
        about: description of the networks.

    Raises:
        ValueError: a network has a layer that network.js cannot compute.
    """
    networks, weights = {}, b""
    # in this order the float32 weights are aligned to 4 bytes
    for name, layers, shape in parts(network):
        half = name == "detector"
        settings, content = encoded(folded(layers), torch.float16 if half else torch.float32)
        networks[name] = {"layers": settings, "start": len(weights), "half": half, "shape": shape}
        weights += content
    values: dict[str, Any] = {"NETWORKS": networks, "WEIGHTS": base64.b64encode(weights).decode()}
    if isinstance(network, Digits):
        character = network.reader.get_buffer("character_weights").tolist()
        line = network.reader.get_buffer("line_weights").tolist()
        values["READER"] = {**READER, "characterWeights": character, "lineWeights": line}
    computing = constants(**values) + "".join(map(page_text, network.offline))
    page = page_text("index.html")
    for tag, part in {
        '<link rel="stylesheet" href="page.css" />': (
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}" />\n'
            f'<meta name="description" content="{html.escape(json.dumps(about))}" />\n'
            f"<style>\n{page_text('page.css')}</style>"
        ),
        # before the script that is copied to a worker
        '<script src="about.js"></script>': script(constants(ABOUT=network.about())),
        '<script src="server.js"></script>': f'<script id="network">\n{computing}</script>',
        '<script src="show.js"></script>': script(page_text(network.script)),
        '<script src="page.js"></script>': script(page_text("page.js")),
    }.items():
        assert tag in page, tag
        page = page.replace(tag, part)
    return page


def parts(network: Digits | Classes) -> list[tuple[str, list[Layer], Sequence[int]]]:
    """Return name, layers and the shape (C, H, W) of the images of each network of a page."""
    made: list[tuple[str, list[Layer], Sequence[int]]] = []
    if isinstance(network.net, Trained):
        made.append(("classifier", classifier_layers(network.net), network.shape))
    if isinstance(network, Digits):
        shape = (1, 8 * COARSEST, 8 * COARSEST)  # any multiple of COARSEST
        made.append(("detector", layers_of(network.reader, torch.zeros(1, *shape)), shape))
    return made


def page_text(name: str) -> str:
    return (PAGE / name).read_text("utf-8")


def script(text: str) -> str:
    return f"<script>\n{text}</script>"


class Engine:
    """The networks of an exported page, run by the JavaScript engine V8."""

    def __init__(self, page: str):
        from py_mini_racer import MiniRacer, init_mini_racer

        # V8 protects its memory by keys of the processor, where it has them: only the thread that
        # initialises it and threads that this one starts can free the memory, others would crash
        init_mini_racer(ignore_duplicate_init=True)
        script = page.partition('<script id="network">')[2].partition("</script>")[0]
        weights = base64.b64decode(script.partition('const WEIGHTS = "')[2].partition('"')[0])
        self._engine = finished(MiniRacer)
        # a browser has atob, the engine alone does not
        bytes_as_text = json.dumps(weights.decode("latin-1"))
        finished(self._engine.eval, f"const atob = () => {bytes_as_text};\n{script}")
        finished(self._engine.eval, CALLED)

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the page's script; arguments and result are JSON values."""
        return finished(self._engine.call, function, *arguments)

    def probabilities(self, images: Tensor) -> Tensor:
        """Return probabilities (N, K) of uint8 images (N, H, W) or (N, C, H, W)."""
        images = images if images.dim() == 3 else images.permute(0, 2, 3, 1)
        # in parts: each call sends its images as JSON
        pixels = [part.flatten(1).tolist() for part in images.split(100)]
        return torch.cat([torch.tensor(self.call("all", part)) for part in pixels])

    def maps(self, ink: Tensor) -> Tensor:
        """Return the detector's maps (32, H / 4, W / 4) of ink (H, W)."""
        height, width = ink.shape
        given = {"data": ink.flatten().tolist(), "height": height, "width": width}
        maps = self.call("mapsOf", given)
        return torch.tensor(maps).view(height // STRIDE, width // STRIDE, -1).permute(2, 0, 1)

    def difference(self, detector: nn.Module, ink: Tensor) -> float:
        """Return the greatest difference from the probabilities of `detector` for ink (H, W)."""
        own, given = (chances(maps) for maps in (detector(ink[None, None])[0], self.maps(ink)))
        return (given - own).abs().max().item()


def chances(maps: Tensor) -> Tensor:
    """Convert maps (32, h, w) to probabilities: of a centre, a ruled line, each symbol's centre."""
    made = loss.by_name(maps[None])
    centre = made["centre"].sigmoid()
    return torch.cat([centre, made["rule"].sigmoid(), centre * made["symbol"].softmax(1)], 1)


def finished(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a call; signals that arrive during it are handled at its end.

    Interrupting a call of the engine would print tracebacks when the program ends.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call, *arguments).result()
