"""Build a run's module and Trainer from its configuration."""

import inspect
import warnings
from collections.abc import Mapping
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn

from mnist_cnn.callbacks.between_epochs import first_of
from mnist_cnn.callbacks.checkpoint import Checkpoint
from mnist_cnn.callbacks.exactness import is_inexact
from mnist_cnn.callbacks.loggers import DropLater, make_loggers
from mnist_cnn.callbacks.profiler import NoProfiler
from mnist_cnn.callbacks.ready import ReadyForTest
from mnist_cnn.config.instantiate import COMMANDS, instantiate_as, is_custom, locate, make_data
from mnist_cnn.config.messages import must_be
from mnist_cnn.config.parse import OF_MODULE, Config
from mnist_cnn.config.schema import are_transforms
from mnist_cnn.data.transforms import Transforms
from mnist_cnn.internals.lightning import (
    is_of_compiler,
    leave_memory_uninitialized,
    quiet_lightning,
    stop_by_epochs,
)
from mnist_cnn.model import Normalize
from mnist_cnn.module import fitted
from mnist_cnn.optim import make_optimizer, make_schedule
from mnist_cnn.runs import processes
from mnist_cnn.runs.folder import LAST, RunFolder
from mnist_cnn.runs.names import in_sweep
from mnist_cnn.runs.processor import crowded, emulated
from mnist_cnn.runs.ranks import say
from mnist_cnn.runs.terminal import reason
from mnist_cnn.weights.files import no_start, read_checkpoint, read_file, read_start


def check_machine(config: Config) -> None:
    """Check a run's configuration against this machine, before its folder is created.

    Raises:
        ValueError: a device is not available, a class, layer or file does not exist, or the data
            have too few images of a class.
    """
    quiet_lightning()
    bare: dict[str, Any] = {"callbacks": [], "logger": False, "default_root_dir": "."}
    plugins = processes.plugins()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run's own Trainer issues them
        trainer = instantiate_as(L.Trainer, config.trainer, **bare, plugins=plugins, key="trainer")
    asked = str(config.trainer.get("precision"))
    if "bf16" in trainer.precision and "bf16" not in asked:  # Lightning's substitute on a CPU
        raise ValueError(must_be("trainer.precision", f"{trainer.precision} on a CPU", asked))
    module = make_module(config)
    if config.test and not is_overridden("test_step", module):
        wanted = f"false with {config.module['_target_']}, which has no test_step"
        raise ValueError(must_be("test", wanted, config.test))
    if config.optimizer:
        optimizer = make_optimizer(config.optimizer, [nn.Parameter(torch.zeros(1, 1))])
        if config.scheduler:
            make_schedule(config.scheduler, optimizer, lambda: 2)
    if are_transforms(augment := config.data.get("augment")):
        Transforms(augment, (32, 32))  # any size
    data = config.data
    if data.get("per_class") and data.get("name") == "mnist" and not is_custom(data):
        make_data(data).setup("fit")  # only the labels tell whether each class has as many
    if (Path(config.run_dir) / LAST).is_file():
        return  # resumed from there: the files it started from are not needed
    if config.ckpt_path is not None:
        read_start(config.ckpt_path)
    elif config.init_weights is not None:
        try:
            read_file(config.init_weights)
        except ValueError as e:
            raise ValueError(f"init_weights: {e}") from None


def make_module(config: Config, model: Mapping[str, Any] | None = None) -> L.LightningModule:
    """Instantiate the module of a configuration.

    `module` holds its class and its own keys. The constructor also receives, as plain dicts, the
    parts (OF_MODULE) that it has parameters for. A part or key that it does not take is an error.

    Args:
        model: replaces `config.model`, if given.

    Raises:
        ForbiddenError: the class is on no allowlist.
        ValueError: it is not a LightningModule, or its constructor rejects its arguments.
    """
    own = {key: value for key, value in config.module.items() if key != "_target_"}
    name = config.module["_target_"]
    kind = locate(name, "module._target_", COMMANDS)
    if not (isinstance(kind, type) and issubclass(kind, L.LightningModule)):
        raise ValueError(must_be("module._target_", "a LightningModule", name))
    taken = parameters(kind)
    if unknown := [key for key in own if key in OF_MODULE or key not in taken]:
        known = ", ".join(sorted(taken - {*OF_MODULE})) or "no keys"
        raise ValueError(f"module.{unknown[0]}: {name} takes {known}")
    parts = {key: getattr(config, key) for key in OF_MODULE}
    parts |= {"scheduler": config.scheduler or {}, "metrics": config.metrics or {}}
    if model is not None:
        parts["model"] = model
    if surplus := [key for key, part in parts.items() if part and key not in taken]:
        without = f"~{' ~'.join(surplus)}"
        raise ValueError(f"{' and '.join(surplus)}: {name} takes none; leave out: {without}")
    for key in ("model", "optimizer"):
        if key in taken and not parts[key]:
            raise ValueError(must_be(key, f"set, which {name} takes", parts[key]))
    try:
        return kind(**own, **{key: part for key, part in parts.items() if key in taken})
    except ValueError:
        raise
    except Exception as e:  # a class may raise anything for its arguments
        raise ValueError(f"module: {name}: {reason(e)}") from e


def parameters(kind: type) -> set[str]:
    """Return a constructor's parameter names; with **kwargs, also those of its base class."""
    names: set[str] = set()
    for base in kind.__mro__[: kind.__mro__.index(L.LightningModule)]:
        if "__init__" not in vars(base):
            continue
        given = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        names |= {p.name for p in given if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in given):
            break
    return names


def build_module(
    config: Config, data: L.LightningDataModule, start: Path | str | None = None
) -> Any:
    """Build the module of a run for its data.

    A run that is not resumed starts from `init_weights`; lines on stderr name the weights that keep
    their initial values, and the constants of normalisation that do not.

    Args:
        data: the training data.
        start: the checkpoint to start from, None for a new run.

    Raises:
        ValueError: see `make_module`; or the weights do not fit.
    """
    module: Any = make_module(config, config.model and fitted(config.model, data))
    path = config.init_weights
    if path is not None and start is None:
        if not hasattr(module, "load_weights"):
            wanted = f"null with {config.module['_target_']}, which has no load_weights"
            raise ValueError(must_be("init_weights", wanted, path))
        before = normalisations(module)
        try:
            left = module.load_weights(path, config.init_strict)
        except ValueError as e:
            raise ValueError(f"init_weights: {e}") from None
        if left:
            say(f"init_weights={path}: loaded except {'; '.join(left)}")
        after = normalisations(module)
        changed = [key for key in before if after[key] != before[key]]
        if changed:  # right for weights that were trained with it, but not what was given
            said = [f"model.{key} is {after[key]} there, not {before[key]}" for key in changed]
            say(f"init_weights={path}: {'; '.join(said)}")
    if config.compile:
        for part in module.children():  # in place: the names of the weights stay
            # a kernel for each shape: a dynamic one would depend on the shapes seen before
            part.compile(dynamic=False)
    return module


def normalisations(module: nn.Module) -> dict[str, str]:
    """Return the constants `mean` and `std` of a module's normalisation of images, as text."""
    found: dict[str, str] = {}
    for layer in module.modules():
        if isinstance(layer, Normalize) and not found:  # the first is the network's to be saved
            for name, values in (("mean", layer.mean), ("std", layer.std)):
                numbers = [f"{value:.6g}" for value in values.flatten().tolist()]
                found[name] = ", ".join(dict.fromkeys(numbers)).replace("nan", "auto")
    return found


def load_best(trainer: L.Trainer, module: L.LightningModule) -> int | None:
    """Load the weights of a run's best checkpoint, and return its epoch (from 1).

    Without a monitored metric the last checkpoint is loaded, and the epoch is None.
    """
    kept = first_of(trainer, Checkpoint)
    assert kept is not None
    content = read_checkpoint(kept.last if kept.best_epoch is None else kept.best)
    module.load_state_dict(content["state_dict"])
    return kept.best_epoch


def build_trainer(
    config: Config, run: RunFolder, start: Path | str | None, module: L.LightningModule
) -> L.Trainer:
    """Build the Trainer of a run in its folder.

    Args:
        start: the checkpoint to start from, None for a new run.
        module: the module to train.

    Raises:
        ValueError: Lightning rejects a value, the checkpoint is damaged, or a logger is not
            available.
    """
    quiet_lightning()
    resumed = {} if start is None else read_start(start)
    named = {
        f"callbacks.{name}": instantiate_as(L.Callback, node, key=f"callbacks.{name}")
        for name, node in config.callbacks.items()
        if node is not None
    }
    for callback in named.values():
        stop_by_epochs(callback)
    inexact = [key for key, callback in named.items() if is_inexact(callback)]
    inexact += ["compile"] * config.compile  # kernels may be chosen by their speed
    reload = "reload_dataloaders_every_n_epochs"  # counted from where it resumes
    inexact += [f"trainer.{reload}"] * bool(config.trainer.get(reload))
    if inexact:
        say(f"no exact resume is promised with {', '.join(inexact)}")
    callbacks = [*named.values(), *[ReadyForTest()] * config.test]
    options = {**config.trainer, "devices": own_devices(config.trainer)}
    if options["use_distributed_sampler"] is None:
        # our loaders split the data among the processes themselves
        options["use_distributed_sampler"] = is_custom(config.data)
    options["enable_progress_bar"] |= any(isinstance(c, ProgressBar) for c in callbacks)
    options["profiler"] = options["profiler"] or NoProfiler()
    history: Any = named["callbacks.history"]
    history.monitored = config.monitored()
    keeper: Any = named["callbacks.checkpoint"]
    keeper.run, keeper.start = run, start
    keeper.data = config.data if is_custom(config.data) else {}
    trainer: L.Trainer = instantiate_as(
        L.Trainer,
        options,
        callbacks=[DropLater(resumed), *callbacks],
        logger=make_loggers(config.logger, run.values, module),
        plugins=processes.plugins(),
        default_root_dir=run.path,
        key="trainer",
    )
    if trainer.strategy.root_device.type == "cpu":
        for line in (crowded(torch.get_num_threads()), emulated(trainer.precision)):
            if line:
                say(line)
    return trainer


def own_devices(trainer: Mapping[str, Any]) -> Any:
    """Return the Trainer's devices; jobs of a sweep are spread over several GPUs, one for each."""
    devices, count = trainer["devices"], torch.cuda.device_count()
    if devices != 1 or count < 2 or trainer.get("accelerator") not in ("auto", "gpu", "cuda"):
        return devices
    return [HydraConfig.get().job.num % count] if in_sweep() else devices


def fit(
    trainer: L.Trainer, module: L.LightningModule, data: Any, ckpt_path: Path | str | None
) -> None:
    """Train the module, resuming from a checkpoint if one is given.

    Raises:
        ValueError: Lightning finds a conflict between values, the checkpoint does not fit the
            network, or torch.compile fails, as without a C++ compiler.
    """
    try:
        leave_memory_uninitialized()
        # before DataLoaders fork workers, which then share it: one that is stopped at its start, as
        # those of a loader that is wrapped are, can fail to remove a folder of its own
        get_temp_dir()
        trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    except (MisconfigurationException, ImportError) as e:  # DeviceStatsMonitor needs psutil
        raise ValueError(e) from e
    except (LookupError, TypeError, AttributeError, RuntimeError) as e:
        if is_of_compiler(e):
            why = " ".join(str(e).partition("\n\n")[0].split())
            raise ValueError(f"{must_be('compile', 'false here', True)}: {why}") from e
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        restored = any(getattr(callback, "running", False) for callback in callbacks)
        if ckpt_path is None or restored:
            raise
        raise ValueError(f"{no_start(ckpt_path)}: {' '.join(str(e).split())}") from e
