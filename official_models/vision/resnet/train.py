r"""Trains a ResNet with LAMB, LARS, SGD or AdamW.

    python -m official_models.vision.resnet.train

trains a small one on 4,096 MNIST digits. ImageNet:

    python -m official_models.vision.resnet.train --data imagenet \
        --data_dir shards --output_dir runs/imagenet --recipe mlperf-lars \
        --global_batch_size 8192 --dtype mixed_bfloat16 --strategy mirrored

README.md beside this file has the numbers that were reached, with their date.
"""

import os
import tempfile
from pathlib import Path

import keras
import tensorflow as tf
from absl import flags, logging

from official_models.common import errors, optimizers, run_dir, strategies
from official_models.common.fit import Run
from official_models.vision.resnet import (
    input_pipeline,
    recipes,
    report,
    trained_weights,
)
from official_models.vision.resnet import model as resnet

FLAGS = flags.FLAGS
EXCLUSIONS = ("batch_norm", "bias")
METRICS = ("accuracy", "cross_entropy")


def define_flags() -> None:
    """Defines this script's flags."""
    for module in (input_pipeline, recipes, strategies):
        module.define_flags()
        flags.adopt_module_key_flags(module)  # for --help
    optimizers.define_flags(
        learning_rate=0.0,
        warmup_epochs=0.0,
        weight_decay=0.0,
        exclusions=None,
        global_clipnorm=0.0,
    )
    flags.adopt_module_key_flags(optimizers)
    flags.DEFINE_string(
        "output_dir",
        "runs/resnet",
        "Folder of the run, gs:// too. One that is there already is continued.",
    )
    flags.DEFINE_enum(
        "version", "v1.5", ["v1.5", "v1"], "Where a bottleneck strides."
    )
    flags.DEFINE_float("norm_momentum", 0.9, "Of batch norms' statistics.")
    flags.DEFINE_float("norm_epsilon", 1e-5, "Added to their variance.")
    flags.DEFINE_boolean(
        "zero_gamma", True, "Start residual blocks as identities."
    )
    flags.DEFINE_boolean(
        "sync_batch_norm", False, "Batch statistics over all replicas."
    )
    flags.DEFINE_string(
        "init_checkpoint", "", "A model.keras of this network to start from."
    )
    flags.DEFINE_string(
        "dtype", "float32", "Keras dtype policy, such as mixed_bfloat16."
    )
    flags.DEFINE_boolean(
        "jit_compile", False, "Compile the step by XLA: for a GPU."
    )
    flags.DEFINE_integer("seed", 1, "Of weights, order, augmentation.", 0)
    flags.DEFINE_integer("log_every", 10, "Steps a row of metrics.csv.", 1)
    for name in ("save", "eval"):
        flags.DEFINE_integer(
            f"{name}_every", 0, f"Steps until the next {name}; 0: an epoch.", 0
        )


def identity_flags() -> list[str]:
    """The flags of this script that decide the weights."""
    return [
        *("network", "width", "version", "epochs", "global_batch_size"),
        *("label_smoothing", "l2", "norm_momentum", "norm_epsilon"),
        *("zero_gamma", "optimizer"),
        *("sync_batch_norm", "dtype", "jit_compile", "seed", "strategy"),
        *("learning_rate", "warmup_epochs", "decay_from", "power"),
        *("end_learning_rate", "beta_1", "beta_2", "epsilon", "nesterov"),
        *("weight_decay", "exclude_from_weight_decay", "global_clipnorm"),
        *("gradient_accumulation_steps", "norm", "form", "trust_coefficient"),
        "moment_dtype",
    ]


def make_model(images: input_pipeline.Images, total_steps: int) -> keras.Model:
    """The compiled model of the flags."""
    if FLAGS.l2 and FLAGS.weight_decay:
        raise errors.InputError(
            f"--l2 {FLAGS.l2:g}: the optimizer decays weights already; give "
            "--weight_decay 0 or --l2 0"
        )
    height, width, channels = images.source.image_shape
    try:
        model = resnet.build(
            FLAGS.network,
            image_size=(height, width),
            channels=channels,
            num_classes=images.source.num_classes,
            width=FLAGS.width,
            version=FLAGS.version,
            norm_momentum=FLAGS.norm_momentum,
            norm_epsilon=FLAGS.norm_epsilon,
            l2=FLAGS.l2,
            zero_gamma=FLAGS.zero_gamma,
            synchronized=FLAGS.sync_batch_norm,
            seed=FLAGS.seed,
            dtype=FLAGS.dtype,
        )
        loss = resnet.SmoothedCrossEntropy(FLAGS.label_smoothing)
        paths = " ".join(v.path for v in model.trainable_variables)
        # The nine-layer network has no bias.
        FLAGS.set_default(
            "exclude_from_weight_decay", [n for n in EXCLUSIONS if n in paths]
        )
        optimizer = optimizers.from_flags(
            total_steps, total_steps / FLAGS.epochs
        )
        optimizer.build(model.trainable_variables)
    except errors.InputError:
        raise
    except ValueError as error:
        raise errors.InputError(f"--{error}") from error
    model.compile(
        optimizer=optimizer,
        loss=loss,
        weighted_metrics=resnet.metrics(),
        jit_compile=strategies.compiles_step(FLAGS.jit_compile),
        steps_per_execution=FLAGS.steps_per_execution,
    )
    return model


def main(_) -> None:
    """Trains, or goes on training, then shows what was reached."""
    logging.set_verbosity(logging.WARNING)
    strategy = strategies.from_flags()
    alone, chief = (
        strategies.is_alone(strategy),
        strategies.is_chief(strategy),
    )
    keras.utils.set_random_seed(FLAGS.seed)
    if alone and not strategies.compiles_step(FLAGS.jit_compile):
        # Keras refuses to compile under this switch; XLA on CPU repeats itself
        # without it.
        tf.config.experimental.enable_op_determinism()
    settings = recipes.apply()
    k, batch = FLAGS.gradient_accumulation_steps, FLAGS.global_batch_size
    if batch % k:
        raise errors.InputError(
            f"--gradient_accumulation_steps {k}: expected a divisor of "
            f"--global_batch_size {batch}"
        )
    strategies.check_batch(strategy, "global_batch_size", batch // k)
    who = {name: FLAGS[name].value for name in identity_flags()}
    who |= {
        "replicas": strategy.num_replicas_in_sync,
        "init_checkpoint": FLAGS.init_checkpoint,
    }
    images = input_pipeline.Images(
        strategy, batch // k, FLAGS.seed, run_dir.local_folder(FLAGS.output_dir)
    )
    who |= {f"data_{k}": v for k, v in images.source.identity().items()}
    folder = run_dir.open_run(FLAGS.output_dir, who)
    steps_per_epoch = images.source.steps_per_epoch(batch)
    total_steps = max(round(FLAGS.epochs * steps_per_epoch), 1)

    def make():
        return make_model(images, total_steps)

    model = strategies.build(strategy, make)
    run = Run(
        model,
        # Files of the other processes are of no use to anyone.
        folder if chief else Path(tempfile.mkdtemp()),
        total_steps=total_steps,
        log_every=FLAGS.log_every,
        save_every=FLAGS.save_every or steps_per_epoch,
        batches_per_step=k,
        units_per_step=batch,
        unit="images",
        metric_names=METRICS,
        output_dir=FLAGS.output_dir if chief else None,
        restore_from=os.path.join(FLAGS.output_dir, "checkpoints"),
        stop_on_sigterm=strategies.can_stop(strategy),
    )
    if FLAGS.init_checkpoint and not run.first_step:
        trained_weights.load_into(model, FLAGS.init_checkpoint)
    if chief:
        run_dir.record_run(folder, who)
        print(recipes.show(settings))
    print(f"{images.source.description}; {model.count_params():,} parameters.")
    if run.first_step:
        print(f"{FLAGS.output_dir}: going on from step {run.first_step}.")
    with images.reporting():
        run.fit(
            images.train,
            validation_data=images.evaluation(),
            validate_every=FLAGS.eval_every or steps_per_epoch,
        )
    figures = report.measure(model, images, run, settings)
    strategies.save(strategy, model, folder / "model.keras")
    if chief:
        report.write(
            folder,
            figures,
            f"{FLAGS.network}, {FLAGS.optimizer.upper()}, batch {batch}",
        )
        run_dir.push(folder, FLAGS.output_dir)
        print(report.show(figures))
        print(
            f"{FLAGS.output_dir}: model.keras, checkpoints, curves.png, "
            "report.json."
        )


if __name__ == "__main__":
    define_flags()
    errors.run(main)
