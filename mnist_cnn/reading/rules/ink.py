"""The ink of a picture: how much darker than the paper each pixel is."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# OpenCV's annotations leave the element type open
Grey = NDArray[Any]  # uint8
Ink = NDArray[Any]  # float32, 0 for paper
Mask = NDArray[Any]  # uint8, 0 or 1
Labels = NDArray[Any]  # int32, 0 for paper
MIN_SIDE = 400  # smaller pictures are enlarged: thresholds then cut between pixels
PINPRICK = 0.001  # area of what is no hole in a stroke, as a share of the squared height
MOST_HOLES = 3  # of 6,000 validation digits none has more, and 8 have 3
# the window in which the lightest is paper: in widths of the pen; of 200 pixels, at least; as a
# share of the breadth, from which on it would pass over shadows
PENS, NARROW, WIDE = 4, 13, 0.3
STEP = 1.5  # of light from one pixel of 200 to the next: at the edge of a sheet it is the darker's
FAINTEST = 0.06  # what takes less of the light is the paper's texture


def grey_of(picture: NDArray[np.uint8]) -> Grey:
    """One channel of a picture (height, width) or (height, width, 3), in which its ink stands out.

    The luminance, but where ink and paper are about as light: there, the mixture of red, green and
    blue in which they differ most.
    """
    if picture.ndim == 2:
        return picture
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = shrunk(picture, 200)
    apart = small - np.dstack([_median(band, 0.5) for band in cv2.split(small)]).astype(np.float32)
    light = apart @ np.array([0.299, 0.587, 0.114], np.float32)
    # what stands out most is ink: the fourth power of its distance from the paper outweighs shading
    distance = (apart**2).sum(2)
    pixels = (apart * distance[..., None]).reshape(-1, 3)
    _, _, axes = np.linalg.svd(pixels.T @ pixels)
    along = apart @ axes[0]
    by_light, by_colour = float((light**4).mean()) ** 0.25, float((along**4).mean()) ** 0.25
    if by_light > 0.35 * by_colour:
        return grey
    axis = axes[0] if axes[0].sum() > 0 else -axes[0]
    mixed = picture @ axis.astype(np.float32)
    return cv2.normalize(mixed, mixed, 55, 255, cv2.NORM_MINMAX).astype(np.uint8)


def ink_on(grey: Grey, paper: Ink) -> tuple[Ink, Mask, float]:
    """The ink map, the mask of its strokes, and the standard deviation of the paper's noise."""
    signed = 1 - grey / paper
    noise = 1.48 * float(np.median(np.abs(signed[::3])))
    # one level of light is no ink, however dark the paper
    noise = max(noise, 0.4 / float(np.median(paper[::3])))
    ink = np.clip(signed, 0, 1, dtype=np.float32)
    return ink, find_strokes(ink, noise), noise


def stroke_depth(mask: Mask) -> Ink:
    """The distance of each pixel from the paper; the border of the picture counts as paper."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]


def stroke_width(mask: Mask) -> float:
    """Mean width of the strokes: points of a bar of width w are w / 4 from its edge on average."""
    return max(1.0, 4 * float(stroke_depth(mask)[mask > 0].mean()) - 1) if mask.any() else 1.0


def breadth(shape: tuple[int, ...]) -> int:
    """The longer side, which all sizes are relative to; of a strip 4 times the shorter one."""
    return min(max(shape[:2]), 4 * min(shape[:2]))


def holes(mask: Mask) -> NDArray[np.float64]:
    """The middles (N, 2) of what strokes enclose, as shares of the sides, the highest first."""
    paper = cv2.copyMakeBorder(1 - mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    _, labels, stats, middles = cv2.connectedComponentsWithStats(paper, connectivity=4)
    large = stats[:, cv2.CC_STAT_AREA] >= PINPRICK * max(mask.shape) ** 2
    large[[0, labels[0, 0]]] = False  # the ink, and the paper around
    return (middles[large] - 0.5) / mask.shape[::-1]


def shrunk(grey: Grey, side: int) -> Grey:
    """So that its breadth has at most side pixels."""
    zoom = side / breadth(grey.shape)
    return resized(grey, round(zoom * max(grey.shape))) if zoom < 1 else grey


def resized(image: NDArray[Any], side: int, enlarge: int = cv2.INTER_LINEAR) -> NDArray[Any]:
    """So that the longer side has the given number of pixels; enlarged by that interpolation."""
    zoom = side / max(image.shape[:2])
    size = max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else enlarge)


def _median(small: Grey, window: float) -> Grey:
    """The median over a window, a share of the longer side: it forgets ink, not a shadow's edge."""
    return cv2.medianBlur(small, int(breadth(small.shape) * window) | 1)


def is_light_on_dark(grey: Grey) -> bool:
    """True where what stands out most from its surroundings is lighter than they are."""
    small = shrunk(grey, 200)
    # the first is misled by soft shadows, the second by strokes without paper between them
    around = _median(small, 0.5), cv2.GaussianBlur(small, (0, 0), breadth(small.shape) / 10)
    cubes = (small - np.stack(around).astype(np.float64)) ** 3
    return bool((cubes.sum((1, 2)) / (np.abs(cubes).sum((1, 2)) + 1)).sum() > 0)


def paper_light(grey: Grey) -> Ink:
    """The light of the bare paper at every pixel, at least 1."""
    small = shrunk(grey, 200)
    paper: Ink = np.maximum(_median(small, 1.0), 1)
    strokes = 1 - _bare(small, paper)
    # without what touches the border: shadows, and the ground around the sheet
    framed = cv2.copyMakeBorder(strokes, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(framed, None, (0, 0), 0, flags=8)
    inner = framed[1:-1, 1:-1]
    pen = stroke_width(inner if inner.any() else strokes) if strokes.any() else 1
    side = max(NARROW, round(PENS * pen)) | 1
    if side < WIDE * breadth(small.shape):
        # what is wider than strokes keeps its light, up to its edges, whichever way these lie
        wide = cv2.copyMakeBorder(small, side, side, side, side, cv2.BORDER_REPLICATE)
        light: Ink = cv2.morphologyEx(wide, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
        light = np.maximum(_median(light[side:-side, side:-side], 0.05), 1)
        paper = light * min(1.0, float(np.median(small / light)))  # the lightest of the grain
    else:
        for _ in range(2):
            # the large window misses finer shading: take it from the paper between the strokes
            bare: Ink = _bare(small, paper).astype(np.float32)
            sigma = breadth(small.shape) / 25
            weight = cv2.GaussianBlur(bare, (0, 0), sigma) + 1e-3
            light = cv2.GaussianBlur(bare * small, (0, 0), sigma) + 1e-3 * paper
            filled = np.where(bare > 0, small, light / weight).round().astype(np.uint8)
            paper = np.maximum(_median(filled, 0.125), 1)
    darker, lighter = cv2.erode(paper, np.ones((3, 3))), cv2.dilate(paper, np.ones((3, 3)))
    paper = np.maximum(np.where(lighter > STEP * darker, darker, paper), 1).astype(np.float32)
    return cv2.resize(paper, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _bare(small: Grey, paper: Ink) -> Mask:
    """The paper between the strokes, without their edges."""
    share = np.clip(1 - small / paper, 0, 1)
    limit, _ = cv2.threshold((share * 255).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    # half of the threshold and a margin, as a stroke fades out at its edges
    bare = (share < max(limit / 255 / 2, FAINTEST / 2)).astype(np.uint8)
    return cv2.erode(bare, np.ones((5, 5), np.uint8))


def find_strokes(ink: Ink, noise: float) -> Mask:
    """0 or 1: ink about as dark as the pen, and what fainter ink touches it."""
    floor = max(FAINTEST, 4 * noise)
    dark = ink[ink > floor]
    if not dark.size:
        return np.zeros(ink.shape, np.uint8)
    levels = (dark * 255).astype(np.uint8)
    split, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    pen = float(np.median(dark[levels >= split]))  # the lighter half: ruled lines, strokes' edges
    mask = (ink > max(floor, 0.35 * pen)).astype(np.uint8)
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    inked = np.zeros(count, np.uint8)
    inked[labels[ink > max(floor, 0.6 * pen)]] = 1
    return inked[labels]
