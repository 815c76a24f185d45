"""The stages of an analysis: each model's maps, each head switched off.

What a stage has found is a file in the run's folder, so that the same command
goes on where it was stopped; of the heads, after each one.

Axes: L layers, N heads, M examples.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from official_models.common import files
from official_models.common.errors import InputError
from official_models.nlp.head_analysis import (
    attention_to,
    change,
    choice,
    disable,
    maps,
    patterns,
    relations,
)
from official_models.nlp.head_analysis.inputs import Data, Opened

_DIGITS = 4
# Examples whose maps are classified: the shares hardly move after so many.
_CLASSIFIED = 64


class Asked(NamedTuple):
    """What is measured of the maps.

    Attributes:
        classes: That attention to is measured, the usual ones too.
        words: Finds the classes' words.
        probes: Relations; none of them for none.
        batch_size: Examples at once.
        paper_compat: Whether cosines are of maps with their padding.
    """

    classes: Sequence[attention_to.TokenClass]
    words: attention_to.Words
    probes: Sequence[relations.Relation]
    batch_size: int
    paper_compat: bool


def read_maps(
    opened: Opened, raw: Opened | None, data: Data, asked: Asked
) -> dict[str, Any]:
    """What a model's maps are, in one pass over the data.

    Returns:
        `patterns` [[L][N][5], examples], None where every text is too short;
        `mean_maps`, `attention_to` {class: [[L][N], examples]}, `relations`
        [[L][N], ...] and `change` [L][N], None without a raw model.
    """
    model = opened.make()
    reader = maps.reader(model)
    raw_reader = maps.reader(raw.make()) if raw else None
    mean_map, cosine = maps.MeanMap(), maps.Mean()
    to = {one.name: maps.Mean() for one in asked.classes}
    batches = maps.batches_of(
        data.encoded.inputs, asked.batch_size, trim=not asked.paper_compat
    )
    kinds = maps.Mean()
    classified = set(range(_CLASSIFIED))  # rows are in random order
    shown = time.monotonic()
    for number, batch in enumerate(batches, 1):
        found = maps.read(reader, batch)
        before = maps.read(raw_reader, batch) if raw_reader else None
        for i, own in enumerate(maps.cropped(found, batch)):
            mean_map.add(own)
            if batch.rows[i] in classified:
                _classify(own, kinds)
            ids = batch.inputs["input_ids"][i, : batch.lengths[i]]
            for one in asked.classes:
                places = one.places(asked.words, ids)
                if places.any():
                    to[one.name].add(attention_to.attention(own, places))
            if before is not None:
                end = None if asked.paper_compat else batch.lengths[i]
                cosine.add(
                    change.cosines(
                        before[i, ..., :end, :end], found[i, ..., :end, :end]
                    )
                )
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            print(f"  maps: batch {number:,} of {len(batches):,}", flush=True)
    probed = [
        relations.scores(
            one, lambda batch: maps.read(reader, batch), asked.batch_size
        )
        for one in asked.probes
    ]
    return {
        "patterns": [kinds.value().tolist(), kinds.number]
        if kinds.number
        else None,
        "mean_maps": np.round(mean_map.value(), _DIGITS).tolist(),
        "attention_to": {
            name: [mean.value().tolist(), mean.number]
            for name, mean in to.items()
            if mean.number
        },
        "relations": [scores.tolist() for scores in probed],
        "change": cosine.value().tolist() if raw_reader else None,
    }


def _classify(own: np.ndarray, kinds: maps.Mean) -> None:
    """Adds the classes of an example's maps, [L, N, T, T], to a mean."""
    tokens = own.shape[-1]
    if tokens < patterns.MIN_TOKENS:
        return
    found = patterns.classify(own.reshape(-1, tokens, tokens))
    kinds.add(found.reshape(*own.shape[:2], -1))


def _packed(right: np.ndarray) -> str:
    return np.packbits(right).tobytes().hex()


def _unpacked(text: str, number: int) -> np.ndarray:
    bits = np.frombuffer(bytes.fromhex(text), "uint8")
    return np.unpackbits(bits, count=number).astype(bool)


class Switched(NamedTuple):
    """Which examples a model gets right.

    Attributes:
        plain: With nothing off, boolean [M].
        heads: With a head off, boolean [L, N, M].
        layers: With a layer off, boolean [L, M].
    """

    plain: np.ndarray
    heads: np.ndarray
    layers: np.ndarray


def switch_all(
    opened: Opened, data: Data, batch_size: int, path: Path, name: str
) -> Switched:
    """Switches off every head and every layer, one at a time.

    Args:
        opened: A classifier.
        data: What it is measured by.
        batch_size: Examples at once.
        path: A JSON file of the heads that are done; written after each.
        name: Of the model, in lines that show the progress.

    Raises:
        InputError: The file is damaged, or the logits are not finite.
    """
    number = data.encoded.number
    done = _read_done(path, number)
    sizes = _sizes(opened)
    places = [
        "none",
        *(p for i in range(sizes[0]) for p in _of_layer(i, sizes)),
    ]
    if any(place not in done for place in places):
        _sweep(opened, data, batch_size, path, name, done, places)
    right = {place: _unpacked(done[place], number) for place in places}
    return Switched(
        right["none"],
        np.array(
            [
                [right[f"{i}.{j}"] for j in range(sizes[1])]
                for i in range(sizes[0])
            ]
        ),
        np.array([right[f"{i}"] for i in range(sizes[0])]),
    )


def _sizes(opened: Opened) -> tuple[int, int]:
    config = opened.source.config
    inner = getattr(config, "inner_group_num", 1)
    return config.num_layers * inner, config.num_heads


def _of_layer(layer: int, sizes: tuple[int, int]) -> list[str]:
    return [*(f"{layer}.{head}" for head in range(sizes[1])), f"{layer}"]


def _read_done(path: Path, number: int) -> dict[str, str]:
    if not path.is_file():
        return {}
    remedy = "remove it: its heads are measured again"
    found = files.read_json(path, remedy)
    length = 2 * -(-number // 8)
    digits = set("0123456789abcdef")
    if not isinstance(found, dict) or not all(
        isinstance(x, str) and len(x) == length and digits >= set(x)
        for x in found.values()
    ):
        raise InputError(
            f"{path}: not what this script wrote of {number} examples; {remedy}"
        )
    return found


def _sweep(opened, data, batch_size, path, name, done, places) -> None:
    batches = maps.batches_of(data.encoded.inputs, batch_size)
    sweep = disable.Sweep(opened.make(), batches)
    began, before = time.monotonic(), len(done)
    while True:
        wanted = _of_layer(sweep.layer, sweep.sizes)
        for place in ["none", *wanted] if sweep.layer == 0 else wanted:
            if place in done:
                continue
            _, _, head = place.partition(".")
            heads = [int(head)] if head else range(sweep.sizes[1])
            logits = sweep.logits(() if place == "none" else heads)
            if not np.isfinite(logits).all():
                raise InputError(
                    f"{opened.source.where}: its logits are not finite; "
                    "expected a model whose training has not diverged"
                )
            right = logits.argmax(-1) == data.encoded.labels
            done[place] = _packed(right)
            files.write_json(path, done)
            rest = len(places) - len(done)
            seconds = (time.monotonic() - began) / (len(done) - before) * rest
            print(
                f"{name}, {_in_words(place)}: accuracy {right.mean():.4f}; "
                f"{rest} to go, about {seconds / 60:.1f} minutes",
                flush=True,
            )
        if sweep.layer == sweep.sizes[0] - 1:
            return
        sweep.next_layer()


def _in_words(place: str) -> str:
    layer, _, head = place.partition(".")
    if place == "none":
        return "nothing off"
    return f"layer {layer}, head {head} off" if head else f"layer {layer} off"


def figures_of(switched: Sequence[Switched], chosen: np.ndarray) -> dict:
    """`switching_off` of heads.json: accuracies, and what is chosen.

    Args:
        switched: Of each model.
        chosen: Which examples a head is chosen by, boolean [M].
    """
    rows = dict(zip(choice.SPLITS, (chosen, ~chosen)))
    plains = [one.plain for one in switched]
    parts = {
        "head": [one.heads for one in switched],
        "layer": [one.layers for one in switched],
    }

    def accuracies(arrays: Sequence[np.ndarray]) -> dict[str, list]:
        return {
            split: [x.mean(-1, where=kept).tolist() for x in arrays]
            for split, kept in rows.items()
        }

    return {
        "accuracy": accuracies(plains),
        "heads": accuracies(parts["head"]),
        "layers": accuracies(parts["layer"]),
        "chosen": {
            name: {
                "each": [
                    choice.alone(right, plain, chosen)
                    for right, plain in zip(rights, plains)
                ],
                "common": choice.common(rights, plains, chosen),
            }
            for name, rights in parts.items()
        },
    }
