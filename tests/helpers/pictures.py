"""Clean pictures of MNIST's test digits, and reading them."""

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_cnn.data.drawn.photographs import digits_of
from mnist_cnn.reading.reader import read_digits
from mnist_cnn.reading.reading import Reading


def page(*rows: list[NDArray[np.uint8]], size: int = 112) -> NDArray[np.uint8]:
    """Draw dark digits on light paper, each in a square of size pixels: uint8 (height, width)."""
    lines = [np.hstack([cv2.resize(digit, (size, size)) for digit in row]) for row in rows]
    width = max(line.shape[1] for line in lines)
    ink = np.vstack([np.pad(line, ((0, 0), (0, width - line.shape[1]))) for line in lines])
    return (235 - np.pad(ink, 40) * 0.8).astype(np.uint8)


def png(*digits: int) -> bytes:
    """Return a PNG file with the first test image of each digit on black, well apart."""
    images, labels = digits_of("test")
    chosen = [images[int(np.argmax(labels == digit))] for digit in digits]
    row = np.hstack([np.pad(image, ((12, 12), (6, 6))) for image in chosen])
    file = io.BytesIO()
    Image.fromarray(np.pad(row, ((0, 0), (6, 6)))).save(file, "PNG")
    return file.getvalue()


def find_digits(image: Image.Image) -> list[Reading]:
    """Return all digits in a picture, rows from top to bottom, each from left to right."""
    return [reading for reading in read_digits(image) if reading.is_digit]
