"""GLUE's files as published, and their features."""

import pytest

from official_models.nlp.datasets import glue
from tests.official_models.scripts import refusal

TEN = "\t".join(str(i) for i in range(8))
# task -> its labelled file's lines, and what is to come out.
FILES = {
    "cola": (
        ["gj04\t1\t\tIt is .", "ks08\t0\t*\tIs the ."],
        [(("It is .",), 1), (("Is the .",), 0)],
    ),
    "sst-2": (["sentence\tlabel", "it is bad \t0"], [(("it is bad",), 0)]),
    "mrpc": (
        [
            "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
            '1\t702876\t702977\tHe said "it is .\tIt is ." he said\r',
        ],
        [(('He said "it is .', 'It is ." he said'), 1)],
    ),
    "qqp": (
        [
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            "0\t1\t2\tWho ?\tWhere ?\t0",
        ],
        [(("Who ?", "Where ?"), 0)],
    ),
    "mnli": (
        [
            "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\t"
            "sentence2_binary_parse\tsentence1_parse\tsentence2_parse\t"
            "sentence1\tsentence2\tlabel1\tgold_label",
            f"{TEN}\tIt is .\tIs it ?\tneutral\tentailment",
        ],
        [(("It is .", "Is it ?"), 1)],
    ),
    "sts-b": (
        [
            "index\tsentence1\tsentence2\tscore",
            "0\tIt is .\tIs it ?\t2.500",
        ],
        [(("It is .", "Is it ?"), 2.5)],
    ),
    "qnli": (
        [
            "index\tquestion\tsentence\tlabel",
            "0\tWho ?\tBob .\tnot_entailment",
        ],
        [(("Who ?", "Bob ."), 1)],
    ),
    "rte": (
        ["index\tsentence1\tsentence2\tlabel", "0\tA .\tB .\tentailment"],
        [(("A .", "B ."), 0)],
    ),
    "wnli": (
        ["index\tsentence1\tsentence2\tlabel", "0\tA .\tB .\t1"],
        [(("A .", "B ."), 1)],
    ),
}


def write(path, lines):
    path.write_bytes(("\n".join(lines) + "\n").encode())


@pytest.mark.parametrize("name", glue.TASKS)
def test_reads_each_task_as_published(name, tmp_path):
    lines, expected = FILES[name]
    task = glue.task_of(name.upper())
    for place in (tmp_path, tmp_path / "all" / task.folder):
        place.mkdir(parents=True, exist_ok=True)
        write(place / "train.tsv", lines)
    for folder in (tmp_path, tmp_path / "all"):
        examples, broken = glue.read_split(folder, task, "train")
        assert [(e.texts, e.label) for e in examples] == expected
        assert broken == []


def test_labels_are_in_the_published_order():
    assert glue.TASKS["mnli"].labels == (
        "contradiction",
        "entailment",
        "neutral",
    )
    assert glue.TASKS["mnli"].dev_splits == ("dev_matched", "dev_mismatched")
    assert glue.TASKS["mnli"].test_splits == (
        "test_matched",
        "test_mismatched",
    )
    assert glue.TASKS["rte"].dev_splits == ("dev",)


def test_microsofts_own_files_and_the_other_names_of_sst2(tmp_path):
    lines, expected = FILES["mrpc"]
    write(tmp_path / "msr_paraphrase_test.txt", lines)
    for split in ("dev", "test"):
        examples, _ = glue.read_split(tmp_path, glue.TASKS["mrpc"], split)
        assert examples[0].texts == expected[0][0]
    write(tmp_path / "train_full.tsv", ["sentence\tlabel", "fine\t1"])
    write(tmp_path / "train.tsv", ["sentence\tlabel", "bad\t0"])
    examples, _ = glue.read_split(tmp_path, glue.task_of("SST2"), "train")
    assert examples[0].texts == ("fine",)


def test_test_files_have_no_labels(tmp_path):
    write(tmp_path / "test.tsv", ["index\tsentence", "0\tIt is\u2028so ."])
    for name in ("cola", "sst-2"):
        examples, _ = glue.read_split(
            tmp_path, glue.TASKS[name], "test", labelled=False
        )
        assert examples == [glue.Example(("It is\u2028so .",), None)]
    refusal(
        lambda: glue.read_split(tmp_path, glue.TASKS["sst-2"], "test"),
        tmp_path / "test.tsv",
        "'label'",
    )


def test_only_qqp_may_have_cut_lines(tmp_path):
    lines, _ = FILES["qqp"]
    write(tmp_path / "train.tsv", [*lines, "1\t2\t3\tWho", *lines[1:]])
    examples, broken = glue.read_split(tmp_path, glue.TASKS["qqp"], "train")
    assert (len(examples), broken) == (2, [3])
    lines, _ = FILES["rte"]
    write(tmp_path / "train.tsv", [*lines, "1\tA"])
    refusal(
        lambda: glue.read_split(tmp_path, glue.TASKS["rte"], "train"),
        "line 3",
        "4 columns",
    )


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        (None, ["no train.tsv", "RTE"]),
        (["a\tb"], ["line 1", "'sentence1'"]),
        (FILES["rte"][0][:1], ["no example"]),
        ([FILES["rte"][0][0], "0\tA\tB\tmaybe"], ["line 2", "'maybe'"]),
    ],
)
def test_refuses_other_files(lines, parts, tmp_path):
    if lines:
        write(tmp_path / "train.tsv", lines)
    task = glue.TASKS["rte"]
    refusal(lambda: glue.read_split(tmp_path, task, "train"), *parts)
    refusal(lambda: glue.task_of("sts"), "sts", "mrpc")


@pytest.mark.parametrize("label", ["5.1", "-0.1", "nan", "much"])
def test_a_score_is_on_the_scale(label, tmp_path):
    write(tmp_path / "train.tsv", [FILES["sts-b"][0][0], f"0\tA\tB\t{label}"])
    task = glue.task_of("STSB")
    refusal(
        lambda: glue.read_split(tmp_path, task, "train"),
        f"line 2: label '{label}', expected a number from 0 to 5",
    )


def test_a_tab_in_a_text_and_a_column_that_is_there_twice(tmp_path):
    path = tmp_path / "dev.tsv"
    path.write_text("sentence\tlabel\na film\t1\na long\tfilm\t0\n")
    refusal(
        lambda: glue.read_split(tmp_path, glue.TASKS["sst-2"], "dev"),
        *(path, "line 3: 3 columns, expected 2", "a tab inside of a text"),
    )
    path.write_text("sentence\tlabel\tlabel\na film\t1\t0\n")
    refusal(
        lambda: glue.read_split(tmp_path, glue.TASKS["sst-2"], "dev"),
        *(path, "line 1: column 'label' is there 2 times"),
    )
