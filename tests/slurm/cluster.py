"""Start a SLURM cluster of two nodes on this machine, from Debian's slurm-wlm and munge.

    python -m tests.slurm.cluster      # until Ctrl-C; prints what makes sbatch and srun use it

All of it lies in a temporary folder. Each node is a slurmd with a name and a port of its own.
"""

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from mnist_cnn.runs.ranks import end_with_launcher

NODES = ("one", "two")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
PATIENCE = 240  # timeout in seconds
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
CONFIG = """\
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# a job that is queued again waits for as long as a credential lasts, by default for two minutes
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=3
# a killed node is seen to be down after seconds, and taken back when it is there again
SlurmdTimeout=6
ReturnToService=2
KillWait=20
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[0]} CPUs=4 RealMemory=64000
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=64000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Return why no cluster can be started here; empty if one can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "no SLURM here: its daemons need root"
    lacking = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    return f"no SLURM here: apt-get install slurm-wlm munge for {lacking}" if lacking else ""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in taken]


class Cluster:
    """The daemons of a cluster in a folder.

    SLURM's commands use it where the environment variable SLURM_CONF is `conf`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.conf = str(folder / "slurm.conf")
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        folder, ports = self.folder, free_ports(3)
        folder.chmod(0o755)  # munged wants its socket to be within everyone's reach
        (folder / "state").mkdir()
        for node in NODES:
            (folder / node).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        values = {"folder": folder, "port": ports[0], "ports": ports[1:], "nodes": NODES}
        values["host"] = socket.gethostname()
        (folder / "slurm.conf").write_text(CONFIG.format(**values))
        (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
        options = [f"--{option}={folder}/munge.{name}" for option, name in files.items()]
        self.daemon("munged", "--foreground", f"--log-file={folder}/munged.log", *options)
        self.wait_until((folder / "munge.socket").exists, "munged")
        self.control()
        for node in NODES:
            self.node(node)
        self.wait_until(lambda: self.states() == ["idle"] * len(NODES), "the nodes")

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition; the error says what the cluster is doing."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {PATIENCE} s\n{self.report()}")
            time.sleep(0.2)

    def report(self) -> str:
        """Return the jobs, the nodes, and the end of each daemon's log."""
        found = []
        for command in (["squeue", "--format=%i %T %N %r"], ["sinfo", "--Node", "--long"]):
            with contextlib.suppress(RuntimeError):
                found.append(self.call(*command))
        found += [file.read_text()[-2000:] for file in sorted(self.folder.glob("*.log"))]
        return "\n".join(found)

    def control(self) -> None:
        """Start the controller, or start it again."""
        self.daemon("slurmctld", "-D")

    def node(self, name: str) -> None:
        """Start a node, or start it again."""
        self.daemon(name, "-D", "-N", name, program="slurmd")

    def daemon(self, name: str, *options: str, program: str = "") -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                [shutil.which(program or name, path=PATH) or name, *options],
                cwd=self.folder,
                env={**os.environ, "SLURM_CONF": self.conf},
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=functools.partial(end_with_launcher, os.getpid(), signal.SIGTERM),
            )

    def call(self, *command: str) -> str:
        """Run a command of SLURM's, and return what it prints."""
        done = subprocess.run(
            command, env={**os.environ, "SLURM_CONF": self.conf}, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def states(self) -> list[str]:
        """Return the states of the nodes; empty while the controller does not answer."""
        with contextlib.suppress(RuntimeError):
            return self.call("sinfo", "--noheader", "--Node", "--format=%t").split()
        return []

    def queue(self) -> dict[str, str]:
        """Return the states of the jobs in the queue; those of an array have an ID each."""
        lines = self.call("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def processes(self, node: str = "") -> list[psutil.Process]:
        """Return the processes of jobs, and those that SLURM watches them by."""
        found = set()
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                environment = each.environ()
                if environment.get("SLURM_CONF") != self.conf:
                    continue
                if "SLURM_JOB_ID" not in environment:
                    continue
                if not node or environment.get("SLURMD_NODENAME") == node:
                    above = each.parent()
                    found |= {each, above} if above and above.name() == "slurmstepd" else {each}
        return list(found)

    def stopped(self) -> list[psutil.Process]:
        """Return the processes of jobs that SIGSTOP has stopped."""
        found = []
        for each in self.processes():
            with contextlib.suppress(psutil.Error):
                if each.status() == psutil.STATUS_STOPPED:
                    found.append(each)
        return found

    def kill(self, name: str) -> None:
        """Kill a daemon; with a node its jobs, as when a machine loses its power."""
        self.daemons[name].kill()
        self.daemons.pop(name).wait()
        if name in NODES:
            kill_all(self.processes(name))

    def stop(self) -> None:
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
        for daemon in self.daemons.values():
            daemon.wait(30)
        kill_all(self.processes())


def kill_all(processes: list[psutil.Process]) -> None:
    for each in processes:
        with contextlib.suppress(psutil.Error):
            each.kill()
    psutil.wait_procs(processes, 10)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a cluster, and stop it; nothing of it is left behind."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        started = Cluster(Path(folder))
        try:
            started.start()
            yield started
        finally:
            started.stop()


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell has background jobs ignore SIGINT
        signal.signal(number, signal.default_int_handler)
    with cluster() as made:
        print(f"export SLURM_CONF={made.conf}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
