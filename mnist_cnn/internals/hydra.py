"""What is used of Hydra and not promised: read in hydra-core 1.4.0rc3.

tests/test_contracts_hydra.py fails with a sentence where a release changes one of these:

- the parser of overrides, the loader of a job's configuration and the list of plugins: Hydra's own
  sweepers use them, its documentation leaves them out
- what its launchers do to run a job in another process: HydraConfig's own state, setup_globals
"""

import copy
import fnmatch
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, RangeSweep, Transformer
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

Job = Sequence[str]  # its overrides


def multirun() -> bool:
    """Whether Hydra started this as one of several jobs."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def output_folder() -> Path | None:
    """The folder that Hydra has made for this run; None where Hydra did not start it."""
    if not HydraConfig.initialized():
        return None
    return Path(HydraConfig.get().runtime.output_dir).resolve()


def started_job() -> Any:
    """Hydra's own configuration of the job of this process, for `take_part`."""
    return HydraConfig.instance().cfg


def take_part(job: Any, log: bool) -> None:
    """Makes this process part of a job that another one has started, with its log if it is to."""
    setup_globals()
    HydraConfig.instance().cfg = job
    if log:
        configure_log(job.hydra.job_logging, job.hydra.verbose)


def task_of(config: DictConfig) -> DictConfig:
    """What Hydra hands to a job of this configuration, before its folder is known.

    Raises:
        ValueError: run_dir was set, which would split the run over two folders.
    """
    written: Any = OmegaConf.to_container(config, resolve=False)
    if written["run_dir"] != "${hydra:runtime.output_dir}":
        raise ValueError("run_dir must be the run's own folder; set hydra.run.dir instead")
    task = copy.deepcopy(config)
    with open_dict(task):
        del task["hydra"]
        task.run_dir = task.run_name = "."
    return task


def register(*sweepers: type[Sweeper]) -> None:
    """Lets a configuration name these classes as its sweeper, outside of hydra_plugins too."""
    for sweeper in sweepers:
        Plugins.instance().register(sweeper)


def is_plugin(target: str) -> bool:
    """Whether a launcher or sweeper of this name is installed."""
    return target in Plugins.instance().class_name_to_class


def make_allowed(node: Mapping[str, Any], allowed: Sequence[str], **options: Any) -> Any:
    """The object that a part of a configuration describes, if it may be named.

    Hydra's own list of what may be named came with 1.4.
    """
    target = str(node.get("_target_"))
    if not any(fnmatch.fnmatchcase(target, pattern) for pattern in allowed):
        raise ValueError(f"_target_ must be one of {', '.join(allowed)}, got {target}")
    guard: dict[str, Any] = (
        {} if hydra.__version__.startswith("1.3.") else {"_execution_whitelist_": allowed}
    )
    return hydra.utils.instantiate(node, **options, **guard)


def launcher(context: HydraContext, task: TaskFunction, config: DictConfig) -> Launcher:
    """The launcher that a configuration names."""
    return Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=task, config=config
    )


class Composer:
    """Composes the configurations of a sweep's jobs.

    Args:
        context: what Hydra gives a sweeper.
        config: the sweep's configuration.
        task_of: what is wanted of a job's configuration.
    """

    def __init__(
        self, context: HydraContext, config: DictConfig, task_of: Callable[[DictConfig], DictConfig]
    ):
        self.loader, self.config = context.config_loader, config
        self.parser = OverridesParser.create(config_loader=self.loader)
        self.parse_one = functools.cache(OverridesParser.create().parse_override)
        self.base = functools.cache(
            lambda *job: task_of(self.loader.load_sweep_config(config, list(job)))
        )

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        return self.parser.parse_overrides(list(overrides))

    def compose(self, job: Job) -> DictConfig:
        """The configuration of a job. Hydra composes it only for what is not a single value."""
        values: dict[str, Any] = {}
        others = []
        for override in map(self.parse_one, job):
            key, value = override.key_or_group, override.value()
            single = override.type is OverrideType.CHANGE and not isinstance(value, dict)
            if single and override.package is None and not self.is_group(key):
                values[key] = value
            else:
                others.append(str(override.input_line))
        task = copy.deepcopy(self.base(*others))
        try:
            for key, value in values.items():
                OmegaConf.update(task, key, value)
        except OmegaConfBaseException:
            self.loader.load_sweep_config(self.config, list(job))  # says which key it is
            raise
        return task

    def is_group(self, key: str) -> bool:
        return bool(self.loader.get_group_options(key))

    def is_lacking(self, param: Override, chosen: DictConfig) -> bool:
        """Whether what was chosen has no such key, as a model without dropout."""
        key, nothing = param.key_or_group, object()
        if self.is_group(key) or param.type is not OverrideType.CHANGE:
            return False
        return OmegaConf.select(chosen, key, default=nothing) is nothing


def distribution(override: Override) -> Any:
    """Optuna's distribution of the values that a sweep in Hydra's syntax stands for."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep: Any = override.value()
    if override.is_interval_sweep():
        whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
        kind = IntDistribution if whole else FloatDistribution
        return kind(sweep.start, sweep.end, log="log" in sweep.tags)
    if isinstance(sweep, RangeSweep) and not sweep.shuffle and not sweep.transformers:
        values = sweep.range()
        if isinstance(values, range) and values:
            return IntDistribution(min(values), max(values), step=abs(values.step))
    choices: Any = override.sweep_iterator(transformer=Transformer.encode)
    return CategoricalDistribution(list(choices))


def quote(path: Path | str) -> str:
    """Text as Hydra's grammar takes it, whatever characters it has."""
    # in OmegaConf a backslash escapes an interpolation, in Hydra a quote; elsewhere it is itself
    return literal(re.sub(r"(\\*)\$\{", r"\1\1\\${", str(path)))


def literal(text: str) -> str:
    """The same, but an interpolation stays one."""
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\*)$", r"\1\1", text, count=1) + "'"
