"""Run the Hydra application of docs/usage.md, which has nothing to do with digits."""

import subprocess
from pathlib import Path

from mnist_cnn.runs.folder import LOCK, state
from tests.helpers import process
from tests.helpers.docs import DOCS, blocks

# the example of docs/usage.md, and what is changed here
_, section = (DOCS / "usage.md").read_text("utf-8").split("\n## Resumable sweeps")
EXAMPLE = {kind: content for kind, content in blocks(section) if kind != "bash"}
BODY = """
    time.sleep(cfg.seconds)
    if cfg.x == 3 and os.path.exists("broken"):
        raise ValueError("not three")
    return {"loss": (cfg.x - 1.5) ** 2, "x": cfg.x}
"""
CONFIG = """
y: 0
seconds: 0.0
hydra:
  sweep: {dir: out}
  hydra_logging: {root: {level: ERROR}}
"""


class Toy:
    """The application in a folder. Its sweep is in `out`; x=3 fails while `broken` exists."""

    def __init__(self, folder: Path):
        self.folder, self.sweep = folder, folder / "out"
        app = EXAMPLE["python"].replace("    time.sleep(1)\n    return (cfg.x - 1.5) ** 2\n", BODY)
        (folder / "app.py").write_text(f"import os\n{app}")
        (folder / "app.yaml").write_text(EXAMPLE["yaml"].replace("hydra:\n", CONFIG))

    def start(self, *args: str, output: int = subprocess.PIPE) -> "subprocess.Popen[str]":
        command = ["app.py", "-m", *args]
        return process.start(self.folder, *command, output=output, PYTHONWARNINGS="ignore")

    def finish(self, *args: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(args, *process.finish(self.start(*args)))

    def states(self) -> dict[str, str]:
        return {job.parent.name: state(job.parent) for job in sorted(self.sweep.glob(f"*/{LOCK}"))}


def stamps(folder: Path, name: str = "*") -> dict[Path, tuple[int, int]]:
    """Return inode and modification time of the files below a folder, to detect rewritten ones."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob(name)}
