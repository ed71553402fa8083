"""Command line of the checks, and the configuration made from its options."""

import argparse
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mnist_cnn import checks
from mnist_cnn.command import command
from mnist_cnn.config.compose import compose, plain, resolved
from mnist_cnn.config.instantiate import COMMANDS, locate, targets
from mnist_cnn.config.messages import must_be
from mnist_cnn.config.parse import Config, parse
from mnist_cnn.runs.resume import quote
from mnist_cnn.runs.signals import Interrupted, handle, interrupted

# options, and the keys of the configuration that they set
PARTS = {"network": "model", "loss": "loss", "data": "data", "module": "module"}
SHORT = [
    *("trainer=cpu", "trainer.max_epochs=2", "trainer.limit_train_batches=4", "test=false"),
    *("trainer.limit_val_batches=1", "logger=none", "callbacks.summary=null"),
    *("callbacks.progress.quiet=true", "+callbacks.stop._target_=mnist_cnn.checks.runs.Stop"),
]


def configured(parts: Mapping[str, str]) -> DictConfig:
    """Return the configuration of a run of a few seconds with these parts, given by option.

    Raises:
        ValueError: a part cannot be loaded, or its file has `defaults` but is where Hydra cannot
            choose it.
    """
    given = {PARTS[option]: part for option, part in parts.items()}
    files = {key: Path(part) for key, part in given.items() if part.endswith(".yaml")}
    # as a run chooses them: my_conf/model/mine.yaml is model=mine with --config-dir my_conf
    groups = {key: file for key, file in files.items() if file.absolute().parent.name == key}
    folders = dict.fromkeys(file.absolute().parents[1] for file in groups.values())
    places = [quote(f"file://{folder}") for folder in folders]
    chosen = [f"{key}={quote(file.stem)}" for key, file in groups.items()]
    if "module" not in given:  # which has an objective of its own
        chosen.append("objective.metric=train/loss")  # data may have no validation
    cfg = compose([f"hydra.searchpath=[{','.join(places)}]", *chosen, *SHORT], run_dir="unused")
    OmegaConf.set_struct(cfg, False)
    for key, part in given.items():
        if key not in groups:
            cfg[key] = OmegaConf.load(part) if key in files else {"_target_": part}
            if "defaults" in cfg[key]:
                allowed = f"in a folder named {key}, as it has defaults"
                raise ValueError(must_be(part, allowed, files[key].absolute().parent))
    named = [pair for key in given for pair in targets(plain(cfg, key), key)]
    cfg.targets += [f"{str(name).partition('.')[0]}.*" for _, name in named]
    parse(resolved(cfg), Config)
    for where, name in named:
        locate(name, where, COMMANDS)
    return cfg


@command
def main(argv: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & {*given}:
        print(checks.__doc__)
        return
    if importlib.util.find_spec("pytest") is None:
        raise ValueError("the checks run by pytest: pip install pytest")
    import pytest

    parser = argparse.ArgumentParser(prog="mnist_cnn.checks", allow_abbrev=False, add_help=False)
    for option in PARTS:
        parser.add_argument(f"--{option}", metavar="CLASS|FILE.yaml")
    parts, options = parser.parse_known_args(given)
    config = configured({option: part for option, part in vars(parts).items() if part})

    def stop(number: int, frame: Any) -> None:
        interruption = Interrupted(number)
        pytest.exit(str(interruption), 128 + number)

    class Plugin:
        @pytest.fixture(scope="session")
        @classmethod
        def cfg(cls) -> DictConfig:
            return config

        def pytest_exception_interact(self, call: pytest.CallInfo[Any]) -> None:
            # a run was stopped by a signal
            if call.excinfo and (interruption := interrupted(call.excinfo.value)):
                stop(interruption.number, None)

    handle(stop)  # pytest's exit reports where it was
    early = "-Wignore::pytest.PytestAssertRewriteWarning"  # Hydra is also a pytest plugin
    kind = "module" if parts.module else "parts"
    files = ["--pyargs", f"mnist_cnn.checks.test_{kind}"]
    sys.exit(pytest.main([*files, "--tb=short", early, *options], [Plugin()]))


if __name__ == "__main__":
    main()
