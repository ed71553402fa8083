"""The data sets: their files, checksums, mirrors and classes."""

import gzip
import hashlib
import io
import lzma
import math
import struct
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class File:
    """One IDX file: its name, the shape of its array, and what proves it.

    Args:
        digest: SHA-256 of the content (64 hex digits) or, where only that is published, MD5 of
            the `.gz` archive (32 hex digits).
    """

    name: str
    shape: tuple[int, ...]
    digest: str

    @property
    def sha256(self) -> str | None:
        return self.digest if len(self.digest) == 64 else None

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(">i4" if self.name.endswith("-int") else "u1")

    @property
    def header(self) -> bytes:
        code = {"i": 12, "u": 8}[self.dtype.kind]
        return struct.pack(f">4B{len(self.shape)}I", 0, 0, code, len(self.shape), *self.shape)

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return len(self.header) + math.prod(self.shape) * self.dtype.itemsize

    def check(self, content: bytearray, sha256: str | None) -> None:
        """Size, header (type, counts, 28x28) and digest; None where the archive was the proof."""
        if len(content) != self.size:
            found = "more" if len(content) > self.size else f"{len(content):,}"
            raise ValueError(f"expected {self.size:,} bytes, found {found}")
        if not content.startswith(self.header):
            kind = f"{self.dtype.name} {self.shape}"
            raise ValueError(f"its header is not that of an IDX file of {kind}")
        if sha256 and (found := hashlib.sha256(content).hexdigest()) != sha256:
            raise ValueError(f"expected SHA-256 {sha256}, found {found}")

    def unpack(self, packed: bytearray, xz: bool = False) -> bytearray:
        """The checked content of an archive; no more is unpacked than the size expected."""
        if not self.sha256:
            found = hashlib.md5(packed, usedforsecurity=False).hexdigest()
            if found != self.digest:
                raise ValueError(f"expected an archive of MD5 {self.digest}, found {found}")
        with (lzma if xz else gzip).open(io.BytesIO(packed)) as stream:
            content = bytearray(stream.read(self.size + 1))
        self.check(content, self.sha256)
        return content


@dataclass(frozen=True)
class ImageSet:
    """A dataset of 28x28 images in classes; each mirror is a base URL of its `.gz` archives.

    Args:
        files: train images, train labels, test images, test labels. Labels of two dimensions
            carry the class in column 0.
        bundled: whether the package holds a copy.
        wrong_test_labels: rows of the test images whose label people hold to be wrong.
    """

    folder: str
    classes: tuple[str, ...]
    mirrors: tuple[str, ...]
    files: tuple[File, ...]
    bundled: bool = False
    wrong_test_labels: tuple[int, ...] = ()


def _files(
    digests: str,
    names: tuple[str, ...] = (
        *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    ),
    columns: tuple[int, ...] = (),
    tests: int = 10_000,
) -> tuple[File, ...]:
    shapes = [(n, *rest) for n in (60_000, tests) for rest in ((28, 28), columns)]
    return tuple(map(File, names, shapes, digests.split()))


# Folders, MD5, class names and plain-http mirrors as in torchvision/datasets/mnist.py; https and
# the authors' own repository come first.
SETS = {
    "mnist": ImageSet(
        "MNIST",
        tuple("0123456789"),
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
        _files("""ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db
                  65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5
                  0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7
                  ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"""),
        bundled=True,
        # C. G. Northcutt et al., Pervasive Label Errors in Test Sets Destabilize Machine Learning
        # Benchmarks, NeurIPS 2021 Datasets and Benchmarks (https://arxiv.org/abs/2103.14749)
        wrong_test_labels=(
            *(947, 1621, 1901, 2130, 2462, 2597, 2654, 3520),
            *(3558, 5937, 6651, 6783, 8527, 9679, 9729),
        ),
    ),
    "fashion_mnist": ImageSet(
        "FashionMNIST",
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        _files("""8d4fb7e6c68d591d4c3dfef9ec88bf0d 25c81989df183df01b3e8a0aad5dffbe
                  bef4ecab320f06d8554ea6380940ec79 bb300cfdad3c16e7a12a480ee83cd310"""),
    ),
    "kmnist": ImageSet(
        "KMNIST",
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        tuple(f"{scheme}://codh.rois.ac.jp/kmnist/dataset/kmnist/" for scheme in ("https", "http")),
        _files("""bdb82020997e1d708af4cf47b453dcf7 e144d726b3acfaa3e44228e80efcd344
                  5c965bf0a639b31b8f53240b1b52f4d7 7320c461ea6c1c855c0b718fb2a4b134"""),
    ),
    "qmnist": ImageSet(
        "QMNIST",
        tuple("0123456789"),
        ("https://raw.githubusercontent.com/facebookresearch/qmnist/master/",),
        _files(
            """ed72d4157d28c017586c42bc6afe6370 0058f8dd561b90ffdd0f734c6a30e5e4
               1394631089c404de565df7b7aeaf9412 5b5b05890a5e13444e108efe57b788aa""",
            names=(
                *("qmnist-train-images-idx3-ubyte", "qmnist-train-labels-idx2-int"),
                *("qmnist-test-images-idx3-ubyte", "qmnist-test-labels-idx2-int"),
            ),
            columns=(8,),
            tests=60_000,
        ),
    ),
}
