"""A training epoch loop for Lightning's Trainer whose step does only what the run asks for.

Lightning's calls hooks that nobody overrides and inspects training_step anew in each step; all else
is the same. Epoch loops have no public interface: the private names are those of release 2.6.6.
"""

from collections import OrderedDict
from functools import partial
from typing import Any

import lightning as L
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import plugins, profilers, strategies
from lightning.pytorch.loops.optimization.automatic import Closure
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

HOOKS: tuple[str, ...] = ("on_train_batch_start", "on_before_zero_grad", "on_before_backward")
HOOKS += ("on_after_backward", "on_before_optimizer_step", "on_train_batch_end")  # [0]: may skip
TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
OPTIMIZE = ("backward", "optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping")


def use_slim_loop(trainer: L.Trainer) -> bool:
    """Gives a trainer this loop, unless Lightning's release is another; whether it did."""
    if known := L.__version__ == "2.6.6":
        trainer.fit_loop.epoch_loop = SlimEpochLoop(trainer, trainer.min_steps, trainer.max_steps)
    return known


def overridden(owner: Any, base: type, *names: str) -> bool:
    # in the instance too, where LambdaCallback sets hooks; Lightning skips what is not callable
    hooks = ((getattr(owner, name), getattr(base, name)) for name in names)
    return any(callable(own) and getattr(own, "__func__", None) is not its for own, its in hooks)


class SlimEpochLoop(_TrainingEpochLoop):
    def on_run_start(self, data_fetcher: Any) -> None:
        super().on_run_start(data_fetcher)
        trainer: Any = self.trainer
        module, strategy, data = trainer.lightning_module, trainer.strategy, trainer.datamodule
        self.slim = (  # anew in each epoch: a callback may change it from one to the next
            module.automatic_optimization
            and len(self._build_kwargs(OrderedDict(), None, 0)) == 2  # takes batch and batch_idx
            and not overridden(module, L.LightningModule, *TRANSFER, *OPTIMIZE, HOOKS[0])
            and not (data and overridden(data, L.LightningDataModule, *TRANSFER))
            and type(strategy) in (strategies.SingleDeviceStrategy, strategies.DDPStrategy)
            and getattr(strategy, "_model_averager", None) is None
            and type(trainer.precision_plugin) is plugins.Precision
            and type(trainer.profiler) is profilers.PassThroughProfiler
            and (trainer.accumulate_grad_batches, trainer.gradient_clip_val) == (1, None)
            and not self.automatic_optimization._skip_backward  # in the last epoch of averaging
        )
        self.hooks: dict[str, list[Any]] = {}
        for hook in HOOKS:
            owners = [c for c in trainer.callbacks if overridden(c, L.Callback, hook)]
            self.hooks[hook] = [partial(getattr(c, hook), trainer, module) for c in owners]
            if overridden(module, L.LightningModule, hook):
                self.hooks[hook].append(getattr(module, hook))

    def call(self, hook: str, *args: Any) -> None:
        if functions := self.hooks[hook]:
            module = self.trainer.lightning_module
            before, module._current_fx_name = module._current_fx_name, hook  # self.log asks for it
            for function in functions:
                function(*args)
            module._current_fx_name = before

    def advance(self, data_fetcher: Any) -> None:
        if not self.slim or self.restarting:
            return super().advance(data_fetcher)
        self.val_loop.restarting = False
        if self.trainer.world_size > 1:
            self._broadcast_sigterm_tensor()
        batch, batch_idx, output = next(data_fetcher)[0], self.batch_idx + 1, None
        self.batch_progress.is_last_batch = data_fetcher.done
        batch = move_data_to_device(batch, self.trainer.strategy.root_device)
        self.batch_progress.increment_ready()
        self.trainer._logger_connector.on_batch_start(batch)
        if batch is not None:
            self.call("on_train_batch_start", batch, batch_idx)
            self.batch_progress.increment_started()
            output = self.optimize(OrderedDict(batch=batch, batch_idx=batch_idx))
        self.batch_progress.increment_processed()
        self.update_lr_schedulers("step", update_plateau_schedulers=False)
        if self._num_ready_batches_reached():
            self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        self.call("on_train_batch_end", output, batch, batch_idx)
        self.trainer._logger_connector.on_batch_end()
        self.batch_progress.increment_completed()
        self.trainer._logger_connector.update_train_step_metrics()

    def optimize(self, args: OrderedDict[str, Any]) -> dict[str, Any]:
        automatic = self.automatic_optimization
        optimizer = self.trainer.strategy._lightning_optimizers[0].optimizer
        progress = automatic.optim_progress.optimizer

        def zero_grad() -> None:
            progress.zero_grad.increment_ready()
            self.call("on_before_zero_grad", optimizer)
            progress.zero_grad.increment_started()
            optimizer.zero_grad()
            progress.zero_grad.increment_completed()

        def backward(loss: Any) -> None:
            self.call("on_before_backward", loss)
            loss.backward()
            self.call("on_after_backward")

        def step() -> Any:
            loss = closure()
            self.call("on_before_optimizer_step", optimizer)
            return loss

        closure = Closure(partial(automatic._training_step, args), backward, zero_grad)
        progress.step.increment_ready()
        optimizer.step(closure=step)
        progress.step.increment_completed()
        result = closure.consume_result()
        return {} if result.loss is None else result.asdict()
