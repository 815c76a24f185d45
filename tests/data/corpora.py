"""Small corpora for the data pipeline, and the script as a process."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from official_models.nlp.text import wordpiece

ROOT = Path(__file__).parents[2]
WORDS = "ant bee cat dog elk fox gnu hen ibis jay kite lark mole newt".split()
NAME = "official_models.nlp.bert.create_pretraining_data"
SMALL = ("--max_seq_length=32", "--max_predictions_per_seq=5")


def texts(count=30, longest=40, seed=0):
    """Documents of 2 to `longest` sentences of three to eight words."""
    rng = np.random.default_rng(seed)
    return [
        [
            " ".join(rng.choice(WORDS, rng.integers(3, 9))) + "."
            for _ in range(rng.integers(2, longest, endpoint=True))
        ]
        for _ in range(count)
    ]


def vocabulary(folder):
    """A vocab.txt in which every word of `texts` is a token or two."""
    tokens = [*wordpiece.SPECIAL_TOKENS, ".", *WORDS[1:], "an", "##t"]
    path = folder / "vocab.txt"
    path.write_text("\n".join(tokens))
    return path


def write(folder, documents, form, shards=1, gzipped=False):
    """Files of documents; of text, one each. Gives a glob."""
    folder.mkdir(parents=True)
    if form == "text":
        contents = ["\n".join(document) for document in documents]
    elif form == "sentences":
        contents = [
            "\n\n".join("\n".join(d) for d in documents[shard::shards]) + "\n"
            for shard in range(shards)
        ]
    else:
        contents = [
            "".join(
                json.dumps({"text": " ".join(document)}) + "\n"
                for document in documents[shard::shards]
            )
            for shard in range(shards)
        ]
    suffix = ".gz" if gzipped else ""
    for number, content in enumerate(contents):
        data = content.encode()
        path = folder / f"shard-{number:03d}.txt{suffix}"
        path.write_bytes(gzip.compress(data) if gzipped else data)
    return f"{folder}/shard-*"


def start(*arguments):
    """The script as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", NAME, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
