"""What a run came to: ROUGE beside Lead and Oracle, curves, a table."""

from pathlib import Path

from official_models.common import report
from official_models.nlp.summarization import rouge


def show(figures: dict) -> str:
    """The figures in words."""
    lines = [
        f"test, {figures['test_documents']} documents, F1 in percent with "
        "95% intervals over documents:",
        rouge.table({**figures["rows"], **figures["differences"]}),
    ]
    if "perplexity" in figures:
        lines.append(f"held-out perplexity {figures['perplexity']:.2f}")
    if "tokens_per_second" in figures:
        lines.append(
            f"{figures['tokens_per_second']:.1f} tokens of summaries a second"
        )
    if "speeds" in figures:
        found = figures["speeds"]
        lines.append(
            f"once traced: {found['cached']:.1f} tokens/s with cached keys and "
            f"values, {found['uncached']:.1f} without"
        )
    lines.append(
        f"{figures['steps']} steps at "
        f"{figures['documents_per_second']:.1f} documents/s."
    )
    return "\n".join(lines)


def write(folder: Path, figures: dict, title: str) -> None:
    """Writes report.json, curves.png and trust_ratio.png into the run."""
    report.write(
        folder,
        figures,
        picture="curves.png",
        panels={"loss": "loss (nats)"},
        title=title,
    )
