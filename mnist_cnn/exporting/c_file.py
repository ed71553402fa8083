"""Export to one C99 file of integer arithmetic, for machines without an operating system."""

import ctypes
import math
import shutil
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_cnn.data import mnist
from mnist_cnn.exporting.folder import new_files
from mnist_cnn.exporting.layers import classifier_layers
from mnist_cnn.model import SHAPE, odd_multiples
from mnist_cnn.runs.terminal import reason
from mnist_cnn.weights.networks import is_ours
from mnist_cnn.weights.predictor import Trained

TEMPLATES = Path(__file__).parent / "c"
FILES = ("mnist_cnn.c", "mnist_cnn.h")
COMPILE = ("cc", "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror")
IMAGES = 1000  # training images that scale the maps, and test images that verify the file
AGREEMENT = 0.98  # minimum fraction of images classified as by the network; rounding changes some
ONE = 256  # integer that represents 1 in a logit


@dataclass
class Layer:
    """A convolution or dense layer, followed by pooling, an affine map and ReLU."""

    weight: Tensor  # (O, C, H, W)
    factor: Tensor  # (O,)
    bias: Tensor  # (O,)
    stride: int = 1
    padding: int = 0
    pool: int = 1
    relu: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """Return maps (N, O, h, w) of maps (N, C, H, W)."""
        x = F.max_pool2d(F.conv2d(x, self.weight, None, self.stride, self.padding), self.pool)
        x = x * self.factor.view(-1, 1, 1) + self.bias.view(-1, 1, 1)
        return x.relu() if self.relu else x


def fold(net: Trained) -> tuple[float, float, list[Layer]]:
    """Return the factor and the offset of a pixel in [0, 1], and the layers after it.

    Raises:
        ValueError: the network has a layer that the file cannot compute, or not in that place.
    """
    if not net.reads_digits:
        ground = ", dark on light" * net.is_on_light
        raise ValueError(
            "c export needs a network trained on digits of 1 x 28 x 28, light on black, got one of "
            f"{net.data.get('name', 'other images')}, {' x '.join(map(str, net.shape))}{ground}"
        )
    factor, offset = 1.0, 0.0
    layers: list[Layer] = []
    shape = torch.Size((1, *SHAPE))  # of the map before a dense layer
    for settings, arrays, _ in classifier_layers(net, "c"):
        kind, last = settings["kind"], layers[-1] if layers else None
        if kind in ("convolution", "dense") and (last is None or last.relu):
            shape = last(torch.zeros(shape)).shape if last else shape
            weight, bias = arrays
            if kind == "dense":
                weight = weight.view(len(weight), *shape[1:])
            steps = [settings.get("stride", [1]), settings.get("padding", [0])]
            dilated = settings.get("dilation", [1, 1]) != [1, 1]
            if dilated or any(len(set(step)) > 1 for step in steps):
                needed = "one stride, one padding and no dilation"
                raise ValueError(f"c export needs {needed}, got {settings}")
            layers.append(Layer(weight, torch.ones_like(bias), bias, *(step[0] for step in steps)))
        elif kind == "affine" and last is None:
            if (most := max(each.numel() for each in arrays)) > 1:
                raise ValueError(f"c export needs one mean and one std, got {most}")
            gain, change = (each.item() for each in arrays)
            factor, offset = factor * gain, offset * gain + change
        elif kind == "affine" and last and not last.relu:
            scale, shift = (each.flatten() for each in arrays)
            last.factor, last.bias = last.factor * scale, last.bias * scale + shift
        # a negative factor turns max into min, for which an earlier pooling would be wrong
        elif kind == "pool" and last and (last.pool == 1 or (last.factor > 0).all()):
            last.weight = last.weight * last.factor.sign().view(-1, 1, 1, 1)
            last.factor, last.pool = last.factor.abs(), last.pool * settings["size"]
        elif kind == "relu" and last:
            last.relu = True
        elif kind != "flatten":
            raise ValueError(f"c export needs layers that each end with a ReLU, got {kind}")
    if not layers or layers[-1].relu:
        raise ValueError("c export needs a last layer without ReLU")
    if (outputs := layers[-1](torch.zeros(shape)).shape[1:]) != (len(net.classes), 1, 1):
        raise ValueError(f"c export needs {len(net.classes)} outputs, got {list(outputs)}")
    return factor, offset, layers


@torch.inference_mode()
def write_c(net: Trained, bits: int, folder: Path) -> None:
    """Write a network with weights of `bits` bits and maps of 8 bits as mnist_cnn.c and .h.

    A map is scaled so that 255 is its greatest value on training images.

    Raises:
        ValueError: see `fold`.
    """
    factor, offset, layers = fold(net)
    x = mnist.load_split("mnist", "", "train")[0][:IMAGES, None] * (factor / 255) + offset
    codes, affine, calls, unit, sizes = [], [], [], factor / 255, [1, 1]
    for k, layer in enumerate(layers):
        x, last = layer(x), layer is layers[-1]
        odd, steps = odd_multiples(layer.weight, bits)
        codes.append((odd.flatten() + 2**bits - 1) / 2)
        new_unit = 1 / ONE if last else max(x.max().item(), 1e-6) / 255
        factors, shift = fixed_point(layer.factor * steps.flatten() * (unit / new_unit), 30)
        biases, point = fixed_point(layer.bias / new_unit, shift)
        affine += [f"{{{a}, {b}}}" for a, b in zip(factors, biases, strict=True)]
        outputs, _, *kernel = layer.weight.shape
        numbers = [outputs, *kernel, layer.stride, layer.padding, layer.pool, shift, shift - point]
        calls.append(f"layer(&s, {', '.join(map(str, numbers))}, {'scores' if last else 0});")
        if not last:
            sizes[k % 2] = max(sizes[k % 2], x[0].numel())
        unit = new_unit
    packed = pack(torch.cat(codes).numpy(), bits)
    constants = {
        **{"BITS": bits, "OUTPUTS": len(affine), "BYTES": len(packed)},
        **{"FIRST": sizes[0], "SECOND": sizes[1], "ZERO": round(-offset / factor * 255)},
        "KERNEL": max(layer.weight[0].numel() for layer in layers),
    }
    text = (TEMPLATES / FILES[0]).read_text("utf-8")
    for place, content in {
        "SIZES": "\n".join(f"#define {name} {value}" for name, value in constants.items()),
        "AFFINE": textwrap.fill(", ".join(affine), 100),
        "WEIGHTS": textwrap.fill(", ".join(map(str, packed)), 100),
        "LAYERS": "\n    ".join(calls),
    }.items():
        text = text.replace(f"/* {place} */", content)
    (folder / FILES[0]).write_text(text, "utf-8")
    shutil.copyfile(TEMPLATES / FILES[1], folder / FILES[1])


def fixed_point(values: Tensor, most: int) -> tuple[list[int], int]:
    """Return values times 2**k as signed 16-bit integers, and the greatest k from 0 to `most`."""
    greatest = max(values.abs().max().item(), 1e-9)
    if (k := min(most, math.floor(math.log2((2**15 - 1) / greatest)))) < 0:
        raise ValueError(f"c export needs weights that fit into 16 bits, got {greatest:.0f}")
    return [round(value * 2**k) for value in values.tolist()], k


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Pack numbers below 2**bits into bytes, and one more byte, as two are read at a time."""
    columns = codes.astype(np.uint8)[:, None]
    each = np.unpackbits(columns, axis=1, count=bits, bitorder="little")
    return np.append(np.packbits(each, bitorder="little"), np.uint8(0))


@dataclass
class Compiled:
    """A compiled file, with the sizes in bytes of its constants and its working memory."""

    program: ctypes.CDLL
    constants: int
    memory: int

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (N, 10) of images uint8 (N, 28, 28)."""
        pixels, scores = images.contiguous().numpy(), np.zeros((len(images), 10), np.int32)
        for k in range(len(images)):
            self.program.mnist_cnn(*(ctypes.c_void_p(a[k].ctypes.data) for a in (pixels, scores)))
        return torch.from_numpy(scores / ONE)


def compile_c(folder: Path) -> Compiled:
    """Compile and load the file of `write_c`.

    Raises:
        ValueError: there is no C compiler, or no GNU `size`, which counts the bytes, or one fails.
    """
    for program in ("cc", "size"):
        if shutil.which(program) is None:
            raise ValueError(f"c export needs {program}, a C compiler's, on the PATH")
    with tempfile.TemporaryDirectory() as built:
        source, library, part = str(folder / FILES[0]), f"{built}/library.so", f"{built}/part.o"
        output_of([*COMPILE, "-shared", "-fPIC", source, "-o", library])
        output_of([*COMPILE, "-c", source, "-o", part])
        rows = output_of(["size", "-A", part]).splitlines()
        sizes = [row.split() for row in rows if row.startswith(".")]
        constants, memory = (
            sum(int(row[1]) for row in sizes if row[0].startswith(names))
            for names in (".rodata", (".bss", ".data"))
        )
        return Compiled(ctypes.CDLL(library), constants, memory)


def output_of(command: Sequence[str]) -> str:
    """Run a command and return its output; ValueError with the reason if it fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        reason = " ".join(done.stderr.split()[:40]) or f"exit code {done.returncode}"
        raise ValueError(f"c export needs a {command[0]} that works: {reason}")
    return done.stdout


@torch.inference_mode()
def export_c(net: Trained, bits: int | None, out: Path) -> str:
    """Write a verified C file and its header; return a line that describes them.

    Args:
        net: network of 28x28 digits.
        bits: bits per weight, 2 to 8; None takes those it was trained with, else 8.
        out: folder to write to.

    Raises:
        ValueError: a file exists, the network or the compiler is unsuitable, or the file disagrees
            with the network on too many digits. Nothing is written then.
    """
    model = net.model
    bits = bits or (is_ours(model) and model.get("bits")) or 8
    images, labels = (part[:IMAGES] for part in mnist.load_split("mnist", "", "test"))
    with new_files(out, FILES) as folder:
        try:
            write_c(net, bits, folder)
        except RuntimeError as e:  # such as of maps that do not fit the next layer
            raise ValueError(f"{FILES[0]} is not written: {reason(e)}") from e
        compiled, start = compile_c(folder), time.perf_counter()
        found = compiled(images).argmax(1)
        each = (time.perf_counter() - start) / IMAGES
        alike = (found == net(images).argmax(1)).double().mean().item()
        if alike < AGREEMENT:
            raise ValueError(
                f"{FILES[0]} is not written: with {bits} bits a weight it must read at least "
                f"{AGREEMENT:.0%} of {IMAGES:,} digits as the network reads them, got {alike:.1%}"
            )
    return (
        f"{bits} bits a weight, {compiled.constants:,} bytes of constants, {compiled.memory:,} of "
        f"working memory, {1e3 * each:.2f} ms an image; {alike:.1%} of {IMAGES:,} digits read as "
        f"the network reads them, {(found == labels).double().mean():.1%} correctly"
    )
