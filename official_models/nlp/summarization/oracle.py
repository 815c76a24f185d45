"""Greedy oracle labels: the sentences that together are most like a summary.

No framework: the processes that compute labels import this module alone.

References:
    Liu, Lapata 2019 (arXiv:1908.08345), section 3.1, and its code
"""

from __future__ import annotations

from collections.abc import Sequence

from rouge_score.tokenizers import DefaultTokenizer

Ngrams = set[tuple[str, ...]]
_TOKENIZER = DefaultTokenizer(use_stemmer=False)


def ngrams(words: Sequence[str], n: int) -> Ngrams:
    """The set of runs of `n` words."""
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def f1(candidate: Ngrams, reference: Ngrams) -> float:
    """2 P R / (P + R) of two sets; 0 where they share nothing."""
    common = len(candidate & reference)
    if not common:
        return 0.0
    return 2 * common / (len(candidate) + len(reference))


def words_of(text: str) -> list[str]:
    """As rouge-score takes them: lower case, letters a-z and digits alone."""
    return _TOKENIZER.tokenize(text)


class Score:
    """How like a summary a choice of sentences is, F1(1) + F1(2).

    The F1 are those of ROUGE-1 and ROUGE-2 over *sets* of n-grams. Bigrams of
    a candidate do not cross its sentences; those of the summary do.

    Args:
        sentences: Of the document.
        summary: Of the reference, sentences.
    """

    def __init__(self, sentences: Sequence[str], summary: Sequence[str]):
        reference = [word for s in summary for word in words_of(s)]
        self._reference = [ngrams(reference, n) for n in (1, 2)]
        words = [words_of(s) for s in sentences]
        self._sentences = [[ngrams(w, n) for n in (1, 2)] for w in words]

    def __call__(self, chosen: Sequence[int]) -> float:
        """Of the sentences with these numbers, from 0; in [0, 2]."""
        total = 0.0
        for i, reference in enumerate(self._reference):
            found: Ngrams = set()
            found = found.union(*(self._sentences[j][i] for j in chosen))
            total += f1(found, reference)
        return total


def greedy(
    sentences: Sequence[str], summary: Sequence[str], most: int = 3
) -> list[int]:
    """Adds the sentence that gains most, until none gains.

    Args:
        sentences: Of the document.
        summary: Of the reference.
        most: Sentences at most.

    Returns:
        Their numbers, sorted; none where no sentence shares a word with the
        summary. Of sentences that gain the same, the first is taken.
    """
    score = Score(sentences, summary)
    chosen: list[int] = []
    best = 0.0
    while len(chosen) < most:
        gains = [
            (score([*chosen, i]), -i)
            for i in range(len(sentences))
            if i not in chosen
        ]
        value, i = max(gains, default=(0.0, 0))
        if value <= best:
            break
        best = value
        chosen.append(-i)
    return sorted(chosen)


def best_of(
    sentences: Sequence[str],
    references: Sequence[Sequence[str]],
    most: int = 3,
) -> list[int]:
    """The greedy choice for the reference that it comes nearest to."""
    choices = [(greedy(sentences, r, most), r) for r in references]
    scores = [Score(sentences, r)(c) for c, r in choices]
    return choices[scores.index(max(scores))][0]
