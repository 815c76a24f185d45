"""ResNet's job on this machine: trained, killed, resumed, served, refused."""

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

from official_models.vision.datasets.imagenet import batches
from official_models.vision.resnet import model as resnet
from tests import warm
from tests.official_models.scripts import flags_of, refusal
from tests.official_models.scripts import run as run_here
from tests.tpu.estimator import job_process, resnet_job, tpu_graph
from tpu import resnet_imagenet

tf1 = tf.compat.v1
STEPS = 12
TRAINING = (
    *("--enable_lars", f"--train_steps={STEPS}", f"--steps_per_eval={STEPS}"),
    *("--save_checkpoints_steps=2", "--log_every=4", "--learning_rate=2"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resnet")
    resnet_job.write_records(folder)
    return folder


@pytest.fixture(scope="module")
def whole(folder):
    """A run to its end; what it printed."""
    return resnet_job.run(
        folder, "whole", *TRAINING, "--export_dir", folder / "export"
    )


def test_a_killed_run_goes_on_to_the_same_weights(folder, whole):
    command = resnet_job.command(folder, "killed", *TRAINING)
    last = job_process.kill_once_saved(command, folder / "killed", 4)
    assert 4 <= last < STEPS
    printed = resnet_job.run(folder, "killed", *TRAINING)
    job_process.assert_same_end(folder / "whole", folder / "killed", STEPS)
    assert printed in whole  # the same metrics, without the SavedModel's path


def _model_of(folder):
    """Keras' own, with the weights of the last checkpoint."""
    model = resnet.build(
        "resnet18",
        image_size=resnet_job.SIZE,
        num_classes=resnet_job.CLASSES,
        width=4,
    )
    weights = job_process.weights(folder)
    for variable in model.variables:
        variable.assign(weights[variable.name.split(":")[0]])
    return model


def test_the_served_model_is_the_trained_one_and_its_metrics_are_right(
    folder, whole
):
    served = tf.saved_model.load(whole.strip().split("\n")[-1])
    served = served.signatures["serving_default"]
    model = _model_of(folder / "whole")
    images = batches.ImageNetRecords(
        folder / "data", 8, 1, image_size=resnet_job.SIZE
    )
    ranks, nll, weights = [], [], []
    for x, label, weight in images.evaluation():
        # Of the running statistics: training is False.
        logits = model(x).numpy()
        got = served(images=x)
        np.testing.assert_allclose(got["logits"], logits, atol=1e-4)
        np.testing.assert_array_equal(got["classes"], logits.argmax(-1))
        picked = np.take_along_axis(logits, label.numpy()[:, None], -1)
        ranks.append((logits > picked).sum(-1))
        top = logits.max(-1)
        total = np.log(np.exp(logits - top[:, None]).sum(-1)) + top
        nll.append(total - picked[:, 0])
        weights.append(weight)
    ranks, nll, weights = map(np.concatenate, (ranks, nll, weights))
    assert weights.sum() == resnet_job.VALIDATION < len(weights)
    text = (folder / "whole/eval_results.txt").read_text()
    metrics = dict(line.split(" = ") for line in text.splitlines())
    for name, values in (
        ("top_1_accuracy", ranks < 1),
        ("top_5_accuracy", ranks < 5),
        ("cross_entropy", nll),
    ):
        expected = np.average(values, weights=weights)
        assert float(metrics[name]) == pytest.approx(expected, abs=1e-4)


def test_all_running_statistics_move(folder, whole):
    statistics = {
        name: value
        for name, value in job_process.weights(folder / "whole").items()
        if name.endswith(("moving_mean", "moving_variance"))
    }
    assert len(statistics) == 2 * 20  # of 17 convolutions and 3 shortcuts
    for name, value in statistics.items():
        first = 1.0 if name.endswith("variance") else 0.0
        assert np.abs(value - first).min() > 0, name


def test_summaries(folder, whole):
    found = job_process.summaries(folder / "whole")
    for values in found.values():
        assert list(values) == [4, 8, 12]
    # Of the step that the summary ends; 24 images are 3 steps of warmup. The
    # decay is MLPerf's only from 256 images an update.
    for step, rate in found["learning_rate"].items():
        assert rate == pytest.approx(2 * (STEPS - (step - 1)) / (STEPS - 3))
    ratios = {n.split("/", 1)[1] for n in found if n.startswith("trust_ratio/")}
    assert len(ratios) == 20 + 1
    assert all(name.endswith("kernel") for name in ratios)
    for step, loss in found["loss"].items():  # no L2 beside LARS
        assert loss == found["cross_entropy"][step]


def _batches_in_a_graph(folder, first, count, reader):
    """Training batches as a job's input function makes them."""
    images = batches.ImageNetRecords(
        folder / "data", 8, 1, image_size=resnet_job.SIZE, reader=reader
    )
    with tf.Graph().as_default(), tf1.Session() as session:
        dataset = images.train(first, first + count)
        iterator = tf1.data.make_initializable_iterator(dataset)
        session.run(iterator.initializer)
        batch = iterator.get_next()
        return [session.run(batch) for _ in range(count)]


@pytest.mark.parametrize("reader", [(0, 1), (1, 2), (2, 4)])
def test_batches_of_a_tensorflow_1_graph_are_those_of_eager(folder, reader):
    """From the middle of an epoch; whole shards, or each fourth record."""
    images = batches.ImageNetRecords(
        folder / "data", 8, 1, image_size=resnet_job.SIZE, reader=reader
    )
    expected = list(images.train(0, 6))[4:]
    for actual, batch in zip(
        _batches_in_a_graph(folder, 4, 2, reader), expected, strict=True
    ):
        np.testing.assert_array_equal(actual[0], batch[0])
        np.testing.assert_array_equal(actual[1], batch[1])


@pytest.fixture
def set_flags(folder):
    """Sets the job's flags; gives its `model_fn` of 2 steps of warmup."""

    def make(*arguments):
        given = resnet_job.command(folder, "tpu", *arguments)[3:]
        flags.FLAGS(["job", "--train_steps=20", *given])
        resnet_imagenet.choose_optimizer()
        l2 = resnet_imagenet.take_l2()
        return resnet_imagenet.make_model_fn(resnet_job.CLASSES, l2, 2)

    with flags_of(resnet_imagenet), flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        yield make


def _batch(size, dtype="float32"):
    rng = np.random.default_rng(0)
    shape = (size, resnet_job.SIZE, resnet_job.SIZE, 3)
    images = tf.cast(rng.normal(size=shape), dtype).numpy()
    labels = np.arange(size, dtype=np.int32) % resnet_job.CLASSES
    weights = np.ones(size, np.float32)
    return {"images": images}, {"labels": labels, "weights": weights}


@pytest.mark.parametrize("optimizer", ["lamb", "momentum"])
def test_the_graph_of_eight_cores(set_flags, optimizer):
    model_fn = set_flags(
        "--use_tpu", f"--optimizer={optimizer}", "--precision=bfloat16"
    )
    graph = tpu_graph.sharded(model_fn, *_batch(16, "bfloat16"))
    assert tpu_graph.unfit(graph) == []
    operations = tpu_graph.operations(graph)
    kinds = [node.op for node in operations]
    trained = graph.get_collection("trainable_variables")
    assert kinds.count("CrossReplicaSum") == len(trained) == 62
    # Both running statistics of 20 norms are assigned on the TPU.
    assigned = [k for k in kinds if k.startswith("Assign")]
    assert len(assigned) >= 2 * 20
    half = tf.bfloat16.as_datatype_enum
    types = {n.attr["T"].type for n in operations if n.op == "Conv2D"}
    assert types == {half}


def test_a_compiled_core_trains_as_this_machine_does(set_flags):
    """Eight cores with equal parts make the update of one with that part."""
    batch, arguments = _batch(4), ("--optimizer=momentum", "--weight_decay=0.1")
    model_fn = set_flags("--use_tpu", *arguments)
    # The first of them is at a rate of 0.
    losses, variables = tpu_graph.compiled(model_fn, *batch, 3)
    flags.FLAGS.use_tpu = False
    expected, before, here = _updates(model_fn, batch, 3)
    np.testing.assert_allclose(losses, [expected] * 2, rtol=1e-5)
    assert np.abs(here["dense/bias"] - before["dense/bias"]).max() > 1e-4
    for name, value in variables.items():
        np.testing.assert_allclose(here[name], value, atol=1e-5)


def test_evaluation_on_eight_cores(set_flags):
    model_fn = set_flags("--use_tpu")
    graph = tpu_graph.sharded(model_fn, *_batch(16), train=False)
    assert tpu_graph.unfit(graph) == []
    kinds = {node.op for node in tpu_graph.operations(graph)}
    assert not any(kind.startswith("Assign") for kind in kinds - {"AssignAdd"})


def _updates(model_fn, batch, steps):
    """Losses of updates on one batch, and variables before and after."""
    with tf.Graph().as_default(), tf1.Session() as session:
        tf1.train.create_global_step()
        features, labels = tf.nest.map_structure(tf.constant, batch)
        spec = model_fn(features, labels, tf1.estimator.ModeKeys.TRAIN, {})
        variables = {v.name[:-2]: v for v in tf1.global_variables()}
        session.run(tf1.global_variables_initializer())
        before = session.run(variables)
        run = [spec.loss, spec.train_op]
        losses = [session.run(run)[0] for _ in range(steps)]
        return losses, before, session.run(variables)


def test_momentum_decays_in_the_loss_and_statistics_are_the_batch_s(set_flags):
    l2, batch = 0.5, _batch(8)
    arguments = ("--optimizer=momentum", "--label_smoothing=0.1")
    results = [
        _updates(set_flags(*arguments, f"--weight_decay={value}"), batch, 1)
        for value in (0.0, l2)
    ]
    ([plain], before, after), ([penalised], *_) = results
    squares = sum(
        np.square(value).sum()
        for name, value in before.items()
        if name.endswith("kernel")
    )
    assert penalised - plain == pytest.approx(l2 / 2 * squares, rel=1e-4)
    kernel = before["stem/conv/kernel"]
    padded = np.pad(batch[0]["images"], ((0, 0), (3, 3), (3, 3), (0, 0)))
    seen = tf.nn.conv2d(padded, kernel, 2, "VALID").numpy()
    for name, first, value in (
        ("mean", 0, seen.mean((0, 1, 2))),
        ("variance", 1, seen.var((0, 1, 2))),
    ):
        np.testing.assert_allclose(
            after[f"stem/batch_norm/moving_{name}"],
            0.9 * first + 0.1 * value,
            rtol=1e-3,
            atol=1e-5,
        )


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["--mode=eval"], ["no checkpoint to evaluate"]),
        (["--data_dir=none"], ["none", "no such folder"]),
        (["--num_train_images=25"], ["--num_train_images 25", "24"]),
        (["--num_eval_images=9"], ["--num_eval_images 9", "10"]),
        (["--num_label_classes=7"], ["--num_label_classes 7", "8 classes"]),
        (["--label_smoothing=1"], ["--label_smoothing", "1"]),
        (["--enable_lars", "--optimizer=lamb"], ["lamb", "--enable_lars"]),
        (["--base_learning_rate=1"], ["--base_learning_rate 1", "not both"]),
        (["--train_steps=2"], ["--warmup_epochs 1", "3 updates", "2"]),
        (["--train_batch_size=25"], ["batch_size 25", "24"]),
        (["--tpu_name=t"], ["--tpu_name t", "--use_tpu"]),
        (
            ["--use_tpu", "--tpu=t", "--train_batch_size=12"],
            ["--train_batch_size 12", "--num_tpu_cores 8"],
        ),
    ],
    ids=lambda value: value[-1].lstrip("-"),
)
def test_refusals(folder, arguments, parts):
    given = resnet_job.command(folder, "refused", *arguments)[3:]
    with flags_of(resnet_imagenet):
        refusal(lambda: run_here(resnet_imagenet, *given), *parts)


@pytest.mark.parametrize(
    "arguments, rate, warmup, decay",
    [
        # The untuned rule's: 5e-3 at 512, by the root.
        (["--train_batch_size=2048"], 0.01, 1.25, 0.01),
        # MLPerf's.
        (["--enable_lars", "--train_batch_size=8192"], 10.0, 5.0, 5e-5),
        # Goyal et al.: .1 for 256.
        (["--optimizer=momentum", "--train_batch_size=512"], 0.2, 5.0, 1e-4),
        (
            ["--base_learning_rate=.3", "--train_batch_size=512"],
            0.6,
            None,
            0.01,
        ),
        (["--learning_rate=.3", "--warmup_epochs=0"], 0.3, 0.0, 0.01),
    ],
)
def test_rates_by_the_optimizer(arguments, rate, warmup, decay):
    with flags_of(resnet_imagenet):
        flags.FLAGS.unparse_flags()
        given = ["job", "--data_dir=none", "--model_dir=none", *arguments]
        flags.FLAGS(given)
        resnet_imagenet.choose_optimizer()
        assert flags.FLAGS.learning_rate == pytest.approx(rate)
        assert flags.FLAGS.weight_decay == decay
        if warmup is not None:
            assert flags.FLAGS.warmup_epochs == warmup


def test_a_refusal_ends_with_status_2(folder):
    done = warm.run(
        resnet_job.command(folder, "refused", "--resnet_depth=51"),
        cwd=job_process.ROOT,
        env=job_process.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.strip().split("\n")[-1].startswith("error: ")
