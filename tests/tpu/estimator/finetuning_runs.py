"""Runs several fine-tuning jobs in one process, one after the other.

python -m tests.tpu.estimator.finetuning_runs runs.json, a list of arguments.
"""

import json
import sys
from pathlib import Path

from tests.official_models import scripts
from tpu import bert_finetuning

if __name__ == "__main__":
    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        with scripts.flags_of(bert_finetuning):
            scripts.run(bert_finetuning, *arguments)
