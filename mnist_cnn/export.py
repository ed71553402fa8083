"""Write a trained network for other programs: python -m mnist_cnn.export [ckpt_path=PATH]

  mnist_cnn.onnx         the whole model for ONNX Runtime and programs like it
  mnist_cnn.pt2          the whole model for torch.export.load, without this project's code
  mnist_cnn.safetensors  the weights alone, for mnist_cnn.load and ckpt_path
  mnist_cnn.html         a page for any browser, without a server or a connection, that classifies
                         pictures; of a network of digits a page to draw on, where the reader of
                         pictures finds digits and the network of ckpt_path names them
  mnist_cnn.c and .h     integers alone, for microcontrollers; only with --format c

The first two take uint8 images (N, 28, 28), white on black, normalize them themselves and give
probabilities (N, 10); of data of your own (N, H, W) or (N, C, H, W), and (N, K). A file is kept
only if it was run on images and gave the network's probabilities, the page's reader too; a C file,
whose weights have few bits, if it classifies at least 98 % of 1,000 test digits as the network.
"""

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_cnn.command import command, docstring_parser, parse
from mnist_cnn.config.messages import install, must_be
from mnist_cnn.exporting import KINDS
from mnist_cnn.exporting.folder import new_files
from mnist_cnn.runs import terminal
from mnist_cnn.runs.imports import without_collection
from mnist_cnn.runs.terminal import reason

if TYPE_CHECKING:
    from mnist_cnn.weights.predictor import Trained


def export(net: "Trained | None", formats: Sequence[str], out: Path | str) -> dict[str, float]:
    """Export a network to files, each of which is verified.

    Args:
        net: from `mnist_cnn.load`. None is the network in the package; the page then leaves it out,
            and its reader of pictures both finds and classifies digits.
        formats: some of onnx, pt2, safetensors and html; only the command writes C.
        out: the output folder; created if missing.

    Returns:
        The greatest absolute difference from the network's probabilities, by file name.

    Raises:
        ValueError: a format is unknown, a file of that name exists, a package is missing, or a file
            does not reproduce the network's outputs. Nothing is written then.
        OSError: the folder cannot be written.
    """
    with without_collection():  # PyTorch takes seconds, which --help and mistakes need not wait for
        from mnist_cnn.exporting.formats import FORMATS
        from mnist_cnn.weights import predictor
    if isinstance(formats, str):
        raise ValueError(must_be("formats", "a list of formats", formats))
    if unknown := [kind for kind in formats if kind not in KINDS]:
        raise ValueError(must_be("formats", f"some of {', '.join(KINDS)}", unknown[0]))
    kinds = dict.fromkeys(formats)
    names = [f"mnist_cnn.{kind}" for kind in kinds]
    # a copy, as the caller may want to train on
    own = predictor.load() if net is None else copy.deepcopy(net)
    own = own.requires_grad_(False).eval().cpu()
    differences = {}
    with new_files(Path(out), names) as folder:
        for kind, name in zip(kinds, names, strict=True):
            path = folder / name
            write, check = FORMATS[kind]
            given = None if net is None and kind == "html" else own
            try:
                write(given, path)
                differences[name] = check(path, given)
            except ModuleNotFoundError as e:
                raise ValueError(f"{kind} export needs {e.name}: {install('export')}") from None
            except ValueError:
                raise
            except Exception as e:  # of the exporters, as for a network with a fixed N
                raise ValueError(f"{name} is not written: {reason(e)}") from e
    return differences


def folder_of(text: str) -> Path:
    if not text:  # such as from an unset shell variable
        raise argparse.ArgumentTypeError("must be a folder, got ''")
    return Path(text).expanduser()  # no shell does so after --out=


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("mnist_cnn.export", __doc__)
    parser.add_argument(
        "--format", choices=(*KINDS, "c", "all"), default="all", help="(default: all, without c)"
    )
    note = "per weight in the C file (default: those it was trained with, else 8)"
    parser.add_argument("--bits", type=int, choices=range(2, 9), help=note)
    note = "folder, in which no file is replaced (default: exported)"
    parser.add_argument("--out", type=folder_of, default="exported", metavar="DIR", help=note)
    args = parse(parser, argv)
    if args.bits and args.format != "c":
        parser.error("--bits needs --format c")
    with without_collection():
        from mnist_cnn.exporting import c_file, layers
        from mnist_cnn.reading.networks import network_of
        from mnist_cnn.weights import predictor
    net = predictor.load(args.ckpt_path)
    if args.format == "c":
        print(f"{args.out / c_file.FILES[0]}: {c_file.export_c(net, args.bits, args.out)}")
        return
    formats = [args.format]
    if args.format == "all":
        formats = list(KINDS)
        try:
            network_of(net)
            layers.classifier_layers(net)
        except ValueError as e:
            formats.remove("html")
            terminal.console(stderr=True).print(f"without html: {e}")
    given = net if args.ckpt_path else None
    for name, difference in export(given, formats, args.out).items():
        print(f"{args.out / name}: within {difference:.0e} of the network's probabilities")


if __name__ == "__main__":
    main()
