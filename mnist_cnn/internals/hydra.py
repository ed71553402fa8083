"""Private API of Hydra, as of releases 1.3.8 and 1.4.0rc3.

The parser of overrides, the config loader of the running application, setting HydraConfig, the
launcher of one job after the other, and a context without callbacks. Each has a test in
tests/test_contracts.py that fails if a new release changes it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_launcher import BasicLauncher as BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep as ChoiceSweep
from hydra.core.override_parser.types import Override as Override
from hydra.core.override_parser.types import QuotedString as QuotedString
from hydra.types import HydraContext
from omegaconf import DictConfig


def parse_override(override: str) -> Override:
    """Parse an override; HydraException if Hydra's grammar does not allow it."""
    return OverridesParser.create().parse_override(override)


def parse_overrides(
    overrides: Sequence[str], config_loader: ConfigLoader | None = None
) -> list[Override]:
    """Parse several overrides; `glob(*)`, the options of a group, needs a loader."""
    return OverridesParser.create(config_loader).parse_overrides(list(overrides))


def compose_job(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of a job of the sweep that is starting."""
    return config_loader().load_sweep_config(config, list(overrides))


def config_loader() -> ConfigLoader:
    """Return the loader of the running application."""
    return GlobalHydra.instance().config_loader()


def jobs_of(overrides: Sequence[Override]) -> list[list[str]]:
    """Return each job's overrides in a sweep by BasicSweeper; HydraException for an interval."""
    (jobs,) = BasicSweeper.split_arguments(list(overrides), None)
    return jobs


def set_hydra_config(config: DictConfig) -> None:
    """Set HydraConfig before Hydra itself does."""
    HydraConfig.instance().set_config(config)


def adopt_hydra_config(job: Any) -> None:
    """Set HydraConfig to that of another process, which `job.hydra` has, unchanged."""
    HydraConfig.instance().cfg = job


def without_callbacks(context: HydraContext) -> HydraContext:
    """Return a context whose jobs call no callbacks."""
    return dataclasses.replace(context, callbacks=Callbacks())
