"""Which networks an evaluation is given, and the data that they were trained on."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import ListConfig

from mnist_cnn.analysis.found import find_runs, natural_order
from mnist_cnn.config.instantiate import not_allowed
from mnist_cnn.config.messages import must_be
from mnist_cnn.runs.resume import in_grammar, take_ckpt_path
from mnist_cnn.runs.folder import LAST, OVERRIDES, state

if TYPE_CHECKING:
    from mnist_cnn.pretrained import Trained

# what an evaluation of the same network and split is told apart by
CHANGES = ("data", "shifts=", "temperature=", "compare=", "robustness=")


def networks(given: Any) -> list[Path]:
    """The files of the networks that an evaluation is given, a path or a list, each once.

    Of a run's folder it is the best checkpoint; a sweep's folder stands for its finished runs, in
    their order; None is the network in the package.

    Raises:
        ValueError: it names none, or something that is not there.
    """
    from mnist_cnn import pretrained

    found: list[Any] = []
    for path in given if isinstance(given, list | ListConfig) else [given]:
        if path is None or not is_sweep(path):
            found.append(path)
            continue
        jobs = find_runs(Path(path).expanduser().resolve())
        finished = [job for job in jobs if state(job) == "finished"]
        if not finished:
            raise ValueError(f"{path}: a sweep of which no run is finished")
        found += sorted(finished, key=lambda job: natural_order(str(job)))
    if not found:
        raise ValueError("[]: no network: name runs or sweeps, checkpoints or weights files")
    return list(dict.fromkeys(pretrained.find(path).resolve() for path in found))


def as_trained(argv: Sequence[str]) -> list[str]:
    """The command line of an evaluation, filled up with the data that its networks were trained on.

    The set, where it lies (if it still does) and the split into training and validation come from
    the checkpoint or weights file, of several the first; what is given now comes after them. A
    checkpoint of a run is evaluated in `evaluation/` of the run's folder, a sweep in that of its
    own.

    Raises:
        ValueError: there is no such file or folder, or it is not one of this project's; or the
            networks were trained on different sets.
    """
    from mnist_cnn import pretrained

    given, command = take_ckpt_path(argv)
    paths = listed(given)
    try:
        files = networks(paths)
        nets = pretrained.load_all(files)
    except ValueError as e:
        raise ValueError(f"ckpt_path={e}") from None
    filled = trained_on(nets[0], any(a.startswith("data=") for a in command))
    file = files[0]
    home = file.parents[1] if file.parent.name == LAST.parent.name else file.parent
    if paths[0] is not None and is_sweep(paths[0]):
        home = Path(paths[0]).expanduser().resolve()
    if len(paths) == 1 and (is_sweep(home) or (home / OVERRIDES).is_file()):
        what = [] if file.stem in ("best", "weights") else [file.stem]
        what += [a for a in command if a.startswith(CHANGES)]
        label = ",".join(["${split}", *(re.sub(r"[^\w.=+-]+", "_", part)[:80] for part in what)])
        place = quote(home / "evaluation").removesuffix("'")  # ${split} is no part of the path yet
        command = [f"hydra.run.dir={place}/{label}'", *command]
    value = quote(file) if len(files) == 1 else f"[{','.join(map(quote, files))}]"
    return [*filled, f"ckpt_path={value}", *command]


def trained_on(net: "Trained", another: bool) -> list[str]:
    """The overrides that describe the data of a network's training to an evaluation.

    Args:
        another: the command line names a set by itself.

    Raises:
        ValueError: they are of a user's own, whose code is not allowed.
    """
    from mnist_cnn import pretrained

    data = net.about["data"]
    if "own" in data:
        if another:
            return []
        # the file may be a stranger's: it names no more than the command allows
        if faults := not_allowed(data["own"], "data", allowlist=()):
            raise ValueError("; ".join(faults))
        others = ("val_fraction", "fold", "seed", "augment")  # in evaluate.yaml
        alone = ["~data", *(f"~data.{key}" for key in others)]
        parts = ((name(key), part) for key, part in data["own"].items() if key != "augment")
        return [*alone, *(f"+data.{key}={in_grammar(part, quote, name)}" for key, part in parts)]
    filled = [f"data.{key}={data[key]}" for key in ("val_fraction", "fold")]
    if root := pretrained.data_root(net):
        filled.append(f"data.root={quote(root)}")
    if path := data.get("path"):
        filled.append(f"data.path={quote(path)}")
    if another:
        return filled
    return [f"data={data['name']}", *filled, f"data.split={data.get('split') or 'rows'}"]


def name(key: Any) -> str:
    """A key, which has no part of Hydra's grammar in it."""
    if not re.fullmatch(r"\w+", str(key)):
        raise ValueError(must_be("a key of data", "a name", key))
    return str(key)


def listed(given: str | None) -> list[str | None]:
    """The parts of a list `[a,'b, c']` on the command line; of anything else itself alone."""
    if given is None or not (given.startswith("[") and given.endswith("]")):
        return [given]
    parts = re.findall(r"'[^']*'|\"[^\"]*\"|[^,\s][^,]*", given[1:-1])
    return [part.strip().strip("'\"") for part in parts]


def network_name(file: Path | str) -> str:
    """A checkpoint's path from here; of a run's best one the run's folder."""
    path = str(file).removeprefix(f"{Path.cwd()}{os.sep}")
    return path.removesuffix(str(Path("/checkpoints/best.ckpt")))
