"""What fine-tuning would send to a TPU: built for 8 cores, and checked."""

import json

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from official_models.nlp.bert import config as bert_config
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.scripts import flags_of
from tests.tpu.estimator import bert_job, tpu_graph
from tpu import bert_finetuning

B, T = 16, 12
HEADS = {
    "mnli": ({"output_weights": 3, "output_bias": 3}, {"label_ids": 1}),
    "squad": (
        {"cls/squad/output_weights": 2, "cls/squad/output_bias": 2},
        {"unique_ids": 1, "start_positions": 1, "end_positions": 1},
    ),
}


@pytest.mark.parametrize("train", [True, False], ids=["train", "evaluate"])
@pytest.mark.parametrize("task", HEADS)
def test_eight_cores(task, train, tmp_path):
    small_tasks.write_vocab(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(bert_job.CONFIG))
    head, lengths = HEADS[task]
    lengths = dict.fromkeys(bert_finetuning.TOKENS, T) | lengths
    features = {n: np.ones((B, k), np.int32) for n, k in lengths.items()}
    features["is_real_example"] = np.ones(B, np.float32)
    with flags_of(bert_finetuning), flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        flags.FLAGS(
            [
                "job",
                f"--task_name={task}",
                f"--output_dir={tmp_path / 'run'}",
                f"--vocab_file={tmp_path / 'vocab.txt'}",
                f"--bert_config_file={tmp_path / 'config.json'}",
                f"--max_seq_length={T}",
                "--max_query_length=4",
                "--use_tpu",
                "--precision=bfloat16",
            ]
        )
        config = bert_config.read_config(flags.FLAGS.bert_config_file)
        model_fn = bert_finetuning.make_model_fn(
            bert_finetuning.make_task(config), config, 20
        )
        graph = tpu_graph.sharded(model_fn, features, {}, train=train)
    assert tpu_graph.unfit(graph) == []
    expected = {n for n in bert_job.shapes() if n.startswith("bert/")}
    variables = {
        v.name.removesuffix(":0"): v
        for v in graph.get_collection("trainable_variables")
    }
    assert variables.keys() == expected | head.keys()
    for name, size in head.items():
        assert variables[name].shape[0] == size
        assert variables[name].dtype == "float32"
    for operation in tpu_graph.initial_values(graph):
        assert "_tpu_replicate" not in operation.node_def.attr
