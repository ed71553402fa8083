"""The options, and the configuration that they give to the checks."""

import importlib.util
import signal
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mnist_cnn import checks
from mnist_cnn.config.check import check
from mnist_cnn.config.compose import compose, plain
from mnist_cnn.config.instantiate import targets

# options, and the keys of the configuration that they set
PARTS = {"network": "model", "loss": "loss", "data": "data", "module": "module"}
SHORT = [
    *("trainer=cpu", "trainer.max_epochs=2", "trainer.limit_train_batches=4", "test=false"),
    *("trainer.limit_val_batches=1", "logger=none", "callbacks.summary=null"),
    *("callbacks.progress.quiet=true", "+callbacks.stop._target_=mnist_cnn.checks.runs.Stop"),
]


def configured(given: dict[str, str]) -> DictConfig:
    """The configuration of a run of seconds, with the parts that were given, by their keys."""
    files = {key: Path(part) for key, part in given.items() if part.endswith((".yaml", ".yml"))}
    # as a run chooses them: my_conf/model/mine.yaml is model=mine with --config-dir my_conf
    groups = {key: file for key, file in files.items() if file.absolute().parent.name == key}
    places = dict.fromkeys(f"file://{file.absolute().parents[1]}" for file in groups.values())
    chosen = [f"{key}={file.stem}" for key, file in groups.items()]
    cfg = compose([f"hydra.searchpath=[{','.join(places)}]", *chosen, *SHORT], run_dir="unused")
    OmegaConf.set_struct(cfg, False)
    for key, part in given.items():
        if key not in groups:
            cfg[key] = OmegaConf.load(part) if key in files else {"_target_": part}
        named = targets(plain(cfg, key), key)
        cfg.targets += [f"{str(target).partition('.')[0]}.*" for _, target in named]
    check(cfg)
    return cfg


def main() -> int:
    if {"-h", "--help"} & {*sys.argv}:
        print(checks.__doc__)
        return 0
    if importlib.util.find_spec("pytest") is None:
        sys.exit("error: the checks run by pytest: pip install pytest")
    import pytest

    signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest says where it was

    class Options:
        def pytest_addoption(self, parser: pytest.Parser) -> None:
            for option in PARTS:
                about = f"{option} to check"
                parser.addoption(f"--{option}", metavar="CLASS|FILE.yaml", help=about)

        @pytest.fixture(scope="session")
        def cfg(self, request: pytest.FixtureRequest) -> DictConfig:
            given = {key: request.config.getoption(option) for option, key in PARTS.items()}
            return configured({key: part for key, part in given.items() if part})

    early = "-Wignore::pytest.PytestAssertRewriteWarning"  # Hydra is a plugin of pytest's, too
    kind = "module" if any(a.startswith("--module") for a in sys.argv) else "parts"
    options = ["--pyargs", f"mnist_cnn.checks.test_{kind}", "--tb=short", early, *sys.argv[1:]]
    return pytest.main(options, [Options()])


if __name__ == "__main__":
    sys.exit(main())
