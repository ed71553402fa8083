"""The self-contained page computes and reads the same as Python."""

import base64
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mnist_cnn.data.drawn.photographs import digits_of
from mnist_cnn.data.synthetic import sheet
from mnist_cnn.data.synthetic.sheet import STRIDE, SYMBOLS
from mnist_cnn.data.synthetic.strokes import DIGITS, SIGNS
from mnist_cnn.detection import find
from mnist_cnn.detection.decode import merged
from mnist_cnn.detection.find import at_zoom
from mnist_cnn.detection.lines import KEPT, PROBABLE
from mnist_cnn.detection.loss import UNIT
from mnist_cnn.detection.network import CHANNELS, EVIDENCE, Detector
from mnist_cnn.detection.trained import load_reader
from mnist_cnn.exporting import webpage
from mnist_cnn.exporting.layers import as_layer, layers_of
from mnist_cnn.exporting.webpage import MARGIN
from mnist_cnn.model import SHAPE
from mnist_cnn.reading import reader as reading
from mnist_cnn.reading.networks import Classes, Digits
from mnist_cnn.reading.reading import THRESHOLD, Reading
from mnist_cnn.reading.views import View
from mnist_cnn.weights import predictor
from mnist_cnn.weights.networks import build_network
from tests.helpers.drawings import any_text, drawing, ways


@pytest.fixture(scope="module")
def digits() -> Tensor:
    images = digits_of("test")[0]
    return torch.from_numpy(images[:100])


@pytest.fixture(scope="module")
def reader() -> Detector:
    return load_reader()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, reader) -> Path:
    """Write the shipped reader to one HTML file."""
    file = tmp_path_factory.mktemp("page") / "mnist_cnn.html"
    file.write_text(webpage.webpage(Digits(None, reader), {"a": "<b>"}), "utf-8")
    return file


@contextmanager
def opened(browser: Any, file: Path, requests: Sequence[str] = ("blob",)) -> Iterator[Any]:
    """Open a file in an offline browser; a failure or another request fails the test.

    Args:
        requests: schemes of what is requested besides the file: its script as a worker.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_offline(True)
    page = context.new_page()
    wrong: list[str] = []
    page.on("request", lambda request: wrong.append(request.url.partition(":null/")[0]))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_selector(".reader[data-ready]")
    yield page
    context.close()
    assert wrong == [file.as_uri(), *requests]


@pytest.fixture
def offline_page(browser, page_file) -> Iterator[Any]:
    with opened(browser, page_file) as page:
        yield page


def reads(page: Any, text: str) -> None:
    """Wait until the page has read the drawing, and compare with a text."""
    page.wait_for_function("() => root.dataset.state === 'read'", timeout=60_000)
    assert page.locator(".reading").text_content() == text


def readings_of(reader: Any, ink: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> list[Reading]:
    """Return what the reader of pictures reads in ink (H, W), as the page reads: at one scale."""
    monkeypatch.setattr(find, "MARGIN", MARGIN)
    best = at_zoom(reader, ink, 1.0)
    seen = View(merged([best.characters]), best, ink, 0, np.eye(2, 3))
    monkeypatch.setattr(reading, "upright", lambda *_: seen)
    return reading.read_digits(Image.new("L", ink.shape[::-1]), reader=reader)


def test_the_page_computes_the_maps_that_the_reader_computes(page_file, reader):
    pytest.importorskip("py_mini_racer", reason="comes with the extra export")
    ink = torch.rand(48, 80, generator=torch.Generator().manual_seed(0))
    engine = webpage.Engine(page_file.read_text("utf-8"))
    with torch.inference_mode():
        expected = reader(ink[None, None])[0]
        assert engine.difference(reader, ink) < 0.005
    # logits; the weights in the file have 16 bits
    torch.testing.assert_close(engine.maps(ink), expected, rtol=0, atol=0.05)


def digits_by(net: Any, reader: Any) -> Digits:
    """Return what reads digits with a stand-in for the reader."""
    return Digits(net, reader)


class Dilated(nn.Module):
    """A detector with weights rounded to 16 bits, so that the file has them exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, 2, 1)
        self.second = nn.Conv2d(6, 6, (3, 5), 2, (1, 2))
        self.wide = nn.Conv2d(6, 6, 3, padding=(2, 3), dilation=(2, 3))
        self.deep = nn.Conv2d(6, 6, 3, 2, 1)
        self.head = nn.Conv2d(6, sum(CHANNELS.values()), 1)
        self.register_buffer("character_weights", torch.tensor([1.5, 0.25]))
        self.register_buffer("line_weights", torch.tensor([-0.5] * EVIDENCE + [2.0]))
        self.half().float()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second(self.first(x)))
        x = x + F.relu(self.wide(x))
        return self.head(x + F.interpolate(self.deep(x), scale_factor=2.0) + x)


@torch.no_grad()
def test_a_detector_may_be_dilated_add_and_upsample():
    pytest.importorskip("py_mini_racer", reason="comes with the extra export")
    torch.manual_seed(0)
    net, ink = Dilated(), torch.rand(40, 56)
    page = webpage.webpage(digits_by(None, net), {})
    maps = webpage.Engine(page).maps(ink)
    torch.testing.assert_close(maps, net(ink[None, None])[0], rtol=0, atol=1e-5)
    assert '"characterWeights": [1.5, 0.25]' in page
    assert '"lineWeights": [-0.5, ' in page


class Given(nn.Module):
    """A detector that returns the same maps for any ink."""

    reach = 1000  # it sees all of it

    def __init__(self, maps: Tensor, like: nn.Module):
        super().__init__()
        self.maps = maps
        for name in ("character_weights", "line_weights"):
            self.register_buffer(name, like.get_buffer(name))

    def forward(self, x: Tensor) -> Tensor:
        return self.maps[None]


def made_maps(rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
    """Make random maps (32, h, w) and ink of two lines of symbols, with a ruled line and blots.

    Symbols, scores and boxes are random. Some symbols have no ink, and some ink has no symbol.
    """
    maps = np.full((sum(CHANNELS.values()), 44, 72), -6.0, np.float32)
    ink = np.zeros((44 * STRIDE, 72 * STRIDE), np.float32)
    first = np.cumsum([0, *CHANNELS.values()])
    for line in range(2):
        for x in range(8, 64, int(rng.integers(6, 9))):
            y = 12 + 18 * line + int(rng.integers(-1, 2))
            half = rng.uniform([8, 14], [12, 18])  # pixels
            place = (np.array([x, y]) + 0.5) * STRIDE
            (left, top), (right, bottom) = (place - half).astype(int), (place + half).astype(int)
            if rng.random() < 0.85:
                ink[top:bottom, left:right] = rng.random((bottom - top, right - left)) < 0.6
            if rng.random() < 0.2:
                continue
            maps[0, y, x] = rng.normal(1, 2)
            maps[first[2] : first[3], y, x] = np.tile(half + rng.normal(0, 1, 2), 2) / UNIT
            kinds = rng.normal(0, 2, len(SYMBOLS))
            kinds[rng.integers(10) if rng.random() < 0.6 else rng.integers(26)] += 5
            maps[first[3] :, y, x] = kinds
    y = int(rng.integers(4, 40))
    maps[1, y, 10:60] = rng.normal(0, 2, 50)
    ink[STRIDE * y + 1, 40:240] = 1
    return torch.from_numpy(maps), ink


def test_the_page_reads_in_any_maps_what_the_reader_reads_in_them(monkeypatch):
    pytest.importorskip("py_mini_racer", reason="comes with the extra export")
    rng, weak_signs = np.random.default_rng(0), 0
    detector = Dilated()
    detector.get_buffer("line_weights").copy_(torch.tensor([-0.5, -0.2, -0.5, -1, -1, 3]))
    engine = webpage.Engine(webpage.webpage(digits_by(None, detector), {}))
    for _ in range(40):
        maps, ink = made_maps(rng)
        net = Given(maps, detector)
        inner = ink[MARGIN:-MARGIN, MARGIN:-MARGIN]
        expected = readings_of(net, inner, monkeypatch)
        sides = {"height": ink.shape[0], "width": ink.shape[1]}
        found = engine.call(
            """((ink, maps) => {
                const data = Float32Array.from(maps.data);
                computed = () => ({ ...maps, data });
                return readInk(ink).flat();
            })""",
            {"data": ink.flatten().tolist(), **sides},
            {
                "data": maps.permute(1, 2, 0).flatten().tolist(),
                **{"height": maps.shape[1], "width": maps.shape[2], "channels": maps.shape[0]},
            },
        )
        assert [each["sign"] for each in found] == [each.symbol for each in expected]
        for one, other in zip(found, expected, strict=True):
            assert one["digit"] == other.digit
            assert one["best"] == other.best
            np.testing.assert_allclose(one["probabilities"], other.probabilities, atol=1e-5)
            assert one["line"] == pytest.approx(other.line, abs=1e-4)
            # of a drawing only the sheet is the picture
            box = (np.array(one["box"]) - MARGIN).clip(0, (*inner.shape[::-1],) * 2)
            np.testing.assert_allclose(box, other.box, atol=0.51)
            image = np.array(list(one["image"].values())).reshape(28, 28)
            np.testing.assert_allclose(image, other.image, atol=1)
        seen = at_zoom(net, inner, 1.0).characters
        weak_signs += sum(KEPT < c.score < PROBABLE and c.symbol in sheet.SIGNS for c in seen)
    assert weak_signs > 5


def test_drawings_are_read_as_the_reader_reads_their_ink(offline_page, reader, monkeypatch):
    # as the page computes
    monkeypatch.setattr("mnist_cnn.detection.find.is_bfloat16_fast", partial(bool, False))
    rng, decided, unread = np.random.default_rng(0), 0, 0
    for _ in range(100):
        found = offline_page.evaluate(
            """async (strokes) => {
                const { data, height, width } = inkOf(strokes).ink;
                const { digits } = await read({ strokes: strokes.map((points) => ({ points })) });
                const ink = data.reduce((s, v) => s + String.fromCharCode(Math.round(255 * v)), "");
                return { digits, ink: btoa(ink), height, width };
            }""",
            drawing(rng, any_text(rng)),
        )
        sides = found["height"], found["width"]
        ink = np.frombuffer(base64.b64decode(found["ink"]), np.uint8).reshape(sides)
        ink = ink.astype(np.float32)[MARGIN:-MARGIN, MARGIN:-MARGIN] / 255
        expected = readings_of(reader, ink, monkeypatch)
        scores = np.array([[each.confidence, each.line] for each in expected])
        # near the threshold 16-bit weights may decide otherwise
        if abs(scores - THRESHOLD).min(initial=1) > 0.03:
            decided += 1
            signs = [each["sign"] for each in found["digits"]]
            unread += "?" in signs
            assert signs == [each.symbol for each in expected]
            assert [each["best"] for each in found["digits"]] == [each.best for each in expected]
            own = [[each["confidence"], each["line"]] for each in found["digits"]]
            np.testing.assert_allclose(np.reshape(own, scores.shape), scores, atol=0.05)
    assert decided > 80
    assert unread > 10


def test_boxes_of_what_is_drawn_at_the_edges_end_there(offline_page):
    for x, y in ((0, 0), (1, 0.4)):
        boxes = offline_page.evaluate(
            """async ([x, y]) => {
                const own = worker;
                worker = { postMessage: ({ width, height }, [port]) =>
                    port.postMessage([[{ sign: "1", box: [0, 0, width, height], image: [] }]]) };
                const points = [[x, y], [x, y + 0.1]];
                const { digits } = await read({ strokes: [{ points }] });
                worker = own;
                return digits.map(({ box }) => box);
            }""",
            (x, y),
        )
        assert all(0 <= side <= 1 for side in boxes[0])


def test_ten_digits_that_are_drawn_are_read(offline_page):
    area, pen = offline_page.locator(".ink").bounding_box(), offline_page.mouse
    text = "0123456789"
    for place, digit in enumerate(text):
        for way in ways(DIGITS[digit][0]):
            x, y = (way * [0.05, 0.13] + [0.035 + 0.096 * place, 0.3]).T * area["width"]
            points = list(zip(x + area["x"], y + area["y"], strict=True))
            pen.move(*points[0])
            pen.down()
            for point in points[1:]:
                pen.move(*point)
            pen.up()
    reads(offline_page, text)
    offline_page.evaluate("change()")
    reads(offline_page, text)
    print(f"ten digits: {offline_page.evaluate('root.dataset.took')} ms")
    assert offline_page.locator(".message").text_content() == "10 digits"
    assert offline_page.locator(".seen button").count() == 10
    assert offline_page.locator(".boxes i.unsure").count() == 0
    assert offline_page.locator(".upload").is_hidden()


def test_signs_come_out_between_digits_and_a_new_row_below(offline_page):
    draw(offline_page, "3+4\n56", height=0.2)
    reads(offline_page, "3+4\n56")
    labels = offline_page.locator(".seen button").all_inner_texts()
    assert labels[1] == "+"
    assert labels[0].startswith("3 · ")
    assert offline_page.locator(".message").text_content() == "4 digits"


def draw(page: Any, text: str, height: float) -> None:
    """Draw a text of a given height, with each character in its first form."""
    strokes = []
    for row, signs in enumerate(text.split("\n")):
        for place, sign in enumerate(signs):
            for way in ways((DIGITS.get(sign) or SIGNS[sign])[0]):
                where = [0.05 + 0.9 * height * place, 0.05 + 1.5 * height * row]
                strokes.append((way * [0.6 * height, height] + where).tolist())
    page.evaluate(
        "all => { for (const points of all) { done.push({ points }); change(); } }", strokes
    )


def test_of_drawings_that_follow_fast_the_last_is_read_and_not_in_the_thread_that_draws(
    offline_page,
):
    offline_page.evaluate(
        """() => {
            window.posted = 0;
            const post = Worker.prototype.postMessage;
            Worker.prototype.postMessage = function (...given) {
                window.posted += 1;
                return post.apply(this, given);
            };
            computed = () => { throw new Error("it is computed in the thread that draws"); };
        }"""
    )
    draw(offline_page, "00000", height=0.15)  # one change per character
    reads(offline_page, "00000")
    assert offline_page.evaluate("window.posted") <= 2


def test_a_drawing_that_cannot_be_read_is_told_and_the_next_is_read(offline_page):
    says = "text => find('message').textContent === text"
    offline_page.evaluate("() => { window.own = inkOf; inkOf = () => { throw Error(); }; }")
    draw(offline_page, "3", height=0.2)
    offline_page.wait_for_function(says, arg="The drawing cannot be read.")
    offline_page.evaluate("() => { inkOf = window.own; }")
    draw(offline_page, "3", height=0.2)  # on the first
    reads(offline_page, "3")
    offline_page.evaluate("() => { worker.dispatchEvent(new Event('error')); change(); }")
    offline_page.wait_for_function(says, arg="The drawing cannot be read.")


def test_another_network_names_the_digits_that_are_found(browser, tmp_path, reader, digits):
    net = predictor.load()
    file = tmp_path / "both.html"
    file.write_text(webpage.webpage(Digits(net, reader), {}), "utf-8")
    with opened(browser, file) as page:
        flat = digits.flatten(1).tolist()
        found = page.evaluate("all => all.map(probabilities)", flat)
        np.testing.assert_allclose(found, net(digits), rtol=0, atol=1e-4)
        draw(page, "305", height=0.25)
        reads(page, "305")
        for image, best, box in page.evaluate(
            "() => digits.map(({ image, best, box }) => [image, best, box])"
        ):
            seen = np.frombuffer(base64.b64decode(image), np.uint8).reshape(28, 28)
            assert net(seen).argmax() == best
            y, x = np.nonzero(seen)
            assert max(np.ptp(x), np.ptp(y)) + 1 == 20
            mass = np.average(np.argwhere(seen), axis=0, weights=seen[seen > 0])
            np.testing.assert_allclose(mass, 14, atol=0.51)
            left, top, right, bottom = box
            assert 0 < left < right < 1
            assert 0 < top < bottom < 1


@pytest.mark.parametrize("name", ["FastCNN", "VGG"])
def test_a_page_has_any_network_of_this_project(name, digits):
    pytest.importorskip("py_mini_racer", reason="comes with the extra export")
    configs: dict[str, dict[str, Any]] = {
        "FastCNN": {"channels": [4, 8], "hidden": 16, "mean": 0.13, "std": 0.31},
        "VGG": {"stages": [[4], [6, 6]], "channel_dropout": 0.1, "dropout": 0.1},
    }
    net = build_network({"_target_": f"mnist_cnn.model.{name}", **configs[name]})
    with torch.no_grad():
        for _ in range(5):  # batch normalisation with nontrivial mean and variance
            net(torch.rand(32, 1, 28, 28))
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
                layer.weight.uniform_(-1, 1)
                layer.bias.uniform_(-1, 1)
    trained = predictor.Trained(net, tuple("0123456789"), {"model": {}, "data": {"name": "mnist"}})
    engine = webpage.Engine(webpage.webpage(digits_by(trained, Dilated()), {}))
    torch.testing.assert_close(engine.probabilities(digits), trained(digits), rtol=0, atol=1e-5)


class Shifted(nn.Module):
    """A network whose mean is no part of its weights, or that makes it anew in each call."""

    mean: Tensor

    def __init__(self, anew: bool):
        super().__init__()
        self.dense, self.anew = nn.Linear(784, 10), anew
        self.register_buffer("mean", torch.tensor([0.13]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense((x - (torch.tensor(0.13) if self.anew else self.mean)).flatten(1))


def test_a_page_has_the_buffers_that_a_weights_file_leaves_out(digits):
    pytest.importorskip("py_mini_racer", reason="comes with the extra export")
    about = {"model": {}, "data": {"name": "mnist"}}
    trained = predictor.Trained(Shifted(anew=False), tuple("0123456789"), about)
    engine = webpage.Engine(webpage.webpage(digits_by(trained, Dilated()), {}))
    torch.testing.assert_close(engine.probabilities(digits), trained(digits), rtol=0, atol=1e-5)


class Sliced(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10]


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Sliced(), "by whole factors, got slice"),
        (Shifted(anew=True), "by whole factors, got lift_fresh_copy"),
        (nn.GELU(), "by whole factors, got gelu"),
        (nn.Conv2d(2, 4, 3, groups=2), "html export needs a plain network, got "),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2)), "got conv2d"),
        (nn.Upsample(scale_factor=1.5), "got upsample_nearest2d"),
    ],
)
def test_a_network_that_the_page_cannot_compute_is_refused_in_one_line(net, message):
    about = {"model": {}, "data": {"name": "mnist"}}
    given = predictor.Trained(net, tuple("0123456789"), about)
    with pytest.raises(ValueError, match=re.escape(message)):
        webpage.webpage(digits_by(given, Dilated()), {})


@pytest.mark.parametrize(("padding", "expected"), [("valid", [0, 0]), ("same", [1, 6])])
def test_a_padding_by_name_is_told_in_pixels(padding, expected):
    net = nn.Conv2d(1, 4, (3, 5), padding=padding, dilation=(1, 3))
    (layer,) = layers_of(net, torch.zeros(2, *SHAPE))
    assert layer.settings["padding"] == expected


def test_an_even_kernel_has_no_padding_that_keeps_the_size():
    weight, bias, stride, dilation = torch.ones(4, 1, 3, 2), None, [1, 1], [1, 1]
    with pytest.raises(ValueError, match=r"odd kernels with padding=same, got \[3, 2\]$"):
        as_layer("html", "conv2d", [weight, bias, stride, "same", dilation])


def painted() -> Image.Image:
    """Return a picture of 90x70 pixels, noise and a disc, partly transparent."""
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 4), np.uint8)
    pixels[..., 3] = np.where(np.indices((70, 90)).sum(0) > 60, 255, 0)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("shape", [(3, 32, 24), (1, 28, 28)])
def test_a_page_classifies_a_picture_as_python_does(browser, tmp_path, shape):
    torch.manual_seed(0)
    channels = shape[0]
    net = nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(7),
    )
    net(torch.zeros(1, *shape))
    name = "fashion_mnist" if channels == 1 else "pictures"
    about = {"data": {"name": name, "shape": shape}}
    trained = predictor.Trained(net, tuple(f"</script>{k}" for k in range(7)), about)
    file, light = tmp_path / "classes.html", tmp_path / "light.png"
    file.write_text(webpage.webpage(Classes(trained), {}), "utf-8")
    painted().save(tmp_path / "noise.png")
    Image.new("L", (60, 60), 230).save(light)  # the public sets are white on black
    with opened(browser, file, requests=()) as page:
        for picture in (tmp_path / "noise.png", light):
            page.set_input_files("input[type=file]", picture)
            page.wait_for_function(f"() => picture().file.name === '{picture.name}'")
            page.wait_for_function("() => root.dataset.state === 'read'", timeout=60_000)
            seen = page.evaluate("async () => { const r = await picture().reading; return r; }")
            expected = trained.classify(picture)
            assert [each["name"] for each in seen["classes"]] == [name for name, _ in expected]
            p = [each["probability"] for each in seen["classes"]]
            np.testing.assert_allclose(p, [share for _, share in expected], atol=2e-3)
            png = base64.b64decode(seen["image"].partition(",")[2])
            image = np.array(Image.open(io.BytesIO(png)).convert("RGB" if channels == 3 else "L"))
            own = trained.image_of(picture).permute(1, 2, 0).squeeze(2).numpy()
            assert np.abs(image.astype(int) - own).max() <= 2
            assert page.locator(".reading").text_content() == expected[0][0]
            assert page.locator(".bar b").all_inner_texts() == [name for name, _ in expected]
        assert (own.max() < 100) == (channels == 1)
        assert page.locator(".still").count() == (channels == 3)  # draws grey 28x28 alone
        page.evaluate("done.push({ clear: true }), done.push({ points: [[0.3, 0.2], [0.3, 0.5]] })")
        page.evaluate("change()")
        page.wait_for_function("() => root.dataset.state === 'read' && !picture()")
        if channels == 1:
            drawn = page.evaluate("() => document.querySelector('.seen img').src")
            pixels = np.array(Image.open(io.BytesIO(base64.b64decode(drawn.partition(",")[2]))))
            rows, columns = np.nonzero(pixels[..., 0] > 127)
            assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 2)


def grey_file(folder: Path, classes: tuple[str, ...]) -> Path:
    """Write the page of a network that finds three classes of grey pictures."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    about = {"data": {"name": "pictures", "shape": (1, 4, 4)}}
    page = webpage.webpage(Classes(predictor.Trained(net, classes, about)), {})
    (folder / "classes.html").write_text(page, "utf-8")
    return folder / "classes.html"


@pytest.fixture
def grey_page(browser, tmp_path) -> Iterator[Any]:
    with opened(browser, grey_file(tmp_path, tuple("abc")), requests=()) as page:
        yield page


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_a_page_numbers_classes_as_python_does_where_names_are_missing(browser, tmp_path, names):
    with opened(browser, grey_file(tmp_path, names), requests=()) as page:
        found = page.evaluate("likeliest([0.2, 0.5, 0.3]).map((each) => each.name)")
        about = page.locator(".about").text_content()
    assert found == ["1", "2", "0"]
    assert about.endswith("of a and b." if names else "likeliest class.")


def test_a_page_refuses_what_a_browser_would_darken(grey_page, tmp_path):
    ramp = np.linspace(0, 1, 400).reshape(20, 20)
    for name, white in (("camera.png", 4095), ("scan.png", 65535), ("grey.png", 15)):
        kind = np.uint8 if white == 15 else np.uint16
        Image.fromarray((ramp * white).astype(kind)).save(tmp_path / name)
        grey_page.set_input_files("input[type=file]", tmp_path / name)
        if white == 4095:
            grey_page.wait_for_function("() => root.dataset.state === 'refused'")
            said = grey_page.locator(".message").text_content()
            assert said.startswith("camera.png cannot be read: of its 16 bits")
        else:
            grey_page.wait_for_function(f"() => picture() && picture().file.name === '{name}'")
            grey_page.wait_for_function("() => root.dataset.state === 'read'")


def test_a_page_shows_a_transparent_picture_on_the_ground_that_it_is_classified_on(
    grey_page, tmp_path
):
    for ink, ground, side in ((0, 255, 20), (255, 0, 20), (0, 255, 34), (255, 0, 34)):
        pixels = np.full((40, 40, 4), ink, np.uint8)
        pixels[..., 3] = 0
        pixels[6:side, 6:side, 3] = 255
        name = f"{ink}_{side}.png"
        Image.fromarray(pixels).save(tmp_path / name)
        grey_page.set_input_files("input[type=file]", tmp_path / name)
        grey_page.wait_for_function(f"() => picture() && picture().file.name === '{name}'")
        url = grey_page.evaluate("async () => (await picture().reading).preview")
        shown = np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))
        assert np.abs(shown[:5].astype(int) - ground).max() < 20
        assert np.abs(shown[13:17, 13:17].astype(int) - ink).max() < 20  # JPEG
