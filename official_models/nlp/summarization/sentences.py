"""A text cut into sentences, by pysbd.

Its rules are in the package. (NLTK's punkt, which the published code of others
uses, downloads its model when it is first asked.)
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

_MARKS = re.compile(r"\w")


@functools.cache
def _segmenter() -> Any:
    import pysbd

    return pysbd.Segmenter(language="en", clean=False)


def split(text: str) -> list[str]:
    """The sentences of a text, in their order; spaces are made single.

    A line break ends a sentence. What has no letter and no digit is left out.
    """
    found = []
    for line in text.splitlines():
        line = " ".join(line.split())
        if line:
            found += [s.strip() for s in _segmenter().segment(line)]
    return [sentence for sentence in found if _MARKS.search(sentence)]


def split_copied(text: str, sentences: Sequence[str]) -> list[str]:
    """The sentences of a summary that was copied out of a document.

    The published summaries of the BBC's articles are sentences of the article
    without a space between them ("...$10.9bn.For the full-year..."), where no
    rule finds the ends. Here sentences of the document are looked for first.

    Args:
        text: The summary.
        sentences: Of the document.

    Returns:
        What was found, in the order of `text`; what is left between is cut by
        `split`.
    """
    text = " ".join(text.split())
    spans: list[tuple[int, int]] = []
    for sentence in sorted(set(sentences), key=len, reverse=True):
        begin = text.find(sentence)
        end = begin + len(sentence)
        free = all(end <= first or last <= begin for first, last in spans)
        if begin >= 0 and free:
            spans.append((begin, end))
    found, at = [], 0
    for begin, end in sorted(spans):
        found += [*split(text[at:begin]), text[begin:end]]
        at = end
    return found + split(text[at:])
