"""How training shares the processors with other programs."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mnist_cnn.internals import threads
from mnist_cnn.runs import results

SHOWN = "import os; from mnist_cnn.internals import threads; threads.sleep_at_barriers_if_busy(); "
SHOWN += "print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """Other processes that keep every processor busy."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1)
    ]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


def choice(**settings: str) -> str:
    """GOMP_SPINCOUNT after a process with these settings has chosen."""
    own = {k: v for k, v in os.environ.items() if k not in threads.SETTINGS}
    return subprocess.run(
        [sys.executable, "-c", SHOWN], env={**own, **settings}, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells how busy the machine is")
def test_threads_sleep_at_barriers_beside_busy_processes(busy_machine: None) -> None:
    assert threads.processors_in_use() > threads.BUSY
    assert choice() == "0"


def test_a_setting_of_the_user_s_is_left_alone(busy_machine: None) -> None:
    assert choice(GOMP_SPINCOUNT="1000") == "1000"
    assert choice(OMP_NUM_THREADS="2") == "None"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells how long threads wait")
def test_waiting_for_a_processor_is_measured(busy_machine: None) -> None:
    script = "from mnist_cnn.internals.threads import Waits; waits = Waits(); sum(range(10**7)); "
    script += "print(waits.share(1))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert 0 < float(done.stdout) < 1


def test_a_run_on_a_busy_machine_ends_with_advice(
    short_run: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = short_run()
    assert 0 <= outcome["waited"] < 1
    for waited, told in ((0.5, True), (0.0, False)):
        results.print_results({**outcome, "threads": 2, "waited": waited}, tmp_path / "run")
        assert ("OMP_NUM_THREADS=1" in capsys.readouterr().out) is told
