"""SQuAD's files."""

import json

import pytest

from official_models.nlp.datasets import squad
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.scripts import refusal


def test_reads_both_versions(tmp_path):
    path = small_tasks.write_squad(tmp_path / "dev.json", 3, negative=True)
    questions, faults = squad.read_squad(str(path))
    assert [q.id for q in questions] == ["q0", "n0", "q1", "n1", "q2", "n2"]
    assert questions[0].answers == ("paris",) and questions[0].starts == (14,)
    assert [q.is_impossible for q in questions] == [False, True] * 3
    assert faults == {"moved": [], "absent": [], "inside": []}
    path = small_tasks.write_squad(tmp_path / "dev.json", 3)
    assert len(squad.read_squad(str(path))[0]) == 3


def test_wrong_places_are_named_and_put_right(tmp_path):
    content = small_tasks.squad(1)
    (entry,) = content["data"][0]["paragraphs"][0]["qas"]
    context = content["data"][0]["paragraphs"][0]["context"]
    entry["answers"] = [
        {"text": "in", "answer_start": 40},  # at 11, 29, 45
        {"text": "Berlin", "answer_start": 0},
        {"text": "nna", "answer_start": 1},
    ]
    (tmp_path / "dev.json").write_text(json.dumps(content))
    (question,), faults = squad.read_squad(str(tmp_path / "dev.json"))
    places = [i for i in range(60) if context.startswith("in", i)]
    assert question.starts == (min(places, key=lambda p: abs(p - 40)), None, 1)
    assert faults == {"moved": ["q0"], "absent": ["q0"], "inside": ["q0"]}


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"data": []}', '{"data": [{"paragraphs": [{"qas": [{}]}]}]}'],
)
def test_refuses_other_files(content, tmp_path):
    path = tmp_path / "dev.json"
    path.write_text(content)
    refusal(lambda: squad.read_squad(str(path)), path, "SQuAD")
    refusal(lambda: squad.read_squad(f"{path}.no"), f"{path}.no")
