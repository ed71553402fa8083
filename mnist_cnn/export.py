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
import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Column, Table
from torch import Tensor

from mnist_cnn import pretrained, terminal, webpage
from mnist_cnn.analysis import results
from mnist_cnn.command import command, parse
from mnist_cnn.config import compose, messages
from mnist_cnn.data import mnist
from mnist_cnn.formats import EXTRA, FORMATS, OPSET, WRITERS, Predict, describe, reader, write_int8
from mnist_cnn.pretrained import Trained
from mnist_cnn.runs.folder import write_json

# each file is run on 1,000 images, in batches of several sizes because N is free
VERIFIED = (1, 7, 992)
DIFFERENCE = 1e-5  # greatest in a probability
INT8_LOSS = 0.005  # greatest loss of accuracy by int8
NAMES = [f"mnist_cnn.{kind}" for kind in (*FORMATS, "int8.onnx")]


def export(
    net: Trained, formats: Sequence[str], out: Path, *, int8: bool = False
) -> dict[str, Any]:
    """Write verified files of a network that `pretrained.load` gave; return export.json.

    Args:
        formats: of FORMATS.
        out: the folder of the files; made where it is missing. Files of an earlier export there
            stay if they are of the same network, and are removed if they are of another.
        int8: also quantize the ONNX file.

    Raises:
        ValueError: a package is missing, a file does not give what the network gives, or one is
            there that no export wrote.
        OSError: the folder cannot be written, or there are no images to verify with.
    """
    check_extra(formats)
    kinds = [*formats, *["int8.onnx"] * int8]
    weights = fingerprint(net)
    earlier = earlier_export(out)
    net.requires_grad_(False)
    images, labels, training = verification_images(net, int8)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OSError(f"--out {out}: cannot be written: {e.strerror}") from None
    files = {"PyTorch": {} if labels is None else {"test/acc": accuracy(net, images, labels)}}
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            path = Path(folder, f"mnist_cnn.{kind}")
            if kind == "int8.onnx":
                write_int8(net, path, Path(folder, "mnist_cnn.onnx"), training)
            else:
                WRITERS[kind](net, path)
            files[path.name] = verify(path, net, images, labels)
            terminal.console().print(f"{path.name}: run on {sum(VERIFIED):,} images")
        if int8:
            check_int8(files)
        if earlier["weights"] != weights:
            for name in earlier["files"]:
                (out / name).unlink()
            earlier["files"] = {}
        for name in list(files)[1:]:
            shutil.copyfile(Path(folder, name), out / f".{name}.new")
            (out / f".{name}.new").replace(out / name)
    record = {
        **describe(net),
        "weights": weights,
        "files": files | {k: row for k, row in earlier["files"].items() if k not in files},
        "verified images": sum(VERIFIED),
        "test images": 0 if labels is None else len(labels),
        "opset": OPSET,
        "versions": results.versions() | extra_versions(formats),
        "git_commit": results.commit(),
    }
    write_json(record, out / "export.json")
    return record


@torch.inference_mode()
def accuracy(predict: Predict, images: Tensor, labels: Tensor) -> float:
    found = torch.cat([predict(batch).argmax(1) for batch in images.split(250)])
    return int((found == labels).sum()) / len(labels)


@torch.inference_mode()
def verify(path: Path, net: Trained, images: Tensor, labels: Tensor | None) -> dict[str, float]:
    """Run a file on images, uint8 (N, H, W) or (N, C, H, W), and return what was measured.

    Raises:
        ValueError: it does not give the network's probabilities; of int8 accuracy decides.
    """
    predict, some = reader(path), images[: sum(VERIFIED)]
    expected = net(some)
    given = torch.cat([predict(batch) for batch in some.split(VERIFIED)])
    difference = (given - expected).abs().max().item()
    agreement = (given.argmax(1) == expected.argmax(1)).double().mean().item()
    exact = difference <= DIFFERENCE and agreement == 1  # NaN is a failure too
    if not exact and "int8" not in path.name:
        raise ValueError(
            f"{path.name} is not written: its probabilities must be within {DIFFERENCE:.0e} of "
            f"the network's, and 100% of {len(some):,} images read alike, got "
            f"{difference:.1e} and {agreement:.1%}"
        )
    row = {"bytes": path.stat().st_size, "difference": difference, "agreement": agreement}
    if labels is not None and path.suffix != ".html":  # V8 alone is slow, and not a whole browser
        row["test/acc"] = accuracy(predict, images, labels)
    return row


def check_int8(files: Mapping[str, Mapping[str, float]]) -> None:
    """Raise ValueError where 8 bits cost more accuracy than INT8_LOSS."""
    before, after = (files[name]["test/acc"] for name in ("PyTorch", "mnist_cnn.int8.onnx"))
    if before - after > INT8_LOSS:
        raise ValueError(
            f"mnist_cnn.int8.onnx is not written: its accuracy must be at most {INT8_LOSS:.1%} "
            f"below the network's {before:.2%}, got {after:.2%}"
        )


def fingerprint(net: Trained) -> str:
    """SHA-256 of the weights with their names."""
    digest = hashlib.sha256()
    for name, weight in net.net.state_dict().items():
        digest.update(name.encode() + weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def verification_images(net: Trained, int8: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """Test images and labels of a network's data set and, for int8, 1,000 of its training images.

    Without the user's own data, random pixels; ValueError for int8, of which they say nothing.
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
    if not int8:
        return images, labels, images[:0]
    return images, labels, mnist.load_split(name, root, "train")[0][::60]


def check_extra(formats: Sequence[str]) -> None:
    """Raise ValueError where a format's package is missing."""
    for kind in formats:
        missing = [name for name in EXTRA.get(kind, ()) if importlib.util.find_spec(name) is None]
        if missing:
            raise ValueError(
                f"{kind} export needs {' and '.join(missing)}: {messages.install('export')}"
            )


def earlier_export(out: Path) -> dict[str, Any]:
    """Return the `weights` and `files` of the export.json in a folder, of files that are there.

    Raises:
        ValueError: a file is there that an export would overwrite and that none has written.
    """
    try:
        record = json.loads((out / "export.json").read_bytes())
        earlier = {"weights": record["weights"], "files": dict(record["files"])}
        known = [*earlier["files"], "export.json"]
    except (OSError, ValueError, KeyError, TypeError):
        earlier, known = {"weights": None, "files": {}}, []
    there = [name for name in (*NAMES, "export.json") if (out / name).exists()]
    for name in there:
        if name not in known:
            raise ValueError(
                f"--out must be a folder without {name}, got {out}, where one is that no export "
                "wrote; choose another folder"
            )
    earlier["files"] = {name: earlier["files"][name] for name in there if name in NAMES}
    return earlier


def extra_versions(formats: Sequence[str]) -> dict[str, str]:
    """The versions of the packages that wrote or ran the files."""
    names = [name for kind in formats for name in EXTRA.get(kind, ())]
    packages = importlib.metadata.packages_distributions() if names else {}
    return {name: importlib.metadata.version(packages[name][0]) for name in names}


def print_export(record: Mapping[str, Any], out: Path) -> None:
    """Print the table of export.json."""
    heads = ("KB", "differs", "agrees", "accuracy")
    table = Table("", *(Column(head, justify="right") for head in heads))
    for name, row in record["files"].items():
        cells = ["", "", ""]
        if "bytes" in row:
            cells[0] = f"{row['bytes'] / 1e3:,.0f}"
            cells[1:] = f"{row['difference']:.0e}", f"{row['agreement']:.1%}"
        accuracy = f"{row['test/acc']:.2%}" if "test/acc" in row else ""
        table.add_row(name.removeprefix("mnist_cnn."), *cells, accuracy)
    console = terminal.console()
    console.print(table)
    tested = record["test images"]
    console.print(
        f"differs: greatest difference in probability from PyTorch's, at most {DIFFERENCE:.0e}\n"
        f"agrees: of {record['verified images']:,} {'test' if tested else 'random'} images read as "
        f"PyTorch reads them (100%, but for int8, which may cost {INT8_LOSS:.1%} of accuracy)"
    )
    if tested:
        console.print(f"accuracy: on {tested:,} test images")
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
    args = parse(parser, argv)
    formats: Sequence[str] = FORMATS if args.format == "all" else (args.format,)
    if args.int8 and "onnx" not in formats:
        parser.error(f"--int8 must come with --format onnx or all, got {args.format}")
    net = pretrained.load(args.ckpt_path or args.path)
    if args.format == "all":
        try:
            webpage.digit_layers(net)
        except ValueError as e:
            formats = [kind for kind in formats if kind != "html"]
            terminal.console(stderr=True).print(f"without html: {e}")
    record = export(net, formats, args.out, int8=args.int8)
    print_export(record, args.out)


if __name__ == "__main__":
    main()
