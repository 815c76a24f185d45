"""What a training run came to: figures, curves, a line to read."""

import math
import warnings
from pathlib import Path

import keras

from official_models.common import report
from official_models.common.run import Run
from official_models.vision.resnet.input_pipeline import Images


def measure(
    model: keras.Model, images: Images, run: Run, settings: dict
) -> dict:
    """Held-out figures, size and speed.

    Args:
        model: trained.
        images: its data.
        run: its training.
        settings: what the flags and the recipe said, to be kept with it.
    """
    with images.reporting(), warnings.catch_warnings():
        # As in `Run.fit`.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        held_out = model.evaluate(
            images.evaluation(), verbose=0, return_dict=True
        )
    source = images.source
    wrong = (1 - held_out["accuracy"]) * source.num_evaluation
    return {
        "data": source.description,
        "steps": run.end_step,
        "images_per_second": run.speed(),
        "parameters": sum(math.prod(v.shape) for v in model.trainable_weights),
        "accuracy": held_out["accuracy"],
        "wrong": round(wrong),
        "num_evaluation": source.num_evaluation,
        "cross_entropy": held_out["cross_entropy"],
        "skipped_steps": report.skipped_steps(model),
        "settings": settings,
        "measured": report.environment(),
    }


def show(figures: dict) -> str:
    """The figures in words."""
    return (
        f"held out: accuracy {figures['accuracy']:.2%} ({figures['wrong']} of "
        f"{figures['num_evaluation']:,} wrong), cross-entropy "
        f"{figures['cross_entropy']:.4f} nats; {figures['steps']} steps at "
        f"{figures['images_per_second']:,.0f} images/s."
    )


def write(folder: Path, figures: dict, title: str) -> None:
    """Writes report.json, curves.png and trust_ratio.png into the run."""
    report.write(
        folder,
        figures,
        picture="curves.png",
        panels={
            "cross_entropy": "cross-entropy (nats)",
            "accuracy": "accuracy",
        },
        title=title,
    )
