"""Losses and schedules of summaries."""

import keras
import numpy as np
import pytest

from official_models.nlp.summarization import (
    losses,
    optimization,
)
from tests.official_models.nlp.summarization.small_models import (
    V,
)


def smoothed(labels, eps, vocab=V):
    """q, by its definition."""
    q = np.full((*labels.shape, vocab), eps / (vocab - 2))
    q[..., 0] = 0
    np.put_along_axis(q, labels[..., None], 1 - eps, -1)
    return q


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.3])
def test_smoothing_is_cross_entropy_less_entropy(eps):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 5, V)).astype("float32")
    labels = rng.integers(1, V, (2, 5))
    weight = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], "float32")
    log_p = np.log(keras.ops.convert_to_numpy(keras.ops.softmax(logits)))
    q = smoothed(labels, eps)
    safe = np.where(q > 0, q, 1)
    kl = (q * (np.log(safe) - log_p)).sum(-1)
    loss = losses.LabelSmoothing(eps)
    found = float(loss(labels, logits, sample_weight=weight))
    assert found == pytest.approx((kl * weight).sum() / weight.sum(), rel=1e-4)
    cross = -(q * log_p).sum(-1)
    entropy = losses.entropy(eps, V)
    assert entropy == pytest.approx(-(q * np.log(safe)).sum(-1)[0, 0])
    assert found == pytest.approx(
        ((cross - entropy) * weight).sum() / weight.sum(), rel=1e-4
    )
    metric = losses.perplexity_log()
    metric.update_state(labels, logits, sample_weight=weight)
    nll = -np.take_along_axis(log_p, labels[..., None], -1)[..., 0]
    assert float(metric.result()) == pytest.approx(
        (nll * weight).sum() / weight.sum(), rel=1e-4
    )


def test_smoothing_out_of_range():
    with pytest.raises(ValueError, match="smoothing"):
        losses.LabelSmoothing(1.0)
    again = losses.LabelSmoothing.from_config(
        losses.LabelSmoothing(0.2).get_config()
    )
    assert again.smoothing == 0.2


def test_sentence_loss_is_the_mean_over_real_sentences():
    logits = np.array([[2.0, -1.0, 9.0], [0.5, 0.0, -3.0]], "float32")
    labels = np.array([[1, 0, 1], [0, 1, 0]])
    weight = np.array([[1, 1, 0], [1, 1, 1]], "float32")
    p = 1 / (1 + np.exp(-logits))
    each = -np.log(np.where(labels, p, 1 - p))
    found = losses.SentenceCrossEntropy()(labels, logits, sample_weight=weight)
    assert float(found) == pytest.approx((each * weight).sum() / 5, rel=1e-5)


def test_noam_peaks_at_its_warmup():
    base, warmup = 0.1, 40
    schedule = optimization.Noam(base, warmup)
    rates = [float(schedule(step)) for step in range(200)]
    assert max(rates) == pytest.approx(base * warmup**-0.5)
    assert rates.index(max(rates)) == warmup - 1
    assert rates[9] == pytest.approx(base * 10 * warmup**-1.5)
    assert rates[159] == pytest.approx(base * 160**-0.5)
    again = optimization.Noam.of_peak(base * warmup**-0.5, warmup)
    assert float(again(7)) == pytest.approx(rates[7])
    assert again.from_config(again.get_config()).base == again.base
    for values in ((-1, 5), (1, 0)):
        with pytest.raises(ValueError):
            optimization.Noam(*values)
