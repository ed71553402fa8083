"""Each config file feeds constructors that exist, and each wrong value ends in one clear line."""

import inspect
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import pytest
import torch
from hydra import errors
from hydra.utils import get_class
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch.utils.tensorboard import SummaryWriter

from mnist_cnn import model
from mnist_cnn.config import own
from mnist_cnn.config.check import check
from mnist_cnn.config.compose import CONF, compose, files
from mnist_cnn.config.errors import one_line
from mnist_cnn.data.augment import Augment
from mnist_cnn.train import train

REFUSALS = (ValueError, errors.HydraException, OmegaConfBaseException)


GROUPS = sorted({path.parent.name for path in CONF.glob("*/*.yaml")})


def takes(cls: Callable[..., Any]) -> set[str]:
    """The arguments of a class by name, also those that it hands on to its bases."""
    given = inspect.signature(cls).parameters
    names = {name for name, p in given.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    if names == set(given):
        return names
    return names.union(*map(takes, handed_on(cls)))


def handed_on(cls: Any) -> Sequence[Callable[..., Any]]:
    """What a class hands the arguments to that it does not know itself."""
    if cls is TensorBoardLogger:
        return [SummaryWriter]
    if cls is WandbLogger:
        return [pytest.importorskip("wandb").init]
    return cls.__mro__[1:-1]


@pytest.mark.parametrize("name", files("model"))
def test_model_files_hold_exactly_the_networks_arguments(name):
    cfg = compose([f"model={name}"], run_dir="unused").model
    from_the_data = {"classes", "shape"}
    assert set(cfg) - {"name"} == takes(getattr(model, cfg.name)) - from_the_data


@pytest.mark.parametrize("name", files("data"))
def test_data_files_hold_exactly_the_data_modules_arguments(name):
    cfg = compose([f"data={name}"], run_dir="unused").data
    assert set(cfg) - {"_target_"} == takes(get_class(cfg._target_))


def test_augment_files_hold_exactly_the_augmentations_arguments():
    for name in files("augment"):
        cfg = compose([f"augment={name}"], run_dir="unused").data.augment
        assert set(cfg) in (set(), takes(Augment))


@pytest.mark.parametrize("group", ["optimizer", "scheduler"])
def test_optimizer_and_scheduler_files_hold_arguments_of_the_torch_class(group):
    library = {"optimizer": torch.optim, "scheduler": torch.optim.lr_scheduler}[group]
    for name in files(group):
        cfg = compose([f"{group}={name}"], run_dir="unused")[group]
        assert cfg.name is None or set(cfg) - {"name", "interval"} <= takes(
            getattr(library, cfg.name)
        )


@pytest.mark.parametrize("name", files("trainer"))
def test_trainer_files_hold_arguments_of_lightnings_trainer(name):
    cfg = compose([f"trainer={name}"], run_dir="unused").trainer
    assert set(cfg) - {"_target_"} <= takes(L.Trainer)


@pytest.mark.parametrize("group", ["callbacks", "logger"])
def test_callbacks_and_loggers_hold_arguments_of_their_class(group):
    for name in files(group):
        for part in compose([f"{group}={name}"], run_dir="unused")[group].values():
            if part is None:
                continue
            assert set(part) - {"_target_"} <= takes(get_class(part._target_))


@pytest.mark.parametrize("group", GROUPS)
def test_every_file_passes_the_check(group):
    assert files(group)
    for name in files(group):
        check(compose([f"{group}={name}"], run_dir="unused"))


@pytest.mark.parametrize("experiment", files("experiment"))
def test_every_experiment_may_be_trained_without_its_augmentation(experiment):
    cfg = compose([f"experiment={experiment}", "augment=none"], run_dir="unused")
    check(cfg)
    assert not cfg.data.augment


def test_the_article_by_name_is_the_default():
    default, article = (
        OmegaConf.to_container(compose(overrides, run_dir="unused"), resolve=True)
        for overrides in ([], ["experiment=article"])
    )
    assert default == article


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("data.val_fraction=1.2", "data.val_fraction must be a number >= 0 and < 1, got 1.2"),
        (
            "data.val_fraction=0",
            "data.val_fraction must be > 0 for callbacks.early_stopping (val/loss) and scheduler "
            "(val/loss), got 0; or set callbacks=no_early_stopping and another scheduler",
        ),
        (
            "data.val_fraction=0 objective.metric=train/loss "
            "callbacks.early_stopping.monitor=val/acc",
            "data.val_fraction must be > 0 for callbacks.early_stopping (val/acc), got 0; or",
        ),
        (
            "data.clean_epochs=10",
            "data.clean_epochs must be less than trainer.max_epochs=10, got 10",
        ),
        (
            "model=vgg model.stages=[]",
            "model.stages must be a list of 1 to 4, each a list of 1 to 8, each",
        ),
        ("data.batch_size=0", "data.batch_size must be a whole number >= 1 and <= 60000, got 0"),
        (
            "data.batch_size=64.5",
            "data.batch_size must be a whole number >= 1 and <= 60000, got 64.5",
        ),
        ("data.fold=7", "data.fold must be 0 to 4 with data.val_fraction=0.2, got 7"),
        ("data=kmnist data.split=writers", "data.split must be rows with data=kmnist, got writers"),
        (
            "data.split=writers_by_series",
            "data.val_fraction must be 0.5 with data.split=writers_by_series, which has two folds, "
            "got 0.2",
        ),
        ("data.split=hands", "data.split must be rows, writers or writers_by_series, got hands"),
        (
            "+callbacks.mine._target_=os.mkdir",
            "callbacks.mine._target_ must be mnist_cnn.*, lightning.*, optuna.samplers.*, "
            "optuna.pruners.*, torch.nn.*, torch.optim.* or torchmetrics.*, got os.mkdir; for "
            "code of your own: targets=[os.*]",
        ),
        ("ckpt_path=''", "ckpt_path must be text or null, got ''"),
        ("logger=null", "logger must be csv, mlflow, none, tensorboard or wandb, got null"),
        (
            "model.std=0",
            "model.std must be a number > 0 and <= 1, a list, each a number > 0 and <= 1 or auto, "
            "got 0",
        ),
        ("data.shuffle=perhaps", "data.shuffle must be true or false, got perhaps"),
        (
            "model.channels=[1]",
            "model.channels must be a list of 2, each a whole number >= 1",
        ),
        ("model.dropout=1", "model.dropout must be a number >= 0 and < 1, got 1"),
        ("optimizer.lr=-1", "optimizer.lr must be a number > 0, got -1"),
        ("optimizer.lr=nan", "optimizer.lr must be a number > 0, got nan"),
        ("scheduler.factor=1", "scheduler.factor must be a number > 0 and < 1, got 1"),
        ("trainer.max_epochs=ten", "trainer.max_epochs must be a whole number >= 1, got ten"),
        ("trainer.devices=2", "trainer.devices must be 1 without trainer=ddp, got 2"),
        (
            "trainer.limit_val_batches=-1",
            "trainer.limit_val_batches must be a whole number >= 0 or a number >= 0 and <= 1, ",
        ),
        (
            "trainer.limit_val_batches=0",
            "trainer.limit_val_batches must be > 0 for callbacks.early_stopping (val/loss) and ",
        ),
        ("trainer.max_time=1h", "trainer.max_time must be text like 00:01:30:00 or null, got 1h"),
        (
            "callbacks=averaging callbacks.averaging.update_every_n_steps=''",
            "callbacks.averaging.update_every_n_steps must be a whole number >= 1, got ''",
        ),
        ("callbacks.early_stopping.patience=-1", "callbacks.early_stopping.patience must be a"),
        (
            "objective.metric=accuracy",
            "objective.metric must be train/loss, train/acc, val/loss or val/acc",
        ),
        ("seed=-1", "seed must be a whole number >= 0"),
        ("data.batch_size=1000000000000", "data.batch_size must be a whole number"),
        (
            "model.mean=99999999999999999999",
            "model.mean must be a number >= 0 and <= 1, a list, each a number >= 0 and <= 1 or "
            "auto, got 99999999999999999999",
        ),
        ("model.hidden=1000000000", "model.hidden must be a whole number >= 1 and <= "),
        ("model.name=[a]", "model.name must be text, got ['a']"),
        ("model=[1,2]", "model must be cnn, fast_cnn, mlp or vgg, got [1,2]"),
        (
            "data.batch_size=${data.eval_batch_size} data.eval_batch_size=${data.batch_size}",
            "data: it refers to itself",
        ),
        ("logger.tensorboard.purge_step=x", "logger.tensorboard.purge_step must be a whole"),
        (
            "trainer.profiler=3",
            "trainer.profiler must be simple, advanced, pytorch, keys and values or null, got 3",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(override, line):
    with pytest.raises(ValueError, match=r"must be|itself") as refused:
        check(compose(override.split(), run_dir="unused"))
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("data.foo=1", "error: data.foo: no such key; allowed in data: _target_, name, root"),
        (
            "trainer.max_epoch=3",
            "error: trainer.max_epoch: no such key; did you mean trainer.max_epochs?",
        ),
        ("model=resnet", "error: model must be cnn, fast_cnn, mlp or vgg, got resnet"),
        ("debug={a:1}", "error: debug must be default, overfit or profiler"),
        ("debug.x=1", "error: debug.x: no such key; debug must be default, overfit or profiler"),
        (
            "scheduler={name:StepLR,step_size:5}",
            "error: scheduler.step_size: no such key; allowed in scheduler: name, interval, mode, "
            "factor, patience, threshold, threshold_mode, min_lr; a key of your own: "
            "+scheduler.step_size=",
        ),
        ("model=[cnn,resnet]", "error: model must be cnn, fast_cnn, mlp or vgg, got resnet"),
        (
            "seeds=1",
            "error: seeds: no such key; did you mean seed?",
        ),
        ("epochs=5", "error: epochs: no such key; did you mean trainer.max_epochs or trainer.min_"),
        ("batch_size=5", "error: batch_size: no such key; did you mean data.batch_size?"),
        ("zzz=5", "error: zzz: no such key; allowed: hydra, targets, seed, "),
        ("seed=0,1", "error: seed must be one value, got 0,1; -m makes a run of each"),
        ("optimzer.lr=1", "error: optimzer.lr: no such key; did you mean optimizer.lr?"),
        (
            "model=vgg model.hidden=64",
            "error: model.hidden: no such key; allowed in model: name, stages, channel_dropout, ",
        ),
        ("experimnt=fast", "error: experimnt: no such key; did you mean experiment?"),
        (
            "hydra.sweep.dirr=a",
            "error: hydra.sweep.dirr: no such key; did you mean hydra.sweep.dir?",
        ),
    ],
)
def test_an_unknown_key_or_file_is_answered_with_the_known_ones(override, line, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", *override.split()])
    with pytest.raises(REFUSALS) as refused:
        compose(override.split(), run_dir="unused")
    assert one_line(refused.value).startswith(line)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trainer.accelerator=tpu", "trainer.accelerator must be auto or "),
        (
            "+trainer.epochs=3",
            "lightning.Trainer: Trainer.__init__() got an unexpected keyword argument 'epochs'",
        ),
        ("trainer.precision=half", "Precision 'half' is invalid. Allowed precision values"),
        (
            "trainer.accelerator=cpu trainer.devices=[0]",
            "trainer.devices must be a whole number on a CPU, got [0]",
        ),
        ("model.name=Foo", "model.name"),
        ("optimizer.name=Foo", "optimizer.name must be a subclass of Optimizer in torch.optim"),
        ("scheduler.name=Foo", "scheduler.name must be a subclass of LRScheduler in torch.optim"),
    ],
)
def test_a_device_or_a_class_that_is_not_there_is_refused_before_a_folder_is_written(
    override, line, tmp_path
):
    with pytest.raises(ValueError, match=r".") as refused:
        train(compose(override.split(), run_dir=tmp_path / "run"))
    assert str(refused.value).startswith(line)
    assert not (tmp_path / "run").exists()


def test_a_configuration_is_composed_in_any_thread_and_beside_the_users_own_hydra(tmp_path):
    (tmp_path / "mine.yaml").write_text("a: 1")
    with hydra.initialize_config_dir(str(tmp_path)):
        with ThreadPoolExecutor(4) as pool:
            seeds = pool.map(lambda n: compose([f"seed={n}"], run_dir="unused").seed, range(8))
            assert list(seeds) == list(range(8))
        assert hydra.compose("mine").a == 1


def test_a_network_of_the_users_own_needs_no_entry_in_the_check():
    check(compose(["model.name=MyNet"], run_dir="unused"))


def test_a_callback_may_be_left_out_only_where_a_run_can_do_without():
    check(compose(["callbacks.early_stopping=null", "callbacks.progress=null"], run_dir="unused"))
    with pytest.raises(ValueError, match=r"callbacks\.history must be keys and values"):
        check(compose(["callbacks.history=null"], run_dir="unused"))


def test_the_configuration_can_only_call_this_project_and_lightning(tmp_path: Path):
    from hydra.utils import instantiate

    with pytest.raises(errors.HydraException):
        instantiate(
            {"_target_": "os.mkdir", "path": str(tmp_path / "made")},
            _execution_whitelist_=own.TARGETS,
        )
    assert not (tmp_path / "made").exists()


def test_what_lightning_refuses_is_an_error_of_the_user():
    with pytest.raises(ValueError, match=r"torch_xla|TPU"):
        own.make(L.Trainer, compose(["trainer.accelerator=tpu"], run_dir="unused").trainer)
    with pytest.raises(ValueError, match=r"_target_ must be a Callback, got lightning\.Trainer"):
        own.make(L.Callback, OmegaConf.create({"_target_": "lightning.Trainer", "logger": False}))
