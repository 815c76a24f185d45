"""Two phases, each from records of its own length."""

import json

import pytest

from official_models.nlp.bert import pretrain
from official_models.nlp.bert.pretraining import recipe, records
from official_models.nlp.text import corpus, wordpiece
from tests.official_models.nlp.bert.pretrain_script import (
    refuses,
    run,
    write_corpus,
)
from tests.official_models.scripts import flags_of, rows

STEPS = "--steps=8", "--phase2_steps=4", "--jit_compile=false"
PHASE2 = "--phase2_max_seq_length=32", "--phase2_max_predictions_per_seq=4"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of vocab.txt and, of either length, train and held-out sets."""
    folder = tmp_path_factory.mktemp("made")
    text = write_corpus(tmp_path_factory.mktemp("text"))
    parts = [corpus.expand_inputs([text / x]) for x in ("[a-h].txt", "[ij]*")]
    train, held_out = map(corpus.read_documents, parts)
    tokenizer = wordpiece.train_tokenizer(train, 80, folder / "vocab.txt")
    for length in (16, 32):
        how = recipe.Recipe(
            max_seq_length=length, max_predictions=length // 8, dupe_factor=1
        )
        for name, documents in (("train", train), ("eval", held_out)):
            records.write_records(
                how.pack(documents, tokenizer),
                folder / f"{name}-{length}",
                num_shards=2,
                seed=1,
                **how.masking(tokenizer),
            )
    return folder


@pytest.fixture(autouse=True)
def defined_flags(made):
    with flags_of(pretrain):
        yield


def arguments(made, second=32):
    return (
        *(f"--vocab_file={made / 'vocab.txt'}", *STEPS, *PHASE2),
        *(f"--records={made / 'train-16'}", f"--eval_records={made}/eval-16"),
        f"--phase2_records={made / f'train-{second}'}",
        f"--phase2_eval_records={made / f'eval-{second}'}",
    )


def test_a_whole_run(made, tmp_path, capsys):
    run(None, tmp_path, *arguments(made))
    said = capsys.readouterr().out
    first, second = (line for line in said.splitlines() if " records, " in line)
    # Longer sequences are fewer.
    assert int(first.split()[0]) > 1.5 * int(second.split()[0])
    metrics = rows(tmp_path / "metrics.csv")
    assert [row["step"] for row in metrics] == ["2", "4", "6", "8"]
    losses = [float(row["val_masked_lm_loss"]) for row in metrics[1::2]]
    assert losses[1] < losses[0] < 5
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["masked_lm_loss"] == pytest.approx(losses[1], rel=1e-4)
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["phase2_train_sha256"] != facts["train_sha256"]
    # What phase 2 reads decides the weights.
    other = [*arguments(made)[:-1], f"--phase2_eval_records={made}/eval-16"]
    refuses("phase2_held_out_sha256", None, tmp_path, *other)


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        (-1, "expected with --phase2_records and --phase2_eval_records"),
        (-2, "of --phase2_max_seq_length tokens"),
    ],
)
def test_records_of_one_phase_only(made, tmp_path, left_out, message):
    given = list(arguments(made))
    del given[left_out]
    refuses(message, None, tmp_path, *given)


def test_records_of_the_other_length(made, tmp_path):
    refuses("eval-16|train-16", None, tmp_path, *arguments(made, second=16))
    assert not (tmp_path / "run.json").exists()
