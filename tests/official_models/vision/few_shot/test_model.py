"""The two networks: what they put out, how they are saved, what they see."""

import keras
import numpy as np
import pytest

from official_models.vision.few_shot import losses, model

CONFIG = model.FewShotConfig(
    ways=3, shots=2, queries=2, image_size=16, filters=4, node_features=4
)


def episodes(number=2, seed=0):
    shape = number, 3, 4, 16, 16, 1
    return np.random.default_rng(seed).random(shape).astype("float32")


@pytest.fixture(scope="module", params=model.MODELS)
def network(request):
    return model.make(request.param, CONFIG, seed=1)


def scores(network, x):
    return keras.ops.convert_to_numpy(network(x, training=False))


def test_logits_and_distances_of_each_query(network):
    found = scores(network, episodes())
    assert found.shape == (2, 6, 6)
    assert found.dtype == "float32"
    assert (found[..., 3:] >= 0).all()
    # Each episode by itself.
    alone = scores(network, episodes()[1:])
    np.testing.assert_allclose(found[1:], alone, rtol=1e-4, atol=1e-5)


def test_classes_in_another_order_give_scores_in_that_order(network):
    if network.name == "graph":
        # It is told the classes as one-hot vectors, whose order it learns.
        kernel = network.get_layer("block_0").pair.kernel
        values = keras.ops.convert_to_numpy(kernel).copy()
        assert np.ptp(values[-3:], axis=0).max() > 0
        return
    order = [2, 0, 1]
    x = episodes()
    found = scores(network, x[:, order]).reshape(2, 3, 2, 2, 3)
    usual = scores(network, x).reshape(2, 3, 2, 2, 3)
    np.testing.assert_allclose(
        found, usual[:, order][..., order], rtol=1e-4, atol=1e-6
    )


def test_the_prototypical_logits_are_distances_by_temperature():
    config = model.FewShotConfig(**{**CONFIG.get_config(), "temperature": 4.0})
    warm = model.make("prototypical", config, seed=1)
    found = scores(warm, episodes())
    np.testing.assert_allclose(found[..., :3], -found[..., 3:] / 4, rtol=1e-6)
    features = warm.get_layer("embedding")(
        episodes().reshape(-1, 16, 16, 1), training=False
    )
    features = keras.ops.reshape(features, (2, 3, 4, -1))
    expected = keras.ops.convert_to_numpy(losses.query_distances(features, 2))
    np.testing.assert_allclose(found[..., 3:], expected, rtol=1e-5)


def test_a_graph_block_weighs_other_nodes_only():
    block = model.GraphBlock(4, seed=1)
    x = np.random.default_rng(0).normal(size=(1, 2, 5, 3)).astype("float32")
    block.build(x.shape)
    a = keras.ops.convert_to_numpy(block.adjacency(x))
    np.testing.assert_allclose(a.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(np.diagonal(a, axis1=-2, axis2=-1), 0)
    # |x_i - x_j| is the same both ways, but each row has its own sum.
    assert np.ptp(a, axis=-1).max() > 0
    assert block(x).shape == (1, 2, 5, 4)


@pytest.mark.parametrize("kind", model.MODELS)
def test_scores_have_the_digits_of_float32_in_mixed_precision(kind):
    """In bfloat16 distances near 50 are equal or a quarter apart."""
    found = scores(model.make(kind, CONFIG, dtype="mixed_bfloat16"), episodes())
    coarse = keras.ops.cast(keras.ops.cast(found, "bfloat16"), "float32")
    for part in np.split(found != keras.ops.convert_to_numpy(coarse), 2, -1):
        assert part.mean() > 0.9


def test_saved_and_opened(network, tmp_path):
    path = tmp_path / "model.keras"
    network.save(path)
    again = keras.saving.load_model(path, compile=False)
    np.testing.assert_array_equal(
        scores(again, episodes()), scores(network, episodes())
    )


def test_it_learns_to_tell_stripes_from_dots(network):
    """Ten steps of LAMB on episodes whose classes differ: the loss falls."""
    import tf_lamb

    x = episodes(4, seed=2) * 0.2
    x[:, 0, :, ::2] += 0.8
    x[:, 1, :, :, ::2] += 0.8
    network.compile(
        tf_lamb.LAMB(0.02),
        losses.EpisodeLoss(1.0, 0.5, "distance"),
        jit_compile=False,
    )
    y = np.zeros(len(x), "float32")
    first = network.evaluate(x, y, verbose=0)
    losses_ = network.fit(x, y, epochs=10, verbose=0).history["loss"]
    assert losses_[-1] < 0.7 * losses_[0]
    assert first > losses_[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 1}, "ways"),
        ({"shots": 0}, "shots"),
        ({"image_size": 8}, "image_size"),
        ({"temperature": 0.0}, "temperature"),
        ({"filters": 10**400}, "filters"),
    ],
)
def test_sizes_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        model.FewShotConfig(**changes)


def test_an_unknown_kind():
    with pytest.raises(ValueError, match="kind"):
        model.make("matching", CONFIG)
