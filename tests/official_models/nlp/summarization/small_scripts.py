"""Small data and a checkpoint for the scripts; `summarize.py` run here."""

import json

from official_models.nlp.summarization import summarize
from tests.official_models import scripts
from tests.official_models.nlp.bert.finetuning.small_checkpoints import (
    bert_checkpoint,
)


def write_data(folder, number=9):
    """Documents whose second sentence is the summary."""
    folder.mkdir()
    nouns, words = ("film", "book", "song"), ("good", "bad", "great", "dull")
    for split in ("train", "validation", "test"):
        lines = [
            {
                "document": [
                    f"anna lives in {place} .",
                    f"the {nouns[i % 3]} is very {words[i % 4]} .",
                    "it was not the play .",
                ],
                "summary": [f"the {nouns[i % 3]} is very {words[i % 4]} ."],
            }
            for i, place in zip(range(number), ("paris", "rome", "oslo") * 3)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(text)
    return folder


def make_places(folder):
    """Where data, a checkpoint and what tests write are."""
    return {
        "data": write_data(folder / "data"),
        "bert": bert_checkpoint(folder / "bert"),
        "folder": folder,
    }


def summaries_by(*arguments):
    with scripts.flags_of(summarize):
        scripts.run(summarize, *arguments)
