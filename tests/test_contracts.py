"""The private API of Lightning, Hydra and PyTorch behaves as `internals/` assumes."""

import os
import warnings
from typing import Any

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra  # noqa: TID251
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import HydraContext
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils import deterministic
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric

from mnist_cnn.config.compose import CONF, VERSION_BASE
from mnist_cnn.data import replay
from mnist_cnn.internals import hydra, loaders, results
from mnist_cnn.internals import lightning as wall
from tests.helpers.training import bare_trainer

BATCHES = 4  # per epoch


class Numbers:
    """A resumable loader of BATCHES numbers."""

    first = done = 0

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Any:
        first, self.first = self.first, 0
        for self.done in range(first + 1, BATCHES + 1):
            yield torch.tensor([float(self.done)])

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first = state["done"]


class Module(L.LightningModule):
    def __init__(self, *, counts_steps: bool = False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.counts_steps = counts_steps
        self.batches: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.batches.append(batch.item())
        return (self.weight * batch).sum()

    def on_train_epoch_end(self) -> None:
        self.log("mean", 1.0)

    def configure_optimizers(self) -> Any:
        if self.counts_steps:  # like a schedule over the whole run
            assert self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(module: Module, path: Any = None, options: Any = None, **hooks: Any) -> L.Trainer:
    """Train three epochs with a callback's hooks, resuming from a checkpoint if one is given."""
    callbacks = [LambdaCallback(**hooks)]
    trainer = bare_trainer(**{"max_epochs": 3, "callbacks": callbacks, **(options or {})})
    trainer.fit(module, Numbers(), ckpt_path=path, weights_only=path and True)
    return trainer


def test_a_resumed_epoch_is_not_announced_and_its_loader_may_be_lost(tmp_path):
    path = tmp_path / "6.ckpt"

    def watched(module: Module, resumed: Any = None) -> tuple[list, list, list]:
        """Record whether it begins within an epoch, its epochs, and when their mean is known."""
        begins, starts, ends = [], [], []

        def on_train_epoch_start(trainer, _):
            starts.append((trainer.current_epoch, "mean" in trainer.callback_metrics))

        def on_train_batch_end(trainer, *_):
            if trainer.global_step == 6:
                trainer.save_checkpoint(path)

        fit(
            module,
            resumed,
            on_train_start=lambda trainer, _: begins.append(wall.resumed_mid_epoch(trainer)),
            on_train_epoch_start=on_train_epoch_start,
            on_train_batch_end=on_train_batch_end,
            on_train_epoch_end=lambda trainer, _: ends.append("mean" in trainer.callback_metrics),
        )
        return begins, starts, ends

    begins, starts, ends = watched(Module())
    # an epoch's metrics are available when the next one starts: BetweenEpochs
    assert (begins, starts) == ([False], [(0, False), (1, True), (2, True)])
    assert ends[0] is False
    module, counting = Module(), Module(counts_steps=True)
    begins, starts, _ = watched(module, path)
    assert begins == [True], "resumed_mid_epoch"
    assert [epoch for epoch, _ in starts] == [2], "resumed_mid_epoch"
    positions = loaders.take_positions(torch.load(path, weights_only=True))
    assert positions == [{"done": 2}], "take_positions"
    assert module.batches == [3, 4, 1, 2, 3, 4], "take_positions"
    fit(counting, path)
    assert counting.batches[:2] == [1, 2], "take_positions: it is restored always now"


def test_the_training_loaders_can_be_exchanged_until_the_first_batch():
    module, done = Module(), []
    data: Any = [torch.tensor([float(k)]) for k in range(1, BATCHES + 1)]
    numbers = DataLoader(data, batch_size=None)

    def on_train_start(trainer, _):
        assert replay.make_resumable(trainer) == []
        assert trainer.train_dataloader is replay.resumable(trainer)[0], "make_resumable"
        assert not loaders.fetches_ahead(trainer)
        loaders.begin_batches(trainer)

    def on_train_batch_end(trainer, *_):
        done.append(trainer.train_dataloader.done)

    hooks = {"on_train_start": on_train_start, "on_train_batch_end": on_train_batch_end}
    trainer = bare_trainer(max_epochs=2, callbacks=[LambdaCallback(**hooks)])
    trainer.fit(module, numbers)
    assert module.batches == done == [1, 2, 3, 4] * 2, "begin_batches"


def test_one_batch_is_fetched_ahead_where_their_number_is_not_known():
    class Endless:
        fetched = 0

        def __iter__(self) -> Any:
            for self.fetched in range(1, 100):
                yield torch.tensor([float(self.fetched)])

    ahead = []

    def on_train_batch_end(trainer, module, outputs, batch, batch_idx):
        ahead.append((loaders.fetches_ahead(trainer), endless.fetched - batch_idx - 1))

    for limit, expected in ((None, (True, 1)), (3, (False, 0))):
        endless, ahead[:] = Endless(), []
        options = {"max_steps": 3, "limit_train_batches": limit}
        hooks = [LambdaCallback(on_train_batch_end=on_train_batch_end)]
        bare_trainer(**options, callbacks=hooks).fit(Module(), endless)
        assert ahead == [expected] * 3, "fetches_ahead"


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("corrected", [True, False])
def test_a_checkpoint_between_epochs_needs_its_counters_set_back(tmp_path, closed, corrected):
    def on_train_epoch_start(trainer, _):
        if trainer.current_epoch == 1:
            assert wall.mid_epoch(trainer)
            if closed:
                wall.close_epoch(trainer)
                assert not wall.mid_epoch(trainer)
            trainer.save_checkpoint(tmp_path / "1.ckpt")

    def on_save_checkpoint(trainer, _, checkpoint):
        if corrected:
            wall.correct_counters(trainer, checkpoint)

    hooks = {"on_train_epoch_start": on_train_epoch_start, "on_save_checkpoint": on_save_checkpoint}
    fit(Module(), **hooks)
    module = Module()
    trainer = fit(module, tmp_path / "1.ckpt")
    whole = (trainer.current_epoch, len(module.batches)) == (3, 2 * BATCHES)
    assert whole is (closed and corrected), "close_epoch, correct_counters"


def test_training_is_over_after_the_last_epoch():
    over = []
    hooks = {
        "on_train_epoch_start": lambda trainer, _: over.append(wall.training_is_over(trainer)),
        "on_train_end": lambda trainer, _: over.append(wall.training_is_over(trainer)),
    }
    fit(Module(), **hooks)
    assert over == [False, False, False, True], "training_is_over"


class Logging(Module):
    """A module that logs in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.average = MeanMetric()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss, x = super().training_step(batch, batch_idx), batch.item()
        self.average.update(0.1 * x)
        self.log("average", self.average, on_step=False, on_epoch=True)
        for name, reduce_fx in (("sum", "sum"), ("least", "min"), ("most", max)):
            self.log(name, 0.1 * x, on_step=False, on_epoch=True, reduce_fx=reduce_fx)
        self.log("loss", 0.1 * x, on_step=True, on_epoch=True, batch_size=int(x))
        if x == 1:  # not after the resume
            self.log("first", 0.1 * x, on_step=False, on_epoch=True)
        return loss


def test_what_is_logged_in_an_epoch_is_not_kept_by_lightning(tmp_path):
    path, kept = tmp_path / "6.ckpt", tmp_path / "kept"
    found: dict[str, Any] = {}

    def on_train_batch_end(trainer, module, *_):
        if trainer.global_step == 6 and not kept.exists():
            torch.save((results.logged(trainer), results.metric_states(module)), kept)
            trainer.save_checkpoint(path)

    def on_train_start(trainer, module):
        if case == "restored":
            logged, metrics = torch.load(kept, weights_only=True)
            results.restore_logged(trainer, logged, mid_epoch=True)
            results.restore_metrics(module, metrics)

    def on_train_epoch_start(trainer, _):
        if trainer.current_epoch == 2:
            found[case] = {k: v.item() for k, v in trainer.callback_metrics.items()}

    hooks = {f.__name__: f for f in (on_train_batch_end, on_train_start, on_train_epoch_start)}
    for case in ("whole", "lost", "restored"):
        fit(Logging(), None if case == "whole" else path, **hooks)
    assert found["restored"] == found["whole"], "restore_logged, restore_metrics"
    assert found["lost"] != found["whole"], "logged: Lightning keeps it now"


def test_validation_within_an_epoch_comes_before_the_next_batch_is_fetched():
    class Validating(Module):
        def validation_step(self, batch: Tensor, batch_idx: int) -> None:
            validated.append(self.trainer.global_step)

    class Watched(Numbers):
        def __iter__(self) -> Any:
            for number in super().__iter__():
                yield number
                told.append(wall.validated_now(trainer))

    validated, told = list[int](), list[bool]()
    trainer = bare_trainer(max_epochs=1, val_check_interval=2, num_sanity_val_steps=0)
    trainer.fit(Validating(), Watched(), [torch.zeros(1)])
    assert (validated, told) == ([2, 4], [False, True, False]), "validated_now"


def test_a_stop_is_forgotten_in_a_resumed_run_but_not_by_early_stopping(tmp_path):
    def on_train_epoch_end(trainer, _):
        trainer.should_stop = True
        trainer.save_checkpoint(tmp_path / "stopped.ckpt")

    fit(Module(), on_train_epoch_end=on_train_epoch_end)
    trainer = fit(Module(), tmp_path / "stopped.ckpt")
    assert (trainer.should_stop, trainer.current_epoch) == (False, 3)
    callback = EarlyStopping("mean", patience=3)
    assert not wall.stopped_early(callback)
    callback.load_state_dict({**callback.state_dict(), "stopping_reason": 1})
    assert wall.stopped_early(callback)


@pytest.mark.parametrize(
    ("options", "metric", "changed", "looks"),
    [
        ({"val_check_interval": 2}, "train/x", False, 6),  # at three values, twice each
        ({"val_check_interval": 2}, "train/x", True, 3),
        ({"check_val_every_n_epoch": 2}, "train/x", False, 1),
        ({"check_val_every_n_epoch": 2}, "train/x", True, 3),
        ({"check_val_every_n_epoch": 2}, "val/x", True, 1),
    ],
)
def test_early_stopping_looks_at_validations_unless_told_to_look_at_epochs(
    options, metric, changed, looks, monkeypatch
):
    seen = []
    monkeypatch.setattr(EarlyStopping, "_run_early_stopping_check", lambda *_: seen.append(1))
    callback = EarlyStopping(metric)
    if changed:
        wall.stop_by_epochs(callback)
    trainer = bare_trainer(max_epochs=3, num_sanity_val_steps=0, callbacks=[callback], **options)

    class Validating(Module):
        def validation_step(self, batch: Tensor, batch_idx: int) -> None:
            pass

    trainer.fit(Validating(), Numbers(), [torch.zeros(1)])
    assert len(seen) == looks


@pytest.mark.parametrize("quiet", [False, True])
def test_a_run_on_a_computer_with_srun_is_not_told_to_use_it(quiet, tmp_path, monkeypatch):
    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if quiet:
            wall.quiet_lightning()
        bare_trainer()
    assert any("srun" in str(warning.message) for warning in told) is not quiet


def test_the_samples_of_a_mean_are_integers_until_they_are_counted_exactly(monkeypatch):
    class Logs(Module):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            self.log("x", batch.item(), on_step=False, on_epoch=True, batch_size=33)
            return super().training_step(batch, batch_idx)

    counts = []

    def on_train_batch_end(trainer, *_):
        item = next(iter(trainer._results.values()))  # noqa: SLF001
        item.meta.sync.should = True  # like sync_dist=True in several processes
        for processes in (1, 2):
            with monkeypatch.context() as patch:
                patch.setattr(L.Trainer, "world_size", processes)
                results.count_exactly(trainer)
            counts.append(torch.as_tensor(item.cumulated_batch_size))

    options = {"max_epochs": 1, "limit_train_batches": 1}
    hooks = [LambdaCallback(on_train_batch_end=on_train_batch_end)]
    bare_trainer(**options, callbacks=hooks).fit(Logs(), Numbers())
    assert [count.is_floating_point() for count in counts] == [False, True], "count_exactly"
    assert [count.item() for count in counts] == [33, 33]


class Processes(Dataset[int]):
    """A dataset of the number of the process that loads it."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, row: int) -> int:
        return os.getpid()


def test_a_loader_keeps_its_workers_until_they_are_forgotten():
    loader = DataLoader(Processes(), num_workers=1, persistent_workers=True)
    first, second = (next(iter(loader)).item() for _ in range(2))
    assert first == second != os.getpid()
    loaders.forget_workers(loader)
    assert next(iter(loader)).item() not in (first, os.getpid()), "forget_workers"


def test_new_memory_is_filled_in_deterministic_mode_unless_it_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    assert torch.empty(64).isnan().all()
    wall.leave_memory_uninitialized()
    torch.ones(4097)  # memory that the next tensor may reuse
    assert not torch.empty(4097).isnan().all(), "leave_memory_uninitialized"


def test_an_error_of_the_compiler_is_told_from_one_of_the_network():
    def fails(*_: Any) -> Any:
        raise ValueError("no backend")

    with pytest.raises(Exception, match="no backend") as e:
        torch.compile(torch.neg, backend=fails)(torch.ones(1))
    assert wall.is_of_compiler(e.value)
    assert not wall.is_of_compiler(ValueError("no backend"))


def test_an_override_tells_what_it_sets_or_sweeps():
    overrides = ["a.b=1", "c=x,'y z'", "d=tag(log,interval(0.1,1))"]
    one, choice, interval = hydra.parse_overrides(overrides)
    assert (one.get_key_element(), one.key_or_group, one.value()) == ("a.b", "a.b", 1)
    assert [o.is_sweep_override() for o in (one, choice, interval)] == [False, True, True]
    assert [*choice.sweep_string_iterator()] == ["x", "'y z'"]
    found = choice.value()
    assert isinstance(found, hydra.ChoiceSweep)
    assert isinstance(found.list[1], hydra.QuotedString)
    assert found.list[1].text == "y z"
    space: Any = interval.value()
    assert interval.is_interval_sweep()
    assert (space.start, space.end, space.tags) == (0.1, 1, {"log"})
    assert interval.input_line == overrides[2]
    with pytest.raises(HydraException):
        hydra.parse_override("a=[")


def test_the_jobs_of_a_sweep_are_those_of_basic_sweeper():
    overrides = hydra.parse_overrides(["a=1,2", "b=5", "c=3,4", "c=x,'y z'"])  # the last c counts
    found = [["a=1", "b=5", "c=x"], ["a=1", "b=5", "c='y z'"]]
    found += [["a=2", *job[1:]] for job in found]
    assert hydra.jobs_of(overrides) == found
    with pytest.raises(HydraException, match="does not support"):
        hydra.jobs_of(hydra.parse_overrides(["a=interval(0,1)"]))


def test_a_job_is_composed_and_a_group_listed_by_the_loader_of_the_application():
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        config = compose("train", return_hydra_config=True)
        assert hydra.compose_job(config, ["seed=3", "model=fast_cnn"]).seed == 3
        with pytest.raises(HydraException, match="nowhere"):
            hydra.compose_job(config, ["model=nowhere"])
        loader = GlobalHydra.instance().config_loader()  # as a sweeper receives it
        (each,) = hydra.parse_overrides(["model=glob(*)"], loader)
        assert {"cnn", "fast_cnn"} <= {*each.sweep_string_iterator()}
        hydra.set_hydra_config(config)
        assert HydraConfig.get().job.name == "train"
    hydra.adopt_hydra_config(OmegaConf.create({"hydra": {"job": {"name": "other"}}}))
    assert HydraConfig.get().job.name == "other"


def test_jobs_are_launched_in_this_process_without_callbacks(tmp_path):
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    folder = [f"hydra.sweep.dir={tmp_path}", "hydra.sweep.subdir=a"]
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        config = compose("train", quiet, return_hydra_config=True)
        nothing: Any = None  # a call of a callback would fail
        context = HydraContext(GlobalHydra.instance().config_loader(), nothing)
        launcher = hydra.BasicLauncher()
        launcher.setup(
            hydra_context=hydra.without_callbacks(context),
            task_function=lambda cfg: (cfg.seed, HydraConfig.get().job.num),
            config=config,
        )
        (job,) = launcher.launch([["seed=3", *folder]], initial_job_idx=7)
    assert job.return_value == (3, 7)
    assert (tmp_path / "a").is_dir()
