"""Time a search of two workers: python -m benchmarks.searches [--unit SECONDS] [--n SEARCHES]

Each search has 12 trials of 1 to 10 units, drawn by its number. They sleep, in processes of
joblib's. Measured is the time from the first trial's start to the last one's end; beside it is
what two workers take at least, and what the same trials take two at a time, each two waiting for
the slower.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from mnist_cnn.command import command, docstring_parser

TRIALS = 12
APP = """
import time
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig
from mnist_cnn.sweeps import resumable

@hydra.main(config_path=".", config_name="app", version_base="1.3")
@resumable
def main(cfg):
    begun = time.time()
    time.sleep(cfg.seconds[int(Path(HydraConfig.get().runtime.output_dir).name)])
    return {"loss": cfg.x, "begun": begun, "ended": time.time()}

main()
"""
CONFIG = """
x: 0
seconds: []
hydra:
  hydra_logging: {root: {level: ERROR}}
  callbacks: {sweep: {_target_: mnist_cnn.sweeps.callback.Folders}}
"""


def measured(seconds: list[float]) -> float:
    """Return the time from the first trial's start to the last one's end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(APP, "utf-8")
        (folder / "app.yaml").write_text(CONFIG, "utf-8")
        command = [sys.executable, "app.py", "-m", "x=interval(0,1)", f"seconds={seconds}"]
        command += ["hydra/sweeper=resumable_optuna", "hydra.sweeper.metric=loss"]
        command += [f"hydra.sweeper.n_trials={TRIALS}", "hydra.sweeper.n_jobs=2"]
        command += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=search"]
        path = os.environ.get("PYTHONPATH", str(Path(__file__).parents[1]))
        subprocess.run(command, cwd=folder, check=True, env={**os.environ, "PYTHONPATH": path})
        files = sorted(folder.glob("search/*/results.json"))
        ends = [json.loads(file.read_text("utf-8")) for file in files]
        return float(max(e["ended"] for e in ends) - min(e["begun"] for e in ends))


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("benchmarks.searches", __doc__)
    parser.add_argument("--unit", type=float, default=1.0, help="seconds (1)")
    parser.add_argument("--n", type=int, default=5, help="searches (5)")
    args = parser.parse_args(argv)
    took = []
    for number in range(args.n):
        units = random.Random(number).choices(range(1, 11), k=TRIALS)
        batches = sum(max(pair) for pair in zip(units[::2], units[1::2], strict=True))
        took.append(measured([args.unit * u for u in units]) / args.unit)
        print(
            f"{took[-1]:.1f} units, at least {sum(units) / 2}, two at a time {batches}", flush=True
        )
    if args.n > 1:
        print(f"{mean(took):.1f} ± {stdev(took):.1f} units, n = {args.n}")


if __name__ == "__main__":
    main()
