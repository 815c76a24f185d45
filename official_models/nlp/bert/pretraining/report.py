"""What a pretraining run came to: numbers beside their baselines, fillings."""

from pathlib import Path

import keras
import numpy as np

from official_models.common import report
from official_models.common.run import Run
from official_models.nlp.bert.pretraining import fill_mask
from official_models.nlp.bert.pretraining.source import PlainText, Records


def metrics(pair: str) -> tuple[str, ...]:
    """Columns of metrics.csv.

    Args:
        pair: output of the head of the sentence pair.
    """
    return tuple(
        f"{head}_{name}"
        for head in ("masked_lm", pair)
        for name in ("loss", "accuracy")
    )


def measure(
    model: keras.Model,
    text: PlainText | Records,
    run: Run,
    held_out=None,
    *,
    fill: bool = True,
) -> dict:
    """Held-out figures, the unigram's beside them, speed and fillings.

    Args:
        model: trained.
        text: what it was trained on.
        run: of the training.
        held_out: the held-out batches, distributed; those of `text` if None.
        fill: whether to fill the texts with a [MASK].
    """
    held_out = model.evaluate(
        held_out or text.held_out,
        steps=int(text.held_out.cardinality()),
        verbose=0,
        return_dict=True,
    )
    fillings = fill_mask.fill_masks(
        model,
        text.tokenizer,
        text.fill if fill else [],
        max_seq_length=text.max_seq_length,
    )
    loss, accuracy = text.unigram
    return {
        "steps": run.end_step,
        "tokens_per_second": run.speed(),
        "parameters": model.count_params(),
        "masked_lm_loss": held_out["masked_lm_loss"],
        "masked_lm_accuracy": held_out["masked_lm_accuracy"],
        "pair": text.task,
        f"{text.task}_accuracy": held_out[f"{text.pair}_accuracy"],
        f"{text.task}_majority": _majority(text),
        "unigram_loss": loss,
        "unigram_accuracy": accuracy,
        "skipped_steps": report.skipped_steps(model),
        "fillings": [filling._asdict() for filling in fillings],
        "measured": report.environment(),
    }


def _majority(text: PlainText | Records) -> float:
    """Accuracy of always giving the commoner label of a pair."""
    labels = [y[text.pair] for _, y, _ in text.held_out]
    random = float(np.mean(np.concatenate(labels)))
    return max(random, 1 - random)


def show(figures: dict) -> str:
    """The figures as a table, then the fillings."""
    gain = figures["unigram_loss"] - figures["masked_lm_loss"]
    pair = figures["pair"]
    words = pair.replace("_", " ")
    rows = [
        ("held out", "loss (nats)", "accuracy"),
        (
            "masked tokens: model",
            f"{figures['masked_lm_loss']:.3f}",
            f"{figures['masked_lm_accuracy']:.1%}",
        ),
        (
            "masked tokens: unigram",
            f"{figures['unigram_loss']:.3f}",
            f"{figures['unigram_accuracy']:.1%}",
        ),
        (f"{words}: model", "", f"{figures[f'{pair}_accuracy']:.1%}"),
        (
            f"{words}: commoner label",
            "",
            f"{figures[f'{pair}_majority']:.1%}",
        ),
    ]
    lines = [
        "",
        *(f"{name:31}{loss:>11}{share:>10}" for name, loss, share in rows),
        f"{abs(gain):.2f} nats {'under' if gain >= 0 else 'over'} the unigram; "
        f"{figures['steps']} steps at "
        f"{figures['tokens_per_second']:,.0f} tokens/s.",
        "",
        *(str(fill_mask.Filling(**filling)) for filling in figures["fillings"]),
    ]
    return "\n".join(lines)


def write(folder: Path, figures: dict, title: str) -> None:
    """Writes report.json, loss.png and trust_ratio.png into the run."""
    report.write(
        folder,
        figures,
        picture="loss.png",
        panels={
            "masked_lm_loss": "masked-token loss (nats)",
            "masked_lm_accuracy": "masked-token accuracy",
        },
        baselines={
            "masked_lm_loss": (figures["unigram_loss"], "unigram"),
            "masked_lm_accuracy": (figures["unigram_accuracy"], "unigram"),
        },
        title=title,
    )
