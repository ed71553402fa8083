"""Where the configuration's files lie, and which there are."""

import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_cnn.config.messages import either, must_be

PACKAGE = Path(__file__).parents[1]

# inside an installed package, or beside the package in a clone
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())


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
