"""The script where there is no Apache Beam; tests/data/ has the others."""

import sys

from official_models.nlp.bert import create_pretraining_data
from tests.official_models import scripts


def test_beam_is_named_where_it_lacks(tmp_path, monkeypatch):
    for name in [n for n in sys.modules if n.startswith("apache_beam")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with scripts.flags_of(create_pretraining_data):
        scripts.refusal(
            lambda: scripts.run(
                create_pretraining_data,
                f"--input={tmp_path}",
                f"--output_dir={tmp_path / 'out'}",
                f"--vocab_file={tmp_path / 'vocab.txt'}",
            ),
            "apache-beam is not installed",
            "the extra `data`",
        )
    assert not list(tmp_path.iterdir())
