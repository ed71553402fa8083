"""Hydra's errors as one line for the user."""

import difflib
import re
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mnist_cnn.config.check import NAMED
from mnist_cnn.config.compose import CONF, files, own_folders
from mnist_cnn.config.messages import either, must_be
from mnist_cnn.internals.hydra import composed, flat, mistake


def one_line(error: BaseException, entry: str = "train") -> str:
    """The error as one line for the user of an entry."""
    about, found = mistake(error)
    if about == "key":
        text = no_such_key(found, entry)
    elif about == "argument":
        text = f"an argument must be key=value, got {found}"
        if Path(found).exists():
            text += f"; for the network or the run there, ckpt_path={found}"
    elif about == "several":
        key, _, values = found.partition("=")
        text = (
            f"{key} must be one value, got {values}; -m makes a run of each, [{values}] is a list"
        )
    elif about == "file":
        group, _, file = found.rpartition("/")
        text = must_be(group, either(getattr(error, "options", None) or files(group)), file)
    else:
        text = " ".join(str(error).split())
    return f"error: {text}"


def without_part(wrong: str, node: dict[str, Any]) -> list[str]:
    """At most two keys that end as, or nearly as, one that was given without its part."""
    ends = {key: key.rpartition(".")[2] for key in flat(node)}
    same = [key for key, end in ends.items() if end == wrong]
    near = difflib.get_close_matches(wrong, set(ends.values()), n=2)
    return (same or [key for key, end in ends.items() if end in near])[:2]


def no_such_key(key: str, entry: str) -> str:
    """The sentence for a key that Hydra could not override."""
    defaults = OmegaConf.load(CONF / f"{entry}.yaml").defaults
    entries = [str(group) for item in defaults if isinstance(item, DictConfig) for group in item]
    groups = [group for group in entries if not group.startswith("override ")]
    # with the files that were chosen: their keys differ
    given = [text for text in sys.argv[1:] if re.fullmatch(r"[\w/]+=[\w/]+", text)]
    own = (*groups, "hydra/launcher", "hydra/sweeper")
    chosen = [text for text in given if text.partition("=")[0] in own]
    folders = ",".join(f"'{folder}'" for folder in own_folders(sys.argv[1:]))
    whole = composed(
        CONF, entry, [f"hydra.searchpath=[{folders}]", *chosen], return_hydra_config=True
    )
    node: Any = OmegaConf.to_container(whole)
    # a group of which no file is chosen, such as experiment, is no key of what is composed
    top = key.partition(".")[0]
    if top in groups and top not in node:
        choice = f"{top} must be {either(files(top))}"
        return choice if key == top else f"{key}: no such key; {choice}"
    node = {**node, **{group: node.get(group) for group in groups}}
    known: list[str] = []
    wrong, *deeper = key.split(".")
    while deeper and isinstance(node, dict) and wrong in node:
        known.append(wrong)
        node = node[wrong]
        wrong, *deeper = deeper
    keys = list(map(str, node)) if isinstance(node, dict) else []
    near = difflib.get_close_matches(wrong, keys, n=1)
    if near:
        meant = ".".join([*known, near[0], *deeper])
    else:
        meant = either([] if known else without_part(wrong, {**node, "hydra": None}))
    part = f" in {'.'.join(known)}" if known else ""
    text = f"{key}: no such key"
    if meant:
        text += f"; did you mean {meant}?"
    elif keys:
        text += f"; allowed{part}: {', '.join(keys)}"
    return text + (
        f"; a key of your own: +{key}=..." if known and top in (*NAMED, "trainer") else ""
    )
