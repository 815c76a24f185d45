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


def rows_of(content):
    """The rows of Hugging Face's `datasets` of a file in the published form."""
    return [
        {
            "id": entry["id"],
            "title": article.get("title", ""),
            "context": paragraph["context"],
            "question": entry["question"],
            "answers": {
                "text": [a["text"] for a in entry.get("answers", [])],
                "answer_start": [
                    a["answer_start"] for a in entry.get("answers", [])
                ],
            },
        }
        for article in content["data"]
        for paragraph in article["paragraphs"]
        for entry in paragraph["qas"]
    ]


@pytest.mark.parametrize("form", ["lines", "list", "data", "one line"])
def test_reads_the_rows_of_hugging_face(form, tmp_path):
    published = small_tasks.write_squad(
        tmp_path / "dev.json", 3, negative=form != "one line"
    )
    content = json.loads(published.read_text())
    rows = rows_of(content)
    if form == "one line":
        rows = rows[:1]
    texts = {
        "list": json.dumps(rows),
        "data": json.dumps({"version": "2.0", "data": rows}, indent=1),
    }
    lines = "\n".join(map(json.dumps, rows)) + "\n"
    path = tmp_path / "rows.json"
    path.write_text(texts.get(form, lines))
    found, faults = squad.read_squad(str(path))
    expected, expected_faults = squad.read_squad(str(published))
    assert found == expected[: len(rows)]
    assert faults == expected_faults


def test_refuses_other_rows(tmp_path):
    path = tmp_path / "rows.jsonl"

    def refused(change, *parts):
        rows = rows_of(small_tasks.squad(3))
        change(rows)
        path.write_text("\n".join(map(json.dumps, rows)))
        refusal(lambda: squad.read_squad(str(path)), path, *parts)

    refused(lambda r: r[1]["answers"]["text"].append("x"), "question 1: it has")
    refused(lambda r: r[2].pop("question"), "question 2: KeyError")
    refused(lambda r: r[1]["answers"].update(text="in"), "are no lists")
    refused(lambda r: r[1].update(id="q0"), "'q0' is that of an earlier one")
    path.write_text(path.read_text() + "\n{")
    refusal(lambda: squad.read_squad(str(path)), "line 4: not JSON")


def changed(tmp_path, change):
    content = small_tasks.squad(3)
    paragraphs = content["data"][0]["paragraphs"]
    change(paragraphs)
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_a_repeated_id_is_refused(tmp_path):
    """Answers are kept by id: one of two would be scored twice."""

    def repeat(paragraphs):
        paragraphs[2]["qas"][0]["id"] = "q0"

    path = changed(tmp_path, repeat)
    refusal(
        lambda: squad.read_squad(path), path, "question 2: its id 'q0' is that"
    )


@pytest.mark.parametrize("value", ["false", 0, None, []])
def test_is_impossible_has_to_be_a_boolean(value, tmp_path):
    def say(paragraphs):
        paragraphs[1]["qas"][0]["is_impossible"] = value

    path = changed(tmp_path, say)
    message = f"question 1: is_impossible is {str(value)!r}, expected true"
    refusal(lambda: squad.read_squad(path), path, message)


def test_a_paragraph_has_to_be_a_text(tmp_path):
    def number(paragraphs):
        paragraphs[0]["context"] = 1078
        paragraphs[0]["qas"][0]["answers"] = []

    path = changed(tmp_path, number)
    refusal(lambda: squad.read_squad(path), "question 0: context is '1078'")
