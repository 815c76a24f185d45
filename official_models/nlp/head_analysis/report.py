"""`report.html`: what heads.json says, on one page that needs no network.

Every number is in the page's elements too, at full precision: a cell has
`data-part`, `data-layer`, `data-head` (where it is of one head) and
`data-value`; a picture of a mean map has `data-part="map"` and `data-class`.

L layers, N heads, M models, S tokens of a mean map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from official_models.common import files
from official_models.nlp.head_analysis import result
from official_models.nlp.head_analysis.report_parts import (
    escaped,
    heat_map,
    number_cell,
    picture_of,
    section_of,
    table_of,
)
from official_models.nlp.head_analysis.report_style import (
    CLASS_COLOURS,
    FALLS,
    RISES,
    STYLE,
    cell_style,
)

NAME = "report.html"
_POINTS = 100.0  # of accuracy, in one


def write_report(heads: Mapping[str, Any], folder: Path) -> Path:
    """Writes the page of an analysis.

    Args:
        heads: What heads.json holds.
        folder: Where `report.html` is written; it exists.

    Returns:
        The page's path.

    Raises:
        InputError: `heads` is not of that form.
    """
    heads = result.check(heads)
    path = Path(folder) / NAME
    files.write_text(path, page(heads))
    return path


def page(heads: Mapping[str, Any]) -> str:
    """The page's HTML; `heads` is checked by `result.check`."""
    title = f"Attention heads: {heads['task']}"
    sections = [
        _head(heads, title),
        _maps(heads),
        _pattern_shares(heads),
        _switching_off(heads),
        _change(heads),
        _attention_to(heads),
        _relations(heads),
        _origin(heads),
    ]
    # The browser itself refuses whatever would come from elsewhere.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escaped(title)}</title>\n<style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(filter(None, sections))}</main></body></html>\n"
    )


def accuracy_change(heads: Mapping[str, Any], what: str) -> np.ndarray:
    """Mean over models of accuracy(off) - accuracy, on the reporting split.

    Args:
        heads: With `switching_off`.
        what: "heads" or "layers".

    Returns:
        [L, N], or [L] of layers.
    """
    off = heads["switching_off"]
    plain = np.array(off["accuracy"]["report"])  # [M]
    found = np.array(off[what]["report"])
    return (found - plain.reshape(-1, *[1] * (found.ndim - 1))).mean(0)


def class_of(heads: Mapping[str, Any]) -> np.ndarray:
    """The likeliest class of each head, [L, N]; `patterns` is measured."""
    return np.array(heads["patterns"]["probabilities"]).argmax(-1)


def _head(heads: Mapping[str, Any], title: str) -> str:
    data = heads["data"]
    models = len(heads["models"])
    sizes = f"{heads['layers']} layers × {heads['heads']} heads"
    facts = [
        f"{sizes}, {models} model{'s' * (models > 1)}",
        f"{data['examples']:,} examples of {data['file']}",
    ]
    off = heads["switching_off"]
    if off is not None:
        mean = float(np.mean(off["accuracy"]["report"]))
        facts.append(
            f"accuracy with nothing off {_POINTS * mean:.2f}% on the "
            f"{data['report']:,} examples that figures are reported on"
        )
    return (
        f"<header><h1>{escaped(title)}</h1><p>{escaped('; '.join(facts))}.</p>"
        "</header>\n"
    )


def _maps(heads: Mapping[str, Any]) -> str:
    patterns = heads["patterns"]
    kinds = None if patterns is None else class_of(heads)
    rows = []
    for i, row in enumerate(heads["mean_maps"]):
        cells = []
        for j, values in enumerate(row):
            label = f"layer {i}, head {j}"
            place = f'data-part="map" data-layer="{i}" data-head="{j}"'
            caption = border = ""
            if kinds is not None:
                kind = int(kinds[i, j])
                name = escaped(patterns["classes"][kind])
                share = patterns["probabilities"][i][j][kind]
                label += f": {name}"
                place += f' data-class="{name}" data-value="{share!r}"'
                caption = f"<figcaption>{name}<br>{share:.2f}</figcaption>"
                border = f' style="--class:{_colour(kind)}"'
            picture = picture_of(values, label)
            cells.append(
                f'<td {place} title="{label}"><figure{border}>{picture}'
                f"{caption}</figure></td>"
            )
        rows.append([f"layer {i}", *cells])
    head = ["", *(f"head {j}" for j in range(heads["heads"]))]
    size = len(heads["mean_maps"][0][0])
    note = (
        f"Rows are queries, columns keys, of the first {size} tokens; mean "
        "over the examples of the first model. White is 0, the darkest cell "
        "the map's largest weight, shades by the square root."
    )
    if kinds is None:
        note += " Patterns were not classified."
        legend = ""
    else:
        note += (
            f" The frame is the likeliest pattern, the number its mean "
            f"probability over {patterns['maps']:,} examples."
        )
        legend = "".join(
            f'<li><span style="background:{_colour(k)}"></span>'
            f"{escaped(x)}</li>"
            for k, x in enumerate(patterns["classes"])
        )
        legend = f"<ul class=legend>{legend}</ul>"
    return section_of(
        "Mean map of each head", note, legend, table_of(head, rows)
    )


def _colour(kind: int) -> str:
    return CLASS_COLOURS[kind % len(CLASS_COLOURS)]


def _pattern_shares(heads: Mapping[str, Any]) -> str:
    patterns = heads["patterns"]
    if patterns is None:
        return ""
    shares = np.array(patterns["probabilities"]).mean(1)  # [L, classes]
    rows = []
    for i, row in enumerate([*shares.tolist(), shares.mean(0).tolist()]):
        last = i == len(shares)
        place = {} if last else {"layer": i}
        cells = [
            number_cell(
                f"share {name}",
                value,
                f"{_POINTS * value:.1f}%",
                style=cell_style(value, (0, 1), RISES),
                **place,
            )
            for name, value in zip(patterns["classes"], row)
        ]
        rows.append(["all layers" if last else f"layer {i}", *cells])
    note = "Mean probability of each class over heads and examples."
    table = table_of(["", *patterns["classes"]], rows, "heat")
    return section_of("Patterns by layer", note, table)


def _switching_off(heads: Mapping[str, Any]) -> str:
    off = heads["switching_off"]
    if off is None:
        return ""
    by_head = accuracy_change(heads, "heads")
    by_layer = accuracy_change(heads, "layers")
    limit = max(float(np.abs(by_head).max()), 1e-9)
    table = heat_map(
        "accuracy", by_head, (-limit, limit), FALLS, "+z.2f", _POINTS
    )
    limit = max(float(np.abs(by_layer).max()), 1e-9)
    layers = [
        [
            f"layer {i}",
            number_cell(
                "layer accuracy",
                value,
                f"{_POINTS * value:+z.2f}",
                style=cell_style(value, (-limit, limit), FALLS),
                layer=i,
            ),
        ]
        for i, value in enumerate(by_layer.tolist())
    ]
    note = (
        "Accuracy with the attention of one head, or of a whole layer, "
        "replaced by 1/L over real tokens, less the accuracy with nothing off; "
        f"in percentage points, mean of {len(heads['models'])} model(s), on "
        "examples that no head was chosen by. Blue gains, orange loses."
    )
    return section_of(
        "Change of accuracy by switching off",
        note,
        table,
        "<h3>Whole layers</h3>",
        table_of(["", "points"], layers, "heat narrow"),
        "<h3>What is best off</h3><p>Chosen on one half of the examples; the "
        "change on the other half is what counts. p is that of an exact "
        "two-sided sign test.</p>",
        _chosen(off["chosen"], heads["models"]),
    )


def _chosen(chosen: Mapping[str, Any], models: Sequence[str]) -> str:
    def points(part: str, value: float) -> str:
        return number_cell(part, value, f"{_POINTS * value:+z.2f}")

    def row(name: str, what: str, one: Mapping, better: str) -> list[str]:
        place = ".".join(map(str, one["place"]))
        changes = [one["choose_change"], one["report_change"]]
        means = [x["mean"] if isinstance(x, Mapping) else x for x in changes]
        return [
            name,
            f"{what} {place}",
            points("chosen on", means[0]),
            points("reported on", means[1]),
            better,
            number_cell("p", one["p"], f"{one['p']:.3g}"),
        ]

    rows = []
    for what, found in chosen.items():
        both = found["common"]
        better = f"{both['better']} better, {both['worse']} worse (models)"
        rows.append(row("all models", what, both, better))
        for model, one in zip(models, found["each"]):
            better = f"{one['fixed']} fixed, {one['broken']} broken (examples)"
            rows.append(row(escaped(model), what, one, better))
    head = ["model", "off", "points, chosen on", "points, reported on", "", "p"]
    return table_of(head, rows, "plain")


def _change(heads: Mapping[str, Any]) -> str:
    change = heads["change"]
    if change is None:
        return ""
    values = np.array(change["mean"])
    layers = change["by_layer"]
    rows = []
    for i, value in enumerate(layers["mean"]):
        text = f"{value:.3f}"
        if layers["deviation"] is not None:
            text += f"<small>±{layers['deviation'][i]:.3f}</small>"
        rows.append(
            [f"layer {i}", number_cell("layer cosine", value, text, layer=i)]
        )
    note = (
        "Cosine of a head's map before and after fine-tuning, mean over "
        f"examples, padding {change['padding']}. Darker changed more."
    )
    low = min(float(values.min()), 0.999)
    table = heat_map(
        "cosine",
        values,
        (1.0, low),
        RISES,
        ".2f",
        deviation=change["deviation"],
    )
    return section_of(
        "Change by fine-tuning",
        note,
        table,
        "<h3>By layer</h3>",
        table_of(["", "cosine"], rows, "heat narrow"),
    )


def _weights(name: str, found: Mapping[str, Any]) -> str:
    """A map of weights of attention, from 0 to the largest of them."""
    values = np.array(found["mean"])
    most = max(float(values.max()), 1e-9)
    deviation = found["deviation"]
    return heat_map(
        name, values, (0.0, most), RISES, ".2f", deviation=deviation
    )


def _attention_to(heads: Mapping[str, Any]) -> str:
    tables = []
    for name, found in heads["attention_to"].items():
        table = _weights(f"to {name}", found)
        tables.append(
            f"<h3>{escaped(name)}</h3><p>{found['examples']:,} examples have "
            f"such a token.</p>{table}"
        )
    note = (
        "Weight that the queries of a text give to such a token on average, "
        "the largest of its tokens, mean over examples."
    )
    return section_of("Attention to tokens", note, *tables) if tables else ""


def _relations(heads: Mapping[str, Any]) -> str:
    tables = []
    for one in heads["relations"] or ():
        table = _weights(f"relation {one['name']}", one)
        best = ".".join(map(str, one["best"]))
        above = ", ".join(".".join(map(str, x)) for x in one["above"])
        tables.append(
            f"<h3>{escaped(one['name'])}</h3><p>{one['examples']:,} examples; "
            f"first is head {best}; above {one['threshold']:.3f}: "
            f"{above or 'none'}.</p>{table}"
        )
    note = "Largest weight between the linked tokens, mean over examples."
    return section_of("Relations", note, *tables) if tables else ""


def _origin(heads: Mapping[str, Any]) -> str:
    rows = [[escaped(k), escaped(v)] for k, v in heads["measured"].items()]
    rows += [
        ["models", "<br>".join(map(escaped, heads["models"]))],
        ["raw model", escaped(heads["raw_model"] or "none")],
        ["data, SHA-256", escaped(heads["data"]["sha256"])],
        ["tokens at most", str(heads["max_seq_length"])],
    ]
    note = "Layers and heads count from 0."
    return section_of(
        "Where the numbers are from", note, table_of([], rows, "plain")
    )
