"""Where the configuration's files lie, which there are, and what an entry composes of them."""

import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_cnn.config.messages import better, either, must_be
from mnist_cnn.internals.hydra import composed
from mnist_cnn.sweeps import names

# inside an installed package, or beside the package in a clone
CONF = next(up / "conf" for up in Path(__file__).parents[1:3] if (up / "conf").is_dir())


def own_folders(argv: Sequence[str]) -> list[str]:
    """The folders that a command line adds to those where configuration is looked for."""
    found = []
    for option, following in itertools.zip_longest(argv, argv[1:]):
        name, _, value = option.partition("=")
        if name in ("--config-dir", "-cd"):
            found.append(value or following or "")
        elif name == "hydra.searchpath":
            found += re.findall(r"[^\[\],'\"]+", value)
    return [folder.removeprefix("file://") for folder in found]


def files(group: str) -> list[str]:
    """What group=... can be set to, the user's own files included; empty where it is no group."""
    folders = [CONF, *map(Path, own_folders(sys.argv[1:]))] if group else []
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def check_choices(overrides: Sequence[str]) -> None:
    """Raises ValueError for a group that is given null, a number or the like: Hydra stumbles."""
    for override in overrides:
        group, _, value = override.partition("=")
        if group == "hydra/sweeper":
            searches = " or ".join(f"hparams_search={file}" for file in files("hparams_search"))
            raise ValueError(f"hydra/sweeper must not be set, got {value}; use {searches}")
        names = [name.strip() for name in value.strip("[] ").split(",")]
        odd = [name for name in names if re.fullmatch(r"null|true|false|[\d.+-]+", name, re.I)]
        if odd and (known := files(group)) and not set(odd) <= set(known):
            raise ValueError(must_be(group, either(known), value))


def plain(cfg: DictConfig, key: str = "") -> Any:
    """The value of a key, or all of cfg, as plain Python values with every interpolation resolved.

    Raises:
        ValueError: a value refers to something that does not exist, or to itself.
    """
    try:
        value = OmegaConf.select(cfg, key) if key else cfg
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except (OmegaConfBaseException, RecursionError) as e:
        endless = isinstance(e, RecursionError) or "Recursive" in str(e)
        reason = "it refers to itself" if endless else " ".join(str(e).split())
        raise ValueError(f"{key}: {reason}" if key else reason) from None


names.register("better", better, replace=True)


def compose(
    overrides: Sequence[str] = (), *, run_dir: str | Path, run_name: str = "", entry: str = "train"
) -> DictConfig:
    """The configuration of `python -m mnist_cnn.<entry> OVERRIDES`, for use from Python.

    Args:
        overrides: as on the command line: ["trainer.max_epochs=2"].
        run_dir: the folder that the run is to fill.
        run_name: its name in TensorBoard, where it is to have one.
        entry: train or evaluate.
    """
    check_choices(overrides)
    cfg = composed(CONF, entry, overrides)
    cfg.run_dir = re.sub(r"(\\*)\$\{", r"\1\1\\${", str(run_dir))  # no interpolation
    if entry == "train":
        cfg.run_name = run_name
    return cfg
