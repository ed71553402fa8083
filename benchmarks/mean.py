"""Average readers: python -m benchmarks.mean RUN RUN [RUN ...] --shares 1 3 --out FOLDER

The weights of runs of experiment=reader, each of which continued from another's weights, are
averaged in these shares: between the start and the end of a further training there are networks
that are better than both (M. Wortsman et al., Robust fine-tuning of zero-shot models, 2022,
https://arxiv.org/abs/2109.01903). The mean is validated and its scores are calibrated, which takes
some 20 minutes of one thread; FOLDER gets its weights.safetensors and results.json.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from mnist_cnn.analysis.results import commit, now, processor, versions
from mnist_cnn.build import make_module
from mnist_cnn.command import command, docstring_parser
from mnist_cnn.config.compose import compose, resolved
from mnist_cnn.config.instantiate import make_data
from mnist_cnn.config.parse import Config, parse
from mnist_cnn.runs.folder import RESULTS, write_json
from mnist_cnn.weights.files import read_file


def mean(networks: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """Return the mean of the networks' weights; integers are the last network's."""
    total = sum(shares)
    averaged = dict(networks[-1])
    for key, last in networks[-1].items():
        if last.is_floating_point():
            parts = [s / total * net[key].double() for s, net in zip(shares, networks, strict=True)]
            averaged[key] = torch.stack(parts).sum(0).to(last.dtype)
    return averaged


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("benchmarks.mean", __doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--shares", type=float, nargs="+", required=True, help="one for each RUN")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="as data.fold=1")
    args = parser.parse_args(argv)
    if len(args.shares) != len(args.runs):
        parser.error(f"--shares must be one for each RUN, got {len(args.shares)}")
    if not sum(args.shares) > 0:
        parser.error(f"--shares must have a sum above 0, got {sum(args.shares):g}")
    read = [read_file(run / "weights.safetensors" if run.is_dir() else run) for run in args.runs]
    model, *others = (about["model"] for _, about, _ in read)
    if any(other != model for other in others):
        raise ValueError(f"their networks differ: {model} and {others}")
    config = parse(resolved(compose(["experiment=reader", *args.set], run_dir=args.out)), Config)
    args.out.mkdir(parents=True)
    module: Any = make_module(config, model)
    data = make_data(config.data)
    module.net.load_state_dict(mean([weights for weights, _, _ in read], args.shares))
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False
    )
    metrics = trainer.validate(module, data)[0]
    module.save_weights(args.out / "weights.safetensors")
    shares = " ".join(f"{share:g}" for share in args.shares)
    runs = " ".join(["RUN"] * len(args.runs))
    line = f"python -m benchmarks.mean {runs} --shares {shares} --out FOLDER"
    found: dict[str, Any] = {"command": line}
    found |= {"processor": processor(), "versions": versions(), "git_commit": commit()}
    write_json({**found, **metrics, "finished": f"{now():%F %T}"}, args.out / RESULTS)


if __name__ == "__main__":
    main()
