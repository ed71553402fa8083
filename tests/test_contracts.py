"""What Lightning does not promise is as it was read, and is used in one place alone."""

import ast
import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from torch import Tensor

import mnist_cnn
from mnist_cnn.internals import lightning as wall
from tests.helpers.training import bare_trainer

BATCHES = 4  # of an epoch
ROOT = Path(mnist_cnn.__file__).parents[1]


def sentence(name: str, what: str) -> str:
    return f"Lightning {L.__version__} {what}: read internals.lightning.{name} again"


class Numbers:
    """A loader that can be resumed, of BATCHES numbers."""

    batch_sampler = None

    def __init__(self) -> None:
        self.epochs: list[int] = []  # announced
        self.first = self.done = 0

    @property
    def sampler(self) -> "Numbers":
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

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
        if self.counts_steps:  # as a schedule over the whole run does
            assert self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveAt(Callback):
    """Saves a checkpoint in on_train_batch_end of a step (from 1)."""

    def __init__(self, step: int, path: Path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def fit(module: L.LightningModule, *callbacks: Callback, path: Any = None, **options: Any) -> Any:
    trainer = bare_trainer(**{"max_epochs": 3, "callbacks": list(callbacks), **options})
    trainer.fit(module, Numbers(), ckpt_path=path, weights_only=path and True)
    return trainer


class Starts(Callback):
    def __init__(self) -> None:
        self.resumed_mid_epoch: bool | None = None
        self.epochs: list[int] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.resumed_mid_epoch = wall.resumed_mid_epoch(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs.append(trainer.current_epoch)


def test_an_epoch_that_is_resumed_in_its_middle_is_not_announced(tmp_path):
    starts, resumed = Starts(), Starts()
    fit(Module(), starts, SaveAt(6, tmp_path / "6.ckpt"))
    fit(Module(), resumed, SaveAt(0, tmp_path), path=tmp_path / "6.ckpt")
    assert (starts.resumed_mid_epoch, starts.epochs) == (False, [0, 1, 2])
    assert resumed.resumed_mid_epoch, sentence("resumed_mid_epoch", "names it otherwise")
    assert resumed.epochs == [2], sentence("resumed_mid_epoch", "announces a resumed epoch")


def test_the_position_of_the_loader_is_kept_and_lost_by_counting_steps(tmp_path):
    fit(Module(), SaveAt(6, tmp_path / "6.ckpt"))
    checkpoint = torch.load(tmp_path / "6.ckpt", weights_only=True)
    assert wall.loader_position(checkpoint) == {"done": 2}, sentence("loader_position", "moved it")
    module, counting = Module(), Module(counts_steps=True)
    fit(module, SaveAt(0, tmp_path), path=tmp_path / "6.ckpt")
    fit(counting, SaveAt(0, tmp_path), path=tmp_path / "6.ckpt")
    assert module.batches == [3, 4, 1, 2, 3, 4], sentence("loader_position", "does not restore it")
    assert counting.batches[:2] == [1, 2], sentence("loader_position", "restores it always now")


class Closes(Callback):
    """Saves between the first two epochs, with counters set back and corrected or as they are."""

    def __init__(self, path: Path, *, closed: bool, corrected: bool):
        self.path, self.closed, self.corrected = path, closed, corrected
        self.seen: list[tuple[bool, int]] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 1:
            before = wall.mid_epoch(trainer)
            if self.closed:
                self.seen.append((before, wall.close_epoch(trainer)))
                assert not wall.mid_epoch(trainer)
            trainer.save_checkpoint(self.path)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.corrected:
            wall.correct_counters(trainer, checkpoint)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("corrected", [True, False])
def test_a_checkpoint_between_epochs_skips_one_unless_its_counters_are_set_back(
    tmp_path, closed, corrected
):
    closes = Closes(tmp_path / "1.ckpt", closed=closed, corrected=corrected)
    fit(Module(), closes)
    assert closes.seen == [(True, BATCHES)] * closed, sentence("close_epoch", "counts otherwise")
    module = Module()
    trainer = fit(module, path=tmp_path / "1.ckpt")
    whole = (trainer.current_epoch, len(module.batches)) == (3, 2 * BATCHES)
    assert whole is (closed and corrected), sentence(
        "close_epoch and correct_counters", f"trains {len(module.batches)} batches after a resume"
    )


class Stops(Callback):
    def __init__(self) -> None:
        self.ends: list[bool] = []
        self.over: list[bool] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        trainer.should_stop = True
        self.ends.append(wall.ends_after_this_batch(trainer, batch_idx))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.over.append(wall.training_is_over(trainer))


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        ({"min_steps": 6}, [4, 6]),
        ({"min_epochs": 2}, [4, 8]),
        ({"max_steps": 1}, [1]),
    ],
)
def test_a_stop_waits_for_the_first_steps_and_epochs(options, ends):
    stops = Stops()
    trainer = fit(Module(), stops, **options)
    assert trainer.global_step == ends[-1]
    found = [n for n, end in enumerate(stops.ends, 1) if end]
    assert found == ends, sentence("ends_after_this_batch", f"ends epochs at {found}, not {ends}")
    assert stops.over == [True], sentence("training_is_over", "goes on")


def test_metrics_of_an_epoch_are_there_when_the_next_one_starts():
    seen: dict[str, bool] = {}

    class Looks(Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            seen.setdefault("at its end", "mean" in trainer.callback_metrics)

        def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.current_epoch == 1:
                seen["at the next"] = "mean" in trainer.callback_metrics

    fit(Module(), Looks())
    assert seen == {"at its end": False, "at the next": True}, sentence(
        "resumed_mid_epoch", f"logs at another time, {seen}; so may callbacks.BetweenEpochs"
    )


def test_checkpoint_callbacks_act_last_and_the_first_of_them_is_the_trainers():
    class Saves(Checkpoint):
        pass

    first, other, second = Saves(), Callback(), Saves()
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[first, other, second],
    )
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    assert callbacks == [other, first, second], "see callbacks.between_epochs.in_order"
    assert trainer.checkpoint_callback is first


def test_early_stopping_keeps_its_patience_and_its_reason_in_a_checkpoint():
    callback = EarlyStopping("mean", patience=3)
    state = {**callback.state_dict(), "patience": 1, "stopping_reason": 1}
    assert not wall.stopped_early(callback), sentence("stopped_early", "starts as stopped")
    wall.keep_patience(callback, same := {**state, "patience": 3})
    callback.load_state_dict(same)
    assert wall.stopped_early(callback), sentence("stopped_early", "keeps its reason elsewhere")
    wall.keep_patience(callback, state)
    callback.load_state_dict(state)
    assert callback.patience == 3, sentence("keep_patience", "keeps it elsewhere")
    assert not wall.stopped_early(callback), sentence("keep_patience", "stays stopped")


def test_a_stop_is_forgotten_in_a_resumed_run(tmp_path):
    class StopsOnce(Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            trainer.should_stop = True
            trainer.save_checkpoint(tmp_path / "stopped.ckpt")

    fit(Module(), StopsOnce())
    trainer = fit(Module(), path=tmp_path / "stopped.ckpt")
    assert not trainer.should_stop, sentence("stopped_early", "keeps should_stop now")
    assert trainer.current_epoch == 3


def test_a_loader_is_told_each_epoch_through_its_sampler():
    loader = Numbers()
    bare_trainer(max_epochs=2).fit(Module(), loader)
    assert loader.epochs[-2:] == [0, 1], (
        f"Lightning {L.__version__} announces {loader.epochs}: see data.loader"
    )



@pytest.mark.parametrize("text", wall.WARNINGS)
def test_a_warning_that_is_silenced_is_still_in_lightnings_source(text):
    if "LeafSpec" in text:  # torch raises it
        fragment, folder = "LeafSpec", Path(torch.__file__).parent / "utils" / "_pytree.py"
        sources = folder.read_text("utf-8")
    else:
        # without what its source fills in
        fragment = max(re.split(r"\.\*|`\w+`", text), key=len)
        files = (Path(L.__file__).parent).rglob("*.py")
        sources = " ".join(file.read_text("utf-8") for file in files)
        sources = re.sub(r'"\s+f?"', "", sources)
    assert fragment in sources, sentence("WARNINGS", f"has no warning with {fragment!r}")


# private names

FOREIGN = {"lightning", "hydra", "torch", "optuna", "submitit"}
# of loops, which have no public interface although their names are plain
LOOPS = {"fit_loop", "epoch_loop", "batch_progress", "epoch_progress", "optim_progress"}
OTHERS = {
    "_asdict": "a public method of named tuples",
    "_fields": "a public attribute of named tuples",
    "_current_frames": "sys's, which documents it",
    "_target_": "a key of the configuration",
}


def private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def private_names(tree: ast.AST) -> list[str]:
    """`line: name` of each private name of another package that a module uses."""
    own = set(OTHERS)  # what the module itself defines
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own |= {node.attr} & {ast.unparse(node).removeprefix("self.")}
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Attribute):
            if node.attr in LOOPS or (private(node.attr) and node.attr not in own):
                names = [node.attr]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            paths = [".".join([*module, alias.name]) for alias in node.names]
            names = [path for path in paths if any(map(private, path.split(".")))]
            names = [path for path in names if path.split(".")[0] in FOREIGN]
        found += [f"{node.lineno}: {name}" for name in names]  # type: ignore[attr-defined]
    return found


def test_private_names_of_other_packages_are_found():
    source = "import torch._C\nfrom hydra._internal import utils\ntrainer.fit_loop\na._b\nself._c()"
    assert private_names(ast.parse(source)) == [
        *("1: torch._C", "2: hydra._internal.utils", "3: fit_loop", "4: _b", "5: _c")
    ]
    assert not private_names(ast.parse("import torch\nself._a = 1\nself._a\nx.__name__"))


def test_private_names_of_other_packages_stand_in_internals_alone():
    files = [*(ROOT / "mnist_cnn").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert len(files) > 20
    found = [
        f"{file.relative_to(ROOT)}:{name}"
        for file in files
        if (ROOT / "mnist_cnn" / "internals") not in file.parents
        for name in private_names(ast.parse(file.read_text("utf-8")))
    ]
    assert not found, "outside mnist_cnn/internals: " + ", ".join(found)
