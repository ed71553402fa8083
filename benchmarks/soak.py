"""Kill real runs at random times, resume them, and compare them with uninterrupted ones.

    python -m benchmarks.soak --kills 100

Each scenario is a command: a run, a sweep, a search, a run in two processes, one that is extended,
one that starts from copied checkpoints, one with a custom DataLoader. It is run once without
interruption; then it is started, hit by a signal at a random time, and started again, until it
finishes. The files of its runs must be bitwise identical to the uninterrupted ones: weights, both
checkpoints, history, results and TensorBoard's scalars, except for measured times.

Three counts must be 0: runs that differ; results that do not match the checkpoint beside them after
a kill; modified or deleted foreign files. For the last, such files are put into the runs' folders,
and other runs, which must be refused, are started there. The exit code is 1 if a count is not 0.
Signals and times are drawn from --seed; what a run is doing at that time depends on the machine.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from mnist_cnn.checks.folders import FOREIGN, differences, files, last, results
from mnist_cnn.runs.folder import FAILED, LAST, LOCK, RESULTS

ROOT = Path(__file__).parents[1]
PATIENCE = 300  # timeout in seconds when waiting for a process
# runs of seconds: a network of 8 units, 30 steps per epoch
RUN = ["trainer.accelerator=cpu", "trainer.max_epochs=4", "trainer.limit_train_batches=30"]
RUN += ["trainer.limit_val_batches=1", "trainer.limit_test_batches=2", "run_name=x"]
RUN += ["model.channels=[4,4]", "model.hidden=8", "logger=tensorboard", "callbacks.summary=null"]
RUN += ["+callbacks.fault._target_=mnist_cnn.checks.faults.KillAt"]
OWN = ["targets=[benchmarks.*]", "~data", "+data._target_=benchmarks.own_data.Digits"]
OWN += ["+data.workers=2"]
SWEEP = ["-m", "trainer.max_epochs=2", "callbacks.checkpoint.every_steps=7"]
SCENARIOS = {
    "plateau": ["optimizer.lr=0.01", "scheduler.threshold=10", "scheduler.patience=0"],
    "augmented": ["model.dropout=0.25", "augment=photo", "scheduler=one_cycle"],
    "averaged": ["callbacks=averaging", "callbacks.summary=null", "optimizer=sgd"],
    "accumulated": ["trainer.accumulate_grad_batches=3", "scheduler=cosine", "optimizer=adamw"],
    "stopped_early": [f"callbacks.early_stopping.{key}" for key in ("min_delta=10", "patience=2")],
    "extended": ["model.dropout=0.25"],  # finished with half the epochs first
    "copied": ["augment=photo", "scheduler=one_cycle"],  # continued in another folder
    "ddp": ["trainer=ddp", "trainer.devices=2", "model.dropout=0.25", "augment=photo"],
    "own_data": [*OWN, "model.dropout=0.25"],
    "own_data_ddp": ["trainer=ddp", "trainer.devices=2", *OWN],
    "sweep": [*SWEEP, "seed=0,1", "optimizer.lr=1e-3,1e-2"],
    "search": [*SWEEP, "hparams_search=optuna", "hydra.sweeper.n_trials=3"],
}
SHORTER = "trainer.max_epochs=2"
EACH = ["callbacks.checkpoint.every_steps=1", "callbacks.checkpoint.every_seconds=0.2"]
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
# points that a random time rarely hits: (hook, calls, what)
POINTS = [("on_save_checkpoint", 3, "cut"), ("on_fit_end", 1, "SIGKILL")]
POINTS += [("on_test_start", 1, "SIGKILL"), ("on_train_epoch_start", 2, "SIGKILL")]
PIECES = 30  # processes of one command; the last is not hit


def start(folder: Path, *command: str, fault: str = "- 0 -") -> "subprocess.Popen[str]":
    """Start `python -m mnist_cnn.train` in a folder, with one thread and a new process group."""
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_cnn.train", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FAULT": fault},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for a process and its descendants, and return its exit code and stderr.

    Its process group is killed. A descendant that outlives it is left: CPython 3.11 can deadlock a
    DataLoader's worker while it is forked.
    """
    try:
        _, err = process.communicate(timeout=PATIENCE)  # until nobody has its stderr open
    except subprocess.TimeoutExpired as e:
        if process.poll() is None:
            raise
        err = (e.stderr or b"").decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, err


class Command:
    """A command of a scenario in its own folder, run by several processes in turn."""

    def __init__(self, name: str, folder: Path, *more: str):
        self.name, self.folder = name, folder
        self.multirun = "-m" in SCENARIOS[name]
        where = "sweep" if self.multirun else "run"
        self.options = [*RUN, *SCENARIOS[name], *more]
        self.where = f"hydra.{where}.dir={folder}"
        self.faults: list[str] = []
        self.kills: Counter[str] = Counter()
        self.foreign: dict[Path, str] = {}  # files that were put into its runs' folders

    def start(self, *more: str, fault: str = "- 0 -") -> "subprocess.Popen[str]":
        return start(self.folder.parent, *self.options, *more, self.where, fault=fault)

    def runs(self) -> dict[str, Path]:
        """Return the folders of its runs, by name."""
        locks = self.folder.glob(f"*/{LOCK}") if self.multirun else [self.folder / LOCK]
        return {lock.parent.name if self.multirun else "run": lock.parent for lock in sorted(locks)}

    def whole(self) -> float:
        """Run it without interruption, and return the seconds that it takes."""
        begun = time.monotonic()
        code, err = finish(self.start())
        if code:
            raise RuntimeError(f"{self.name} does not train, exit code {code}: {err[-500:]}")
        return time.monotonic() - begun

    def hit(self, draw: random.Random, seconds: float) -> int:
        """Start it, send it a signal at a random time, and return its exit code."""
        fault, number = "", draw.choice(SIGNALS)
        if draw.random() < 0.4:
            hook, most, what = draw.choice(POINTS)
            fault = f"{hook} {draw.randint(1, most)} {what}"
        moment = draw.uniform(0.2, 1) * seconds
        process = self.start(fault=fault or "- 0 -")
        everyone = number == signal.SIGKILL and draw.random() < 0.5
        try:
            process.wait(600 if fault else moment)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number) if everyone else process.send_signal(number)
        except KeyboardInterrupt:  # of this benchmark
            os.killpg(process.pid, signal.SIGKILL)
            raise
        code, err = finish(process)
        self.kills[fault or number.name] += code < 0 or code >= 128  # 1: it was refused
        said = err.splitlines()[-1] if err else ""
        print(
            f"{self.folder.name:<20} {fault or number.name:<28} {code:>4} {said[:90]}", flush=True
        )
        expected = {-signal.SIGKILL, -signal.SIGXFSZ, 0, 128 + number, -number, 1}
        if code not in expected or "Traceback" in err:
            self.faults.append(f"exit code {code} after {fault or number.name}: {err[-500:]}")
        self.check()
        return code

    def check(self) -> None:
        """Record results that do not match the checkpoint beside them."""
        for name, run in self.runs().items():
            try:
                epoch = last(run)["epoch"] if (run / LAST).exists() else 0
            except Exception as e:  # torch raises many kinds for a truncated file
                self.faults.append(f"{name}: last.ckpt is not whole: {e}")
                continue
            if (run / RESULTS).exists() and results(run)["epochs"] != epoch:
                self.faults.append(f"stale: {name}: results, and a checkpoint of epoch {epoch}")
            if (run / RESULTS).exists() and (run / FAILED).exists():
                self.faults.append(f"stale: {name}: results.json beside failed.json")

    def disturb(self) -> None:
        """Put foreign files into its runs' folders, and start another run in one of them."""
        for run in self.runs().values():
            for name, text in FOREIGN.items():
                if (run / name).parent.is_dir():
                    (run / name).write_text(text)
                    self.foreign[run / name] = text
        for run in [*self.runs().values()][:1]:
            before = files(run)
            other = [*RUN, "optimizer.lr=0.5", f"hydra.run.dir={run}"]
            code, err = finish(start(self.folder.parent, *other))
            if code != 1 or "as recorded" not in err or files(run) != before:
                self.faults.append(f"foreign: another run is not refused, but {code}: {err[-300:]}")

    def compare(self, whole: "Command") -> None:
        """Record differences from the uninterrupted command, and touched foreign files."""
        runs, wholes = self.runs(), whole.runs()
        for file, text in self.foreign.items():
            if not file.is_file() or file.read_text() != text:
                self.faults.append(f"foreign: {file} was touched")
        if runs.keys() != wholes.keys():
            self.faults.append(f"has the runs {[*runs]}, not {[*wholes]}")
            return
        for name, run in runs.items():
            wrong = differences(wholes[name], run)
            if self.name == "copied":  # its event files start again
                wrong = [line for line in wrong if not line.startswith("tensorboard")]
            self.faults += [f"{name}: {line}" for line in wrong]


def interrupted(whole: Command, number: int, seconds: float, draw: random.Random) -> Command:
    """Run a scenario's command, interrupted until it finishes, and record its faults."""
    folder = whole.folder.with_name(f"{whole.name}-{number}")
    command = Command(whole.name, folder, draw.choice(EACH))
    if whole.name == "extended":
        finish(command.start(SHORTER))
    disturbed = False
    for _ in range(PIECES):
        if command.hit(draw, seconds) == 0:
            break
        if not disturbed and any((run / LAST).exists() for run in command.runs().values()):
            disturbed = True
            command.disturb()
            command = copied(command) if whole.name == "copied" else command
    else:
        command.whole()
    command.compare(whole)
    return command


def copied(old: Command) -> Command:
    """Return the same command in a new folder, starting from a copy of the checkpoints."""
    copy = old.folder.with_name(f"{old.folder.name}-checkpoints")
    shutil.copytree(old.folder / LAST.parent, copy)
    start = f"ckpt_path={copy / LAST.name}"
    new = Command(old.name, old.folder.with_name(f"{old.folder.name}-new"), EACH[0], start)
    new.faults, new.kills, new.foreign = old.faults, old.kills, old.foreign
    return new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="at least this number (100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    args = parser.parse_args()
    # background jobs of a shell ignore SIGINT, and their children inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    out = Path(tempfile.mkdtemp(prefix="soak-"))
    os.environ.setdefault("MNIST_CNN_DATA", str(out / "data"))
    wholes = {name: Command(name, out / name) for name in args.scenarios}
    seconds = {name: command.whole() for name, command in wholes.items()}
    ended: list[Command] = []
    while sum(command.kills.total() for command in ended) < args.kills:
        number = len(ended)
        name = args.scenarios[number % len(args.scenarios)]
        draw = random.Random(f"{args.seed} {number}")
        command = interrupted(wholes[name], number, seconds[name], draw)
        print(
            f"{command.folder.name}: {len(command.faults)} faults",
            *command.faults[:20],
            sep="\n    ",
        )
        ended.append(command)
    kinds = [[f.partition(":")[0] for f in command.faults] for command in ended]
    count = Counter(kind for found in kinds for kind in found)
    differ = sum(bool(set(found) - {"stale", "foreign"}) for found in kinds)
    hits: Counter[str] = sum((command.kills for command in ended), Counter())
    print(f"{hits.total()} kills of {len(ended)} commands: {dict(hits.most_common())}")
    stale, foreign = count["stale"], count["foreign"]
    print(f"{differ} commands differ, {stale} stale results, {foreign} foreign files touched")
    if any(kinds):
        sys.exit(f"the commands with faults, and those without interruption: {out}")
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
