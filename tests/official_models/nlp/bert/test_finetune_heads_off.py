"""Fine-tuning with heads that have no attention."""

import numpy as np
import pytest

from official_models.common import weights
from official_models.nlp.bert import finetune_classifier
from official_models.nlp.checkpoint import models
from official_models.nlp.checkpoint.opening import open_source
from official_models.nlp.checkpoint.source import make
from official_models.nlp.transformer import heads
from tests.official_models import scripts
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.nlp.bert.finetuning.small_checkpoints import (
    bert_checkpoint,
)

QUERY = "bert/encoder/layer_1/attention/self/query/kernel"


def _of(folder):
    """The heads that a model has off, and its query kernel of layer 1."""
    model, _ = make(open_source(folder))
    off = models.encoder_of(model).uniform_heads
    return off, np.array(weights.by_path(model)[QUERY])


def test_they_stay_off(tmp_path, capsys):
    """Also where a run begins from a model that has them off."""
    bert = bert_checkpoint(tmp_path / "hf", "classifier")
    sst2 = small_tasks.write_sst2(tmp_path / "sst2", 32, 8)

    def run(checkpoint, folder, off):
        words = (
            "--task_name=sst-2 --max_seq_length=16 --global_batch_size=8 "
            "--epochs=1 --optimizer=lamb --learning_rate=0.03 --dropout=0"
        )
        scripts.run(
            finetune_classifier,
            *words.split(),
            f"--init_checkpoint={checkpoint}",
            f"--data_dir={sst2}",
            f"--output_dir={folder}",
            f"--heads_off={off}",
        )

    first, second = tmp_path / "run", tmp_path / "next"
    with scripts.flags_of(finetune_classifier):
        run(bert, first, "0.1,1")
        printed = capsys.readouterr().out
        assert "heads without attention: 0.1, 1.0, 1.1\n" in printed
        off, kernel = _of(first)
        assert off == ((0, 1), (1, 0), (1, 1))
        # What no map depends on has no gradient: decay alone shrinks it.
        ratio = kernel / _of(bert)[1]
        assert np.median(ratio) < 0.99
        np.testing.assert_allclose(ratio, np.median(ratio), rtol=1e-3)
        run(first, second, "0.0")
    assert _of(second)[0] == ((0, 0), (0, 1), (1, 0), (1, 1))


@pytest.mark.parametrize("word", ["", "1.", "-1", "1.2.3", "1.x", "\u0661"])
def test_places_of_another_form(word):
    with pytest.raises(ValueError, match="expected LAYER.HEAD"):
        heads.place_of(word)
    assert heads.place_of(" 3.1") == (3, 1) and heads.place_of("5") == (5,)
