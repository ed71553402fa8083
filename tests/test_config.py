"""Each config file fits existing constructors, and each invalid value ends in one clear line."""

import contextlib
import inspect
import itertools
import re
from dataclasses import fields
from typing import Any

import hydra
import lightning as L
import pytest
import torch
from lightning import Callback
from omegaconf import OmegaConf

from mnist_cnn.config import instantiate
from mnist_cnn.config.compose import CONF, VERSION_BASE, compose, files, plain, resolved
from mnist_cnn.config.parse import Config, Evaluation, parse
from mnist_cnn.data.augment import Augment
from mnist_cnn.module import DigitClassifier
from mnist_cnn.optim import make_optimizer, make_schedule
from mnist_cnn.runs.folder import flat
from mnist_cnn.train import preflight
from mnist_cnn.weights.networks import build_network

NEEDS = {"data=arrays": ["data.path=unused"], "data=folder": ["data.root=unused"]}
NEEDS["module=few_labels"] = ["data.per_class=10", "+data.unlabeled=9"]
GROUPS = sorted({path.parent.name for path in CONF.glob("*/*.yaml")})


def parsed(overrides: list[str]) -> Config:
    return parse(resolved(compose(overrides, run_dir="unused")), Config)


CLASSIFYING = [name for name in files("experiment") if name != "reader"]


@pytest.mark.parametrize("experiment", CLASSIFYING)
def test_every_experiment_takes_every_model_optimizer_and_schedule(experiment):
    parts = ("model", "optimizer", "scheduler")
    choices = [[name for name in files(part) if name != "detector"] for part in parts]
    for names in itertools.zip_longest(*choices):
        chosen = [f"{part}={name}" for part, name in zip(parts, names, strict=True) if name]
        cfg = compose([f"experiment={experiment}", *chosen], run_dir="unused")
        net = build_network(plain(cfg, "model"))
        optimizer = make_optimizer(plain(cfg, "optimizer"), list(net.parameters()))
        if cfg.scheduler:
            make_schedule(plain(cfg, "scheduler"), optimizer, lambda: 2)


@pytest.mark.parametrize("name", files("callbacks"))
def test_every_file_of_callbacks_is_made(name):
    nodes = plain(compose([f"callbacks={name}"], run_dir="unused"), "callbacks")
    for node in filter(None, nodes.values()):
        instantiate.instantiate_as(Callback, node)


@pytest.mark.parametrize("name", files("trainer"))
def test_every_file_of_the_trainer_holds_its_arguments(name):
    cfg = compose([f"trainer={name}"], run_dir="unused")
    assert set(cfg.trainer) - {"_target_"} <= set(inspect.signature(L.Trainer).parameters)


@pytest.mark.parametrize("group", GROUPS)
def test_every_file_passes_the_check(group):
    assert files(group)
    for name in files(group):
        choice = f"{group}={name}"
        parsed([choice, *NEEDS.get(choice, [])])
        if group == "experiment":
            parsed([f"{group}={name}", "augment=none", "debug=default"])


@pytest.mark.parametrize("amount", [field.name for field in fields(Augment)])
def test_an_amount_of_augmentation_needs_no_other(amount):
    parsed([f"+data.augment.{amount}=0.5"])


def test_the_article_by_name_is_the_default():
    default, article = (
        OmegaConf.to_container(compose(overrides, run_dir="unused"), resolve=True)
        for overrides in ([], ["experiment=article"])
    )
    assert default == article


STEPS = "callbacks.averaging.update_every_n_steps"
GROWN = "callbacks.certified.grown"
READER = "experiment=reader"
UNPICKLE = "lightning.fabric.utilities.cloud_io._load"
CALL = "mnist_cnn.runs.processes.call"
MONITOR = "lightning.pytorch.callbacks.LearningRateMonitor"
STOPPING = "callbacks.early_stopping"
STOP = "+callbacks.x._target_=lightning.pytorch.callbacks.EarlyStopping"


@pytest.mark.parametrize(
    ("override", "key", "got"),
    [
        ("run_name=../../x", "run_name", "../../x"),
        ("init_weights=''", "init_weights", "''"),
        ("model.channels=[0,1]", "model.channels.0", "0"),
        ("model._target_=[a]", "model._target_", "['a']"),
        ("optimizer.lr=nan", "optimizer.lr", "nan"),
        ("scheduler.interval=batch", "scheduler.interval", "batch"),
        ("trainer.max_time=1h", "trainer.max_time", "1h"),
        ("trainer.max_time=00:00:00:00", "trainer.max_time", "00:00:00:00"),
        ("trainer.max_steps=0", "trainer.max_steps", "0"),
        ("trainer.min_epochs=abc", "trainer.min_epochs", "abc"),
        ("trainer.min_epochs=1.5", "trainer.min_epochs", "1.5"),
        ("+trainer.min_steps=-2", "trainer.min_steps", "-2"),
        ("+scheduler.cooldown=abc", "scheduler.cooldown", "abc"),
        ("+scheduler.eps=abc", "scheduler.eps", "abc"),
        ("callbacks.summary.max_depth=abc", "callbacks.summary.max_depth", "abc"),
        (f"+{STOPPING}.stopping_threshold=abc", f"{STOPPING}.stopping_threshold", "abc"),
        (f"+{STOPPING}.divergence_threshold=abc", f"{STOPPING}.divergence_threshold", "abc"),
        ("data.root=''", "data.root", "''"),
        ("callbacks.history=null", "callbacks.history", "null"),
        (f"callbacks.history._target_={MONITOR}", "callbacks.history._target_", MONITOR),
        ("+metrics={f1:{_target_:1}}", "metrics.f1._target_", "1"),
        ("augment=mild data.augment.scale=1", "data.augment.scale", "1"),
        ("callbacks=averaging callbacks.averaging.update_every_n_steps=x", STEPS, "x"),
        ("module.label_smoothing=1.0", "module.label_smoothing", "1.0"),
        ("experiment=certified callbacks.certified.grown=-1", GROWN, "-1"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_key(override, key, got):
    line = rf"{re.escape(key)} must [^;\n]*, got {re.escape(got)}"
    with pytest.raises(ValueError, match=rf"^{line}(;|$)"):
        parsed(override.split())


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("data.val_fraction=0", "objective.metric must be of train/ where nothing is validated"),
        (
            "data.per_class=1 trainer.limit_train_batches=0.01",
            "trainer.limit_train_batches must be at least one of 1 batches",
        ),
        ("+data.unlabeled=9", "data.per_class must be a number with data.unlabeled, which takes"),
        ("+data.unlabeled=9 data.per_class=1", "data.unlabeled must be null with DigitClassifier"),
        ("module=few_labels", "data.unlabeled must be a number with FewLabels, got null"),
        (
            "module=few_labels module.threshold=2",
            "module.threshold must be less than or equal to 1",
        ),
        ("trainer.limit_val_batches=0", "objective.metric must be of train/ where nothing is va"),
        ("data.clean_epochs=10", "data.clean_epochs must be less than trainer.max_epochs=10, got"),
        ("data=kmnist data.split=writers", "data.split must be rows with data=kmnist, got writers"),
        ("data.split=writers_by_series", "data.val_fraction must be 0.5 with data.split=writers"),
        ("trainer.devices=2", "trainer.devices must be 1 without trainer=ddp, got 2"),
        ("trainer=ddp trainer.num_nodes=2", "trainer.num_nodes must be 1 without torchrun, got 2"),
        (
            "trainer.strategy=ddp_fork",
            "trainer.strategy must be auto, ddp or ddp_find_unused",
        ),
        ("data.per_class=100000", "data.per_class must be at most 4800 with data.val_fraction=0.2"),
        ("scheduler.interval=step", "scheduler.interval must be epoch with ReduceLROnPlateau"),
        ("objective.mode=max", "objective.mode must be min for val/loss, got max"),
        ("model.std=0", "model.std must be auto, a finite number above 0 or a list of them, got 0"),
        ("model.mean=nan", "model.mean must be auto, a finite number or a list of them, got nan"),
        ("objective.metric=3", "objective.metric must be a valid string, got 3"),
        ("objective.metric=val/f1", "objective.mode must be min or max for val/f1, got null"),
        ("module.monitor=val/acc", "scheduler.mode must be max for val/acc, got min"),
        ("trainer.profiler=true", "trainer.profiler"),
        ("+trainer.callbacks=[]", "trainer.callbacks must be null, got []"),
        ("scheduler.mode=max", "scheduler.mode must be min for val/loss, got max"),
        ("~scheduler.mode module.monitor=val/acc", "scheduler.mode must be max for val/acc, got n"),
        (
            "data.val_fraction=0 objective.metric=train/loss module.monitor=val/loss",
            "module.monitor must be of train/ where nothing is validated",
        ),
        (f"{STOP} +callbacks.x.monitor=val/acc", "callbacks.x.mode must be max for val/acc, got n"),
        (
            f"{STOP} +callbacks.x.monitor=val/f1",
            "callbacks.x.mode must be min or max for val/f1, got null",
        ),
        # of pages
        (f"{READER} data.fold=5", "data.fold must be less than 5, got 5"),
        (f"{READER} data.batch_size=0", "data.batch_size must be greater than 0, got 0"),
        (f"{READER} data.workers=-1", "data.workers must be greater than or equal to 0, got -1"),
        (f"{READER} data.pages=31", "data.pages must be at least data.batch_size=32, got 31"),
        (f"{READER} data.val_pages=1", "data.val_pages must be greater than or equal to 2, got 1"),
        (
            f"{READER} trainer=ddp trainer.devices=3",
            "data.batch_size must be a multiple of 3, the number of processes, got 32",
        ),
        (
            f"{READER} trainer=ddp trainer.devices=4 data.val_pages=3",
            "data.val_pages must be a multiple of 4, the number of processes, got 3",
        ),
        # classes that are not allowed
        ("+callbacks.mine._target_=os.mkdir", "callbacks.mine._target_ must be a part made "),
        (f"trainer.profiler={{_target_:{UNPICKLE}}}", "trainer.profiler._target_ must be a part"),
        (f"trainer.profiler={{_target_:{CALL}}}", "trainer.profiler._target_ must be a part made"),
        ("model._target_=lightning.Trainer", "model._target_ must be a part made for this by mn"),
        (
            "data.batch_size=${data.eval_batch_size} data.eval_batch_size=${data.batch_size}",
            "data: ",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(override, line):
    with pytest.raises(ValueError, match=r".") as refused:
        parsed(override.split())
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "override",
    [
        "data.val_fraction=0 module.monitor=train/loss callbacks=no_early_stopping",
        "module.monitor=val/acc scheduler.mode=max",
        "module.monitor=val/acc scheduler=none",
        f"{STOP} +callbacks.x.monitor=val/loss",
        f"{STOP} +callbacks.x.monitor=val/f1 +callbacks.x.mode=max",
    ],
)
def test_what_is_followed_by_a_schedule_or_a_callback_has_its_own_mode(override):
    parsed(override.split())


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trainer.accelerator=tpu", "trainer: "),
        ("+trainer.epochs=3", "lightning.Trainer: "),
        ("trainer.accelerator=cpu trainer.devices=[0]", "trainer: "),
        ("trainer.accelerator=cpu trainer.precision=16-mixed", "trainer.precision must be bf16-mi"),
        ("model._target_=mnist_cnn.model.Foo", "model._target_=mnist_cnn.model.Foo"),
        ("optimizer._target_=torch.optim.Foo", "optimizer._target_=torch.optim.Foo"),
        ("optimizer._target_=torch.optim.swa_utils", "optimizer._target_"),
        ("optimizer._target_=torch.nn.Linear", "optimizer._target_ must be a Optimizer"),
        ("+optimizer.foo=1", "optimizer: torch.optim.Adam: "),
        ("optimizer=sgd optimizer.momentum=0.0 optimizer.nesterov=true", "optimizer: "),
        ("scheduler._target_=torch.optim.lr_scheduler.Counter", "scheduler._target_"),
        ("scheduler._target_=torch.optim.Adam", "scheduler._target_ must be a LRScheduler"),
        ("+metrics={acc:{_target_:torch.nn.L1Loss}}", "metrics.acc: a metric of this name is log"),
        (
            "loss={_target_:torch.nn.NLLLoss} module.label_smoothing=0.1",
            "module.label_smoothing must be 0 where loss is set",
        ),
        ("~model", "model must be set, which mnist_cnn.module.DigitClassifier takes"),
        ("+module.width=3", "module.width: mnist_cnn.module.DigitClassifier takes freeze, label_"),
        ("module._target_=mnist_cnn.model.CNN", "module._target_ must be a LightningModule"),
        ("module._target_=lightning.LightningModule", "takes no keys"),
        ("scheduler.factor=1", "scheduler: "),
        (
            "scheduler=cosine +scheduler.T_max=9",
            "scheduler.T_max must be left out, as the run",
        ),
        ("optimizer.betas=[]", "optimizer: torch.optim.Adam: "),
        ("optimizer.betas=0.9", "object is not subscriptable, got lr=0.001, betas=0.9, eps="),
        ("model.channels=[1,2,3]", "model: too many values to unpack (expected 2), got channel"),
        ("data.per_class=4400", "data.per_class must be at most 4373, as many as a class has to"),
        ("model.hidden=1000000000", "model must have at most 100,000,000 parameters"),
    ],
)
def test_a_device_or_a_class_that_is_not_there_is_refused_before_a_run_has_a_folder(override, line):
    with pytest.raises(ValueError, match=r".") as refused:
        preflight(compose(override.split(), run_dir="unused"))
    assert line in str(refused.value)


def test_the_classes_of_a_set_that_is_not_downloaded_yet_are_not_counted(tmp_path):
    overrides = ["data=kmnist", f"data.root={tmp_path}", "data.per_class=4700"]
    preflight(compose(overrides, run_dir="unused"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "key"), [("3", "ckpt_path"), ("''", "ckpt_path"), ("[a,3]", r"ckpt_path\.1")]
)
def test_an_index_is_part_of_a_key_only_where_there_is_a_list(value, key):
    cfg = compose([f"ckpt_path={value}"], entry="evaluate", run_dir="unused")
    with pytest.raises(ValueError, match=f"^{key} must "):
        parse(resolved(cfg), Evaluation)


def test_a_debug_run_that_overfits_augments_nothing():
    for experiment in ("accurate", "robust"):
        cfg = compose([f"experiment={experiment}", "debug=overfit"], run_dir="unused")
        assert cfg.data.augment == {}


def test_what_our_files_set_to_true_or_false_is_nothing_else():
    choices = [[f"{group}={name}"] for group in GROUPS for name in files(group)]
    choices = [[*choice, *NEEDS.get(choice[0], [])] for choice in choices]
    seen: set[str] = set()
    kinds: list[tuple[Any, list[str]]] = [(Evaluation, []), *((Config, one) for one in choices)]
    for kind, choice in kinds:
        cfg = compose(choice, run_dir="unused", entry="train" if kind is Config else "evaluate")
        values = flat(OmegaConf.to_container(cfg))
        found = {key for key, value in values.items() if isinstance(value, bool)} - seen
        for key in sorted(found):
            changed = cfg.copy()
            OmegaConf.update(changed, key, "no")
            with pytest.raises(ValueError, match=rf"^{re.escape(key)} must be .*, got no$"):
                parse(resolved(changed), kind)
        seen |= found
    assert {"test", "force", "init_strict", "data.color", "logger.wandb.offline"} <= seen


def test_our_own_keys_are_typed_and_the_parts_stay_the_dictionaries_that_hydra_gives():
    values = resolved(compose(["optimizer.lr=1", "+mine={a: 1}"], run_dir="unused"))
    config = parse(values, Config)
    assert (config.seed, config.test, config.objective.metric) == (0, True, "val/loss")
    parts = ("trainer", "data", "module", "model", "optimizer", "scheduler", "callbacks", "logger")
    assert all(getattr(config, part) is values[part] for part in parts)
    assert type(config.optimizer and config.optimizer["lr"]) is int
    assert config.model_extra == {"mine": {"a": 1}}


@pytest.mark.parametrize("kind", [Config, Evaluation])
def test_the_files_alone_have_defaults(kind):
    assert all(field.is_required() for field in kind.model_fields.values())


def test_another_entry_s_configuration_is_no_training():
    with pytest.raises(ValueError, match="--config-name"):
        parse(resolved(compose(entry="evaluate", run_dir="unused")), Config)


def test_the_module_s_defaults_are_the_tutorial_s_inside_any_hydra_application():
    tutorial = compose(run_dir="unused")
    with hydra.initialize_config_dir(str(CONF), **VERSION_BASE):
        module = DigitClassifier()
    for part in ("model", "optimizer", "scheduler"):
        assert module.hparams[part] == plain(tutorial, part)


def test_the_module_s_default_schedule_follows_its_metric_upwards_or_downwards():
    assert DigitClassifier(monitor="val/acc").hparams["scheduler"]["mode"] == "max"
    with pytest.raises(ValueError, match=r"^scheduler must be given, .* monitor=val/f1, got null$"):
        DigitClassifier(monitor="val/f1")


def test_a_name_given_to_a_run_stays_when_it_is_composed_from_python():
    assert compose(["run_name=x"], run_dir="unused").run_name == "x"
    assert compose(["run_name=x"], run_dir="unused", run_name="y").run_name == "y"


@pytest.mark.parametrize(
    ("target", "home"),
    [
        ("os.mkdir", "os.mkdir"),
        ("mnist_cnn.config.instantiate.pkgutil.resolve_name", "pkgutil.resolve_name"),
        ("torch.nn.modules.module.torch.hub.load", "torch.hub.load"),
        ("lightning.pytorch.trainer.trainer.os.system", "posix.system"),
        ("torch.nn.functional.Callable", "Callable"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_code_is_refused_by_where_it_lives_before_anything_is_called(target, home, nested):
    made: list[Any] = []
    node: Any = {"_target_": target}
    if nested:
        node = {"_target_": f"{__name__}.Noted", "made": made, "inner": [node]}
    instantiate.allow([f"{__name__}.*"])
    with pytest.raises(instantiate.ForbiddenError, match=home.replace(".", r"\.")):
        instantiate.instantiate_as(object, node)
    assert not made


def test_a_function_is_refused_even_in_a_module_whose_classes_are_allowed():
    for target in ("mnist_cnn.data.fonts.load_font", "torch.nn.modules.utils._single"):
        with pytest.raises(instantiate.ForbiddenError, match=f"{target}, which is no class"):
            instantiate.instantiate_as(object, {"_target_": target})


class Noted:
    def __init__(self, made: list[Any], inner: Any):
        made.append(inner)


def test_a_name_written_in_full_allows_what_it_leads_to():
    for pattern, refused in (("hashlib.*", True), ("hashlib.sha256", False)):
        instantiate.allow([pattern])
        expected: Any = pytest.raises(instantiate.ForbiddenError)
        with expected if refused else contextlib.nullcontext():
            assert instantiate.instantiate_as(object, {"_target_": "hashlib.sha256"})


def test_parts_are_made_as_hydra_makes_them():
    layer = {"_target_": "torch.nn.Linear", "in_features": 784, "out_features": 10}
    parts = {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "torch.nn.Flatten"}, layer]}
    net = build_network(parts)
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    node = {"_target_": "dict", "_partial_": True, "a": 1}
    made = instantiate.called(node, {"dict": dict}, b=2)
    assert made(c=3) == {"a": 1, "b": 2, "c": 3}


def test_what_is_made_must_be_of_the_kind_that_is_wanted():
    with pytest.raises(ValueError, match=r"_target_ must be a Callback, got lightning\.Trainer"):
        instantiate.instantiate_as(L.Callback, {"_target_": "lightning.Trainer", "logger": False})
