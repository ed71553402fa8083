"""The characters in the ink of a picture, whatever their size."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from scipy.special import logit
from torch import Tensor, nn

from mnist_cnn.data.synthetic.sheet import STRIDE
from mnist_cnn.data.synthetic.strokes import Array, Points
from mnist_cnn.detection.decode import Character, characters, merged
from mnist_cnn.detection.network import CHANNELS, COARSEST
from mnist_cnn.runs.processor import is_bfloat16_fast

SMALL = 600  # pixels of the longer side on which the scale is chosen
FAR = 0.4  # zoom of that copy below which a part of the picture is also searched at full size
LOWEST = 6  # pixels: nothing lower is a character
PASSES = 2  # number of zooms, the best ones, at which the whole picture is searched
SCALES = 2.0 ** np.arange(-4.5, 2.01, 0.5)
TILE = 1280  # pixels of a side that the network sees at once
REACH = 48  # pixels within which ink belongs to a character
FAINT = 0.15  # ink below which nothing is written
FINEST = 1.5  # pixels of a pen that the network sees
MARGIN = REACH  # pixels of paper around a picture: next to its edge, writing looks cut off


@dataclass(frozen=True)
class Found:
    """What the network finds at one zoom: characters, and ruled lines as probabilities (h, w)."""

    zoom: float
    characters: list[Character]
    rules: Array  # a cell is STRIDE pixels; the first begins MARGIN pixels before the picture

    @property
    def weight(self) -> float:
        """How much it explains: the sum of log-odds of what is more likely there than not."""
        scores = np.array([each.score for each in self.characters])
        p = scores[scores > 0.5].clip(0, 0.995)
        return float(logit(p).sum())

    def on_map(self, pixels: Points) -> Points:
        """Convert pixels of the ink to cells of the maps; the first has its centre at 0."""
        return (pixels * self.zoom + MARGIN) / STRIDE - 0.5

    def off_map(self, cells: Points) -> Points:
        """Convert cells of the maps to pixels of the ink."""
        return ((cells + 0.5) * STRIDE - MARGIN) / self.zoom

    def calibrated(self, weights: tuple[float, float]) -> "Found":
        """Return it with these weights of its characters' log-odds."""
        return replace(self, characters=[replace(c, weights=weights) for c in self.characters])

    def enlarged(self, factor: float) -> "Found":
        """Map it from a smaller copy of the picture to the picture."""
        moved = [each.moved(1 / factor, 0, 0) for each in self.characters]
        return replace(self, zoom=self.zoom / factor, characters=moved)

    def within(self, shape: tuple[int, ...]) -> "Found":
        """Leave out the characters that reach the edges of the ink (H, W): a part may cut them."""
        high, wide = shape
        kept = []
        for each in self.characters:
            left, top, right, bottom = each.box
            if left > 0 and top > 0 and right < wide and bottom < high:
                kept.append(each)
        return replace(self, characters=kept)


def resized(ink: Array, zoom: float, pen: float = math.inf) -> Array:
    """Return ink (H, W) enlarged by zoom; a pen of that width stays visible, however small."""
    size = [max(8, round(side * zoom)) for side in ink.shape[::-1]]
    if zoom >= 1:
        return cv2.resize(ink, size, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    if wider := round(max(0.0, FINEST / zoom - pen)):
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (wider + 1, wider + 1))
        ink = cv2.dilate(ink, disc)
    return cv2.resize(ink, size, interpolation=cv2.INTER_AREA).clip(0, 1)


def maps_of(net: nn.Module, ink: Array) -> Tensor:
    """Return the network's maps (32, h, w) of ink (H, W), computed in tiles around their ink.

    In bfloat16, as it was trained, where that is fast: float32 takes four times as long on an Intel
    Xeon with AMX, and twice as long on an AMD EPYC with AVX-512.
    """
    height, width = (-(-side // COARSEST) * COARSEST for side in ink.shape)
    padded = np.zeros((height, width), np.float32)
    padded[: ink.shape[0], : ink.shape[1]] = ink
    maps = torch.full((sum(CHANNELS.values()), height // STRIDE, width // STRIDE), -20.0)
    reach: int = net.reach  # type: ignore[assignment]  # of a Detector
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            is_ink = padded[top : top + TILE, left : left + TILE] >= FAINT
            if not is_ink.any():
                continue
            y, seen_y = near(np.flatnonzero(is_ink.any(1)), top, height, reach)
            x, seen_x = near(np.flatnonzero(is_ink.any(0)), left, width, reach)
            image = torch.from_numpy(np.ascontiguousarray(padded[seen_y, seen_x]))[None, None]
            autocast = torch.autocast("cpu", torch.bfloat16, is_bfloat16_fast())
            with torch.inference_mode(), autocast:
                part = net(image)[0].float()
            part = part[:, cells(y, seen_y.start), cells(x, seen_x.start)]
            maps[:, cells(y), cells(x)] = part
    return maps


def near(inked: Array, start: int, end: int, context: int) -> tuple[slice, slice]:
    """Return the pixels near the ink of a tile along one axis, and those that the network sees.

    Args:
        inked: the pixels of the tile that have ink, in order.
        start, end: the first pixel of the tile, and the number of pixels of the whole.
        context: pixels beside them that the network sees, see `Detector.reach`.
    """
    first, last = inked[[0, -1]].tolist()
    low = max(start, (start + first - REACH) // COARSEST * COARSEST)
    high = min(start + TILE, end, -(-(start + last + REACH) // COARSEST) * COARSEST)
    return slice(low, high), slice(max(0, low - context), min(end, high + context))


def cells(pixels: slice, origin: int = 0) -> slice:
    """Return the cells of the maps at pixels, counted from that of the pixel `origin`."""
    return slice((pixels.start - origin) // STRIDE, (pixels.stop - origin) // STRIDE)


def at_zoom(net: nn.Module, ink: Array, zoom: float, pen: float = math.inf) -> Found:
    """Return what the network finds in ink (H, W) enlarged by zoom, in pixels of the ink."""
    large = resized(ink, zoom, pen)
    longer = int(np.argmax(ink.shape))  # whose rounding to whole pixels changes the zoom least
    zoom = large.shape[longer] / ink.shape[longer]
    large = np.pad(large, MARGIN)
    maps = maps_of(net, large)
    slope, offset = net.character_weights.tolist()  # type: ignore[operator]  # a buffer
    found = [each.moved(zoom, -MARGIN, -MARGIN) for each in characters(maps)]
    return Found(zoom, found, maps[1].sigmoid().numpy()).calibrated((slope, offset))


def scales(
    net: nn.Module, ink: Array, pen: float = math.inf, steps: Array = SCALES
) -> dict[float, Found]:
    """Return what the network finds in small ink (H, W), by zoom."""
    longest = max(ink.shape)
    sensible = [s for s in steps if longest * s >= 20 and (longest * s <= 1.6 * SMALL or s <= 1)]
    return {float(scale): at_zoom(net, ink, scale, pen) for scale in sensible}


def reduced(ink: Array, longest: int, pen: float) -> tuple[Array, float, float]:
    """Return ink of at most so many pixels a side, its zoom, and the width of its pen."""
    zoom = min(1.0, longest / max(ink.shape))
    return (resized(ink, zoom, pen), zoom, max(FINEST, pen * zoom)) if zoom < 1 else (ink, 1.0, pen)


def find(net: nn.Module, ink: Array, pen: float = math.inf) -> tuple[list[Character], Found]:
    """Return the characters of ink (H, W) at the zooms that explain most of it, and the best zoom.

    Args:
        net: the network.
        ink: (H, W) in [0, 1].
        pen: the width of its strokes in pixels.
    """
    small, zoom, fine = reduced(ink, SMALL, pen)
    seen = {s * zoom: one for s, one in scales(net, small, fine).items()}
    if zoom == 1:
        return best_of(seen.values())
    weights = {s: one.weight for s, one in seen.items()}
    if zoom < FAR:  # small writing is lost there: look at a part as it is, in place of the whole
        part = inkiest(ink, SMALL)
        share = float(ink.sum()) / max(1.0, float(part.sum()))
        for scale, one in scales(net, part, pen).items():
            weights[scale] = one.within(part.shape).weight * share
    best = sorted(weights, key=lambda s: -weights[s])[:PASSES]
    if weights[best[0]] > 0:
        found = [at_zoom(net, ink, s, pen) for s in best]
    else:  # nothing is likely, which a closer look would only take long to say
        found = [max(seen.values(), key=lambda one: one.weight).enlarged(1 / zoom)]
    return together(found)


def best_of(zooms: Iterable[Found]) -> tuple[list[Character], Found]:
    """Return what the zooms that explain most find together, and the best zoom."""
    return together(sorted(zooms, key=lambda one: -one.weight)[:PASSES])


def together(found: Sequence[Found]) -> tuple[list[Character], Found]:
    """Return the characters of all zooms, each once, and the best zoom."""
    characters = [c for c in merged([one.characters for one in found]) if c.height > LOWEST]
    return characters, max(found, key=lambda one: one.weight)


def inkiest(ink: Array, side: int) -> Array:
    """Return the part of ink (H, W), of at most so many pixels a side, that has most ink.

    Of parts with as much it is the middle one, as what lies at an edge counts as cut off.
    """
    height, width = (min(side, n) for n in ink.shape)
    sums = cv2.integral(ink)
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]
    inside = inside + sums[:-height, :-width]
    most = inside >= inside.max() - 1e-3
    top, left = np.argwhere(most)[0]
    top += np.append(most[top:, left], False).argmin() // 2
    left += np.append(most[top, left:], False).argmin() // 2
    return ink[top : top + height, left : left + width]
