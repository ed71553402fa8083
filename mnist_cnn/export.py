"""Writes a trained network for other programs: python -m mnist_cnn.export [ckpt_path=PATH]

  mnist_cnn.onnx         the whole model for ONNX Runtime and programs like it
  mnist_cnn.pt2          the whole model for torch.export.load, without this project's code
  mnist_cnn.safetensors  the weights alone, for pretrained.load and ckpt_path
  mnist_cnn.html         a page to draw on, in any browser, without a server or a network connection

The first two take uint8 images (N, 28, 28), white on black, normalize them themselves and give
probabilities (N, 10); of data of your own (N, H, W) or (N, C, H, W), and (N, K). A file is written
only after it was run on test images and gave the network's probabilities; export.json beside it
holds what was measured.
"""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from mnist_cnn import pretrained, terminal, webpage
from mnist_cnn.analysis import results
from mnist_cnn.command import command, parse
from mnist_cnn.config import compose
from mnist_cnn.config.messages import install
from mnist_cnn.data import mnist
from mnist_cnn.formats import FORMATS, OPSET, Predict, describe
from mnist_cnn.pretrained import Trained
from mnist_cnn.runs.folder import write_json

BATCHES = (1, 7, 992)  # images that each file is run on; of several sizes because N is free
DIFFERENCE = 1e-5  # greatest in a probability
RECORD = "export.json"


def export(net: Trained, formats: Sequence[str], out: Path) -> dict[str, Any]:
    """Write verified files of a network that `pretrained.load` gave; return export.json.

    Args:
        formats: of FORMATS.
        out: the folder of the files; made where it is missing. Files of an earlier export there
            stay if they are of the same network, and are removed if they are of another.

    Raises:
        ValueError: a package is missing, a file does not give what the network gives, or one is
            there that no export wrote.
        OSError: the folder cannot be written, or there are no images to verify with.
    """
    net.requires_grad_(False)
    images, files = verification_images(net), {}
    weights, earlier = fingerprint(net), earlier_export(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
        for kind in formats:
            path = Path(folder, f"mnist_cnn.{kind}")
            try:
                FORMATS[kind][0](net, path)
                predict = FORMATS[kind][1](path)
            except ModuleNotFoundError as e:
                raise ValueError(f"{kind} export needs {e.name}: {install('export')}") from None
            files[path.name] = verify(path, predict, net, images)
            terminal.console().print(f"{path.name}: run on {sum(BATCHES):,} images")
        if earlier["weights"] != weights:
            for name in earlier["files"]:
                (out / name).unlink()
            earlier["files"] = {}
        for kind in formats:
            Path(folder, f"mnist_cnn.{kind}").replace(out / f"mnist_cnn.{kind}")
    record = {
        **describe(net),
        "weights": weights,
        "files": {**earlier["files"], **files},
        "verified images": sum(BATCHES),
        "opset": OPSET,
        "versions": results.versions(),
        "git_commit": results.commit(),
    }
    write_json(record, out / RECORD)
    return record


def verification_images(net: Trained) -> Tensor:
    """Test images of a network's data set, uint8; for one of the user's own data random pixels."""
    name = net.about["data"]["name"]
    if name in mnist.CLASSES:
        root = pretrained.data_root(net) or compose.compose(run_dir=".").data.root
        mnist.prepare(name, Path(root).expanduser())
        return mnist.load_split(name, Path(root).expanduser(), "test")[0][: sum(BATCHES)]
    shape = (sum(BATCHES), *net.example(1).shape[1:])
    chance = torch.Generator().manual_seed(0)
    return torch.randint(256, shape, dtype=torch.uint8, generator=chance)


def fingerprint(net: Trained) -> str:
    """SHA-256 of the weights with their names."""
    digest = hashlib.sha256()
    for name, weight in net.net.state_dict().items():
        digest.update(name.encode() + weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def earlier_export(out: Path) -> dict[str, Any]:
    """Return the `weights` and `files` of the export.json in a folder, of files that are there.

    Raises:
        ValueError: a file is there that an export would overwrite and that none has written.
    """
    try:
        record = json.loads((out / RECORD).read_bytes())
        weights, files = record["weights"], dict(record["files"])
        known = {*files, RECORD}
    except (OSError, ValueError, KeyError, TypeError):
        weights, files, known = None, {}, set()
    names = [f"mnist_cnn.{kind}" for kind in FORMATS]
    there = [name for name in (*names, RECORD) if (out / name).exists()]
    if foreign := [name for name in there if name not in known]:
        raise ValueError(f"--out must be a folder without other programs' {foreign[0]}, got {out}")
    return {"weights": weights, "files": {name: files[name] for name in there if name in names}}


@torch.inference_mode()
def verify(path: Path, predict: Predict, net: Trained, images: Tensor) -> dict[str, float]:
    """Run a file on images, uint8 (N, H, W) or (N, C, H, W), and return what was measured.

    Raises:
        ValueError: it does not give the network's probabilities.
    """
    expected, given = net(images), torch.cat([predict(batch) for batch in images.split(BATCHES)])
    difference = (given - expected).abs().max().item()
    agreement = (given.argmax(1) == expected.argmax(1)).double().mean().item()
    if not (difference <= DIFFERENCE and agreement == 1):  # NaN is a failure too
        raise ValueError(
            f"{path.name} is not written: its probabilities must be within {DIFFERENCE:.0e} of "
            f"the network's, and all images read alike, got {difference:.1e} and {agreement:.1%}"
        )
    return {"bytes": path.stat().st_size, "difference": difference, "agreement": agreement}


def print_export(record: Mapping[str, Any], out: Path) -> None:
    """Print the table of export.json."""
    table = Table("", "bytes", "greatest difference in a probability")
    for name, row in record["files"].items():
        table.add_row(name, f"{row['bytes']:,}", f"{row['difference']:.0e}")
    terminal.console().print(table)
    terminal.console().print(f"{out}: {', '.join([*record['files'], RECORD])}")


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m mnist_cnn.export", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--format", choices=(*FORMATS, "all"), default="all", help="(all)")
    note = "folder (exported); files of an earlier export there are replaced, others never"
    parser.add_argument("--out", type=Path, default=Path("exported"), metavar="DIR", help=note)
    args = parse(parser, argv)
    net = pretrained.load(args.ckpt_path)
    formats = [args.format]
    if args.format == "all":
        formats = list(FORMATS)
        try:
            webpage.digit_layers(net)
        except ValueError as e:
            formats.remove("html")
            terminal.console(stderr=True).print(f"without html: {e}")
    print_export(export(net, formats, args.out), args.out)


if __name__ == "__main__":
    main()
