"""Which flags decide a run's weights: all but those that are named."""

import importlib
import json
import os
import pathlib
from unittest import mock

import pytest
from absl import flags

from official_models.common import flags as run_flags
from official_models.common import optimizers, run_folder
from official_models.common.errors import InputError
from official_models.nlp.bert import (
    finetune_classifier,
    finetune_hub,
    finetune_squad,
    pretrain,
)
from official_models.nlp.head_analysis import __main__ as head_analysis
from official_models.nlp.summarization import copy_study
from official_models.nlp.summarization import train as summaries
from official_models.nlp.term_weighting import train as term_weighting
from official_models.rl.dqn_lambda import train as dqn_lambda
from official_models.rl.dqn_lambda.a3c import train as a3c
from official_models.vision.batch_norm import train as batch_norm
from official_models.vision.few_shot import train as few_shot
from official_models.vision.resnet import train
from tests.official_models.scripts import flags_of, refusal
from tpu import job_flags

FLAGS = flags.FLAGS
# No value of these changes the weights. A flag that is added here has to keep
# that; a new flag that is not is part of a run's identity.
RUN = {"output_dir", "log_every", "save_every", "eval_every"}
DEVICES = {
    *("devices", "tpu", "steps_per_execution"),
    *("job_addresses", "num_processes", "process_id"),
    *("mesh", "shard_state"),
}
WITHOUT_EFFECT = {
    pretrain: RUN
    | DEVICES
    | {"input", "eval_input", "records", "eval_records", "vocab_file"}
    | {"phase2_records", "phase2_eval_records", "per_device_batch_size"}
    | {"cache_dir", "fill", "init_checkpoint", "preset"},
    train: RUN | DEVICES | {"data_dir", "max_corrupt", "cache", "recipe"},
    few_shot: {"output_dir", "log_every", "seeds", "data_dir"},
    dqn_lambda: {"output_dir", "save_every", "eval_episodes", "eval_epsilon"},
    a3c: {"output_dir", "save_every", "log_every", "eval_episodes"},
    term_weighting: {"output_dir", "data_dir", "categories", "weightings"}
    | {"optimizers", "batch_sizes", "seed", "seeds", "workers"}
    | {"hours"},
    batch_norm: {"output_dir", "experiments", "data_dir", "filters"}
    | {"batch_sizes", "updates", "optimizers", "reference_batch_size"}
    | {"large_batch_size", "epochs", "zetas", "seeds", "hours", "seed"},
    finetune_hub: RUN | {"data_dir", "test"},
    finetune_classifier: {"output_dir", "data_dir", "vocab_file"}
    | {"init_checkpoint", "eval_batch_size", "seeds", "predict"},
    head_analysis: {"output_dir", "data", "batch_size"}
    | {"token_classes", "relations"},
    copy_study: {"output_dir", "optimizers", "seed", "seeds", "hours"},
    summaries: RUN
    | {"data_dir", "cache_dir", "max_bad", "jobs", "vocab_file"}
    | {"init_checkpoint", "eval_batch_size", "test_limit", "validation_limit"}
    | {"sentences", "beam_size", "alpha", "min_length", "max_length"}
    | {"block_trigrams", "compare_speed"},
    finetune_squad: {"output_dir", "data_dir", "train_file", "dev_file"}
    | {"vocab_file", "init_checkpoint", "eval_batch_size", "seeds", "predict"},
}
by_script = pytest.mark.parametrize(
    "script", WITHOUT_EFFECT, ids=lambda s: ".".join(s.__name__.split(".")[-2:])
)


@pytest.fixture
def parsed(script):
    with flags_of(script):
        FLAGS.unparse_flags()
        FLAGS([script.__name__, "--data_dir=data"][: 1 + ("data_dir" in FLAGS)])
        yield


def _changed(flag):
    """Another value that the flag takes."""
    value = flag.value
    if isinstance(flag, flags.BooleanFlag):
        return not value
    if hasattr(flag.parser, "enum_values"):
        return next(v for v in flag.parser.enum_values if v != value)
    if flag.flag_type() in ("int", "float"):
        return (value or 0) + 1
    if isinstance(flag, flags.MultiFlag) or isinstance(value, list):
        return ["other"]
    return f"{value} other"


@by_script
def test_exactly_these_flags_have_no_effect(script, parsed):
    names = run_flags.defined()
    found = {name for name in names if not run_flags.has_effect(name)}
    assert found == WITHOUT_EFFECT[script]
    assert set(run_flags.identity()) == set(names) - found


@by_script
def test_help_has_every_flag_and_a_sentence_for_it(script, parsed):
    key = FLAGS.get_key_flags_for_module(script.__name__)
    assert {flag.name for flag in key} == set(run_flags.defined())
    for flag in key:
        # An enum's values come before it, what a list is after.
        text = flag.help.split(">: ")[-1].split(";\n")[0]
        assert not text.startswith("Of "), flag.name
        assert text.endswith("."), flag.name


def _scripts():
    """Names of the modules that are run with absl's flags, but for hub.py.

    That one defines its two flags where it is run, so they are its own.
    """
    root = pathlib.Path(__file__).parents[3]
    for folder in ("official_models", "tpu"):
        for path in sorted((root / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if "\ndef define_flags(" in text and "\nif __name__ == " in text:
                yield ".".join(path.relative_to(root).with_suffix("").parts)


@pytest.mark.parametrize("name", [*_scripts()])
def test_help_of_every_script_has_every_flag(name):
    with mock.patch.dict(os.environ):  # tpu.plan's is that of JAX
        script = importlib.import_module(name)
    before = {*FLAGS}
    with flags_of(script):
        key = FLAGS.get_key_flags_for_module(name)
        assert {flag.name for flag in key} == {*FLAGS} - before != set()


def test_scripts_are_found():
    assert {s.__name__ for s in WITHOUT_EFFECT} < {*_scripts()}


@by_script
def test_a_changed_flag_is_refused_by_its_name_or_has_no_effect(
    script, parsed, tmp_path
):
    """Every flag that there is, changed alone."""
    run_folder.record_run(tmp_path, run_flags.identity())
    run_folder.open_run(str(tmp_path), run_flags.identity())
    for name in run_flags.defined():
        flag = FLAGS[name]
        before, flag.value = flag.value, _changed(FLAGS[name])
        if name in WITHOUT_EFFECT[script]:
            run_folder.open_run(str(tmp_path), run_flags.identity())
        else:
            with pytest.raises(InputError) as refused:
                run_folder.open_run(str(tmp_path), run_flags.identity())
            message = str(refused.value)
            assert f" {name} = " in message and "\n" not in message
        flag.value = before


@by_script
def test_a_flag_that_an_older_run_has_not(script, parsed, tmp_path, capsys):
    """It counts as its default, or as what the script says it was."""
    identity = run_flags.identity()
    for name, value in identity.items():
        others = {n: x for n, x in identity.items() if n != name}
        run_folder.record_run(tmp_path, others)
        was = run_flags.values_before()[name]
        shown = f"written before there was --{name}; such a run is one with"
        if was == value:
            run_folder.open_run(str(tmp_path), identity)
            run_folder.release()
            message = capsys.readouterr().out
        else:
            with pytest.raises(InputError, match=f"{name} = {was}"):
                run_folder.open_run(str(tmp_path), identity)
            message = capsys.readouterr().out
        assert shown in message
        assert len(message.splitlines()) == 1
    different = {
        n for n in identity if run_flags.values_before()[n] != identity[n]
    }
    new = {finetune_classifier, finetune_squad}
    assert different - {"data_dir"} == (
        {"length_buckets"} if script in new else set()
    )


def test_a_flag_that_the_script_has_no_more(tmp_path):
    with flags_of(finetune_classifier):
        identity = run_flags.identity()
        run_folder.record_run(tmp_path, {**identity, "removed": 1})
        refusal(
            lambda: run_folder.open_run(str(tmp_path), identity), "removed = 1"
        )


@by_script
def test_a_new_flag_decides_the_weights_unless_it_says_otherwise(
    script, parsed
):
    try:
        run_flags.flags.DEFINE_integer(
            "new_flag", 1, "New.", module_name="official_models.anything"
        )
        assert run_flags.identity()["new_flag"] == 1
        run_flags.without_effect("new_flag")
        assert "new_flag" not in run_flags.identity()
    finally:
        delattr(FLAGS, "new_flag")


@by_script
def test_a_run_s_identity_is_json(script, parsed):
    identity = run_flags.identity()
    assert json.loads(json.dumps(identity)) == identity


def test_flags_of_libraries_are_none_of_a_run_s():
    names = {*FLAGS} - {*run_flags.defined()}
    assert {"verbosity", "op_conversion_fallback_to_while_loop"} <= names


def test_a_flag_without_effect_has_to_exist():
    with pytest.raises(KeyError):
        run_flags.without_effect("no_such_flag")


def test_a_wrong_argument_is_named_as_its_flag():
    with (
        pytest.raises(InputError, match="^--beta_1: expected less"),
        run_flags.naming_the_flag(),
    ):
        raise ValueError("beta_1: expected less")
    with (
        pytest.raises(InputError, match="^--l2 3: given"),
        run_flags.naming_the_flag(),
    ):
        raise InputError("--l2 3: given")


def test_both_worlds_call_a_hyperparameter_alike():
    """The flags of TPUEstimator jobs that the scripts here have too."""

    shared = {*("beta_1", "beta_2", "epsilon", "momentum", "nesterov", "norm")}
    shared |= {"form", "trust_coefficient", "moment_dtype", "power"}
    shared |= {"cautious", "clip_by_unit"}
    shared |= {"end_learning_rate", "decay_from", "learning_rate"}
    defaults = []
    for module, arguments in (
        (optimizers, {"warmup_ratio": 0.1}),
        (
            job_flags,
            {"folder": "f", "train_batch_size": 1, "eval_batch_size": 1},
        ),
    ):
        before = {*FLAGS}
        module.define_flags(
            learning_rate=1.0,
            weight_decay=0.0,
            exclusions=(),
            global_clipnorm=0.0,
            **arguments,
        )
        defaults.append({name: FLAGS[name].default for name in shared})
        for name in {*FLAGS} - before:
            delattr(FLAGS, name)
    assert defaults[0] == defaults[1]


def test_a_job_of_tpu_estimator_says_which_tensorflow_it_needs():
    refusal(job_flags.check_flags, "TPUEstimator", "2.15", "make .venv-tf215")
