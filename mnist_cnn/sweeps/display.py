"""What a sweep prints while it runs."""

import json
import threading
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mnist_cnn import terminal
from mnist_cnn.internals.launchers import POLL
from mnist_cnn.sweeps.folder import ENDS, PRUNED, State, end_of, failure_of


class Screen(threading.Thread):
    """Prints a line for each job as it ends, whoever runs it, and the progress of all.

    It looks at the folders from a thread of its own, since launchers return when all is over.
    """

    def __init__(self, sweep: Any):  # a Sweep
        super().__init__(daemon=True)
        self.sweep, self.objective = sweep, sweep.objective
        self.jobs: dict[int, str] = {}  # what sets them apart
        self.ends: dict[int, State] = {}
        self.best: tuple[float, int] | None = None
        self.asking, self.over = threading.Lock(), threading.Event()
        self.console = terminal.console()
        self.bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("jobs {task.description}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None)
        self.total = 0

    def __enter__(self) -> "Screen":
        self.bar.start()
        return self

    def expect(self, total: int) -> None:
        """Sets the number of jobs; those that have ended by the first call are not shown."""
        self.total = total
        self.bar.update(self.task, total=total)
        if not self.is_alive():
            if before := sum(1 for n in self.jobs if self.ended(n)):
                self.console.print(f"{before}/{total}  ended before")
            self.start()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.over.set()
        if self.is_alive():
            self.join()
            self.look()
        self.bar.stop()

    def run(self) -> None:
        while not self.over.wait(POLL):
            self.look()

    def look(self) -> None:
        for n, name in list(self.jobs.items()):
            if n not in self.ends and self.ended(n):
                cells = [f"{len(self.ends)}/{self.total}", f"job {n}", name, self.outcome(n)]
                if self.best:
                    cells.append(f"best {self.best[0]:.4f} (job {self.best[1]})")
                self.console.print("  ".join(filter(None, cells)))
        self.bar.update(self.task, completed=len(self.ends), description=self.running())

    def ended(self, n: int) -> bool:
        """Takes note of a job's end."""
        # the lock is asked only where it is worth it
        if end_of(self.sweep.job_folder(n)) is None or (state := self.sweep.state(n)) not in ENDS:
            return False
        self.ends[n] = state
        if state == "finished" and (value := self.sweep.value(n)) is not None:
            sign = 1 if self.objective.mode == "min" else -1
            if self.best is None or sign * value < sign * self.best[0]:
                self.best = value, n
        return True

    def outcome(self, n: int) -> str:
        folder, state, metric = self.sweep.job_folder(n), self.ends[n], self.objective.metric
        if state == "finished":
            value = self.sweep.value(n)
            return "finished" if value is None else f"{metric} {value:.4f}"
        if state == "pruned":
            noted = json.loads((folder / PRUNED).read_text("utf-8"))
            return f"pruned after epoch {noted['epoch']}: {metric} {noted['value']:.4f}"
        return f"failed: {failure_of(folder)}"

    def running(self) -> str:
        """The jobs that run, and how far each is."""
        left = sorted(self.jobs.keys() - self.ends.keys())
        under_way = filter(None, map(self.sweep.progress, left))
        return f"({text})" if (text := ", ".join(under_way)) else ""
