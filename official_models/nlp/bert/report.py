"""What a pretraining run came to: numbers beside their baselines, fillings."""

import json
from pathlib import Path

import keras

from official_models.common import plots, run_dir
from official_models.common.fit import Run
from official_models.nlp.bert import fill_mask
from official_models.nlp.bert.pretraining_text import PretrainingText
from tf_lamb.callbacks import plot_trust_ratios


def measure(
    model: keras.Model, text: PretrainingText, run: Run, max_seq_length: int
) -> dict:
    """Held-out figures, the unigram's beside them, speed and fillings."""
    held_out = model.evaluate(text.held_out, verbose=0, return_dict=True)
    fillings = fill_mask.fill_masks(
        model, text.tokenizer, text.fill, max_seq_length=max_seq_length
    )
    loss, accuracy = text.unigram
    return {
        "steps": run.total_steps,
        "tokens_per_second": run.speed(),
        "parameters": model.count_params(),
        "masked_lm_loss": held_out["masked_lm_loss"],
        "masked_lm_accuracy": held_out["masked_lm_accuracy"],
        "next_sentence_accuracy": held_out["next_sentence_accuracy"],
        "unigram_loss": loss,
        "unigram_accuracy": accuracy,
        "skipped_steps": getattr(model.optimizer, "skipped_steps", 0),
        "fillings": [filling._asdict() for filling in fillings],
    }


def show(figures: dict) -> str:
    """The figures as a table, then the fillings."""
    gain = figures["unigram_loss"] - figures["masked_lm_loss"]
    lines = [
        "",
        "held out                  loss (nats)  accuracy",
        f"  masked words: BERT       {figures['masked_lm_loss']:10.3f}"
        f"{figures['masked_lm_accuracy']:10.1%}",
        f"  masked words: unigram    {figures['unigram_loss']:10.3f}"
        f"{figures['unigram_accuracy']:10.1%}",
        f"  next sentence: BERT                {'':0}"
        f"{figures['next_sentence_accuracy']:10.1%}   (chance 50%)",
        f"{gain:.2f} nats under the unigram; {figures['steps']} steps at "
        f"{figures['tokens_per_second']:,.0f} tokens/s.",
        "",
        *(str(fill_mask.Filling(**filling)) for filling in figures["fillings"]),
    ]
    return "\n".join(lines)


def write(folder: Path, figures: dict, title: str) -> None:
    """Writes report.json, loss.png and trust_ratio.png into the run."""
    run_dir.write_text(
        folder / "report.json", json.dumps(figures, indent=2) + "\n"
    )
    plots.plot_curves(
        folder / "metrics.csv",
        folder / "loss.png",
        {
            "masked_lm_loss": "masked-word loss (nats)",
            "masked_lm_accuracy": "masked-word accuracy",
        },
        {
            "masked_lm_loss": (figures["unigram_loss"], "unigram"),
            "masked_lm_accuracy": (figures["unigram_accuracy"], "unigram"),
        },
        title,
    )
    ratios = folder / "trust_ratio.csv"
    if ratios.exists():
        plot_trust_ratios(ratios, folder / "trust_ratio.png")
