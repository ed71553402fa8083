"""A run's configuration as overrides and as flat keys."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mnist_cnn.config.compose import compose
from mnist_cnn.config.messages import shown
from mnist_cnn.internals.hydra import literal, quote
from mnist_cnn.runs.state import CONFIG, OVERRIDES


def note_configuration(cfg: DictConfig, folder: Path) -> None:
    """Writes a run's configuration as Hydra does, so that the command line can resume the run.

    Its overrides are those that make it of the default configuration, wherever it came from.
    """
    (folder / OVERRIDES.parent).mkdir(exist_ok=True)
    values = OmegaConf.to_container(cfg)
    default = OmegaConf.to_container(compose(run_dir="."))
    changed = [o for o in changes(default, values) if not o.startswith(("run_", "force="))]
    changed.append(f"run_name={quote(cfg.run_name)}")  # also none: TensorBoard's folder has it
    OmegaConf.save(cfg, folder / CONFIG)
    OmegaConf.save(OmegaConf.create(changed), folder / OVERRIDES)


def changes(before: Any, now: Any, key: str = "") -> list[str]:
    """The overrides that make one plain configuration of another."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now and type(before) is type(now) else [f"{key}={in_grammar(now)}"]
    found = [f"~{key}.{name}".replace("~.", "~") for name in before if name not in now]
    for name, value in now.items():
        inner = f"{key}.{name}".lstrip(".")
        if name in before:
            found += changes(before[name], value, inner)
        else:
            found.append(f"+{inner}={in_grammar(value)}")
    return found


def in_grammar(
    value: Any, text: Callable[[str], str] = literal, key: Callable[[Any], str] = str
) -> str:
    """A plain value as Hydra's grammar takes it; with text=quote no text in it is resolved."""
    if isinstance(value, dict):
        parts = (f"{key(name)}:{in_grammar(inner, text, key)}" for name, inner in value.items())
        return f"{{{','.join(parts)}}}"
    if isinstance(value, list):
        return f"[{','.join(in_grammar(inner, text, key) for inner in value)}]"
    return text(value) if isinstance(value, str) else shown(value)


def search_path(hydra: DictConfig) -> list[str]:
    """The override that gives a run the folders that its command line added to the search path."""
    own = [
        f"pkg://{source.path}"
        if source.schema == "pkg"
        else quote(Path(hydra.runtime.cwd, source.path))
        for source in hydra.runtime.config_sources
        if source.provider == "command-line" or source.provider.startswith("hydra.searchpath")
    ]
    return [f"hydra.searchpath=[{','.join(own)}]"] if own else []
