r"""Trains a ResNet with LAMB, LARS, SGD or AdamW.

    python -m official_models.vision.resnet.train

trains a small one on 4,096 MNIST digits. On 2026-11-25 that took 44 seconds on
two cores of an AMD EPYC and reached an accuracy of 97.90% on 904 held-out
digits; README.md has more, and CIFAR-10. ImageNet (not run here):

    python -m official_models.vision.resnet.train --data imagenet \
        --data_dir shards --output_dir runs/imagenet --recipe mlperf-lars \
        --global_batch_size 8192 --dtype mixed_bfloat16 --strategy mirrored
"""

from absl import flags

from official_models.common import (
    errors,
    hours,
    optimizers,
    run_folder,
    script,
    strategies,
    weights,
)
from official_models.common import flags as run_flags
from official_models.vision.resnet import (
    input_pipeline,
    layouts,
    network,
    recipes,
    report,
)

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines this script's flags."""
    run_flags.define_flags(
        output_dir="runs/resnet",
        log_every=10,
        save_every=None,
        eval_every=None,
        jit_compile=False,
    )
    optimizers.define_flags(
        learning_rate=0.0,
        warmup_epochs=0.0,
        weight_decay=0.0,
        exclusions=None,
        global_clipnorm=0.0,
    )
    own = (hours, input_pipeline, network, recipes, strategies)
    for module in own:
        module.define_flags()
    for module in (run_flags, optimizers, *own):
        flags.adopt_module_key_flags(module)  # for --help
    flags.DEFINE_string(
        "init_checkpoint", "", "A model.keras of this network to start from."
    )


def open_images(training: script.Training) -> input_pipeline.Images:
    """The images of the flags, after a look whether the folder is theirs."""
    images = input_pipeline.Images(
        training.strategy,
        training.micro_batch_size(),
        FLAGS.seed,
        run_folder.local_folder(FLAGS.output_dir),
    )
    training.open_folder(images.facts())
    return images


def main(_) -> None:
    """Trains, or resumes training, then shows what was reached."""
    training = script.Training(script.begin(layouts.LAYOUTS))
    hours.check_flags(training.strategy)
    settings = recipes.apply()
    images = open_images(training)
    steps_per_epoch = images.source.steps_per_epoch(FLAGS.global_batch_size)
    total_steps = max(round(FLAGS.epochs * steps_per_epoch), 1)
    model = training.build(
        lambda: network.make_model(
            images.source.image_shape,
            images.source.num_classes,
            total_steps,
            total_steps / FLAGS.epochs,
        )
    )

    limit = None
    if times := hours.open_times(training.folder):
        schedule = optimizers.schedule_of_flags(
            total_steps, total_steps / FLAGS.epochs
        )
        limit = hours.Limit(schedule, total_steps, times.seconds, times, 0)

    def initialize():
        if FLAGS.init_checkpoint:
            weights.load_keras(model, FLAGS.init_checkpoint)

    run = training.start(
        model,
        total_steps=total_steps,
        unit="images",
        units_per_step=FLAGS.global_batch_size,
        metric_names=network.METRICS,
        description=f"{recipes.show(settings)}\n{images.source.description}",
        steps_per_epoch=steps_per_epoch,
        batches_per_step=FLAGS.gradient_accumulation_steps,
        initialize=initialize,
        limit=limit,
    )
    with images.reporting():
        run.fit(
            images.train,
            validation_data=images.evaluation(),
            validate_every=FLAGS.eval_every or steps_per_epoch,
        )
    figures = report.measure(model, images, run, settings)
    if limit:
        limit.ended(run.end_step)
        figures |= times.figures()
    training.save(model)
    training.finish(report, figures, FLAGS.network)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
