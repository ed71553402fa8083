"""Writes a trained network for other programs: python -m mnist_cnn.export [ckpt_path=PATH]

  onnx         mnist_cnn.onnx, the whole model for ONNX Runtime and programs like it; with --int8
               also mnist_cnn.int8.onnx, a quarter of the size
  pt2          mnist_cnn.pt2, the whole model for torch.export.load, without this project's code
  safetensors  mnist_cnn.safetensors, the weights alone, for pretrained.load and ckpt_path
  html         mnist_cnn.html, a page to draw on that reads digits in any browser, without a server
               or a network connection

The first two take uint8 images (N, 28, 28), white on black, normalize them themselves and give
probabilities (N, 10); of data of your own (N, H, W) or (N, C, H, W), and (N, K). A file is written
only after it was run on test images and gave the network's probabilities; export.json beside it
holds what was measured.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from rich import progress
from rich.table import Table
from torch import Tensor

from mnist_cnn import pretrained, terminal, webpage
from mnist_cnn.command import command, parse
from mnist_cnn.config import compose, messages
from mnist_cnn.data import mnist
from mnist_cnn.formats import EXTRA, FORMATS, OPSET, WRITERS, Predict, describe, reader, write_int8
from mnist_cnn.pretrained import Trained
from mnist_cnn.analysis import results

# each file is run on 1,000 images, in batches of several sizes because N is free
VERIFIED = (1, 7, 992)
DIFFERENCE = 1e-5  # greatest in a probability
INT8_LOSS = 0.005  # greatest loss of accuracy by int8

CALLS = {1: 40, 256: 2}  # timed in each round, by batch size


@torch.inference_mode()
def test_accuracy(predict: Predict, images: Tensor, labels: Tensor) -> float:
    found = torch.cat([predict(batch).argmax(1) for batch in images.split(250)])
    return int((found == labels).sum()) / len(labels)


@torch.inference_mode()
def time_predictions(
    ways: Mapping[str, Predict], images: Tensor, rounds: int, bar: progress.Progress
) -> dict[str, dict[str, float]]:
    """Latency and throughput of each way, the ways interleaved, on as many threads."""
    times: dict[str, dict[int, list[float]]] = {name: {b: [] for b in CALLS} for name in ways}
    for turn in bar.track(range(rounds + 1), description="measuring"):
        for name, predict in ways.items():
            for size, calls in CALLS.items():
                batches = images[: size * calls].split(size)
                time.sleep(0.01)  # until the threads of the way before are idle
                predict(batches[0])
                for batch in batches:
                    started = time.perf_counter()
                    predict(batch)
                    if turn > 0:  # the first round warms up
                        times[name][size].append(time.perf_counter() - started)
    return {
        name: {
            "batch 1 median ms": float(np.median(seconds[1])) * 1e3,
            "batch 1 p99 ms": float(np.percentile(seconds[1], 99)) * 1e3,
            "batch 256 images/s": 256 / float(np.median(seconds[256])),
        }
        for name, seconds in times.items()
    }


def export(
    net: Trained, formats: Sequence[str], out: Path, *, int8: bool, rounds: int
) -> dict[str, Any]:
    """Writes the files of a network that `pretrained.load` gave, verifies and measures them.

    Args:
        formats: of FORMATS.
        out: the folder of the files; made where it is missing.
        int8: also quantize the ONNX file.
        rounds: number of times that each way is timed.

    Returns:
        What export.json holds.

    Raises:
        ValueError: a package is missing, a file does not give what the network gives, or one of
            that name is there that no export wrote.
        OSError: the folder cannot be written, or there are no images to verify with.
    """
    check_extra(formats)
    kinds = [*formats, *["int8.onnx"] * int8]
    check_out(out, [*(f"mnist_cnn.{kind}" for kind in kinds), "export.json"])
    net.requires_grad_(False)
    images, labels, training = verification_images(net, int8)
    try:
        out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out)
        scratch = tempfile.TemporaryDirectory(prefix=".export-", dir=out)
    except OSError as e:
        raise OSError(f"--out {out}: cannot be written: {e.strerror}") from None
    bar = terminal.progress_bar()
    with bar, scratch as folder, FileLock(Path(folder, ".lock")):
        found, ways = write_verified(net, kinds, Path(folder), images, training, bar)
        ways.pop("mnist_cnn.html", None)  # V8 alone is slow, and not a whole browser
        if labels is not None:
            for name, way in bar.track(ways.items(), description="testing"):
                found[name]["test/acc"] = test_accuracy(way, images, labels)
        if int8:
            verify_int8(found)
        ways.pop("mnist_cnn.safetensors", None)  # run by PyTorch, which is timed already
        for name, times in time_predictions(ways, images, rounds, bar).items():
            found[name] |= times
        for kind in kinds:
            Path(folder, f"mnist_cnn.{kind}").replace(out / f"mnist_cnn.{kind}")
    record = {
        **describe(net),
        "files": found,
        "verified images": sum(VERIFIED),
        "test images": 0 if labels is None else len(labels),
        "opset": OPSET,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "processor": results.processor(),
        "versions": results.versions() | extra_versions(formats),
        "git_commit": results.commit(),
    }
    results.write(record, out / "export.json")
    return record


def verify_int8(found: Mapping[str, Mapping[str, float]]) -> None:
    """Raises ValueError where 8 bits cost more accuracy than INT8_LOSS."""
    before, after = (found[name]["test/acc"] for name in ("PyTorch", "mnist_cnn.int8.onnx"))
    if before - after > INT8_LOSS:
        raise ValueError(
            f"mnist_cnn.int8.onnx is not written: its accuracy must be at most {INT8_LOSS:.1%} "
            f"below the network's {before:.2%}, got {after:.2%}"
        )


def remove_leftovers(out: Path) -> None:
    """Removes what killed exports have left: nobody holds the locks in their `scratch`."""
    for lock in out.glob(".export-*/.lock"):
        with contextlib.suppress(OSError):  # a living process's, or another user's
            with FileLock(lock, timeout=0):
                pass
            shutil.rmtree(lock.parent)


def verification_images(net: Trained, int8: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """Test images and labels of a network's data set and, for int8, 1,000 of its training images.

    Of data of a user's own, which may lie elsewhere, there are images of random pixels alone.

    Raises:
        ValueError: int8, of which those would say nothing.
    """
    name = net.about["data"]["name"]
    if name not in mnist.CLASSES:
        if int8:
            raise ValueError("--int8 must be left out for a network of data of your own")
        shape = (sum(VERIFIED), *net.example(1).shape[1:])
        chance = torch.Generator().manual_seed(0)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=chance)
        return images, None, images[:0]
    root = Path(pretrained.data_root(net) or compose.compose(run_dir=".").data.root).expanduser()
    mnist.prepare(name, root)
    images, labels = mnist.load_split(name, root, "test")
    training = mnist.load_split(name, root, "train")[0][::60] if int8 else images[:0]
    return images, labels, training


def write_verified(
    net: Trained,
    kinds: Sequence[str],
    folder: Path,
    images: Tensor,
    training: Tensor,
    bar: progress.Progress,
) -> tuple[dict[str, dict[str, Any]], dict[str, Predict]]:
    """Writes the files into a folder and runs each on images, uint8 (N, H, W) or (N, C, H, W).

    Args:
        kinds: of FORMATS, or int8.onnx after onnx.
        training: uint8 (N, 28, 28) to quantize the ONNX file with.

    Returns:
        What was found of PyTorch and each file, by name, and what runs it.
    """
    ways: dict[str, Predict] = {"PyTorch": net}
    found: dict[str, dict[str, Any]] = {"PyTorch": {}}
    images = images[: sum(VERIFIED)]
    expected = net(images)
    for kind in bar.track(kinds, description="writing and verifying"):
        path = folder / f"mnist_cnn.{kind}"
        if kind == "int8.onnx":
            write_int8(net, path, folder / "mnist_cnn.onnx", training)
        else:
            WRITERS[kind](net, path)
        ways[path.name] = way = reader(path)
        given = torch.cat([way(batch) for batch in images.split(VERIFIED)])
        difference = (given - expected).abs().max().item()
        agreement = (given.argmax(1) == expected.argmax(1)).double().mean().item()
        # of int8 its accuracy decides; NaN is a failure too
        if kind != "int8.onnx" and not (difference <= DIFFERENCE and agreement == 1):
            raise ValueError(
                f"{path.name} is not written: its probabilities must be within {DIFFERENCE:.0e} of "
                f"the network's, and 100% of {len(images):,} images read alike, got "
                f"{difference:.1e} and {agreement:.1%}"
            )
        size = path.stat().st_size
        found[path.name] = {"bytes": size, "difference": difference, "agreement": agreement}
        if bar.disable:
            terminal.console().print(f"{path.name}: run on {len(images):,} images")
    return found, ways


def check_extra(formats: Sequence[str]) -> None:
    """Raises ValueError where a format's package is missing."""
    for kind in formats:
        missing = [name for name in EXTRA.get(kind, ()) if importlib.util.find_spec(name) is None]
        if missing:
            raise ValueError(
                f"{kind} export needs {' and '.join(missing)}: {messages.install('export')}"
            )


def check_out(out: Path, names: Sequence[str]) -> None:
    """Raises ValueError where an export would overwrite what no export has written."""
    there = [name for name in names if (out / name).exists()]
    try:
        written = json.loads((out / "export.json").read_bytes())
    except (OSError, ValueError):
        written = None
    if there and not (isinstance(written, dict) and "verified images" in written):
        raise ValueError(
            f"--out must be a folder without {there[0]}, got {out}, where one is that no export "
            "wrote; choose another folder"
        )


def extra_versions(formats: Sequence[str]) -> dict[str, str]:
    """The versions of the packages that wrote or ran the files."""
    names = [name for kind in formats for name in EXTRA.get(kind, ())]
    packages = importlib.metadata.packages_distributions() if names else {}
    return {name: importlib.metadata.version(packages[name][0]) for name in names}


def print_export(record: Mapping[str, Any], out: Path) -> None:
    """Prints the table of export.json."""
    columns: dict[str, tuple[str, Callable[[Any], str]]] = {
        "bytes": ("KB", lambda x: f"{x / 1e3:,.0f}"),
        "difference": ("differs", lambda x: f"{x:.0e}"),
        "agreement": ("agrees", lambda x: f"{x:.1%}"),
        "test/acc": ("accuracy", lambda x: f"{x:.2%}"),
        "batch 1 median ms": ("ms", lambda x: f"{x:.2f}"),
        "batch 1 p99 ms": ("p99", lambda x: f"{x:.2f}"),
        "batch 256 images/s": ("images/s", lambda x: f"{x:,.0f}"),
    }
    table = Table("")
    for head, _ in columns.values():
        table.add_column(head, justify="right")
    for name, found in record["files"].items():
        cells = (text(found[key]) if key in found else "" for key, (_, text) in columns.items())
        table.add_row(name.removeprefix("mnist_cnn."), *cells)
    console = terminal.console()
    console.print(table)
    tested = record["test images"]
    images = "test images" if tested else "images of random pixels"
    scored = f"accuracy: on {tested:,} test images\n" if tested else ""
    threads = "1 thread" if record["threads"] == 1 else f"{record['threads']} threads"
    console.print(
        f"differs: greatest difference in probability from PyTorch's, at most {DIFFERENCE:.0e}\n"
        f"agrees: of {record['verified images']:,} {images} read as PyTorch reads them "
        f"(100%, but for int8, which may cost {INT8_LOSS:.1%} of accuracy)\n"
        f"{scored}"
        f"ms, p99: median and 99th percentile for one image; images/s: in batches of 256; "
        f"{threads}, {record['processor']}"
    )
    console.print(f"{out}: {', '.join([*list(record['files'])[1:], 'export.json'])}")


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("mnist_cnn.export", description=__doc__.split("\n")[0])
    parser.add_argument("path", nargs="?", help=argparse.SUPPRESS)  # as ckpt_path
    parser.add_argument("--format", choices=(*FORMATS, "all"), default="all", help="(all)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("exported"),
        metavar="DIR",
        help="folder (exported); files of an earlier export there are replaced, others never",
    )
    parser.add_argument("--int8", action="store_true", help="also an ONNX file of 8-bit weights")
    parser.add_argument(
        "--rounds", type=int, default=50, help="number of times that each is timed (50)"
    )
    args = parse(parser, argv)
    formats: Sequence[str] = FORMATS if args.format == "all" else (args.format,)
    if args.int8 and "onnx" not in formats:
        parser.error(f"--int8 must come with --format onnx or all, got {args.format}")
    if args.rounds < 1:
        parser.error(f"--rounds must be 1 or more, got {args.rounds}")
    net = pretrained.load(args.ckpt_path or args.path)
    if args.format == "all":
        try:
            webpage.digit_layers(net)
        except ValueError as e:
            formats = [kind for kind in formats if kind != "html"]
            terminal.console(stderr=True).print(f"without html: {e}")
    record = export(net, formats, args.out, int8=args.int8, rounds=args.rounds)
    print_export(record, args.out)


if __name__ == "__main__":
    main()
