"""`pretrain.py` under test: a corpus, a small run, the script as a process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from official_models.common import errors
from official_models.nlp.bert import pretrain
from tests import warm
from tests.official_models import scripts

ROOT = Path(__file__).parents[4]
SMALL = (
    "--steps=8 --save_every=4 --log_every=2 --eval_every=4 "
    "--global_batch_size=8 --max_seq_length=16 --max_predictions_per_seq=2 "
    "--hidden_size=16 --num_layers=1 --intermediate_size=32 --vocab_size=80 "
    "--dropout=0.1"
).split()


def write_corpus(folder):
    """Documents of sentences in which each word fixes the next one."""
    words = "ant bee cat dog elk fox gnu hen ibis jay kite lark".split()
    rng = np.random.default_rng(0)
    for name in "abcdefghij":
        sentences = []
        for _ in range(60):
            start, length = rng.integers(12), rng.integers(4, 9)
            chosen = [words[(start + i) % 12] for i in range(length)]
            sentences.append(" ".join(chosen) + ".")
        (folder / f"{name}.txt").write_text("\n".join(sentences))
    return folder


def run(corpus, output_dir, *arguments):
    """The script's main, in this process."""
    scripts.run(
        pretrain,
        f"--output_dir={output_dir}",
        *([f"--input={corpus}"] if corpus else []),
        *SMALL,
        *arguments,
    )


def script(corpus, output_dir, *arguments):
    """The script as a process."""
    return warm.popen(
        [
            *(sys.executable, "-m", "official_models.nlp.bert.pretrain"),
            *(f"--output_dir={output_dir}", f"--input={corpus}"),
            *SMALL,
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def refuses(match, corpus, output_dir, *arguments):
    with pytest.raises(errors.InputError, match=match) as caught:
        run(corpus, output_dir, *arguments)
    assert "\n" not in str(caught.value)
