"""Pictures of all kinds: how they are decoded, and the shapes that are found in them."""

import io
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image

from mnist_cnn.reading.picture import FORMATS, load_pages, load_picture, upright_size
from tests.helpers.photographs import bundled, find_digits, page
from tests.helpers.process import environment

Array = NDArray[np.uint8]


@pytest.fixture(scope="module")
def mnist() -> Array:
    return bundled("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28)[:300]


def likeness(a: Array, b: Array) -> float:
    """Correlation of two images, 1 for the same."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def test_a_digit_of_mnist_comes_back_as_it_was(mnist: Array) -> None:
    found = [find_digits(Image.fromarray(digit)) for digit in mnist[:100]]
    alike = [
        likeness(digits[0].image, digit)
        for digits, digit in zip(found, mnist, strict=False)
        if len(digits) == 1
    ]
    assert len(alike) >= 99
    assert np.mean(alike) > 0.93


def test_an_image_is_20_pixels_long_and_centred_by_mass(mnist: Array) -> None:
    for number in range(20):
        (digit,) = find_digits(Image.fromarray(page([mnist[number]])))
        assert digit.image.shape == (28, 28)
        assert digit.image.dtype == np.uint8
        rows, columns = np.nonzero(digit.image)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20)
        moments = cv2.moments(digit.image)
        centre = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
        assert centre == pytest.approx((14, 14), abs=0.6)


def test_rows_are_read_from_the_top_and_each_from_the_left(mnist: Array) -> None:
    written = [[mnist[0], mnist[1], mnist[2]], [mnist[3], mnist[4]]]
    paper = page(*written)
    cv2.circle(paper, (20, 20), 4, 60, -1)  # neither a speck nor a dash is a digit
    cv2.line(paper, (60, 280), (200, 282), 60, 5)
    digits = find_digits(Image.fromarray(paper))
    assert [digit.row for digit in digits] == [0, 0, 0, 1, 1]
    for digit, original in zip(digits, written[0] + written[1], strict=True):
        assert likeness(digit.image, original) > 0.8


def alike(one: Array, other: Array, least: float) -> None:
    """Asserts that two pictures hold the same digits."""
    found = [find_digits(Image.fromarray(picture)) for picture in (one, other)]
    for a, b in zip(*found, strict=True):
        assert likeness(a.image, b.image) > least


def test_light_on_dark_reads_as_dark_on_light(mnist: Array) -> None:
    dark = page([mnist[0], mnist[1]])
    alike(dark, 255 - dark, 0.97)


def test_a_shadow_changes_nothing(mnist: Array) -> None:
    plain = page([mnist[0], mnist[1], mnist[2]])
    light = np.ones(plain.shape)
    light[:, plain.shape[1] // 2 :] = 0.5
    light = cv2.GaussianBlur(light, (0, 0), 4) * np.linspace(1, 0.7, len(plain))[:, None]
    alike(plain, (plain * light).astype(np.uint8), 0.95)


@pytest.mark.parametrize("slope", [-0.03, 0.0, 0.03])
def test_ruled_and_squared_paper_is_not_read(mnist: Array, slope: float) -> None:
    plain = page([mnist[n] for n in (0, 1, 2, 4)])
    ruled = plain.copy()
    height, width = plain.shape
    for y in range(15, height, 40):
        cv2.line(ruled, (0, y), (width, round(y + slope * width)), 120, 2)
    for x in range(10, width, 40):
        cv2.line(ruled, (x, 0), (round(x - slope * height), height), 120, 2)
    alike(plain, np.minimum(plain, ruled), 0.75)


def test_a_broken_4_and_the_flag_of_a_5_stay_with_their_digits() -> None:
    paper = np.full((300, 400), 240, np.uint8)
    cv2.polylines(paper, [np.array([(60, 70), (45, 160), (105, 160)])], False, 30, 9)
    cv2.line(paper, (125, 70), (122, 230), 30, 9)  # the stem stands off the arm
    cv2.polylines(paper, [np.array([(260, 92), (256, 140), (310, 165), (250, 230)])], False, 30, 9)
    cv2.line(paper, (262, 70), (330, 66), 30, 9)  # the flag floats over the body
    four, five = find_digits(Image.fromarray(paper))
    assert four.box[0] < 50
    assert four.box[2] > 120
    assert five.box[1] < 70
    assert five.box[3] > 225


def test_a_filled_area_is_not_hollowed_and_the_dot_of_an_i_belongs_to_it() -> None:
    paper = np.full((400, 800), 235, np.uint8)
    cv2.rectangle(paper, (140, 120), (250, 290), 40, -1)
    cv2.line(paper, (130, 130), (260, 135), 40, 14)
    cv2.line(paper, (550, 180), (550, 290), 40, 14)
    cv2.circle(paper, (550, 145), 9, 40, -1)
    area, i = find_digits(Image.fromarray(paper))
    assert area.image[12:16, 12:16].min() > 200
    assert i.box[1] < 140


def test_a_fine_pen_is_as_wide_as_mnists() -> None:
    paper = np.full((800, 800), 250, np.uint8)
    cv2.ellipse(paper, (400, 400), (200, 300), 0, 0, 360, 20, 3)
    (digit,) = find_digits(Image.fromarray(paper))
    row = digit.image[14] / 255  # across both sides of the 0
    assert 1.2 < row[:14].sum() < 3
    assert row.max() > 0.7


@pytest.mark.parametrize("noise", [0, 3, 8])
def test_blank_paper_holds_no_digit(noise: int) -> None:
    rng = np.random.default_rng(noise)
    paper = np.full((600, 800), 215.0) * np.linspace(1, 0.6, 800)
    paper += rng.normal(0, noise, paper.shape)
    assert find_digits(Image.fromarray(paper.astype(np.uint8))) == []


@pytest.mark.parametrize("size", [(200, 200), (1, 1), (1, 500), (500, 1), (3, 2)])
def test_neither_noise_nor_a_tiny_picture_holds_a_digit(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    assert find_digits(Image.fromarray(noise)) == []
    assert find_digits(Image.new("L", size, 255)) == []


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F"])
def test_every_mode_gives_the_same_digit(mnist: Array, mode: str) -> None:
    plain = Image.fromarray(page([mnist[0]]))
    (expected,) = find_digits(plain)
    (digit,) = find_digits(plain.convert(mode, dither=Image.Dither.NONE))
    assert likeness(digit.image, expected.image) > 0.9


def test_16_bit_pictures_keep_their_range(mnist: Array) -> None:
    plain = page([mnist[0]])
    (expected,) = find_digits(Image.fromarray(plain))
    for white in (255, 4095, 65535):
        deep = Image.fromarray((plain / 255 * white).astype(np.uint16))
        (digit,) = find_digits(load_picture(encoded(deep, "PNG")))
        assert likeness(digit.image, expected.image) > 0.99


@pytest.mark.parametrize("light", [0, 255])
def test_ink_on_a_transparent_ground_is_found(mnist: Array, light: int) -> None:
    alpha = cv2.resize(mnist[0], (200, 200))
    ink = np.full_like(alpha, light)
    drawing = Image.fromarray(np.dstack([ink, ink, ink, alpha]))
    (digit,) = find_digits(load_picture(encoded(drawing, "PNG")))
    assert likeness(digit.image, mnist[0]) > 0.9


def test_transparent_corners_of_a_light_page_are_no_ink(mnist: Array) -> None:
    paper = page([mnist[0]])
    alpha = np.zeros_like(paper)
    cv2.ellipse(alpha, (96, 96), (95, 95), 0, 0, 360, 255, -1)
    drawing = Image.fromarray(np.dstack([paper, paper, paper, alpha]))
    (digit,) = find_digits(drawing)
    assert likeness(digit.image, mnist[0]) > 0.85


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_rotation_of_the_exif_is_applied(mnist: Array, form: str) -> None:
    upright = Image.fromarray(page([mnist[0], mnist[1]]))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    file = encoded(turned, form, exif=exif)
    expected = find_digits(upright)
    for picture in (load_picture(file), Image.open(io.BytesIO(file))):
        assert upright_size(picture) == upright.size
        for one, other in zip(expected, find_digits(picture), strict=True):
            assert one.box == pytest.approx(other.box, abs=4)
            assert likeness(one.image, other.image) > 0.95


def test_boxes_are_in_pixels_of_the_picture_given(mnist: Array) -> None:
    large = np.full((4000, 5000), 230, np.uint8)
    digit = cv2.resize(page([mnist[0]]), (800, 800))
    large[1000:1800, 3000:3800] = np.minimum(digit, 230)
    (found,) = find_digits(Image.fromarray(large))
    (alone,) = find_digits(Image.fromarray(digit))
    expected = [side + offset for side, offset in zip(alone.box, (3000, 1000) * 2, strict=True)]
    assert found.box == pytest.approx(expected, abs=8)


def test_a_loaded_picture_is_small_and_opaque(tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    Image.new("RGBA", (2500, 1000), (0, 0, 0, 0)).save(path)
    picture = load_picture(path)
    assert picture.size == (2000, 800)
    assert picture.mode == "RGB"


def claimed(width: int, height: int) -> bytes:
    """A PNG of one grey pixel that says that it is larger."""
    file = encoded(Image.new("L", (1, 1)), "PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + file[24:29]
    return file[:12] + header + struct.pack(">I", zlib.crc32(header)) + file[33:]


PNG = encoded(Image.linear_gradient("L"), "PNG")
JPEG = encoded(Image.linear_gradient("L"), "JPEG")
HOSTILE = {
    "empty": b"",
    "text": b"no picture at all",
    "cut PNG": PNG[: len(PNG) // 2],
    "cut JPEG": JPEG[: len(JPEG) // 2],
    "flipped PNG": PNG[:60] + bytes(200) + PNG[260:],
    "bomb": claimed(60_000, 60_000),
    "101 megapixels": claimed(10_100, 10_000),
    "nothing wide": claimed(0, 10),
    "cut TIFF": encoded(Image.linear_gradient("L"), "TIFF")[:500],
    "cut PDF": encoded(Image.linear_gradient("L"), "PDF")[:300],
    "an empty PDF": b"%PDF-1.4\n",
    "a PDF without pages": b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\ntrailer<</Root 1 0 R>>\n",
    "cut HEIC": b"\0\0\0\x18ftypheic" + bytes(200),
    "cut GIF": encoded(Image.linear_gradient("L"), "GIF")[:300],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_picture_is_refused_in_one_line(what: str) -> None:
    with pytest.raises(ValueError, match="the picture") as caught:
        load_picture(HOSTILE[what])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(0, 5), (10_100, 10_000)])
def test_a_picture_in_memory_is_held_to_the_same_sizes(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"the picture: .*(empty|megapixels)"):
        find_digits(Image.new("1", size))


def test_what_is_no_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_picture(tmp_path / "none.png")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):  # a pipe is not waited for
        with pytest.raises(OSError, match="not a file"):
            load_picture(path)


def test_all_pages_of_a_tiff_and_of_a_pdf_are_read(mnist: Array) -> None:
    pages = [Image.fromarray(page([mnist[n]])) for n in range(3)]
    for form in ("TIFF", "PDF"):
        loaded = list(load_pages(encoded(pages[0], form, save_all=True, append_images=pages[1:])))
        assert len(loaded) == 3
        for number, picture in enumerate(loaded):
            assert isinstance(picture, Image.Image)
            (digit,) = find_digits(picture)
            assert likeness(digit.image, mnist[number]) > 0.8
    moving = encoded(pages[0], "GIF", save_all=True, append_images=pages[1:])
    assert len(list(load_pages(moving))) == 1


def three_pages(form: str) -> bytes:
    pages = [Image.linear_gradient("L").rotate(90 * n) for n in range(3)]
    options = {"compression": "tiff_adobe_deflate"} if form == "TIFF" else {}
    return encoded(pages[0], form, save_all=True, append_images=pages[1:], **options)


@pytest.mark.parametrize(("form", "start"), [("TIFF", b"\x78\x9c"), ("PDF", b"/Type /Page\n")])
@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_damaged_page_does_not_hide_the_others(form: str, start: bytes, damaged: int) -> None:
    file = three_pages(form)
    place = [found.start() for found in re.finditer(start, file)][damaged]
    pages = list(load_pages(file[:place] + b"/Type /Pxge\n" + file[place + 12 :]))
    assert [isinstance(page, ValueError) for page in pages] == [n == damaged for n in range(3)]
    assert str(pages[damaged]).startswith("the picture: not a picture, damaged")


def test_an_encrypted_pdf_is_named_as_such() -> None:
    key, entry = b"00" * 32, b"4 0 obj<</Filter/Standard/V 1/R 2/P -4/O<%b>/U<%b>>>endobj\n"
    entry %= key, key
    file = HOSTILE["a PDF without pages"].replace(b"Kids[]/Count 0", b"Kids[3 0 R]/Count 1")
    file = file.replace(b"trailer<<", entry + b"trailer<</Encrypt 4 0 R/ID[<00><00>]")
    with pytest.raises(ValueError, match="the picture: an encrypted PDF"):
        load_picture(file)


def test_what_telephones_write_is_read(mnist: Array) -> None:
    pillow_heif.register_heif_opener()
    (digit,) = find_digits(load_picture(encoded(Image.fromarray(page([mnist[0]])), "HEIF")))
    assert likeness(digit.image, mnist[0]) > 0.8


def test_what_a_missing_library_would_read_is_refused_with_the_command_that_installs_it(
    mnist: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    file = encoded(Image.fromarray(page([mnist[0]])), "PDF")
    with pytest.raises(ValueError, match=r"the picture: reading it needs pypdfium2: pip install"):
        load_picture(file)


def test_postscript_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands such files to Ghostscript, here a program that leaves a trace."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    file = encoded(Image.linear_gradient("L"), "EPS")
    with pytest.raises(ValueError, match="the picture: not a picture, damaged, or none of PNG"):
        load_picture(file)
    assert not (tmp_path / "ran").exists()


def encodings(digit: Array) -> dict[str, bytes]:
    """A digit in every format that is read, and in the rarer forms of some."""
    grey = Image.fromarray(page([digit], size=56))
    colour, wide = grey.convert("RGB"), Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    ink = Image.merge("RGBA", [*colour.split(), grey.point(lambda value: 255 - value)])
    exif, turned = Image.Exif(), colour.transpose(Image.Transpose.ROTATE_90)
    exif[0x0112] = 6
    found = {form: encoded(colour, form) for form in FORMATS}
    return found | {
        "PNG, 16 bit": encoded(wide, "PNG"),
        "PNG, palette with alpha": encoded(ink.quantize(16), "PNG"),
        "PNG, alpha": encoded(ink, "PNG"),
        "JPEG, CMYK": encoded(colour.convert("CMYK"), "JPEG"),
        "JPEG, progressive, turned": encoded(turned, "JPEG", progressive=True, exif=exif),
        "GIF, animated": encoded(grey, "GIF", save_all=True, append_images=[grey.rotate(9)] * 3),
        "WEBP, animated": encoded(colour, "WEBP", save_all=True, append_images=[colour.rotate(9)]),
        "TIFF, LZW": encoded(colour, "TIFF", compression="tiff_lzw"),
        "TIFF, float": encoded(grey.convert("F"), "TIFF"),
        "TIFF, two pages": encoded(grey, "TIFF", save_all=True, append_images=[grey]),
        "BMP, 1 bit": encoded(grey.convert("1", dither=Image.Dither.NONE), "BMP"),
        "PPM, 16 bit": encoded(wide, "PPM"),
    }


def spoil(file: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes flipped, a piece cut out, doubled or overwritten, or the end cut off."""
    content = bytearray(file)
    for _ in range(rng.integers(1, 5)):
        # most that decides anything stands at the front
        reach = len(content) if rng.random() < 0.5 else min(len(content), 120)
        place = int(rng.integers(reach)) if reach else 0
        length = int(rng.integers(1, 9))
        how = rng.integers(5)
        if how == 0:
            content[place : place + 1] = rng.bytes(1)
        elif how == 1:
            content[place : place + length] = rng.choice([b"\xff", b"\0", b"\x7f"]) * length
        elif how == 2:
            del content[place : place + length]
        elif how == 3:
            content[place:place] = content[place : place + 8 * length]
        else:
            del content[max(place, 1) :]
    return bytes(content)


def test_every_format_is_read(mnist: Array) -> None:
    for form, file in encodings(mnist[0]).items():
        assert len(find_digits(load_picture(file))) == 1, form


@pytest.mark.slow
def test_a_spoilt_picture_is_read_or_refused_in_one_line(mnist: Array) -> None:
    rng = np.random.default_rng(0)
    sound = list(encodings(mnist[0]).values())
    refused = []
    count = int(os.environ.get("FUZZ", "300"))
    for number in range(count):
        file = spoil(sound[number % len(sound)], rng)
        try:
            digits = find_digits(load_picture(file))
            assert all(digit.image.shape == (28, 28) for digit in digits)
        except ValueError as error:
            refused.append(str(error))
    assert all(re.fullmatch("the picture: .+", line) for line in refused)
    assert 0.1 * count < len(refused) < 0.9 * count


@pytest.mark.slow
def test_the_largest_picture_takes_a_bounded_memory(tmp_path: Path) -> None:
    """10,000 x 10,000 pixels of 16 bits: 200 MB once they are decoded."""
    Image.new("I;16", (10_000, 10_000), 999).save(tmp_path / "large.png", compress_level=1)
    code = """
import resource, sys
from mnist_cnn.reading.picture import load_picture
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(load_picture(sys.argv[1]).size)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "large.png"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    size, kilobytes = done.stdout.splitlines()
    assert size == "(2000, 2000)"
    assert int(kilobytes) < 700_000
