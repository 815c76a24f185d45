"""Which sentences make the summary: by score, without repeated trigrams."""

from __future__ import annotations

from collections.abc import Sequence

from official_models.nlp.summarization.oracle import ngrams, words_of


def select(
    sentences: Sequence[str],
    scores: Sequence[float],
    most: int = 3,
    block: bool = True,
) -> list[int]:
    """The sentences of a summary, best first.

    A sentence that shares a run of three words with one that was chosen
    before is passed over.

    Args:
        sentences: Of the document.
        scores: Of its first sentences; those behind have none, and are not
            chosen.
        most: Sentences at most.
        block: Whether trigrams are compared.

    Returns:
        Their numbers, from 0. Of equal scores, the earlier sentence is first.
    """
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    chosen: list[int] = []
    seen: set[tuple[str, ...]] = set()
    for i in order:
        if len(chosen) == most:
            break
        found = ngrams(words_of(sentences[i]), 3)
        if block and found & seen:
            continue
        seen |= found
        chosen.append(i)
    return chosen


def lead(sentences: Sequence[str], most: int = 3) -> list[int]:
    """The first sentences."""
    return list(range(min(most, len(sentences))))
