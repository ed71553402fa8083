"""Keys of the configuration that a run's result depends on."""

from collections.abc import Iterator, Mapping
from typing import Any

# whole keys, or whole groups of keys, that change no result
NEUTRAL = frozenset(
    {
        *("ckpt_path", "force", "init_strict", "run_dir", "run_name", "test", "targets"),
        *("logger", "hparams_search", "data.root", "data.source", "data.mirror"),
        *("data.eval_batch_size", "trainer.devices", "trainer.limit_predict_batches"),
        *("trainer.log_every_n_steps", "trainer.enable_checkpointing", "trainer.profiler"),
        *("trainer.enable_model_summary", "trainer.enable_progress_bar", "trainer.detect_anomaly"),
        *("callbacks.progress", "callbacks.prune", "callbacks.summary", "callbacks.histograms"),
        *("callbacks.finite", "callbacks.nan"),
        *("callbacks.checkpoint.every_seconds", "callbacks.checkpoint.every_steps"),
    }
)


def depends_on(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values that a result depends on, by their whole keys, in the order of the configuration.

    Args:
        config: nested, or flat with dotted keys; interpolations are resolved.
    """
    values = dict(flatten(config))
    kept = {key: value for key, value in values.items() if NEUTRAL.isdisjoint(groups_of(key))}
    limits = [values.get(f"trainer.limit_{stage}_batches", 1.0) for stage in ("val", "test")]
    # of a number of batches, which the int 1 is and 1.0 is not, it says how many images they have
    if any(isinstance(limit, int) or limit != 1.0 for limit in limits):
        kept["data.eval_batch_size"] = values.get("data.eval_batch_size")
    return kept


def flatten(config: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs of whole key and value; an empty group has none."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{group}{name}.")
        else:
            yield f"{group}{name}", value


def groups_of(key: str) -> list[str]:
    """Return the groups that a key is in, and the key itself: a, a.b, a.b.c."""
    parts = key.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]
