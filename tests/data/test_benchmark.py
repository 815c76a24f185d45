"""The benchmark of the data pipeline, on a few small files."""

import importlib
import json

import pytest

from benchmarks import measure, pretraining_data
from tests.data import corpora


def test_rows(tmp_path, monkeypatch):
    def in_process(module, job):
        result = importlib.import_module(module).run_job(job)
        return json.loads(json.dumps(result, allow_nan=False))

    monkeypatch.setattr(measure, "fresh", in_process)
    texts = corpora.texts(20, longest=200)
    glob = corpora.write(tmp_path / "in", texts, "text")
    vocabulary = str(corpora.vocabulary(tmp_path))
    names = [name for name in pretraining_data.ROWS if "2 proc" not in name]
    found = pretraining_data.measure_all(glob, vocabulary, 1, names)["rows"]
    rows = {row["name"]: row for row in found}
    assert list(rows) == names
    size = sum(p.stat().st_size for p in (tmp_path / "in").iterdir()) / 1e6
    whole = rows["pipeline, 1 process"]
    assert whole["text_mb"] == size and whole["examples"] > 20
    tenth = rows["pipeline, 1 process, a tenth of the text, 10 times"]
    assert tenth["text_mb"] < size / 5
    assert tenth["examples"] > whole["examples"] / 2
    assert rows["tokenizer alone, 1 thread"]["examples"] == 0
    for row in found:
        assert row["mb_per_processor_second"]["median"] > 0
        assert row["peak_mb"]["median"] > 50
    table = pretraining_data.markdown(found).splitlines()
    assert len(table) == 2 + len(names)


def test_no_files(tmp_path):
    with pytest.raises(SystemExit, match="no file"):
        pretraining_data.choose(f"{tmp_path}/*", 1)
