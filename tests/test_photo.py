"""Decoding of pictures of all kinds, and the digits found in them."""

import io
import os
import re
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pillow_heif
import pytest
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mnist_cnn.data.drawn.photographs import digits_of
from mnist_cnn.data.picture import FORMATS, Pages, load_picture, upright_size
from mnist_cnn.reading.reader import read_digits
from tests.helpers.pictures import find_digits, page

Array = NDArray[np.uint8]


@pytest.fixture(scope="module")
def mnist() -> Array:
    return digits_of("test")[0][:300]


def likeness(a: Array, b: Array) -> float:
    """Return the correlation of two images, 1 for equal ones."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def test_the_crop_of_a_digit_of_mnist_is_as_it_was(mnist: Array) -> None:
    found = [find_digits(Image.fromarray(page([digit]))) for digit in mnist[:20]]
    pairs = [
        (digits[0].image, digit)
        for digits, digit in zip(found, mnist, strict=False)
        if len(digits) == 1
    ]
    assert len(pairs) >= 19
    assert np.mean([likeness(*pair) for pair in pairs]) > 0.85
    for image, _ in pairs:
        moments = cv2.moments(image)
        centre = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
        assert centre == pytest.approx((14, 14), abs=0.6)


def test_rows_are_read_from_the_top_and_each_from_the_left(mnist: Array) -> None:
    written = [[mnist[0], mnist[1], mnist[2]], [mnist[3], mnist[4]]]
    paper = page(*written)
    cv2.circle(paper, (20, 20), 4, 60, -1)  # a speck and a dash are not digits
    cv2.line(paper, (60, 280), (200, 282), 60, 5)
    digits = find_digits(Image.fromarray(paper))
    assert [digit.row for digit in digits] == [0, 0, 0, 1, 1]
    for digit, original in zip(digits, written[0] + written[1], strict=True):
        assert likeness(digit.image, original) > 0.8


def alike(one: Array, other: Array, least: float) -> None:
    """Assert that two pictures have the same digits."""
    found = [find_digits(Image.fromarray(picture)) for picture in (one, other)]
    assert found[0]
    for a, b in zip(*found, strict=True):
        assert likeness(a.image, b.image) > least


def shaded(plain: Array) -> Array:
    """Return a page with the edge of a shadow across it."""
    light = np.ones(plain.shape)
    light[:, plain.shape[1] // 2 :] = 0.5
    light = cv2.GaussianBlur(light, (0, 0), 4) * np.linspace(1, 0.7, len(plain))[:, None]
    return np.asarray(plain * light, np.uint8)


@pytest.mark.parametrize("changed", [lambda plain: 255 - plain, shaded])
def test_neither_light_on_dark_nor_a_shadow_changes_anything(
    mnist: Array, changed: Callable[[Array], Array]
) -> None:
    plain = page([mnist[0], mnist[1], mnist[2]])
    alike(plain, changed(plain), 0.95)


@pytest.mark.parametrize("slope", [-0.03, 0.0, 0.03])
def test_ruled_and_squared_paper_is_not_read(mnist: Array, slope: float) -> None:
    plain = page([mnist[n] for n in (0, 1, 2, 4)])
    ruled = plain.copy()
    height, width = plain.shape
    for y in range(15, height, 40):
        cv2.line(ruled, (0, y), (width, round(y + slope * width)), 120, 2)
    for x in range(10, width, 40):
        cv2.line(ruled, (x, 0), (round(x - slope * height), height), 120, 2)
    digits = [
        [each.best for each in find_digits(Image.fromarray(picture))]
        for picture in (plain, np.minimum(plain, ruled))
    ]
    assert len(digits[0]) == 4
    assert digits[0] == digits[1]


@pytest.mark.parametrize("noise", [0, 8])
def test_what_is_blank_noise_or_tiny_holds_no_digit(noise: int) -> None:
    rng = np.random.default_rng(noise)
    paper = np.full((600, 800), 215.0) * np.linspace(1, 0.6, 800)
    paper += rng.normal(0, noise, paper.shape)
    assert find_digits(Image.fromarray(paper.astype(np.uint8))) == []
    for size in ((200, 200), (1, 1), (1, 500), (3, 2)):
        assert find_digits(Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8))) == []


def encodings(digit: Array) -> dict[str, bytes]:
    """Return a page with a digit in every supported format, with rare variants of some."""
    paper = page([digit])
    grey = Image.fromarray(paper)
    corners, ground = np.zeros_like(paper), np.zeros_like(paper)
    cv2.ellipse(corners, (96, 96), (95, 95), 0, 0, 360, 255, -1)
    ink = (235 - paper) * 1.25
    found = {form: encoded(grey.convert("RGB"), form) for form in FORMATS}
    found |= {white: deep(paper, white) for white in ("255", "4095", "65535")}
    for mode in ("1", "LA", "P", "RGBA"):
        found[mode] = encoded(grey.convert(mode, dither=Image.Dither.NONE), "PNG")
    for mode in ("CMYK", "YCbCr"):
        found[mode] = encoded(grey.convert(mode), "JPEG", progressive=True)
    rgba = {
        "a page with transparent corners": np.dstack([paper, paper, paper, corners]),
        "dark ink on nothing": np.dstack([ground, ground, ground, ink.astype(np.uint8)]),
        "light ink on nothing": np.dstack([ground + 255] * 3 + [ink.astype(np.uint8)]),
    }
    found |= {name: encoded(Image.fromarray(layers), "PNG") for name, layers in rgba.items()}
    pillow_heif.register_heif_opener()
    return found | {
        "HEIF": encoded(grey, "HEIF"),
        "GIF, animated": encoded(grey, "GIF", save_all=True, append_images=[grey.rotate(9)] * 3),
        "TIFF, float": encoded(grey.convert("F"), "TIFF"),
    }


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("radius", [10, 30])  # 8 and 69 % of the picture
def test_a_shape_on_nothing_stays_visible_however_large(ink: int, radius: int) -> None:
    layers = np.full((64, 64, 4), ink, np.uint8)
    layers[..., 3] = 0
    cv2.circle(layers, (32, 32), radius, (ink, ink, ink, 255), -1)
    seen = np.asarray(load_picture(encoded(Image.fromarray(layers), "PNG")).convert("L"))
    assert (seen[32, 32], seen[0, 0]) == (ink, 255 - ink)


def deep(paper: Array, white: str) -> bytes:
    return encoded(Image.fromarray((paper / 255 * int(white)).astype(np.uint16)), "PNG")


def test_every_format_and_mode_gives_the_same_digit(mnist: Array) -> None:
    (expected,) = find_digits(Image.fromarray(page([mnist[0]])))
    for form, file in encodings(mnist[0]).items():
        found = find_digits(load_picture(file))
        assert len(found) == 1, form
        least = 0.5 if form == "ICO" else 0.85  # icons have at most 256 pixels
        assert likeness(found[0].image, expected.image) > least, form


def test_a_large_picture_of_any_depth_is_shrunk_as_one_of_eight_bits() -> None:
    ramp = np.linspace(0, 255, 2400).round() * np.ones((1800, 1))
    expected = np.asarray(load_picture(encoded(Image.fromarray(ramp.astype(np.uint8)), "TIFF")))
    kinds = {
        "<u2": ("TIFF", "PNG", "PPM"),
        ">u2": ("TIFF",),
        "<i4": ("TIFF",),
        "<f4": ("TIFF",),
    }
    for kind, forms in kinds.items():
        image = Image.fromarray((ramp * (1 if kind == "<f4" else 257)).astype(kind))
        for form in forms:
            found = np.asarray(load_picture(encoded(image, form)))
            assert found.shape == expected.shape == (1500, 2000)
            assert np.abs(found.astype(int) - expected).max() <= 2, (kind, form)


def test_threads_that_load_pictures_leave_the_warnings_of_the_process_alone() -> None:
    file, before = encoded(Image.new("L", (40, 40), 200), "PNG"), list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(load_picture, [file] * 400))) == 400
    assert warnings.filters == before


@pytest.mark.slow
def test_a_spoilt_picture_is_read_or_refused_in_one_line(mnist: Array) -> None:
    rng = np.random.default_rng(0)
    refused = []
    for file in list(encodings(mnist[0]).values()) * 10:
        content = bytearray(file)
        for _ in range(4):  # mostly in the header
            content[int(rng.integers(min(len(content), 120)))] = int(rng.integers(256))
        try:
            load_picture(bytes(content[: rng.integers(1, 2 * len(content))]))
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert all(re.fullmatch("the picture: .+", line) for line in refused)


@pytest.mark.parametrize(("form", "start"), [("TIFF", b"\x78\x9c"), ("PDF", b"/Type /Page\n")])
@pytest.mark.parametrize("damaged", [None, 0, 1, 2])
def test_every_page_is_read_and_a_damaged_one_does_not_hide_the_others(
    mnist: Array, form: str, start: bytes, damaged: int | None
) -> None:
    pages = [Image.fromarray(page([mnist[n]])) for n in range(3)]
    options = {"compression": "tiff_adobe_deflate"} if form == "TIFF" else {}
    file = encoded(pages[0], form, save_all=True, append_images=pages[1:], **options)
    if damaged is not None:
        place = [found.start() for found in re.finditer(start, file)][damaged]
        file = file[:place] + b"/Type /Pxge\n" + file[place + 12 :]
    with Pages(file) as opened:
        found = [opened[number] for number in range(len(opened))]
    for number, loaded in enumerate(found):
        if number == damaged:
            assert str(loaded).startswith("the picture: not a picture, damaged")
        else:
            assert isinstance(loaded, Image.Image)
            (digit,) = find_digits(loaded)
            assert likeness(digit.image, mnist[number]) > 0.8
    assert number == 2


def test_many_pages_take_no_longer_each_than_few() -> None:
    blank = [Image.new("L", (40, 40), 200)] * 800
    file = encoded(blank[0], "TIFF", save_all=True, append_images=blank[1:])
    started = time.process_time()
    with Pages(file) as pages:
        assert all(isinstance(pages[number], Image.Image) for number in range(800))
        with pytest.raises(IndexError):
            pages[800]
    assert time.process_time() - started < 5  # 40 s if the file were opened for each page


def test_of_several_images_in_a_heic_file_the_primary_one_is_read() -> None:
    file = pillow_heif.HeifFile()
    for size, colour in (((64, 64), "red"), ((128, 64), "blue")):
        file.add_from_pillow(Image.new("RGB", size, colour))
    content = io.BytesIO()
    file.save(content, primary_index=1)
    with Pages(content.getvalue()) as pages:
        found = pages[0]
    assert isinstance(found, Image.Image)
    assert found.size == (128, 64)


def test_a_picture_is_known_by_its_content_not_by_its_brand_or_a_word_in_it() -> None:
    image = Image.new("RGB", (64, 48), "red")
    avif = encoded(image, "AVIF")
    text = PngInfo()
    text.add_text("Software", "made from %PDF-1.7")
    container = avif[:8] + b"mif1" + avif[12:]
    for content in (container, encoded(image, "PNG", pnginfo=text)):
        assert load_picture(content).size == (64, 48)


def test_a_tensor_that_requires_grad_is_refused_as_one() -> None:
    with pytest.raises(ValueError, match=r"must be a path, .*, got Tensor: .*requires grad"):
        load_picture(torch.rand(28, 28, requires_grad=True))  # type: ignore[arg-type]  # wrong


def test_arrays_and_open_files_are_pictures_too(mnist: Array, tmp_path: Path) -> None:
    drawn = page([mnist[0]])
    Image.fromarray(drawn).save(tmp_path / "page.png")
    colours = np.stack([drawn] * 3, 2)
    with open(tmp_path / "page.png", "rb") as file:
        alike: tuple[Any, ...] = (drawn, drawn / 255, colours, torch.from_numpy(drawn), file)
        for same in alike:
            found = load_picture(same)
            np.testing.assert_array_equal(np.asarray(found.convert("L")), drawn)
    with open(tmp_path / "page.png", encoding="latin-1") as text:
        arrays = drawn.astype(int), drawn / 100, drawn[0], drawn[None]
        others: tuple[Any, ...] = (text, 3, None, [drawn], *arrays)
        for wrong in others:
            with pytest.raises(ValueError, match=r"^the picture: must be a path, .* got "):
                load_picture(wrong)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, np.nan])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"^threshold must be in \[0, 1\], got "):
        read_digits(Image.new("L", (40, 40)), threshold=threshold)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_rotation_of_the_exif_is_applied(mnist: Array, form: str) -> None:
    upright = Image.fromarray(page([mnist[0], mnist[1]]))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees clockwise to display
    file = encoded(turned, form, exif=exif)
    expected = find_digits(upright)
    for picture in (load_picture(file), Image.open(io.BytesIO(file))):
        assert upright_size(picture) == upright.size
        for one, other in zip(expected, find_digits(picture), strict=True):
            assert one.box == pytest.approx(other.box, abs=4)
            # a box that is a pixel wider shifts the crop
            assert likeness(one.image, other.image) > 0.8


def oriented(*tags: tuple[int, int, bytes]) -> bytes:
    """Return EXIF data with an orientation of 6, and more tags (number, type, 4 bytes)."""
    entries = [struct.pack("<HHI4s", 0x0112, 3, 1, b"\6")]
    entries += [struct.pack("<HHI4s", tag, kind, 4 if kind == 2 else 1, v) for tag, kind, v in tags]
    return b"Exif\0\0II*\0\x08\0\0\0%b%b\0\0\0\0" % (
        struct.pack("<H", len(entries)),
        b"".join(entries),
    )


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_read_whose_exif_is_damaged(mnist: Array, form: str) -> None:
    picture = Image.fromarray(mnist[0])
    file = encoded(picture, form, exif=b"Exif\0\0garbage!")
    assert load_picture(file).size == upright_size(Image.open(io.BytesIO(file))) == (28, 28)


def test_a_lying_photo_is_read_whatever_else_its_exif_says() -> None:
    picture = Image.linear_gradient("L").resize((40, 20))
    expected = load_picture(encoded(picture, "JPEG", exif=oriented()))
    assert expected.size == (20, 40)
    text, long, negative = (2, b"abc"), (4, struct.pack("<I", 100_000)), (9, b"\xff" * 4)
    for tag, kind, value in (
        (0x0100, *text),  # width of the picture
        (0x011A, *text),  # its resolution
        *((0x0103, *value) for value in (text, long, negative)),  # compression
        (0x014A, *negative),  # place of more tags
    ):
        file = encoded(picture, "JPEG", exif=oriented((tag, kind, value)))
        assert load_picture(file) == expected, (tag, kind)


def test_an_orientation_that_is_none_turns_nothing() -> None:
    for value in ("6", 9):
        picture = Image.linear_gradient("L").resize((40, 20))
        picture.getexif()[0x0112] = value
        assert upright_size(picture) == load_picture(picture).size == (40, 20)


def test_boxes_are_in_pixels_of_the_picture_given(mnist: Array) -> None:
    large = np.full((4000, 5000), 230, np.uint8)
    digit = cv2.resize(page([mnist[0]]), (800, 800))
    large[1000:1800, 3000:3800] = np.minimum(digit, 230)
    (found,) = find_digits(Image.fromarray(large))
    (alone,) = find_digits(Image.fromarray(digit))
    expected = [side + offset for side, offset in zip(alone.box, (3000, 1000) * 2, strict=True)]
    assert found.box == pytest.approx(expected, abs=8)


def test_boxes_in_an_array_are_those_in_the_image(mnist: Array) -> None:
    array = np.full((2500, 3000), 235, np.uint8)
    array[1000:1560, 1200:1760] = page([mnist[0]], size=480)
    whole, image = read_digits(array), read_digits(Image.fromarray(array))
    assert [each.box for each in whole] == [each.box for each in image]
    left, top, right, bottom = whole[0].box
    assert 1200 <= left < right <= 1760
    assert 1000 <= top < bottom <= 1560


def test_no_box_goes_beyond_the_picture(mnist: Array) -> None:
    for digit in mnist[:6]:
        x, y, width, height = cv2.boundingRect(digit)
        cut = cv2.resize(255 - digit[y : y + height, x : x + width], (6 * width, 6 * height))
        for reading in read_digits(cut):
            left, top, right, bottom = reading.box
            assert 0 <= left < right <= 6 * width
            assert 0 <= top < bottom <= 6 * height


def claimed(width: int, height: int) -> bytes:
    """Return a PNG of one grey pixel whose header claims another size."""
    file = encoded(Image.new("L", (1, 1)), "PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + file[24:29]
    return file[:12] + header + struct.pack(">I", zlib.crc32(header)) + file[33:]


PNG = encoded(Image.linear_gradient("L"), "PNG")
HOSTILE = {
    "empty": b"",
    "PostScript, which Pillow lets Ghostscript run": encoded(Image.new("L", (9, 9)), "EPS"),
    "text": b"no picture at all",
    "cut PNG": PNG[: len(PNG) // 2],
    "bomb": claimed(60_000, 60_000),
    "101 megapixels": claimed(10_100, 10_000),
    "nothing wide": claimed(0, 10),
    "cut PDF": encoded(Image.linear_gradient("L"), "PDF")[:300],
    "a PDF without pages": b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\ntrailer<</Root 1 0 R>>\n",
    "cut HEIC": b"\0\0\0\x18ftypheic" + bytes(200),
}


def test_a_picture_in_memory_is_held_to_the_same_sizes() -> None:
    for size in ((0, 5), (10_100, 10_000)):
        with pytest.raises(ValueError, match=r"the picture: .*(empty|megapixels)"):
            load_picture(Image.new("1", size))
    assert load_picture(Image.new("RGBA", (2500, 1000))).size == (2000, 800)
    assert load_picture(Image.new("RGBA", (2500, 1000))).mode == "RGB"


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_picture_is_refused_in_one_line(kind: str) -> None:
    with pytest.raises(ValueError, match=r"\Athe picture: .+\Z"):
        load_picture(HOSTILE[kind])


def test_what_is_no_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_picture(tmp_path / "none.png")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):  # a pipe must not block
        with pytest.raises(OSError, match="not a file"):
            load_picture(path)


def test_an_encrypted_pdf_is_named_as_such() -> None:
    key, entry = b"00" * 32, b"4 0 obj<</Filter/Standard/V 1/R 2/P -4/O<%b>/U<%b>>>endobj\n"
    entry %= key, key
    file = HOSTILE["a PDF without pages"].replace(b"Kids[]/Count 0", b"Kids[3 0 R]/Count 1")
    file = file.replace(b"trailer<<", entry + b"trailer<</Encrypt 4 0 R/ID[<00><00>]")
    with pytest.raises(ValueError, match="the picture: an encrypted PDF"):
        load_picture(file)


def test_a_pdf_is_read_by_several_threads() -> None:
    figure, content = Figure(figsize=(20, 0.2)), io.BytesIO()
    figure.text(0, 0.2, "1234567890 abc" * 10, fontsize=6)  # in a font that the file has
    figure.savefig(content, format="pdf")
    file = content.getvalue()
    expected = np.asarray(load_picture(file))

    def load(_: int) -> bool:
        return np.array_equal(np.asarray(load_picture(file)), expected)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(load, range(800)))


def test_a_strip_is_read_at_the_same_size_from_a_pdf() -> None:
    strip = Image.new("L", (400, 8000), 255)
    assert load_picture(strip).size == (224, 4472)
    assert load_picture(encoded(strip, "PDF")).size == pytest.approx((224, 4472), abs=1)


@pytest.mark.parametrize("more", [b"", b"/XFA 6 0 R"])
def test_what_is_typed_into_the_fields_of_a_form_is_read(
    more: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    look = b"/DA(/F 40 Tf 0 g)"
    objects = (
        b"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[4 0 R]/DR<</Font<</F 5 0 R>>>>%b%b>>>>"
        % (look, more),
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Annots[4 0 R]>>",
        b"<</Type/Annot/Subtype/Widget/FT/Tx/T(a)/V(12345)/Rect[50 70 250 130]%b>>" % look,
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Length 11>>stream\n<xdp></xdp>\nendstream",
    )
    parts = b"".join(b"%d 0 obj%b endobj\n" % part for part in enumerate(objects, 1))
    file = b"%PDF-1.4\n" + parts + b"trailer<</Root 1 0 R/Size 7>>\n%%EOF"
    assert [digit.best for digit in find_digits(load_picture(file))] == [1, 2, 3, 4, 5]
    assert caplog.records == []  # no advice on XFA


def test_what_a_missing_library_would_read_is_refused_with_the_command_that_installs_it(
    mnist: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    file = encoded(Image.fromarray(page([mnist[0]])), "PDF")
    with pytest.raises(ValueError, match=r"the picture: reading it needs pypdfium2: pip install"):
        load_picture(file)
