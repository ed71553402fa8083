"""The Hydra application of the docs, which knows nothing of digits, as processes of its own."""

import subprocess
from pathlib import Path

from mnist_cnn.runs.folder import LOCK, state
from tests.helpers import process
from tests.helpers.docs import DOCS, blocks

# of docs/usage.md, and what is other here
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
    """The application in a folder. Its sweep lies in `out`; x=3 fails while there is `broken`."""

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
    """The files below a folder, with what changes where one is written anew."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob(name)}
