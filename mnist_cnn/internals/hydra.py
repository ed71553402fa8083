"""The parts of Hydra without a public API, as read in releases 1.3.8 and 1.4.0rc3.

Its parser of overrides, the loader of the running application, and what HydraConfig gives. Each has
a test in tests/test_contracts.py that fails where a new release changes it.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep as ChoiceSweep
from hydra.core.override_parser.types import Override as Override
from hydra.core.override_parser.types import QuotedString as QuotedString
from omegaconf import DictConfig


def parse_override(override: str) -> Override:
    """Parse an override; HydraException where Hydra's grammar has no such."""
    return OverridesParser.create().parse_override(override)


def parse_overrides(
    overrides: Sequence[str], config_loader: ConfigLoader | None = None
) -> list[Override]:
    """Parse several overrides; with a loader, those that list what a group has: `glob(*)`."""
    return OverridesParser.create(config_loader).parse_overrides(list(overrides))


def compose_job(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of a job of the sweep that starts."""
    return GlobalHydra.instance().config_loader().load_sweep_config(config, list(overrides))


def set_hydra_config(config: DictConfig) -> None:
    """Set what HydraConfig gives, before Hydra itself does."""
    HydraConfig.instance().set_config(config)


def adopt_hydra_config(job: Any) -> None:
    """Set what HydraConfig gives to that of another process, in `job.hydra`, as it is."""
    HydraConfig.instance().cfg = job
