"""Does a run that was killed, again and again, end like one that was not? On real processes.

    python -m tests.soak --kills 100

Each scenario is trained once without interruption. Then its run is started again, hit by a signal
at a random moment, resumed, and hit again, until it ends by itself. What it leaves is compared
bit for bit: weights, both checkpoints, history, results and TensorBoard's events, all but what was
measured (seconds, images/s) and where it lies. One scenario's run is first finished with half its
epochs and then extended; another's continues in a new folder, from a copy of its checkpoints.

Three counts must be 0: runs that differ; results, found after a kill, that are not those of the
checkpoint beside them; files touched that the run did not write. For the last, files of others are
put into the runs' folders, and new runs, which must be refused, are started in used ones. The exit
code is 1 where a count is not 0.

Moments and signals are drawn from --seed; where a moment falls in a run is up to the machine.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from mnist_cnn import terminal
from mnist_cnn.runs.claim import OUTCOME
from mnist_cnn.runs.state import FAILED, LAST, RESULTS
from tests.helpers.comparison import OTHERS, contents, differences, kept
from tests.helpers.process import Piece

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
    "ddp": ["trainer=ddp", "model.dropout=0.25", "augment=photo", "scheduler=one_cycle"],
    "extended": ["optimizer.lr=0.01", "model.dropout=0.25"],
    "copied": ["augment=photo", "callbacks.early_stopping.patience=9"],
}
# a finished run of this length comes before the one that is hit
EXTENDED = {"extended": "trainer.max_epochs=2"}
# a run continues in a new folder, from copied checkpoints, once it has some
COPIED = ("copied",)
# how often a killed run saves; the uninterrupted one does so at epochs alone
SAVING = [
    ["callbacks.checkpoint.every_steps=1"],
    ["callbacks.checkpoint.every_steps=10"],
    ["callbacks.checkpoint.every_seconds=0.2"],
    [],
]
# which signals hit which processes: the first is the run's own, or torchrun, then come its ranks
SIGNALS = {
    "SIGKILL": (slice(None), [signal.SIGKILL]),
    "SIGTERM": (slice(1), [signal.SIGTERM]),
    "SIGINT": (slice(1), [signal.SIGINT]),
    "SIGINT twice": (slice(1), [signal.SIGINT, signal.SIGINT]),
}
RANK_SIGNALS = {
    "SIGINT all": (slice(None), [signal.SIGINT]),
    "SIGKILL 0": (slice(1, 2), [signal.SIGKILL]),
    "SIGKILL 1": (slice(2, 3), [signal.SIGKILL]),
    "SIGKILL torchrun": (slice(1), [signal.SIGKILL]),
}
PIECES = 40  # processes of a run; the last is not hit, so that every run ends
NOISE = 10  # two equal runs take less than this times each other's seconds, however busy


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
        return f"{name:<20} {self.signal:<16} {when} {where:<26} {self.code:>4} {self.said[:70]}"


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
    names = {
        "starting": list(SIGNALS),
        "configuring": ["SIGKILL"],
        "training": [*SIGNALS, *RANK_SIGNALS],
        "writing": ["SIGKILL", "SIGKILL 0", "SIGKILL 1"],
    }
    name = draw.choice([name for name in names[moment] if piece.ddp or name in SIGNALS])
    share, gap = draw.random(), draw.uniform(0, 0.1)
    if moment == "starting":
        there = piece.wait_for(lambda: piece.age > share * whole.startup)
    elif moment == "configuring":
        there = piece.stop_while((piece.folder / ".hydra.new").exists)
    else:
        there = piece.wait_for(piece.training)
        due = piece.age + share * whole.rest / 2
        there = there and piece.wait_for(lambda: piece.age > due)
        if moment == "writing":
            there = there and piece.stop_while(piece.unfinished)
    if not there:
        return None
    whom, signals = {**SIGNALS, **RANK_SIGNALS}[name]
    piece.hit(*signals, whom=whom, gap=gap)
    piece.hit(signal.SIGCONT)
    return name, moment


def plant(folder: Path) -> None:
    """Puts files of others into a run's folder."""
    for name, text in OTHERS.items():
        if (folder / name).parent.is_dir():
            (folder / name).write_text(text)


def touched(folder: Path) -> list[str]:
    """The files of others that are no longer as they were planted, once all of them were."""
    return [
        f"foreign: {folder.name}/{name} was touched"
        for name, text in OTHERS.items()
        if not (folder / name).is_file() or (folder / name).read_text() != text
    ]


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder: Path, overrides: Sequence[str]) -> list[str]:
    """Starts another run in a folder that is used; returns what was not as it should be."""
    before = snapshot(folder)
    other = [o for o in overrides if o != "trainer=ddp" and not o.startswith("ckpt_path=")]
    piece = Piece(folder, [*other, "data.batch_size=32"], new=True)
    code, said = piece.end(), piece.said()
    faults = [] if code == 1 and "must be a new or empty folder" in said else [f"{code}: {said}"]
    after = snapshot(folder)
    changed = {path for path in {**before, **after} if before.get(path) != after.get(path)}
    faults += [f"{path.relative_to(folder)} was touched" for path in sorted(changed)]
    return [f"foreign: another run in {folder.name}: {fault}" for fault in faults]


def stale(folder: Path, kept: tuple[int, int] | None, ends: Collection[Any]) -> list[str]:
    """The results in a folder that are not those of its last checkpoint.

    Args:
        folder: of a run that was hit.
        kept: epochs and steps behind the checkpoint.
        ends: those with which a run is finished.
    """
    found = [name for name in OUTCOME if (folder / name).exists()]
    if kept and FAILED in found:  # a rank whose peer was killed notes its end after its checkpoint
        before = (folder / FAILED).stat().st_mtime < (folder / LAST).stat().st_mtime
        found = [name for name in found if name != FAILED or before]
    if kept is None or kept not in ends:
        return [f"stale: {name} beside a checkpoint of epoch and step {kept}" for name in found]
    if RESULTS in found and (epochs := json.loads((folder / RESULTS).read_text())["epochs"]):
        return [f"stale: results of {epochs} epochs, not {kept[0]}"] * (epochs != kept[0])
    return []


def judge(kill: Kill, piece: Piece, ends: Collection[Any]) -> list[str]:
    """Notes what a kill left to resume from; returns what was not as it should be."""
    faults = []
    try:
        kill.kept = kept(piece.folder)
    except Exception as e:  # torch raises many kinds for a file that is not whole
        faults.append(f"last.ckpt is not whole: {e}")
    faults += stale(piece.folder, kill.kept, ends)
    if piece.orphans:
        faults.append(f"{piece.orphans} processes are left behind")
    codes = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143, "SIGINT": 130}
    # a signal may end it at once before it trains, and when all is written and Python ends
    if kill.training is not None and not piece.has_results():
        if kill.code == 0 if piece.ddp else kill.code != codes.get(kill.signal, kill.code):
            faults.append(f"exit code {kill.code}")
        asked = kill.signal in ("SIGTERM", "SIGINT", "SIGINT all", "SIGKILL torchrun")
        if asked and f"ckpt_path={piece.folder}" not in kill.said:
            faults.append(f"does not say how to go on, but {kill.said!r}")
    return [f"{kill.signal} to piece {kill.piece}: {fault}" for fault in faults]


@dataclass
class Run:
    """A run that was hit until it ended, and all that is not as it should be."""

    scenario: str
    overrides: list[str]
    kills: list[Kill]
    faults: list[str]


def compared(name: str, folder: Path, whole: Whole, copied: bool, elapsed: float) -> list[str]:
    """What a run that has ended left in another way than the uninterrupted one.

    Args:
        name: its scenario.
        folder: where it ended.
        whole: the uninterrupted run.
        copied: whether it began in another folder.
        elapsed: seconds that all its processes took.
    """
    try:
        faults = [
            line
            for line in differences(whole.contents, contents(folder))
            # a copy begins with events of its own; a finished run has shown its results before
            if not (copied and line.startswith("tensorboard"))
            if not (name in EXTENDED and re.match("tensorboard: tensors .*: too much", line))
        ]
        if not whole.trained / NOISE < trained(folder) < elapsed:
            faults.append(
                f"results.json: seconds: {trained(folder):.1f}, where the uninterrupted run has "
                f"{whole.trained:.1f}, and all pieces together took {elapsed:.1f}"
            )
        return faults
    except OSError as e:
        return [f"not finished, with exit code 0: {e}"]


def interrupted(name: str, number: int, whole: Whole, out: Path, seed: int) -> Run:
    """Trains a scenario, hits it until it ends, and compares what it left."""
    draw = random.Random(f"{seed} {number}")
    overrides = [*SHORT, *SCENARIOS[name], *draw.choice(SAVING)]
    run = Run(name, overrides, [], [])
    folder = first = out / f"{name}-{number}"
    copies = [out / f"{first.name}-{end}" for end in ("copied", "checkpoints")]
    planted: Path | None = None  # the folder that has files of others
    left: dict[Path, bytes] = {}  # in the folder that a run was copied from
    resumed: list[str] = []
    elapsed, ends = 0.0, {whole.end}
    if name in EXTENDED:
        piece = Piece(folder, [*overrides, EXTENDED[name]])
        if code := piece.end():
            raise RuntimeError(f"{name} does not train: exit code {code}: {piece.said()}")
        elapsed, resumed = piece.age, SHORT[1:2]
        ends.add(kept(folder))
    elif number % 4 == 0:
        folder.mkdir()
        plant(folder)
        run.faults += refused(folder, overrides)
        shutil.rmtree(folder)
    for n in range(1, PIECES + 1):
        piece = Piece(folder, overrides, resumed)
        try:
            hit = strike(piece, draw, whole) if n < PIECES else None
            since = piece.age - piece.opened if piece.opened else None
        finally:
            code = piece.end()
        elapsed += piece.age
        if hit:
            kill = Kill(folder.name, n, *hit, since, piece.unfinished(), None, code, piece.said())
            run.faults += judge(kill, piece, ends)
            run.kills.append(kill)
            print(kill, flush=True)
        if code == 0 or not hit:
            break
        if run.kills[-1].kept and planted != folder:
            planted = folder
            plant(folder)
            run.faults += refused(folder, overrides)
            if name in COPIED and not left:
                left = snapshot(first)
                folder, copy = copies
                shutil.copytree(first / LAST.parent, copy)
                overrides = [*overrides, f"ckpt_path={copy / LAST.name}"]
    if left and left != snapshot(first):
        run.faults.append(f"foreign: {first} was touched, from which {folder} was copied")
    if planted == folder:
        run.faults += touched(folder)
    if code:
        run.faults.append(f"piece {n}: exit code {code}: {piece.said()}")
    else:
        run.faults += compared(name, folder, whole, bool(left), elapsed)
    lines = [f"{folder.name}: {len(run.kills)} kills: {'DIFFERS' if run.faults else 'the same'}"]
    lines += [f"    {fault}" for fault in run.faults[:20]]
    print("\n".join(lines), flush=True)
    if not run.faults:
        for path in (first, *copies):
            shutil.rmtree(path, ignore_errors=True)
            path.with_suffix(".err").unlink(missing_ok=True)
    return run


COUNTED = ("differ", "stale", "foreign")


def count(runs: Sequence[Run]) -> dict[str, int]:
    """Runs that differ or end as they should not, stale results, and foreign files touched."""
    kinds = [
        ["stale" if "stale: " in f else "foreign" if "foreign: " in f else "differ" for f in faults]
        for faults in (run.faults for run in runs)
    ]
    counted = Counter(kind for found in kinds for kind in found if kind != "differ")
    return {kind: counted[kind] for kind in COUNTED} | {"differ": sum("differ" in k for k in kinds)}


def table(runs: Sequence[Run], wholes: Mapping[str, Whole]) -> Table:
    """Kills and differences of each scenario, and of all."""
    signals = [*SIGNALS, *(RANK_SIGNALS if "ddp" in wholes else ())]
    shown = Table("", "runs", "kills", *signals, "starting", "half-written", "at the end", *COUNTED)
    for name in (*wholes, "all"):
        chosen = [run for run in runs if name in (run.scenario, "all")]
        kills = [kill for run in chosen for kill in run.kills]
        by_signal = Counter(kill.signal for kill in kills)
        counts = [
            len(chosen),
            len(kills),
            *(by_signal[signal] for signal in signals),
            sum(kill.training is None for kill in kills),
            sum(kill.unfinished is not None for kill in kills),
            sum(kill.kept == wholes[run.scenario].end for run in chosen for kill in run.kills),
            *count(chosen).values(),
        ]
        shown.add_row(name, *map(str, counts), end_section=name == list(wholes)[-1])
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="at least this number (100)")
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
    terminal.console().print(table(runs, wholes))
    if args.json:
        args.json.write_text(json.dumps([asdict(run) for run in runs], indent=2) + "\n")
    counts = count(runs)
    print(
        f"{counts['differ']} runs differ, {counts['stale']} stale results, {counts['foreign']} "
        "foreign files touched"
    )
    if any(counts.values()):
        sys.exit(f"the runs with faults, and those without interruption: {out}")
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
