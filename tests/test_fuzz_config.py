"""Any configuration trains or is refused in one line, without a traceback.

Every declared key is given values of wrong types, sizes and languages. The suite tries sixty
configurations, the same each time; FUZZ=5000 tries 5000 new ones.
"""

import collections
import os
import traceback
import warnings
from pathlib import Path

import pytest
from hydra.errors import HydraException
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_cnn.config.compose import CONF, compose, files, plain, resolved
from mnist_cnn.config.messages import shown
from mnist_cnn.config.parse import Config, parse
from mnist_cnn.runs.folder import flat
from mnist_cnn.train import train
from mnist_cnn.weights.networks import build_network

MORE = int(os.environ.get("FUZZ", 0))
REFUSALS = (ValueError, OSError, HydraException, OmegaConfBaseException)
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
CHOICES = [f"{group}={name}" for group in GROUPS for name in files(group)]


# by key, the choice that declares it, if any, and its value as YAML
DECLARED: dict[str, tuple[str | None, str]] = {}
for choice in (None, *CHOICES):
    composed = compose([choice] if choice else [], run_dir="unused")
    for key, value in flat(OmegaConf.to_container(composed)).items():
        DECLARED.setdefault(key, (choice, shown(value)))

ODD = r"""
null true false 0 -1 1 2 3 0.5 -0.0 1e-320 1e-9 1e9 1e39 1e400 nan -inf 65536 4294967296
99999999999999999999999 '' ' ' ??? ~ .. [] {} [1] [1,2] [[1]] [null,null] {a:1} {a:{b:[]}}
${seed} ${nothing} ${data} ${run_dir} ${ ${oc.env:NOT_SET} $ "\n" '\0' \ a,b a=b é ℵ
min max val/loss train/acc auto cpu 16-mixed bf16-true 00:00:00:00 simple os.system torch.nn
torch.optim.LBFGS torch.optim.Optimizer torch.optim.lr_scheduler.LambdaLR mnist_cnn.model.CNN
mnist_cnn.model.torch.hub.load lightning.Trainer mnist_cnn.data.datamodule.MNISTDataModule"""
VALUES = st.one_of(
    st.sampled_from(ODD.split()),
    st.sampled_from(sorted({value for _, value in DECLARED.values() if "/" not in value})),
    st.integers().map(str),
    st.floats().map(repr),
    # no slash: files must stay in the test's folder
    st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), max_size=20),
)


@st.composite
def override(draw: st.DrawFn) -> list[str]:
    """Draw an override of one key, after the choice that declares the key."""
    key, (choice, declared) = draw(st.sampled_from(sorted(DECLARED.items(), key=str)))
    sign = draw(st.sampled_from([*[""] * 12, "+", "++", "~"]))
    value = draw(st.one_of(VALUES, st.just(declared), st.integers(0, 20).map(str)))
    return [*([choice] if choice else []), f"{sign}{key}={value}"]


CHOSEN = st.lists(st.sampled_from(CHOICES), max_size=2)
CONFIGURATIONS = st.one_of(
    *[override()] * 4,
    CHOSEN,
    st.tuples(CHOSEN, override(), override()).map(lambda parts: [*parts[0], *parts[1], *parts[2]]),
)


def small(cfg: DictConfig) -> DictConfig | None:
    """Shorten a run to a few batches of bundled digits; None if its network is too large."""
    trainer = cfg.trainer
    trainer.max_epochs = 1
    for limit in ("limit_train_batches", "limit_val_batches", "limit_test_batches"):
        # fractions too small for Lightning are kept
        if isinstance(trainer[limit], int) or trainer[limit] > 0.01:
            trainer[limit] = 1
    cfg.data.name = "mnist"
    cfg.data.batch_size = min(cfg.data.batch_size, 2000)
    cfg.data.eval_batch_size = min(cfg.data.eval_batch_size, 2000)
    network = build_network(plain(cfg, "model"))
    return cfg if sum(p.numel() for p in network.parameters()) < 500_000 else None


def tried(overrides: list[str], folder: Path, training: bool) -> str:
    """Try a configuration, and return whether it was accepted, trained or refused."""
    try:
        # TensorBoard's figures would take most of the time
        logger = [] if "logger" in str(overrides) else ["logger=none"]
        cfg = compose([*logger, *overrides], run_dir=folder)
        parse(resolved(cfg), Config)
        short = small(cfg) if training else None
        if short is None:
            return "accepted"
        train(short)
        return "trained"
    except REFUSALS:
        return "refused"


@pytest.mark.slow
def test_every_configuration_trains_or_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for relative folders and ~
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", None)  # no network
    outcomes: collections.Counter[str] = collections.Counter()
    faults: dict[str, str] = {}

    @settings(
        max_examples=MORE or 60,
        derandomize=not MORE,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # report every fault once, without shrinking
        suppress_health_check=list(HealthCheck),
    )
    @given(CONFIGURATIONS, st.booleans())
    def fuzz(overrides: list[str], training: bool) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # such as for a useless learning rate
                folder = tmp_path / f"run{outcomes.total()}"
                outcomes[tried(overrides, folder, training)] += 1
        except Exception as e:
            outcomes["fault"] += 1
            where = traceback.format_tb(e.__traceback__)[-1]
            faults.setdefault(f"{type(e).__name__}: {e}\n{where}", repr(overrides))

    fuzz()
    assert not faults, "\n".join(f"{overrides}\n{fault}" for fault, overrides in faults.items())
    assert min(outcomes[kind] for kind in ("accepted", "trained", "refused")) > 1
