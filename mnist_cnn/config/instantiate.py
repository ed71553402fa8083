"""Instantiation of the objects that a configuration names by `_target_`, limited by allowlists.

A name must match an allowlist before anything is imported. The imported object must be a class that
is defined in a module on the allowlist before anything is called: a function may do anything with
its arguments, and torch.nn.modules.module.torch.hub.load leads out of torch.nn. Hydra 1.3 and 1.4
refuse different targets, so the calls are made here.
"""

import contextlib
import fnmatch
import functools
import importlib
import pkgutil
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from mnist_cnn.config.messages import either, must_be, shown

# short names, and the modules that define the classes: none of them opens a file or a connection,
# unlike torchmetrics.functional.image.lpips
LIBRARIES = (
    "torch.nn.[A-Z]*",
    "torch.nn.modules.*",
    "torch.optim.*",
    "torchmetrics.[A-Z]*",
    *(f"torchmetrics.{part}.*" for part in ("classification", "regression", "aggregation")),
)

# for the network, loss, metrics, optimizer and schedule, which an untrusted checkpoint may name:
# only public classes of these kinds
CHECKPOINTS = (
    "mnist_cnn.model.*",
    "mnist_cnn.detection.network.Detector",
    "mnist_cnn.optim.Muon",
    *LIBRARIES,
)
# they copy a layer any number of times: copies of one without weights cannot be counted
UNCOUNTED = ("TransformerEncoder", "TransformerDecoder")

# for the training images' augmentation: the short names, and the modules that define the classes
TRANSFORMS = ("torchvision.transforms.v2.[A-Z]*", "torchvision.transforms.v2._*.[A-Z]*")

# for parts that only a command may name, or a run that it resumes
COMMANDS = (
    *(f"mnist_cnn.{part}.*" for part in ("model", "module", "few_labels", "optim", "data")),
    *(f"mnist_cnn.{part}.*" for part in ("detection", "callbacks", "checks")),
    *("lightning.[A-Z]*", "lightning.pytorch.[A-Z]*", "lightning.fabric.plugins.*"),
    *(f"lightning.pytorch.{part}.*" for part in ("core", "trainer", "callbacks", "loggers")),
    *(f"lightning.pytorch.{part}.*" for part in ("profilers", "strategies", "plugins")),
    *("optuna.samplers.*", "optuna.pruners.*"),
    *LIBRARIES,
    *TRANSFORMS,
)

# modules that define the image data modules, whose batches are held in memory
IMAGE_MODULES = ("mnist_cnn.data.datamodule.", "mnist_cnn.data.custom.")

ALLOWED: list[str] = []  # set by the user for this process
ALSO: ContextVar[tuple[str, ...]] = ContextVar("ALSO", default=())  # for one call, in its thread


class ForbiddenError(ValueError):
    """A configuration names code that is not on the allowlist."""


def allow(targets: Sequence[str]) -> None:
    """Set the user's own allowlist, which comes from a command or a program, never from a file."""
    ALLOWED[:] = targets


@contextlib.contextmanager
def also_allowed(targets: Sequence[str]) -> Iterator[None]:
    """Also allow code of the user's inside."""
    before = ALSO.set((*ALSO.get(), *([targets] if isinstance(targets, str) else targets)))
    try:
        yield
    finally:
        ALSO.reset(before)


def allowed_targets() -> list[str]:
    """Return the user's own allowlist."""
    return [*ALLOWED, *ALSO.get()]


def allow_given(argv: Sequence[str]) -> None:
    """Allow what `targets=` lists on a command line, as in targets=[my_pkg.*,other.nets.*]."""
    for argument in argv:
        if argument.startswith("targets="):
            allow(re.findall(r"[\w.*?]+", argument.partition("=")[2]))


def class_name(config: Mapping[str, Any]) -> str | None:
    """Return the class name in the `_target_` of a part of the configuration, or None."""
    return str(config.get("_target_") or "").rpartition(".")[2] or None


def is_custom(data: Mapping[str, Any]) -> bool:
    """Return whether a data configuration names none of this project's image data modules."""
    return not str(data.get("_target_")).startswith(IMAGE_MODULES)


def matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def refusal(key: str, target: str, name: Any, allowlist: Sequence[str]) -> str:
    """Say that a name is on no allowlist, and what would allow it: its package, or it alone."""
    package = target.partition(".")[0]
    packages = list(dict.fromkeys(pattern.partition(".")[0] for pattern in allowlist))
    parts = [f"a part made for this by {either(packages)}"] if packages else []
    allowed = either([*parts, *allowed_targets()]) or "allowed by targets"
    own = target if package in packages else f"{package}.*"
    return f"{must_be(key, allowed, name)}; if you trust it: targets=[{own}]"


def targets(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield the full key and the value of each `_target_` in a part of the configuration."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from targets(value, f"{key}.{name}".lstrip("."))
        if node.get("_target_") is not None:
            yield f"{key}._target_".lstrip("."), node["_target_"]


def not_allowed(node: Any, key: str, allowlist: Sequence[str] = COMMANDS) -> list[str]:
    """Return a message for each `_target_` in a part of the configuration on no allowlist."""
    patterns = [*allowlist, *allowed_targets()]
    return [
        refusal(where, str(target), target, allowlist)
        for where, target in targets(node, key)
        if not matches(str(target), patterns)
    ]


def locate(target: str, key: str, allowlist: Sequence[str]) -> Any:
    """Import the class of a name that is on an allowlist, or anything that the user allowed.

    Raises:
        ForbiddenError: it is defined in a module that is not on the allowlist, is no class, or is
            not of a kind that a checkpoint may name.
        ValueError: nothing has this name.
    """
    try:
        found: Any = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError) as e:
        raise ValueError(f"{key}={target}: {missing_in(target) or e}") from e
    if is_users(found, target):
        return found
    home = home_of(found)
    if not matches(home, allowlist):
        raise ForbiddenError(refusal(key, home, f"{target}, which is {home}", allowlist))
    if not isinstance(found, type):
        raise ForbiddenError(refusal(key, home, f"{target}, which is no class", allowlist))
    if allowlist is CHECKPOINTS and not is_part(found):
        what = (
            f"{target}, which is no class of a layer, a loss, a metric, an optimizer or a schedule"
        )
        raise ForbiddenError(refusal(key, home, what, allowlist))
    return found


def missing_in(target: str) -> ModuleNotFoundError | None:
    """Return the error of a package that a target's module imports and that is not installed.

    pkgutil.resolve_name drops it, and says that the package above has no such attribute.
    """
    module = target.rpartition(".")[0]
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        is_above = f"{module}.".startswith(f"{error.name}.")  # the target itself does not exist
        return None if is_above else error
    except (ImportError, ValueError):
        return None
    return None


def home_of(found: Any) -> str:
    return f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"


def is_users(found: Any, target: str) -> bool:
    """Return whether the user allowed an object, by its full name or by where it is defined."""
    allowed = allowed_targets()
    return target in allowed or matches(home_of(found), allowed)


def is_part(found: Any) -> bool:
    """Return whether an object is a class that an untrusted checkpoint may name."""
    from torch import nn
    from torch.optim import Optimizer, lr_scheduler

    kinds = (nn.Module, Optimizer, lr_scheduler.LRScheduler)
    if not isinstance(found, type) or not issubclass(found, kinds):
        return False
    public = found.__qualname__.isidentifier() and not found.__qualname__.startswith("_")
    return public and found.__qualname__ not in UNCOUNTED


def called(node: Any, found: Mapping[str, Any], *args: Any, **options: Any) -> Any:
    """Call every `_target_` in a part, inner ones first; `found` maps names to objects."""
    if isinstance(node, list):
        return [called(value, found) for value in node]
    if not isinstance(node, Mapping):
        return node
    values = {name: called(value, found) for name, value in node.items()}
    if "_target_" not in values:
        return values
    target, partial = found[str(values.pop("_target_"))], values.pop("_partial_", False)
    args = args or values.pop("_args_", ())
    target = functools.partial(target, *args, **{**values, **options})
    return target if partial else target()


def rejection(key: str, node: Mapping[str, Any], error: Exception) -> str:
    """Return the message for what a node's class raised, with its arguments if that names none."""
    text = str(error)
    if not isinstance(error, ValueError):
        text = f"{node.get('_target_')}: {text}".splitlines()[0]
    if text.startswith(key):  # from this project, which names the keys
        return text
    if any(re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE) for name in node):
        return f"{key}: {text}"
    given = [
        f"{name}={shown(value)}"
        for name, value in node.items()
        if name not in ("_target_", "_partial_") and not isinstance(value, Mapping)
    ]
    return f"{key}: {text}" + (textwrap.shorten(f", got {', '.join(given)}", 300) if given else "")


def instantiate_as(
    kind: type,
    node: Any,
    *args: Any,
    key: str = "",
    allowlist: Sequence[str] = COMMANDS,
    **options: Any,
) -> Any:
    """Instantiate an object of class `kind` from a part of the configuration, as Hydra does.

    The size of what a checkpoint names is checked first, unless it includes code of the user's.

    Args:
        node: `_target_` and arguments, besides `args` and `options`. `_args_` and, in inner nodes,
            `_partial_` work as in Hydra. Any argument may be such a node.
        key: the key of the node in the configuration.
        allowlist: what may be named besides what the user allowed.

    Raises:
        ForbiddenError: a name is on no allowlist.
        ValueError: the object is of another class or too large, or cannot be made, for example for
            lack of a device.
    """
    if allowlist is CHECKPOINTS:
        from mnist_cnn.config import size  # imports torch, which not every check needs

        size.check_parts(node, key)
    if faults := not_allowed(node, key, allowlist):
        raise ForbiddenError("; ".join(faults))
    found = {str(name): locate(str(name), where, allowlist) for where, name in targets(node, key)}
    name = node.get("_target_") if isinstance(node, Mapping) else node
    wanted = must_be(f"{key}._target_".lstrip("."), f"a {kind.__name__}", name)
    made_by = found.get(str(name))
    if made_by is None or (isinstance(made_by, type) and not issubclass(made_by, kind)):
        raise ValueError(wanted)
    whole = {**node, "_partial_": False}
    try:
        users = any(is_users(part, name) for name, part in found.items())
        if allowlist is CHECKPOINTS and not users:
            # an optimizer or a schedule would change what it is given: only its own arguments
            measured = list(node.values()) if args or options else whole
            size.check_size(lambda: called(measured, found), key)
        made = called(whole, found, *args, **options)
    except Exception as e:  # anything a class may raise for its arguments or a missing device
        raise ValueError(rejection(key, node, e)) from e
    if not isinstance(made, kind):
        raise ValueError(wanted)
    return made


def make_data(config: Any) -> Any:
    """Instantiate the LightningDataModule of `data`, which makes transforms of `augment` itself."""
    import lightning as L  # a configuration is checked before torch is imported

    augment = {key: value for key, value in config.items() if key == "augment"}
    if is_custom(config) and not augment.get("augment"):  # of the group augment; the class has none
        augment = {}
    rest = {key: value for key, value in config.items() if key != "augment"}
    return instantiate_as(L.LightningDataModule, rest, key="data", **augment)
