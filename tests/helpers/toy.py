"""A small Hydra application that has nothing to do with digits, as processes of its own."""

import subprocess
import sys
from pathlib import Path

from mnist_cnn.runs.folder import LOCK, state
from tests.helpers.process import environment

APP = """
import os, time
import hydra
from mnist_cnn.sweeps import resumable

@hydra.main(config_path=".", config_name="app", version_base=None)
@resumable
def main(cfg):
    time.sleep(cfg.seconds)
    if cfg.x == 3 and os.path.exists("broken"):
        raise ValueError("not three")
    return {"loss": (cfg.x - 1.5) ** 2, "x": cfg.x}

if __name__ == "__main__":
    main()
"""
CONFIG = """
x: 0
y: 0
seconds: 0.0
hydra:
  sweep: {dir: out}
  hydra_logging: {root: {level: ERROR}}
  callbacks: {sweep: {_target_: mnist_cnn.sweeps.callback.Folders}}
"""


def start(folder: Path, *command: str, output: int = subprocess.PIPE) -> "subprocess.Popen[str]":
    """Start Python in a folder; modules there go before those of the same name elsewhere."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *command],
        cwd=folder,
        env={**environment(), "PYTHONPATH": f"{folder}:{environment()['PYTHONPATH']}"},
        stdout=output,
        stderr=output,
        text=True,
        start_new_session=True,
    )


class Toy:
    """The application in a folder. Its sweep lies in `out`; x=3 fails while there is `broken`."""

    def __init__(self, folder: Path):
        self.folder, self.sweep = folder, folder / "out"
        (folder / "app.py").write_text(APP)
        (folder / "app.yaml").write_text(CONFIG)

    def start(self, *args: str, **options: int) -> "subprocess.Popen[str]":
        return start(self.folder, "app.py", "-m", *args, **options)

    def finish(self, *args: str) -> "subprocess.CompletedProcess[str]":
        process = self.start(*args)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def states(self) -> dict[str, str]:
        return {job.parent.name: state(job.parent) for job in sorted(self.sweep.glob(f"*/{LOCK}"))}


def stamps(folder: Path, name: str = "*") -> dict[Path, tuple[int, int]]:
    """The files below a folder, with what changes where one is written anew."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob(name)}
