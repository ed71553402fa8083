"""Files of a dataset: found, fetched, proven, replaced. Real digits; servers on 127.0.0.1 only."""

import contextlib
import dataclasses
import gzip
import hashlib
import lzma
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision.datasets

from mnist_cnn.data.download import BUNDLED
from mnist_cnn.data.sets import SETS, File, ImageSet
from mnist_cnn.data.sources import SUMS, load_split, prepare

MNIST = SETS["mnist"]
NAMES = [file.name for file in MNIST.files]
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES
COUNT = 200  # digits of each file in the small set
TIMEOUT = 0.2  # seconds
PORT_OF_NOBODY = "http://127.0.0.1:9/"


def idx(shape: tuple[int, ...], values: bytes, code: int = 8) -> bytes:
    return struct.pack(f">4B{len(shape)}I", 0, 0, code, len(shape), *shape) + values


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def raw(root: Path, name: str = "small") -> Path:
    return root / SETS[name].folder / "raw"


def contents(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, but for the lock."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name != ".lock"}


@pytest.fixture(scope="session")
def mnist() -> dict[str, bytes]:
    """The content of the four original files."""
    return {name: lzma.decompress((BUNDLED / f"{name}.xz").read_bytes()) for name in NAMES}


@pytest.fixture(scope="session")
def originals(mnist: dict[str, bytes]) -> dict[str, bytes]:
    """The first digits of each original file, as files of their own."""
    return {
        name: idx((COUNT, 28, 28), content[16 : 16 + COUNT * 784])
        if "images" in name
        else idx((COUNT,), content[8 : 8 + COUNT])
        for name, content in mnist.items()
    }


@pytest.fixture(scope="session")
def archives(originals: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content, 1) for name, content in originals.items()}


def small_set(originals: dict[str, bytes], digest: Callable[[str], str]) -> ImageSet:
    first, second, third, fourth = (
        File(file.name, (COUNT, *file.shape[1:]), digest(file.name)) for file in MNIST.files
    )
    return ImageSet("Small", MNIST.classes, (PORT_OF_NOBODY,), (first, second, third, fourth))


@pytest.fixture
def small(originals: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> str:
    """A set of a few real digits that is proven as MNIST is, by the SHA-256 of its content."""
    images = small_set(originals, lambda name: sha256(originals[name]))
    monkeypatch.setitem(SETS, "small", images)
    return "small"


@pytest.fixture
def unsummed(
    originals: dict[str, bytes], archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> str:
    """The same digits, proven as Fashion-MNIST is, by the MD5 of its archives."""
    images = small_set(originals, lambda name: hashlib.md5(archives[f"{name}.gz"]).hexdigest())
    monkeypatch.setitem(SETS, "small", images)
    return "small"


def use_mirrors(*mirrors: str) -> None:
    SETS["small"] = dataclasses.replace(SETS["small"], mirrors=mirrors)


Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


def whole(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def status(code: int) -> Answer:
    def answer(request: BaseHTTPRequestHandler, body: bytes) -> None:
        request.send_error(code)

    return answer


def cut_off(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body[: len(body) // 2])


def cut_off_without_length(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(body[: len(body) // 2])


def another_archive(request: BaseHTTPRequestHandler, body: bytes) -> None:
    whole(request, gzip.compress(gzip.decompress(body)[::-1], 1))


def no_archive(request: BaseHTTPRequestHandler, body: bytes) -> None:
    whole(request, b"<html>Log in to the hotel's network</html>")


def endless(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(body)


def silent(request: BaseHTTPRequestHandler, body: bytes) -> None:
    time.sleep(5 * TIMEOUT)


def trickle(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    while True:
        request.wfile.write(body[:1])
        time.sleep(TIMEOUT / 10)


def trickled_header(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        request.wfile.write(b"a")
        request.wfile.flush()
        time.sleep(TIMEOUT / 10)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, bodies: dict[str, bytes], answer: Answer):
        self.asked: list[str] = []
        self.agents: set[str | None] = set()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805
                name = handler.path.rpartition("/")[2]
                self.asked.append(name)
                self.agents.add(handler.headers["User-Agent"])
                # the client hangs up on a bad answer
                with contextlib.suppress(ConnectionError):
                    answer(handler, bodies[name])

            def log_message(handler, *args: object) -> None:  # noqa: N805
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/data"


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with contextlib.ExitStack() as stack:

        def start(bodies: dict[str, bytes], answer: Answer = whole) -> Server:
            server = stack.enter_context(Server(bodies, answer))
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server

        yield start


# the sets


def test_the_sets_are_those_of_torchvision():
    for images in SETS.values():
        theirs = getattr(torchvision.datasets, images.folder)
        assert len(images.classes) == 10
        if images.folder == "QMNIST":
            resources = [pair for split in ("train", "test") for pair in theirs.resources[split]]
            urls = [url for url, _ in resources]
            assert [images.mirrors[0] + f"{file.name}.gz" for file in images.files] == urls
        else:
            resources = theirs.resources
            assert [f"{file.name}.gz" for file in images.files] == [name for name, _ in resources]
            assert set(theirs.mirrors) <= set(images.mirrors)
        if images.folder in ("FashionMNIST", "KMNIST"):
            assert list(images.classes) == theirs.classes
        else:
            assert [name[0] for name in theirs.classes] == list(images.classes)
        for file, (_, md5) in zip(images.files, resources, strict=True):
            assert file.digest == md5 or file in MNIST.files


def test_bundled_mnist_loads_as_torchvision_reads_it(tmp_path):
    prepare("mnist", tmp_path, "bundled")
    for split, count in (("train", 60_000), ("test", 10_000)):
        x, y = load_split("mnist", tmp_path, split)
        theirs = torchvision.datasets.MNIST(tmp_path, train=split == "train")
        assert (x.shape, x.dtype) == ((count, 28, 28), torch.uint8)
        assert (y.shape, y.dtype) == ((count,), torch.int64)
        assert torch.equal(x, theirs.data)
        assert torch.equal(y, theirs.targets)
    assert sorted(contents(raw(tmp_path, "mnist"))) == sorted(NAMES)


def test_qmnist_labels_are_column_0_of_8_big_endian_integers(tmp_path, mnist, monkeypatch):
    rows = b"".join(struct.pack(">8i", y, *range(-1, 6)) for y in mnist[TEST_LABELS][8:])
    labels = idx((10_000, 8), rows, code=12)
    images = mnist[TEST_IMAGES]
    a, b, c, d = (
        File(f.name, (10_000, *f.shape[1:]), sha256(images if "images" in f.name else labels))
        for f in SETS["qmnist"].files
    )
    qmnist = dataclasses.replace(SETS["qmnist"], files=(a, b, c, d))
    monkeypatch.setitem(SETS, "qmnist", qmnist)
    raw(tmp_path, "qmnist").mkdir(parents=True)
    for file in qmnist.files:
        content = images if "images" in file.name else labels
        (raw(tmp_path, "qmnist") / file.name).write_bytes(content)
    prepare("qmnist", tmp_path, "auto")
    x, y = load_split("qmnist", tmp_path, "test")
    assert x.shape == (10_000, 28, 28)
    assert (y.dtype, y.is_contiguous()) == (torch.int64, True)
    assert y.tolist() == list(mnist[TEST_LABELS][8:])


# arguments


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("emnist", "auto"), "data.name=emnist: must be one of mnist, fashion_mnist, kmnist, qmni"),
        (("mnist", "web"), "data.source=web: for mnist it is one of auto, bundled, download"),
        (("kmnist", "bundled"), "data.source=bundled: for kmnist it is one of auto, download"),
        (("mnist", "auto", "my.host"), "data.mirror=my.host: must start with http://, https://"),
    ],
)
def test_an_argument_that_is_not_allowed_is_named_with_what_is(tmp_path, arguments, said):
    name, *rest = arguments
    with pytest.raises(ValueError, match=said) as error:
        prepare(name, tmp_path, *rest)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_split_is_train_or_test(tmp_path):
    with pytest.raises(ValueError, match="split must be train or test, got val"):
        load_split("mnist", tmp_path, "val")


# download


def test_auto_takes_the_bundled_copy_and_asks_no_server(tmp_path, serve, archives, monkeypatch):
    server = serve(archives)
    monkeypatch.setitem(SETS, "mnist", dataclasses.replace(MNIST, mirrors=(server.url,)))
    prepare("mnist", tmp_path, "auto")
    assert server.asked == []
    load_split("mnist", tmp_path, "test")


def test_all_of_mnist_downloads_although_a_copy_is_bundled(tmp_path, serve, mnist, monkeypatch):
    server = serve({f"{name}.gz": gzip.compress(content, 1) for name, content in mnist.items()})
    monkeypatch.setitem(SETS, "mnist", dataclasses.replace(MNIST, mirrors=(server.url,)))
    prepare("mnist", tmp_path, "download")
    assert server.asked == [f"{name}.gz" for name in NAMES]
    assert server.agents == {"mnist_cnn"}
    assert contents(raw(tmp_path, "mnist")) == mnist
    prepare("mnist", tmp_path, "download")
    assert len(server.asked) == 4  # what is there and proven is not fetched again


def test_a_mirror_of_ones_own_is_asked_first(tmp_path, small, serve, archives, originals):
    known, own = serve(archives), serve(archives)
    use_mirrors(known.url)
    prepare(small, tmp_path, "auto", mirror=own.url + "/")
    assert (len(own.asked), len(known.asked)) == (4, 0)
    assert contents(raw(tmp_path)) == originals


def test_a_mirror_may_be_a_folder(tmp_path, small, archives, originals):
    for name, body in archives.items():
        (tmp_path / name).write_bytes(body)
    prepare(small, tmp_path / "root", "auto", mirror=tmp_path.as_uri())
    assert contents(raw(tmp_path / "root")) == originals


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (status(404), "404"),
        (status(503), "503"),
        (cut_off, "cut off after"),
        (cut_off_without_length, "end-of-stream"),
        (another_archive, "its header|SHA-256"),
        (no_archive, "[Nn]ot a gzipped file"),
        (endless, "at most"),
        (silent, "timed out"),
        (trickle, "slower than"),
        (trickled_header, "slower than"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_bad_mirror_is_named_with_its_reason_and_the_next_one_is_used(
    tmp_path, small, serve, archives, originals, answer, reason
):
    bad, good = serve(archives, answer), serve(archives)
    use_mirrors(bad.url)
    start = time.monotonic()
    with pytest.raises(OSError, match=f"no {TRAIN_IMAGES} .*{bad.url}.*({reason})") as error:
        prepare(small, tmp_path, "auto", timeout=TIMEOUT)
    assert time.monotonic() - start < 5
    assert bad.asked == [f"{TRAIN_IMAGES}.gz"]
    assert f"put {TRAIN_IMAGES}.gz into {raw(tmp_path)}" in str(error.value)
    assert "\n" not in str(error.value)
    assert contents(raw(tmp_path)) == {}

    use_mirrors(bad.url, good.url)
    prepare(small, tmp_path, "auto", timeout=TIMEOUT)
    assert good.asked == list(archives)
    assert len(bad.asked) == 2  # not asked again for the other three files
    assert contents(raw(tmp_path)) == originals


def test_a_slow_server_that_keeps_sending_is_waited_for(tmp_path, small, serve, archives):
    def slow(request: BaseHTTPRequestHandler, body: bytes) -> None:
        request.send_response(200)
        request.end_headers()
        for i in range(0, len(body), len(body) // 10 + 1):
            request.wfile.write(body[i : i + len(body) // 10 + 1])
            # ten times this is longer than the wait that is allowed for the first byte
            time.sleep(0.4 * TIMEOUT if TRAIN_IMAGES in request.path else 0)

    use_mirrors(serve(archives, slow).url)
    prepare(small, tmp_path, "auto", timeout=TIMEOUT)
    load_split(small, tmp_path, "train")


def test_every_mirror_is_named_where_none_works(tmp_path, serve, archives, monkeypatch):
    dead, empty = PORT_OF_NOBODY, serve(archives, status(404)).url
    monkeypatch.setitem(SETS, "mnist", dataclasses.replace(MNIST, mirrors=(dead, empty)))
    with pytest.raises(OSError, match=r"127.0.0.1:9/.*refused>; .*HTTP Error 404") as error:
        prepare("mnist", tmp_path, "download")
    assert "set data.source=bundled" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
def test_where_no_server_is_reached_a_line_says_what_to_do(name, tmp_path, monkeypatch):
    nobody = (PORT_OF_NOBODY, f"{PORT_OF_NOBODY}again/")  # the same server
    images = dataclasses.replace(SETS[name], mirrors=nobody)
    monkeypatch.setitem(SETS, name, images)
    with pytest.raises(OSError, match="no connection") as error:
        prepare(name, tmp_path, "download")
    assert str(error.value) == (
        f"no connection to 127.0.0.1:9 (Connection refused); {TRAIN_IMAGES}.gz and the set's other "
        f"files are looked for in {tmp_path / images.folder / 'raw'}: put them there, or set "
        "data.mirror=URL" + ", or data.source=bundled" * images.bundled
    )


def test_a_gzip_bomb_stops_at_the_size_expected(tmp_path, serve):
    # 1 GB of zeros in 1 MB; the limit on the address space is what would be hit
    body = gzip.compress(bytes(1 << 20), 9) * 1024
    server = serve({f"{name}.gz": body for name in NAMES})
    code = """
import dataclasses, resource, sys
from mnist_cnn.data.sets import SETS
from mnist_cnn.data.sources import prepare
SETS["mnist"] = dataclasses.replace(SETS["mnist"], mirrors=(sys.argv[2],))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    prepare("mnist", sys.argv[1], "download")
except OSError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    out = python(code, tmp_path, server.url).communicate(timeout=60)[0].splitlines()
    assert "expected 47,040,016 bytes, found more" in out[0]
    assert int(out[1]) < 300_000  # KB


# files that lie there


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def filled(tmp_path: Path, small: str, originals: dict[str, bytes]) -> Path:
    """A root that holds the small set."""
    raw(tmp_path).mkdir(parents=True)
    for name, content in originals.items():
        (raw(tmp_path) / name).write_bytes(content)
    return tmp_path


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def wrong_magic(path: Path) -> None:
    path.write_bytes(b"\0\0\x0d" + path.read_bytes()[3:])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def labels_for_images(path: Path) -> None:
    shutil.copy(path.with_name(TRAIN_LABELS), path)


def images_of_test(path: Path) -> None:
    shutil.copy(path.with_name(TEST_IMAGES), path)


def dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def link_to_another_file(path: Path) -> None:
    path.unlink()
    path.symlink_to(__file__)


def link_to_zeros(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = [
    flip_a_bit,
    wrong_magic,
    truncate,
    lengthen,
    empty,
    Path.unlink,
    labels_for_images,
    images_of_test,
    dangling_link,
    link_to_another_file,
    link_to_zeros,
    pipe,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_refused_by_load_and_replaced_by_prepare(
    filled, small, serve, archives, originals, damage
):
    server = serve(archives)
    use_mirrors(server.url)
    damage(raw(filled) / TRAIN_IMAGES)
    with pytest.raises(OSError, match=f"{TRAIN_IMAGES}: .*; prepare") as error:
        load_split(small, filled, "train")
    assert "\n" not in str(error.value)
    load_split(small, filled, "test")  # needs the other two files only

    prepare(small, filled, "auto")
    assert server.asked == [f"{TRAIN_IMAGES}.gz"]
    assert contents(raw(filled)) == originals
    assert not (raw(filled) / TRAIN_IMAGES).is_symlink()
    load_split(small, filled, "train")


def test_a_file_that_a_link_led_to_is_left_alone(filled, small, serve, archives, tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    path = raw(filled) / TEST_LABELS
    path.unlink()
    path.symlink_to(other)
    use_mirrors(serve(archives).url)
    prepare(small, filled, "auto")
    assert other.read_text() == "mine"


def test_a_link_to_the_right_file_is_used(filled, small, tmp_path):
    path = raw(filled) / TEST_IMAGES
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    prepare(small, filled, "auto")
    assert path.is_symlink()
    load_split(small, filled, "test")


def test_a_folder_in_place_of_a_file_is_named(filled, small, serve, archives):
    use_mirrors(serve(archives).url)
    path = raw(filled) / TEST_LABELS
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match=f"cannot write {path}: Is a directory; clear its place"):
        prepare(small, filled, "auto")
    with pytest.raises(OSError, match=f"{path}: is not a file"):
        load_split(small, filled, "test")
    assert path.is_dir()
    assert sorted(contents_of_files(raw(filled))) == sorted(set(NAMES) - {TEST_LABELS})


def contents_of_files(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.is_file() and p.name != ".lock"]


def test_a_file_in_place_of_the_folder_is_named(tmp_path, small):
    (tmp_path / "Small").write_text("")
    with pytest.raises(OSError, match=f"cannot write {raw(tmp_path)}: Not a directory"):
        prepare(small, tmp_path, "auto")


@pytest.mark.parametrize("label", [10, -1])
def test_a_label_outside_0_to_9_is_refused_although_its_file_is_proven(
    filled, small, originals, label
):
    rows = [*originals[TEST_LABELS][8:-1], label]
    content = idx((COUNT, 1), struct.pack(f">{COUNT}i", *rows), code=12)
    (raw(filled) / "labels-int").write_bytes(content)
    labels = File("labels-int", (COUNT, 1), sha256(content))
    SETS[small] = dataclasses.replace(SETS[small], files=(*SETS[small].files[:3], labels))
    prepare(small, filled, "auto")
    with pytest.raises(ValueError, match=r"one label in 0\.\.9 for each of 200 images"):
        load_split(small, filled, "test")


def test_a_header_of_another_shape_is_refused_although_its_file_is_proven(filled, small, originals):
    # as many bytes, other rows and columns
    content = idx((COUNT, 14, 56), originals[TEST_IMAGES][16:])
    (raw(filled) / TEST_IMAGES).write_bytes(content)
    files = SETS[small].files
    proven = (*files[:2], dataclasses.replace(files[2], digest=sha256(content)), files[3])
    SETS[small] = dataclasses.replace(SETS[small], files=proven)
    with pytest.raises(OSError, match=r"not that of an IDX file of uint8 \(200, 28, 28\)"):
        load_split(small, filled, "test")


# sets of which only the archives' MD5 is known


def test_the_sums_are_written_down_and_checked_ever_after(
    tmp_path, unsummed, serve, archives, originals
):
    server = serve(archives)
    use_mirrors(server.url)
    prepare(unsummed, tmp_path, "auto")
    lines = (raw(tmp_path) / SUMS).read_text().splitlines()
    assert lines == [f"{sha256(originals[name])}  {name}" for name in NAMES]
    check = subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=raw(tmp_path))
    assert check.returncode == 0

    load_split(unsummed, tmp_path, "train")
    flip_a_bit(raw(tmp_path) / TRAIN_LABELS)
    with pytest.raises(OSError, match=f"{TRAIN_LABELS}: expected SHA-256 .*, found .*"):
        load_split(unsummed, tmp_path, "train")
    prepare(unsummed, tmp_path, "auto")
    assert server.asked[4:] == [f"{TRAIN_LABELS}.gz"]
    load_split(unsummed, tmp_path, "train")


def test_an_archive_of_another_md5_is_refused(tmp_path, unsummed, serve, originals):
    # the right content, compressed otherwise: nothing known here proves it
    bodies = {f"{name}.gz": gzip.compress(content, 9) for name, content in originals.items()}
    use_mirrors(serve(bodies).url)
    with pytest.raises(OSError, match=r"expected an archive of MD5 .*, found"):
        prepare(unsummed, tmp_path, "auto")
    assert contents(raw(tmp_path)) == {}


def test_a_folder_that_torchvision_filled_is_used_as_it_is(tmp_path, unsummed, archives, originals):
    raw(tmp_path).mkdir(parents=True)
    for name, content in (originals | archives).items():
        (raw(tmp_path) / name).write_bytes(content)
    prepare(unsummed, tmp_path, "auto")
    load_split(unsummed, tmp_path, "train")
    assert contents(raw(tmp_path)) == originals | archives
    assert not (raw(tmp_path) / ".lock").exists()

    flip_a_bit(raw(tmp_path) / TRAIN_IMAGES)
    prepare(unsummed, tmp_path, "auto")  # unpacked again from the archive beside it
    assert (raw(tmp_path) / TRAIN_IMAGES).read_bytes() == originals[TRAIN_IMAGES]


def test_files_without_any_proof_are_fetched_anew(filled, unsummed, serve, archives):
    with pytest.raises(OSError, match=f"{TRAIN_IMAGES}: neither SHA256SUMS nor {TRAIN_IMAGES}.gz"):
        load_split(unsummed, filled, "train")
    server = serve(archives)
    use_mirrors(server.url)
    prepare(unsummed, filled, "auto")
    assert server.asked == list(archives)
    load_split(unsummed, filled, "train")


def test_archives_that_a_user_put_there_are_unpacked(tmp_path, unsummed, archives, originals):
    raw(tmp_path).mkdir(parents=True)
    for name, body in archives.items():
        (raw(tmp_path) / name).write_bytes(body)
    prepare(unsummed, tmp_path, "auto")
    for archive in archives:
        (raw(tmp_path) / archive).unlink()
    x, _ = load_split(unsummed, tmp_path, "test")
    assert x.numpy().tobytes() == originals[TEST_IMAGES][16:]


@pytest.mark.parametrize("spoil", [flip_a_bit, empty, lengthen])
def test_spoilt_sums_are_written_anew(tmp_path, unsummed, serve, archives, spoil):
    use_mirrors(serve(archives).url)
    prepare(unsummed, tmp_path, "auto")
    good = set((raw(tmp_path) / SUMS).read_text().splitlines())
    spoil(raw(tmp_path) / SUMS)
    prepare(unsummed, tmp_path, "auto")
    load_split(unsummed, tmp_path, "train")
    load_split(unsummed, tmp_path, "test")
    assert good <= set((raw(tmp_path) / SUMS).read_text(errors="replace").splitlines())


# processes, disks, rights

PREPARE = """
import sys
from mnist_cnn.data.sources import prepare
try:
    prepare("mnist", sys.argv[1], sys.argv[2])
except OSError as error:
    print(error)
"""


def test_processes_that_prepare_one_folder_at_once_all_succeed(tmp_path, mnist, serve):
    server = serve({f"{name}.gz": gzip.compress(content, 1) for name, content in mnist.items()})
    code = f"""
import dataclasses, sys
from mnist_cnn.data.sources import SETS, load_split, prepare
SETS["mnist"] = dataclasses.replace(SETS["mnist"], mirrors=("{server.url}",))
print("ready", flush=True)
sys.stdin.readline()
prepare("mnist", sys.argv[1], "download")
print(len(load_split("mnist", sys.argv[1], "train")[0]))
"""
    processes = [python(code, tmp_path) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.communicate(timeout=60)[0] == "60000\n"
        assert process.returncode == 0
    assert server.asked == [f"{name}.gz" for name in NAMES]  # one of them fetched, once
    assert contents(raw(tmp_path, "mnist")) == mnist


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a file system of its own: disk(size), then disk.remount(options)."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a file system needs root on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def mount(options: str) -> Path:
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], stderr=subprocess.DEVNULL
        ).returncode:
            pytest.skip("this system lets nobody mount a tmpfs")
        mounted.append(folder)
        return folder

    yield mount
    for path in mounted[:1]:
        subprocess.run(["umount", path], check=True)


def test_a_full_disk_ends_in_one_line_and_leaves_whole_files_only(disk, mnist):
    root = disk("size=10m")
    with pytest.raises(OSError, match=r"cannot write .*: No space left on device; .*") as error:
        prepare("mnist", root, "bundled")
    assert "\n" not in str(error.value)
    assert contents(raw(root, "mnist")) == {}
    subprocess.run(["mount", "-o", "remount,size=60m", root], check=True)
    prepare("mnist", root, "bundled")
    assert contents(raw(root, "mnist")) == mnist


def test_a_read_only_disk_is_used_where_its_files_are_good_and_named_where_not(disk, mnist):
    root = disk("size=60m")
    folder = raw(root, "mnist")
    folder.mkdir(parents=True)
    for name, content in mnist.items():
        (folder / name).write_bytes(content)
    subprocess.run(["mount", "-o", "remount,ro", root], check=True)
    prepare("mnist", root, "auto")
    load_split("mnist", root, "train")

    subprocess.run(["mount", "-o", "remount,rw", root], check=True)
    flip_a_bit(folder / TEST_LABELS)
    subprocess.run(["mount", "-o", "remount,ro", root], check=True)
    with pytest.raises(OSError, match=f"cannot write {folder}: Read-only file system; .*data.root"):
        prepare("mnist", root, "download")


def test_a_home_that_cannot_be_written_does_not_stop_the_bundled_set(tmp_path):
    (tmp_path / "home").write_text("")  # no folder: nobody can write into it, root included
    root = tmp_path / "home" / ".cache"
    prepare("mnist", root, "auto")
    images, labels = load_split("mnist", root, "test", bundled=True)
    assert (len(images), labels[:3].tolist()) == (10_000, [7, 2, 1])
    with pytest.raises(OSError, match=r"cannot write .*; clear its place or choose another data.r"):
        prepare("mnist", root, "download")


@pytest.mark.parametrize(
    ("mode", "reason"), [(0o000, "Permission denied"), (0o555, "No such file")]
)
def test_a_folder_without_permission_ends_in_one_line(tmp_path, small, mode, reason):
    folder = raw(tmp_path)
    folder.mkdir(parents=True)
    folder.chmod(mode)
    try:
        with without_privileges(tmp_path):
            with pytest.raises(OSError, match=f"cannot write {folder}: Permission denied; ") as e:
                prepare(small, tmp_path, "auto")
            assert "\n" not in str(e.value)
            with pytest.raises(OSError, match=f"{TRAIN_IMAGES}: {reason}"):
                load_split(small, tmp_path, "train")
    finally:
        folder.chmod(0o755)


@contextlib.contextmanager
def without_privileges(root: Path) -> Iterator[None]:
    """As a user who owns nothing here: permissions do not bind root."""
    if os.geteuid() != 0:
        yield
        return
    closed = [p for p in (root, *root.parents) if not p.stat().st_mode & 0o001]
    modes = [p.stat().st_mode for p in closed]
    for path in closed:
        path.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for path, mode in zip(closed, modes, strict=True):
            path.chmod(mode)


def test_what_a_killed_process_left_does_no_harm(tmp_path, small, serve, archives, originals):
    use_mirrors(serve(archives).url)
    raw(tmp_path).mkdir(parents=True)
    for name in NAMES:
        (raw(tmp_path) / f".{name}.part").write_bytes(b"half a file")
    prepare(small, tmp_path, "auto")
    assert contents(raw(tmp_path)) == originals


def test_others_may_read_the_files(tmp_path, small, serve, archives):
    use_mirrors(serve(archives).url)
    mask = os.umask(0o022)
    try:
        prepare(small, tmp_path, "auto")
    finally:
        os.umask(mask)
    assert all((raw(tmp_path) / name).stat().st_mode & 0o777 == 0o644 for name in NAMES)


def test_a_batch_job_gets_no_progress_bar_in_its_log(tmp_path, small, serve, archives, capfd):
    use_mirrors(serve(archives).url)
    prepare(small, tmp_path, "auto")
    assert "".join(capfd.readouterr()) == ""


def test_a_terminal_shows_bytes_rate_and_time_left(tmp_path, small, serve, archives):
    code = """
import sys
from mnist_cnn.data.download import _download
_download(sys.argv[1], 1 << 20, 2)
"""
    url = f"{serve(archives).url}/{TRAIN_IMAGES}.gz"
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": "120"}
    shown = subprocess.run(
        [sys.executable, "-c", code, url],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert TRAIN_IMAGES in shown
    assert "kB" in shown
