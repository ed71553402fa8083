"""The ink of a picture: how much darker than the paper each pixel is."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# OpenCV's annotations leave the element type open
Grey = NDArray[Any]  # uint8
Ink = NDArray[Any]  # float32, 0 for paper
Mask = NDArray[Any]  # uint8, 0 or 1
PENS = 4  # window whose lightest pixel is paper, in pen widths
NARROW = 13  # its minimum, in pixels of a picture with a breadth of 200
WIDE = 0.3  # its maximum, as a fraction of the breadth: a larger one misses shadows
STEP = 1.5  # ratio of light from one pixel of 200 to the next above which the darker one counts
FAINTEST = 0.06  # minimum fraction of light that ink absorbs; less is the paper's texture
EDGE = 0.5  # fraction of a character's darkest ink at which it ends
FITTED = 19  # longest side of a 28x28 digit: anywhere between two pixels, it covers MNIST's 20
SMOOTH = 0.25  # fraction of the range of light; less change over a 20th of the side is no edge


def grey_of(picture: NDArray[np.uint8]) -> Grey:
    """Return one channel of a picture (height, width) or (height, width, 3), with distinct ink.

    It is the luminance or, if ink and paper are about equally light, the mixture of red, green and
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
    """Return the ink map, the mask of its strokes, and the deviation of the paper's grain."""
    signed = 1 - grey / paper
    noise = 1.48 * float(np.median(np.abs(signed[::3])))
    # one level of light is not ink, however dark the paper
    noise = max(noise, 0.4 / float(np.median(paper[::3])))
    ink = np.clip(signed, 0, 1, dtype=np.float32)
    return ink, find_strokes(ink, noise), noise


def stroke_depth(mask: Mask) -> Ink:
    """Return each pixel's distance from the paper; the border of the picture counts as paper."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]


def stroke_width(mask: Mask) -> float:
    """Estimate the mean stroke width: points of a bar of width w average w / 4 from its edge."""
    return max(1.0, 4 * float(stroke_depth(mask)[mask > 0].mean()) - 1) if mask.any() else 1.0


def breadth(shape: tuple[int, ...]) -> int:
    """Return the longer side, at most 4 times the shorter one, to which sizes are relative."""
    return min(max(shape[:2]), 4 * min(shape[:2]))


def shrunk(grey: Grey, side: int) -> Grey:
    """Shrink a picture so that its breadth has at most `side` pixels."""
    zoom = side / breadth(grey.shape)
    return resized(grey, round(zoom * max(grey.shape))) if zoom < 1 else grey


def resized(image: NDArray[Any], side: int, enlarge: int = cv2.INTER_LINEAR) -> NDArray[Any]:
    """Resize an image so that its longer side is `side`; `enlarge` interpolates if it grows."""
    zoom = side / max(image.shape[:2])
    size = max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else enlarge)


def _median(small: Grey, window: float) -> Grey:
    """Apply a median filter, its window relative to the breadth; it drops ink, not shadow edges."""
    return cv2.medianBlur(small, int(breadth(small.shape) * window) | 1)


def is_light_on_dark(grey: Grey) -> bool:
    """Return whether what stands out most from its surroundings is lighter than they are."""
    small = shrunk(grey, 200)
    # the first is misled by soft shadows, the second by strokes without paper between them
    around = _median(small, 0.5), cv2.GaussianBlur(small, (0, 0), breadth(small.shape) / 10)
    cubes = (small - np.stack(around).astype(np.float64)) ** 3
    return bool((cubes.sum((1, 2)) / (np.abs(cubes).sum((1, 2)) + 1)).sum() > 0)


def paper_light(grey: Grey) -> Ink:
    """Estimate the light of the bare paper at every pixel, at least 1."""
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
        # areas wider than strokes keep their light, up to their edges, whatever their direction
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
    """Return the mask of the paper between the strokes, without their edges."""
    share = np.clip(1 - small / paper, 0, 1)
    limit, _ = cv2.threshold((share * 255).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    # half of the threshold and a margin, as a stroke fades out at its edges
    bare = (share < max(limit / 255 / 2, FAINTEST / 2)).astype(np.uint8)
    return cv2.erode(bare, np.ones((5, 5), np.uint8))


def find_strokes(ink: Ink, noise: float) -> Mask:
    """Return the mask of ink about as dark as the pen, and of fainter ink connected to it."""
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


def is_smooth(grey: Grey, side: int = 2000) -> bool:
    """Return whether the light changes too little over short distances for edges of strokes.

    Args:
        side: pixels to which the picture's breadth is shrunk first.
    """
    small = cv2.GaussianBlur(shrunk(grey, side), (0, 0), 1)
    near = np.ones((max(small.shape) // 20,) * 2, np.uint8)
    change = cv2.subtract(cv2.dilate(small, near), cv2.erode(small, near))
    return float(change.max()) <= SMOOTH * (float(small.max()) - float(small.min()))


def like_mnist(ink: Ink) -> Grey:
    """Return ink (h, w) as a digit of MNIST: uint8 (28, 28), longest side 20, centred by mass.

    Its pixels are means of the ink around points that move as the centre moves. Centred by whole
    pixels, 27 of 180 digits jumped by one under the edge of a shadow; 7 do now.
    """
    dark = ink > EDGE * ink.max(initial=0)
    if not dark.any():
        return np.zeros((28, 28), np.uint8)
    x, y, width, height = cv2.boundingRect(dark.astype(np.uint8))
    ink = ink[y : y + height, x : x + width]
    step = max(ink.shape) / FITTED
    rows, columns = (shares(ink.sum(axis), step) for axis in (1, 0))
    return (255 * (rows @ ink @ columns.T)).round().clip(0, 255).astype(np.uint8)


def shares(masses: Ink, step: float) -> NDArray[Any]:
    """Return the shares (28, n) of n rows or columns in each of 28, which are `step` apart.

    The centre of their masses comes to that of the 15th, unless ink would be lost at a side.
    """
    at = np.arange(len(masses))
    centre = float(masses @ (at + 0.5)) / float(masses.sum())
    start = min(max(14.5 - centre / step, 0), 28 - len(masses) / step)
    middles = (np.arange(28) + 0.5 - start) * step
    half = max(step, 1) / 2  # enlarged, a point lies between two: bilinear

    def before(end: NDArray[Any]) -> NDArray[Any]:
        return np.clip(end[:, None] - at, 0, 1)

    return (before(middles + half) - before(middles - half)) / (2 * half)
