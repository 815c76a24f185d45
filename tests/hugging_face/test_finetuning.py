"""Both fine-tuning scripts on torch, where there is no TensorFlow.

What they trained is opened by `transformers`.
"""

import importlib.util
import json
import os

import pytest

pytest.importorskip("transformers", reason="make test-torch has it")
os.environ.setdefault("KERAS_BACKEND", "torch")

import keras  # noqa: E402
import transformers  # noqa: E402

from official_models.nlp.bert import (  # noqa: E402
    finetune_classifier,
    finetune_squad,
)
from official_models.nlp.checkpoint.export import export  # noqa: E402
from official_models.nlp.checkpoint.opening import open_source  # noqa: E402
from official_models.nlp.checkpoint.source import make  # noqa: E402
from tests.official_models import scripts  # noqa: E402
from tests.official_models.nlp.bert.finetuning import small_tasks  # noqa: E402
from tests.official_models.nlp.bert.finetuning.small_checkpoints import (  # noqa: E402
    bert_checkpoint,
)

if keras.backend.backend() != "torch":
    pytest.skip("needs KERAS_BACKEND=torch", allow_module_level=True)

SHARED = (
    "--global_batch_size=8 --eval_batch_size=8 --epochs=2 "
    "--learning_rate=0.03 --max_seq_length"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return bert_checkpoint(tmp_path_factory.mktemp("bert") / "hf")


def run(script, *arguments):
    with scripts.flags_of(script):
        scripts.run(script, *arguments)


def train(script, checkpoint, data, folder, *arguments):
    run(
        script,
        f"--init_checkpoint={checkpoint}",
        f"--data_dir={data}",
        f"--output_dir={folder}",
        *arguments,
    )
    report = json.loads((folder / "report.json").read_text())
    assert report["backend"] == "torch"
    losses = [epoch["loss"] for epoch in report["seeds"][0]["epochs"]]
    assert losses[1] < losses[0]
    return report


def test_there_is_no_tensorflow_here():
    """Else what follows would not show that it is not needed."""
    assert importlib.util.find_spec("tensorflow") is None


def test_a_classifier_whose_labels_keep_their_names(
    checkpoint, tmp_path, capsys
):
    data, folder = small_tasks.write_mnli(tmp_path / "mnli"), tmp_path / "run"
    arguments = (*f"{SHARED}=16".split(), "--task_name=mnli")
    report = train(finetune_classifier, checkpoint, data, folder, *arguments)
    assert list(report["scores"]) == ["dev_matched", "dev_mismatched"]
    path = tmp_path / "texts.txt"
    path.write_text("the film is bad .\tit is good .\n")
    capsys.readouterr()
    run(finetune_classifier, f"--output_dir={folder}", f"--predict={path}")
    head, row = capsys.readouterr().out.splitlines()
    labels = ["contradiction", "entailment", "neutral"]
    assert head.split("\t") == ["label", *labels]

    opened = open_source(folder)
    model, _ = make(opened)
    out = tmp_path / "exported"
    export(model, out, "huggingface", opened.tokenizer, labels=opened.labels)
    classify = transformers.pipeline(
        "text-classification", model=str(out), top_k=None
    )
    (found,) = classify(
        [{"text": "the film is bad .", "text_pair": "it is good ."}]
    )
    theirs = {x["label"]: x["score"] for x in found}
    ours = dict(zip(labels, map(float, row.split("\t")[1:]), strict=True))
    assert theirs == pytest.approx(ours, abs=1e-5)
    # And from there to another format.
    opened = open_source(out)
    again = tmp_path / "again"
    model, _ = make(opened)
    export(model, again, "keras", opened.tokenizer, labels=opened.labels)
    assert list(open_source(again).labels) == labels


def test_a_finder_of_answers(checkpoint, tmp_path, capsys):
    for split, number in (("train", 32), ("dev", 6)):
        small_tasks.write_squad(tmp_path / f"{split}-v1.1.json", number)
    folder = tmp_path / "run"
    arguments = f"{SHARED}=24 --doc_stride=6 --max_query_length=6".split()
    report = train(finetune_squad, checkpoint, tmp_path, folder, *arguments)
    assert set(report["scores"]["dev"]) == {"exact_match", "f1"}
    path = tmp_path / "dev-v1.1.json"
    capsys.readouterr()
    run(finetune_squad, f"--output_dir={folder}", f"--predict={path}")
    rows = map(json.loads, capsys.readouterr().out.splitlines())
    predicted = json.loads((folder / "predictions.json").read_text())
    assert {row["id"]: row["answer"] for row in rows} == predicted
