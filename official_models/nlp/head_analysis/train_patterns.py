r"""Trains the classifier of attention maps on generated maps, by LAMB.

    python -m official_models.nlp.head_analysis.train_patterns \
        --output official_models/nlp/head_analysis/patterns.npz

No map of a model is read. Beside the weights, a .json file of the same name
says how they were made. On the same backend a seed gives the same weights but
for the order of sums.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import keras
import numpy as np

import tf_lamb
from official_models.common import errors, files, interrupts, report
from official_models.nlp.head_analysis import generated, patterns


def batch(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Generated maps as the network reads them, and their classes."""
    maps, labels = generated.generate(number, seed)
    return np.concatenate([patterns.prepare(x[None]) for x in maps]), labels


def train(
    steps: int = 800,
    batch_size: int = 64,
    learning_rate: float = 0.01,
    seed: int = 0,
    log_every: int = 50,
    test_maps: int = 1000,
) -> tuple[keras.Model, float]:
    """Trains a network on maps of which each is seen once.

    Args:
        steps: Updates, 2 or more.
        batch_size: Maps of an update.
        learning_rate: LAMB's, at the end of a warmup over a tenth of the
            steps; then it falls to 0 in a line.
        seed: Of the initial weights and the maps.
        log_every: Updates between two lines on the screen.
        test_maps: Other generated maps that the accuracy is of.

    Returns:
        The network, and its accuracy on other generated maps.
    """
    model = patterns.network(seed)
    rate = tf_lamb.WarmupPolynomial(learning_rate, steps, max(1, steps // 10))
    model.compile(
        tf_lamb.LAMB(rate, weight_decay=0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    seeds = np.random.SeedSequence(seed).generate_state(steps + 1)
    start, losses = time.monotonic(), []
    for step in range(1, steps + 1):
        losses.append(
            float(model.train_on_batch(*batch(batch_size, int(seeds[step]))))
        )
        if step % log_every == 0 or step == steps:
            print(
                f"step {step} of {steps}: loss {np.mean(losses):.3f}, "
                f"{time.monotonic() - start:.0f} s",
                flush=True,
            )
            losses.clear()
    x, labels = batch(test_maps, int(seeds[0]))
    found = np.asarray(model.predict_on_batch(x)).argmax(1)
    return model, float(np.mean(found == labels))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m official_models.nlp.head_analysis.train_patterns",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help=".npz file.")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.output.suffix != ".npz":
        errors.refuse(f"--output {given.output}: expected a name with .npz")
    try:
        given.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        errors.refuse(f"--output: {error}")
    start = time.monotonic()
    model, accuracy = train(given.steps, seed=given.seed)
    patterns.save(model, given.output)
    figures = {
        "measured": report.environment(),
        "backend": keras.backend.backend(),
        "seed": given.seed,
        "steps": given.steps,
        "seconds": round(time.monotonic() - start, 1),
        "accuracy_on_generated": accuracy,
    }
    files.write_json(given.output.with_suffix(".json"), figures, indent=1)
    print(f"accuracy on 1,000 other generated maps: {accuracy:.3f}")


if __name__ == "__main__":
    interrupts.raise_again()
    main()
