"""Objects that a configuration describes by `_target_`, and which code it may name so."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from mnist_cnn.config.messages import either, must_be

# what a checkpoint may name: no more, since it may be a stranger's file
LIBRARIES = ["torch.nn.*", "torch.optim.*", "torchmetrics.*"]
OF_CHECKPOINTS = [*LIBRARIES, "mnist_cnn.losses.*"]

# what every configuration may name
TARGETS = ["mnist_cnn.*", "lightning.*", "optuna.samplers.*", "optuna.pruners.*", *LIBRARIES]

ALLOWED: list[str] = []  # of the user's own, in this process


class ForbiddenError(ValueError):
    """A configuration names code that `targets` must allow first."""


def allow(targets: Sequence[str]) -> None:
    """Sets which code of the user's own may be named, as patterns such as my_pkg.*.

    They come from the user's command or program, never from a file that is loaded.
    """
    ALLOWED[:] = targets


def allow_given(argv: Sequence[str]) -> None:
    """Allows what `targets=` of a command line lists: targets=[my_pkg.*,other.nets.*]."""
    for argument in argv:
        key, _, value = argument.lstrip("+").partition("=")
        if key == "targets":
            patterns = (pattern.strip(" '\"") for pattern in value.strip(" '\"[]").split(","))
            allow([pattern for pattern in patterns if pattern])


def forbidden(node: Any, key: str, known: Sequence[str] = TARGETS) -> list[str]:
    """A sentence for each `_target_` in a part of a configuration that may not be called."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, Mapping):
        return []
    faults = [f for name, value in node.items() for f in forbidden(value, f"{key}.{name}", known)]
    target = node.get("_target_")
    patterns = [*known, *ALLOWED]
    if target is not None and not any(fnmatch.fnmatchcase(str(target), t) for t in patterns):
        package = str(target).partition(".")[0]
        fault = must_be(f"{key}._target_", either(patterns) or "allowed by targets", target)
        faults.append(f"{fault}; for code of your own: targets=[{package}.*]")
    return faults


def is_own(data: Any) -> bool:
    """Whether a data set's config describes a LightningDataModule of the user's own."""
    target = data.get("_target_") if hasattr(data, "get") else None
    return not str(target).startswith("mnist_cnn.")


def make_data(data: Any) -> Any:
    """The LightningDataModule of a data set's config."""
    import lightning as L
    from omegaconf import OmegaConf

    if is_own(data) and not data.get("augment"):  # of the group augment, which it may not know
        values: Any = OmegaConf.to_container(data, resolve=True)
        data = {key: value for key, value in values.items() if key != "augment"}
    return make(L.LightningDataModule, data, key="data")


def make(
    kind: type, node: Any, *args: Any, key: str = "", known: Sequence[str] = TARGETS, **options: Any
) -> Any:
    """The object of a class `kind` that a part of the configuration describes by its `_target_`.

    Args:
        node: `_target_` and arguments, beside `args` and `options`.
        key: where the node stands in the configuration.
        known: what may be named beside what is allowed.

    Raises:
        ForbiddenError: it names what may not be named.
        ValueError: it makes something else, or is refused by the class, as a device that is not
            here.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from omegaconf import OmegaConf

    written: Any = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    if faults := forbidden(written, key, known):
        raise ForbiddenError("; ".join(faults))
    target = f"{key}._target_".lstrip(".")
    try:
        made = instantiate(
            node, *args, **options, _convert_="all", _execution_whitelist_=[*known, *ALLOWED]
        )
    except (MisconfigurationException, ImportError) as e:  # no such device; its package is missing
        raise ValueError(e) from e
    except InstantiationException as e:
        raise ValueError(f"{target}={written['_target_']}: {' '.join(str(e).split())}") from e
    except TypeError as e:  # an argument that it does not take
        raise ValueError(f"{written['_target_']}: {e}".splitlines()[0]) from e
    if not isinstance(made, kind):
        raise ValueError(must_be(target, f"a {kind.__name__}", written["_target_"]))
    return made
