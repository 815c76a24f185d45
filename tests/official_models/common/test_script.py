"""What train scripts share: a whole script of a linear model."""

import json
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

from official_models.common import flags as run_flags
from official_models.common import optimizers, report, script, strategies
from tests.official_models.scripts import flags_of, refusal, rows, run

FLAGS = flags.FLAGS
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 3)).astype("float32")
Y = (X @ [[1.0], [2.0], [3.0]]).astype("float32")


def define_flags():
    run_flags.define_flags(
        output_dir="runs/line", log_every=2, save_every=None, jit_compile=True
    )
    optimizers.define_flags(
        learning_rate=0.1,
        warmup_ratio=0.0,
        weight_decay=0.0,
        exclusions=("bias",),
        global_clipnorm=0.0,
    )
    strategies.define_flags()
    flags.DEFINE_integer("global_batch_size", 4, "Rows an update.")


def make_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(
        optimizers.from_flags(8), "mse", **strategies.compile_arguments()
    )
    return model


def main(_, facts=None, initialize=lambda: None):
    strategy = script.begin()
    training = script.Training(strategy)
    size = training.micro_batch_size()
    training.open_folder(facts or {})
    model = training.build(make_model)
    started = training.start(
        model,
        total_steps=8,
        unit="rows",
        units_per_step=FLAGS.global_batch_size,
        metric_names=(),
        description="A line",
        steps_per_epoch=4,
        batches_per_step=FLAGS.gradient_accumulation_steps,
        initialize=initialize,
    )

    def train(first, last, reader):
        rows = slice(size * first, size * last)
        dataset = tf.data.Dataset.from_tensor_slices((X[rows], Y[rows]))
        return dataset.batch(size // reader[1])

    started.fit(strategies.distribute_steps(strategy, size, train))
    training.save(model)
    shown = types.SimpleNamespace(
        show=lambda figures: f"loss {figures['loss']}",
        write=lambda folder, figures, title: report.write(
            folder, figures, picture="l.png", panels={"loss": "l"}, title=title
        ),
    )
    training.finish(shown, {"loss": 0.5}, "A line")


line = types.SimpleNamespace(
    __name__="line", define_flags=define_flags, main=main
)


@pytest.fixture(autouse=True)
def defined_flags(monkeypatch):
    # It holds for a process; other tests compile by XLA.
    monkeypatch.setattr(
        tf.config.experimental, "enable_op_determinism", lambda: None
    )
    with flags_of(line):
        yield


def parse(*arguments):
    FLAGS.unparse_flags()
    FLAGS(["line", *arguments])


def test_a_run_from_its_folder_to_its_report(tmp_path, capsys):
    run(line, f"--output_dir={tmp_path}")
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "A line; 4 parameters.",
        "loss 0.5",
        "",
        f"{tmp_path}: report.json, checkpoints, model.keras, l.png, "
        "trust_ratio.png.",
    ]
    assert [row["step"] for row in rows(tmp_path / "metrics.csv")] == [
        *("2", "4", "6", "8")
    ]
    assert json.loads((tmp_path / "report.json").read_text()) == {"loss": 0.5}
    checkpoints = (tmp_path / "checkpoints").glob("*.index")
    assert {path.stem for path in checkpoints} == {"ckpt-4", "ckpt-8"}
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["learning_rate"] == 0.1
    assert (record["replicas"], record["readers"]) == (1, 1)
    assert "output_dir" not in record


def test_a_resumed_run_says_so_and_is_not_initialized_again(tmp_path, capsys):
    calls = []
    with flagsaver.flagsaver():
        parse(f"--output_dir={tmp_path}")
        main([], initialize=lambda: calls.append("first"))
        main([], initialize=lambda: calls.append("second"))
    assert calls == ["first"]
    assert f"{tmp_path}: resuming from step 8." in capsys.readouterr().out


def test_an_input_that_initialize_refuses_leaves_no_record(tmp_path):
    with flagsaver.flagsaver():
        parse(f"--output_dir={tmp_path}")
        with pytest.raises(ZeroDivisionError):
            main([], initialize=lambda: 1 / 0)
    assert not (tmp_path / "run.json").exists()


def test_other_facts_are_another_run(tmp_path):
    with flagsaver.flagsaver():
        parse(f"--output_dir={tmp_path}")
        main([], facts={"sha256": "a"})
        refusal(
            lambda: main([], facts={"sha256": "b"}),
            "sha256 = 'a', this one has 'b'",
        )


def test_another_number_of_replicas_is_another_run(tmp_path):
    run(line, f"--output_dir={tmp_path}")
    two = ("--strategy=mirrored", "--devices=CPU:0,CPU:1")
    refusal(
        lambda: run(line, f"--output_dir={tmp_path}", *two),
        "replicas = 1, this one has 2",
    )


def test_accumulation_holds_a_part_of_the_batch(tmp_path, mirrored):
    alone, two = map(script.Training, (tf.distribute.get_strategy(), mirrored))
    with flagsaver.flagsaver():
        parse("--gradient_accumulation_steps=2", "--global_batch_size=6")
        assert alone.micro_batch_size() == 3
        refusal(two.micro_batch_size, "expected a multiple of the 2 replicas")
        parse("--gradient_accumulation_steps=4", "--global_batch_size=6")
        refusal(
            alone.micro_batch_size,
            "--gradient_accumulation_steps 4: expected a divisor of "
            "--global_batch_size 6",
        )


def test_seeds_and_determinism(monkeypatch):
    switched = []
    monkeypatch.setattr(
        tf.config.experimental,
        "enable_op_determinism",
        lambda: switched.append(True),
    )
    draws = []
    with flagsaver.flagsaver():
        for seed in ("1", "1", "2"):
            parse(f"--seed={seed}", "--jit_compile")
            script.begin()
            draws.append((np.random.rand(), float(tf.random.uniform(()))))
        assert draws[0] == draws[1] != draws[2]
        # Keras refuses to compile by XLA under the switch.
        assert not switched
        parse("--nojit_compile")
        script.begin()
        assert switched == [True]
