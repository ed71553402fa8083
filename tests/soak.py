"""Does a run that was killed, again and again, end like one that was not? On real processes.

    python -m tests.soak --kills 100

Each scenario is trained once without interruption. Then its run is started again, hit by a signal
at a random moment, gone on with, and hit again, until it ends by itself. What it leaves is compared
bit for bit: weights, both checkpoints, history, results and TensorBoard's events, all but what was
measured (seconds, images/s) and where it lies. The exit code is 1 where anything differs.

Moments and signals are drawn from --seed; where a moment falls in a run is up to the machine.
"""

import argparse
import contextlib
import csv
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_cnn.runs import LAST, OVERRIDES, RESULTS
from tests.conftest import environment

# a run of seconds
SHORT = [
    "trainer.accelerator=cpu",
    "trainer.max_epochs=4",
    "trainer.limit_train_batches=50",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
]
SCENARIOS = {
    # no epoch counts as an improvement, so that the rate falls
    "plateau": ["optimizer.lr=0.01", "scheduler.threshold=10", "scheduler.patience=0"],
    "one_cycle": ["scheduler=one_cycle", "optimizer=adamw"],
    "augmented": ["model.dropout=0.25", "augment=photo", "scheduler=one_cycle"],
    "momentum": ["optimizer=sgd", "scheduler=cosine", "model.dropout=0.25"],
    "accumulated": ["trainer.accumulate_grad_batches=3", "scheduler=one_cycle"],
    "stopped_early": [
        "callbacks.early_stopping.min_delta=10",
        "callbacks.early_stopping.patience=2",
    ],
    "max_steps": ["trainer.max_steps=130", "trainer.check_val_every_n_epoch=2"],
}
# how often a killed run saves; the uninterrupted one does so at epochs alone
SAVING = [
    ["callbacks.checkpoint.every_steps=1"],
    ["callbacks.checkpoint.every_steps=10"],
    ["callbacks.checkpoint.every_seconds=0.2"],
    [],
]
SIGNALS = {
    "SIGKILL": [signal.SIGKILL],
    "SIGTERM": [signal.SIGTERM],
    "SIGINT": [signal.SIGINT],
    "SIGINT twice": [signal.SIGINT, signal.SIGINT],
}
PIECES = 40  # the last of so many processes is not hit, so that every run ends
PATIENCE = 300  # seconds that a process may take
TIGHT = 0.0002  # seconds between two looks at a file that is there for milliseconds
NOISE = 4  # two equal runs took less than so many times each other's seconds, on a shared machine

MEASURED = {"seconds", "images/s", "elapsed"}
# where a run goes on from, and how often it saves, is no result
ASKED = {
    "results.json: config.ckpt_path",
    "results.json: config.logger.tensorboard.purge_step",
    "results.json: config.callbacks.checkpoint.every_steps",
    "results.json: config.callbacks.checkpoint.every_seconds",
}


def contents(run: Path) -> dict[str, Any]:
    """All that a finished run leaves, as `file: key` -> tensor, number or text."""
    (events,) = (run / "tensorboard").iterdir()
    with (run / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    found: dict[str, Any] = {
        "weights.safetensors": load_file(run / "weights.safetensors"),
        "history.csv": history,
        "results.json": json.loads((run / RESULTS).read_text()),
        "tensorboard": logged(events),
    }
    for name in ("last.ckpt", "best.ckpt"):
        found[name] = torch.load(run / "checkpoints" / name, weights_only=True)
    found["files"] = {
        str(path.relative_to(run)): path.is_file()
        for path in run.rglob("*")
        if "tfevents" not in path.name
    }
    leaves = {}
    for name, content in found.items():
        for keys, value in flat(content):
            key = f"{name}: {'.'.join(keys)}"
            if not MEASURED & set(keys) and key not in ASKED:
                leaves[key] = value.replace(str(run), "RUN") if isinstance(value, str) else value
    return leaves


def flat(value: Any, *keys: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The leaves of nested dicts and lists, each with the keys that lead to it."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from flat(part, *keys, str(key))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from flat(part, *keys, str(i))
    else:
        yield keys, value


def logged(folder: Path) -> dict[str, Any]:
    """TensorBoard's events of each kind and tag, without the time when they were written."""
    kinds = ("scalars", "histograms", "images", "tensors")
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every restart
    events = EventAccumulator(str(folder), dict.fromkeys(kinds, 0)).Reload()
    return {
        f"{kind} {tag}": {
            # where a run goes on, TensorBoard drops what is logged anew, but for tensors
            f"event {event.step if kind == 'tensors' else i}": repr(replace(event, wall_time=0))
            for i, event in enumerate(getattr(events, kind.capitalize())(tag))
        }
        for kind in kinds
        for tag in events.Tags()[kind]
    }


def differences(whole: Mapping[str, Any], cut: Mapping[str, Any]) -> list[str]:
    """A line for each leaf of `contents` that is not the same, bit for bit, in both runs."""
    lines = []
    for key in dict.fromkeys([*whole, *cut]):
        if key not in cut:
            lines.append(f"{key}: missing")
        elif key not in whole:
            lines.append(f"{key}: too much")
        elif isinstance(whole[key], torch.Tensor) and isinstance(cut[key], torch.Tensor):
            a, b = whole[key], cut[key]
            if (a.dtype, a.shape) != (b.dtype, b.shape):
                lines.append(f"{key}: {b.dtype} {tuple(b.shape)}, not {a.dtype} {tuple(a.shape)}")
            elif a.numpy().tobytes() != b.numpy().tobytes():
                wrong = int((a != b).sum())
                most = (a.double() - b.double()).abs().max()
                lines.append(f"{key}: {wrong} of {a.numel()} differ, by up to {most:.1e}")
        elif repr(whole[key]) != repr(cut[key]):  # a nan is like another, -0.0 is not like 0.0
            lines.append(f"{key}: {str(cut[key])[:80]}, not {str(whole[key])[:80]}")
    return lines


class Piece:
    """One process of a run: from its start, or from where it was interrupted, to its end.

    Args:
        folder: the run's, an absolute path; its parent must exist.
        overrides: the configuration of a run that has not begun.
    """

    def __init__(self, folder: Path, overrides: Sequence[str]):
        self.folder = folder
        self.stderr = folder.with_suffix(".err")
        anew = [*overrides, f"hydra.run.dir={folder}", "run_name=x"]
        command = [f"ckpt_path={folder}"] if (folder / OVERRIDES).exists() else anew
        self.logs = self.count_logs()
        self.opened: float | None = None
        self.start, self.date = time.monotonic(), time.time()
        with self.stderr.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mnist_cnn.train", *command],
                cwd=folder.parent,
                # rounding depends on the number of threads
                env={**environment(), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.start

    def count_logs(self) -> int:
        return len(list(self.folder.glob("tensorboard/*/*tfevents*")))

    def training(self) -> bool:
        """Whether it has begun to train, for which it opens a file for TensorBoard."""
        if self.opened is None and self.count_logs() > self.logs:
            self.opened = self.age
        return self.opened is not None

    def unfinished(self) -> str | None:
        """The checkpoint that is being written, under another name than it will have."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.folder / LAST.parent):
                if not name.endswith(".ckpt"):
                    return name
        return None

    def wait_for(self, condition: Callable[[], Any], pause: float = 0.005) -> bool:
        """Waits until the condition is true; False where the process ends before."""
        while not condition():
            if self.process.poll() is not None:
                return False
            if self.age > PATIENCE:
                raise TimeoutError(f"{self.folder}: waited {PATIENCE} s")
            time.sleep(pause)
        return self.process.poll() is None

    def has_results(self) -> bool:
        """Whether it has written the run's results."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / RESULTS).stat().st_mtime > self.date
        return False

    def empty(self, name: Path) -> bool:
        """Whether a file of the run is there and has nothing in it."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / name).stat().st_size == 0
        return False

    def stop_while(self, condition: Callable[[], Any]) -> bool:
        """Stops it (SIGSTOP) in a condition of milliseconds; False where it ends before."""
        while self.wait_for(condition, TIGHT):
            self.hit(signal.SIGSTOP)
            time.sleep(0.002)  # until the system has done so
            if condition():
                return True
            self.hit(signal.SIGCONT)
        return False

    def hit(self, *signals: signal.Signals, gap: float = 0.0) -> None:
        """Sends signals to the process and its children, with so many seconds in between."""
        for i, number in enumerate(signals):
            time.sleep(gap if i else 0.0)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def end(self) -> int:
        """Waits for its end; the exit code, negative where a signal ended it."""
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.hit(signal.SIGKILL)  # whatever goes wrong here, nothing is left running
            self.process.wait()

    def said(self) -> str:
        """The last line of its stderr."""
        return (self.stderr.read_text().splitlines() or [""])[-1]


def kept(run: Path) -> tuple[int, int] | None:
    """Epochs and steps behind the checkpoint that a run goes on from; None where there is none.

    Raises whatever torch raises for a file that is not whole.
    """
    if not (run / LAST).exists():
        return None
    content = torch.load(run / LAST, weights_only=True)
    return content["epoch"], content["global_step"]


@dataclass
class Whole:
    """What an uninterrupted run left, and the seconds that it took."""

    contents: dict[str, Any]
    end: tuple[int, int] | None  # epochs and steps
    startup: float  # until it trained
    rest: float  # from then on
    trained: float  # by its own account


@dataclass
class Kill:
    """A signal that hit a run, and what came of it."""

    run: str
    piece: int
    signal: str
    moment: str  # what was waited for: starting, configuring, training, writing
    training: float | None  # seconds since it began, in this process; None before
    unfinished: str | None = None  # the checkpoint that was left half written
    kept: tuple[int, int] | None = None  # epochs and steps behind the checkpoint
    code: int = 0
    said: str = ""  # the last line of stderr

    def __str__(self) -> str:
        when = f"{self.moment:<11}" if self.training is None else f"{self.training:5.2f} s    "
        where = "epoch {} step {:>3}".format(*self.kept) if self.kept else "no checkpoint"
        where += f", {self.unfinished}" if self.unfinished else ""
        name = f"{self.run}.{self.piece}"
        return f"{name:<20} {self.signal:<12} {when} {where:<26} {self.code:>4} {self.said[:70]}"


def uninterrupted(name: str, out: Path) -> Whole:
    """Trains a scenario without disturbing it."""
    piece = Piece(out / name, [*SHORT, *SCENARIOS[name]])
    piece.wait_for(piece.training)
    code, seconds = piece.end(), piece.age
    if code or not piece.opened:
        raise RuntimeError(f"{name} does not train: exit code {code}: {piece.said()}")
    print(
        f"{name:<20} uninterrupted: {piece.opened:.1f} s to start, {seconds - piece.opened:.1f} s"
    )
    left = contents(piece.folder)
    return Whole(
        left, kept(piece.folder), piece.opened, seconds - piece.opened, trained(piece.folder)
    )


def trained(run: Path) -> float:
    return json.loads((run / RESULTS).read_text())["seconds"]


def strike(piece: Piece, draw: random.Random, whole: Whole) -> tuple[str, str] | None:
    """Waits for a random moment and sends a random signal: (signal, moment).

    None where the process ended before.
    """
    moment = draw.choices(("starting", "configuring", "training", "writing"), (2, 1, 10, 4))[0]
    name = draw.choice(list(SIGNALS)) if moment in ("starting", "training") else "SIGKILL"
    share, gap = draw.random(), draw.uniform(0, 0.1)
    if moment == "starting":
        there = piece.wait_for(lambda: piece.age > share * whole.startup)
    elif moment == "configuring":  # Hydra empties its files, then fills them again
        file = draw.choice((OVERRIDES, OVERRIDES.with_name("config.yaml")))
        there = piece.stop_while(lambda: piece.empty(file))
    else:
        there = piece.wait_for(piece.training)
        due = piece.age + share * whole.rest / 2
        there = there and piece.wait_for(lambda: piece.age > due)
        if moment == "writing":
            there = there and piece.stop_while(piece.unfinished)
    if not there:
        return None
    piece.hit(*SIGNALS[name], gap=gap)
    return name, moment


def judge(kill: Kill, folder: Path, finished: bool) -> list[str]:
    """Notes what a kill left to go on from; returns what was not as it should be."""
    faults = []
    try:
        kill.kept = kept(folder)
    except Exception as e:  # torch raises many kinds for a file that is not whole
        faults.append(f"last.ckpt is not whole: {e}")
    expected = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143, "SIGINT": 130}.get(kill.signal)
    # a signal may end it at once before it trains, and when all is written and Python ends
    if expected is not None and kill.training is not None and not finished:
        if kill.code != expected:
            faults.append(f"exit code {kill.code}, not {expected}")
        if expected > 0 and f"ckpt_path={folder}" not in kill.said:
            faults.append(f"does not say how to go on, but {kill.said!r}")
    return [f"{kill.signal} to piece {kill.piece}: {fault}" for fault in faults]


@dataclass
class Run:
    """A run that was hit until it ended, and all that is not as it should be."""

    scenario: str
    overrides: list[str]
    kills: list[Kill]
    faults: list[str]


def interrupted(name: str, number: int, whole: Whole, out: Path, seed: int) -> Run:
    """Trains a scenario, hits it until it ends, and compares what it left."""
    draw = random.Random(f"{seed} {number}")
    overrides = [*SHORT, *SCENARIOS[name], *draw.choice(SAVING)]
    run = Run(name, overrides, [], [])
    folder = out / f"{name}-{number}"
    elapsed = 0.0
    for n in range(1, PIECES + 1):
        piece = Piece(folder, overrides)
        try:
            hit = strike(piece, draw, whole) if n < PIECES else None
            since = piece.age - piece.opened if piece.opened else None
        finally:
            code = piece.end()
        elapsed += piece.age
        if hit:
            kill = Kill(folder.name, n, *hit, since, piece.unfinished(), None, code, piece.said())
            run.faults += judge(kill, folder, piece.has_results())
            run.kills.append(kill)
            print(kill, flush=True)
        if code == 0 or not hit:
            break
    if code:
        run.faults.append(f"piece {n}: exit code {code}: {piece.said()}")
    else:
        try:
            run.faults += differences(whole.contents, contents(folder))
            if not whole.trained / NOISE < trained(folder) < elapsed:
                run.faults.append(
                    f"results.json: seconds: {trained(folder):.1f}, where the uninterrupted run has"
                    f" {whole.trained:.1f}, and all pieces together took {elapsed:.1f}"
                )
        except OSError as e:
            run.faults.append(f"not finished, with exit code 0: {e}")
    lines = [f"{folder.name}: {len(run.kills)} kills: {'DIFFERS' if run.faults else 'the same'}"]
    lines += [f"    {fault}" for fault in run.faults[:20]]
    print("\n".join(lines), flush=True)
    if not run.faults:
        shutil.rmtree(folder)
        piece.stderr.unlink()
    return run


def table(runs: Sequence[Run], wholes: Mapping[str, Whole]) -> Table:
    """Kills and differences of each scenario, and of all."""
    shown = Table("", "runs", "kills", *SIGNALS, "starting", "half-written", "at the end", "differ")
    for name in (*wholes, "all"):
        chosen = [run for run in runs if name in (run.scenario, "all")]
        kills = [kill for run in chosen for kill in run.kills]
        by_signal = Counter(kill.signal for kill in kills)
        counts = [
            len(chosen),
            len(kills),
            *(by_signal[signal] for signal in SIGNALS),
            sum(kill.training is None for kill in kills),
            sum(kill.unfinished is not None for kill in kills),
            sum(kill.kept == wholes[run.scenario].end for run in chosen for kill in run.kills),
            sum(bool(run.faults) for run in chosen),
        ]
        shown.add_row(name, *map(str, counts), end_section=name == list(wholes)[-1])
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="at least so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--json", type=Path, help="write every kill and difference to this file")
    args = parser.parse_args()
    # a shell starts its background jobs deaf to Ctrl-C, and their children inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    out = Path(tempfile.mkdtemp(prefix="soak-"))
    os.environ.setdefault("MNIST_CNN_DATA", str(out / "data"))
    names = args.scenarios
    runs: list[Run] = []
    with ThreadPoolExecutor(args.jobs) as pool:
        wholes = dict(zip(names, pool.map(lambda n: uninterrupted(n, out), names), strict=True))

        def one(number: int) -> Run:
            name = names[number % len(names)]
            return interrupted(name, number, wholes[name], out, args.seed)

        while sum(len(run.kills) for run in runs) < args.kills:
            runs += pool.map(one, range(len(runs), len(runs) + args.jobs))
    Console(width=120).print(table(runs, wholes))
    if args.json:
        args.json.write_text(json.dumps([asdict(run) for run in runs], indent=2) + "\n")
    if any(run.faults for run in runs):
        sys.exit(f"runs that differ, and those without interruption: {out}")
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
