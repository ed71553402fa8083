"""The options, and the configuration that they give to the checks."""

import signal
import sys

import pytest
from omegaconf import DictConfig, OmegaConf

from mnist_cnn.config.check import check
from mnist_cnn.config.compose import compose, plain
from mnist_cnn.config.instantiate import targets

PARTS = {"network": "model", "loss": "loss", "data": "data"}  # options, keys of the configuration
SHORT = [
    *("trainer=cpu", "trainer.max_epochs=2", "trainer.limit_train_batches=4", "test=false"),
    *("trainer.limit_val_batches=1", "logger=none", "callbacks.summary=null"),
    *("callbacks.progress.quiet=true", "+callbacks.stop._target_=mnist_cnn.checks.test_parts.Stop"),
]


def pytest_addoption(parser: pytest.Parser) -> None:
    for option in PARTS:
        parser.addoption(f"--{option}", metavar="CLASS|FILE.yaml", help=f"{option} to check")


@pytest.fixture(scope="session")
def cfg(request: pytest.FixtureRequest) -> DictConfig:
    """The configuration of a run of seconds, with the parts that were given."""
    cfg = compose(SHORT, run_dir="unused")
    OmegaConf.set_struct(cfg, False)
    for option, key in PARTS.items():
        if given := request.config.getoption(option):
            file = given.endswith((".yaml", ".yml"))
            cfg[key] = OmegaConf.load(given) if file else {"_target_": given}
            named = targets(plain(cfg, key), key)
            cfg.targets += [f"{str(target).partition('.')[0]}.*" for _, target in named]
    check(cfg)
    return cfg


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest says where it was
    early = "-Wignore::pytest.PytestAssertRewriteWarning"  # Hydra is a plugin of pytest's, too
    options = ["--pyargs", "mnist_cnn.checks", "--tb=short", early, *sys.argv[1:]]
    sys.exit(pytest.main(options, [sys.modules[__name__]]))
