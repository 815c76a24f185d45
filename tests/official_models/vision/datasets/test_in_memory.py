"""Image sets in memory as sources: what they offer, and who gets what."""

from official_models.vision.datasets import in_memory
from tests.official_models.scripts import refusal
from tests.official_models.vision.datasets import test_batches


def _source(train=None, **arguments):
    return in_memory.InMemoryImages(
        "tiny",
        (
            train or test_batches.some_images(),
            test_batches.some_images(9, seed=1),
        ),
        **{"global_batch_size": 8, "seed": 3, **arguments},
    )


def test_source():
    source = _source(evaluation_batch_size=4)
    assert (source.num_train, source.num_evaluation) == (test_batches.N, 9)
    assert (source.num_classes, source.image_shape) == (3, (6, 5, 3))
    assert source.steps_per_epoch(8) == 6 and source.steps_per_epoch(50) == 1
    assert "50 training and 9 evaluation images, 6x5x3" in source.description
    assert all(
        map(
            test_batches.equal,
            source.train(2, 4),
            test_batches.training_batches().dataset(2, 4),
        )
    )
    assert sum(batch[2].numpy().sum() for batch in source.evaluation()) == 9
    assert len(source.evaluation()) == 3


def test_source_gives_whole_evaluation_batches_to_every_reader():
    for index in range(3):
        source = _source(global_batch_size=9, reader=(index, 3))
        ((images, _, weights),) = source.evaluation()
        assert len(images) == 167  # a third of 501
        assert weights.numpy().sum() == (9 if index == 0 else 0)


def test_identity_tells_batches_apart():
    changed = test_batches.some_images()
    changed.images[0, 0, 0, 0] ^= 1
    relabelled = test_batches.some_images()
    relabelled.labels[:2] = 1, 0
    sources = (
        _source(),
        _source(seed=4),
        _source(global_batch_size=9),
        _source(padding=3),
        _source(flip=False),
        _source(changed),
        _source(relabelled),
    )
    identities = [str(source.identity()) for source in sources]
    assert len(set(identities)) == len(sources)
    assert _source(reader=(1, 2)).identity() == _source().identity()


def test_named_sources(monkeypatch):
    splits = test_batches.some_images(), test_batches.some_images(9)
    monkeypatch.setattr(in_memory.digits, "load_mnist", lambda: splits)
    digits = in_memory.mnist(8, 3).identity()
    assert (digits["name"], digits["flip"], digits["padding"]) == (
        "mnist_5k",
        False,
        2,
    )
    calls = []
    monkeypatch.setattr(
        in_memory.load,
        "load_cifar10",
        lambda *a, **k: calls.append((a, k)) or splits,
    )
    images = in_memory.cifar10("x", 8, 3, max_corrupt=2).identity()
    assert (images["name"], images["flip"], images["padding"]) == (
        "cifar10",
        True,
        4,
    )
    assert calls == [(("x",), {"max_corrupt": 2})]


def test_bad_arguments():
    refusal(lambda: _source(evaluation_batch_size=0), "evaluation_batch_size 0")
    refusal(lambda: _source().steps_per_epoch(51), "global_batch_size 51")
