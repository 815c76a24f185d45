"""report.html: what it shows is what heads.json says, in a browser too."""

import base64
import html.parser
import io
import re
import shutil
import subprocess

import numpy as np
import pytest

from official_models.common.errors import InputError
from official_models.nlp.head_analysis import report, result
from official_models.nlp.head_analysis.generated import CLASSES
from official_models.nlp.head_analysis.report_style import RISES, cell_style

L, N, M, S = 2, 3, 2, 4
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def _spread(rng, shape=(L, N)):
    mean = rng.random(shape)
    return {"mean": mean.tolist(), "deviation": (0.1 * mean).tolist()}


def _chosen(place):
    each = {"place": place, "choose_change": 0.1, "report_change": -0.125}
    each |= {"fixed": 1, "broken": 3, "p": 0.625}
    return {
        "each": [each] * M,
        "common": {
            "place": place,
            "choose_change": {"mean": 0.1, "deviation": 0.0},
            "report_change": {
                "mean": -0.125,
                "deviation": 0.0,
                "models": [-0.125] * M,
            },
            "better": 0,
            "worse": 2,
            "p": 0.5,
        },
    }


def heads_of(**changes):
    """What heads.json could say of 2 models of 2 layers and 3 heads."""
    rng = np.random.default_rng(0)
    change = _spread(rng)
    splits = ("choose", "report")
    return {
        "format": result.FORMAT,
        "measured": {"date": "2026-11-27", "command": "a & b <c>"},
        "task": "SST-2 <script>",
        "max_seq_length": 16,
        "data": {"file": "dev.tsv", "sha256": "0f", "examples": 16}
        | {"choose": 8, "report": 8},
        "layers": L,
        "heads": N,
        "models": ["runs/a/seed_0", "runs/a/seed_1"],
        "raw_model": None,
        "mean_maps": rng.dirichlet(np.ones(S), (L, N, S)).tolist(),
        "patterns": {
            "classes": list(CLASSES),
            "probabilities": rng.dirichlet(np.ones(5), (L, N)).tolist(),
            "maps": 16,
        },
        "change": {
            **change,
            "padding": "cropped",
            "by_layer": _spread(rng, (L,)),
            "models": [change["mean"]] * M,
        },
        "attention_to": {
            name: {**_spread(rng), "examples": 16}
            for name in ("[CLS]", "[SEP]")
        },
        "relations": [
            {**_spread(rng), "name": "subject", "examples": 5}
            | {"threshold": 0.5, "above": [[1, 2]], "best": [1, 2]}
        ],
        "switching_off": {
            "accuracy": {x: rng.random(M).tolist() for x in splits},
            "heads": {x: rng.random((M, L, N)).tolist() for x in splits},
            "layers": {x: rng.random((M, L)).tolist() for x in splits},
            "chosen": {"head": _chosen([1, 0]), "layer": _chosen([1])},
        },
    } | changes


class Page(html.parser.HTMLParser):
    """The cells of a page: {(part, layer, head): (value, attributes, text)}.

    Attributes:
        cells: As above.
        pictures: The PNG files, [L * N].
        links: Values of attributes that a browser would fetch.
        tags: Names of all elements.
    """

    def __init__(self, source):
        super().__init__()
        self.cells, self.pictures, self.links = {}, [], []
        self.tags, self._key = set(), None
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        found = dict(attrs)
        for name in ("src", "href"):
            if name in found:
                self.links.append(found[name])
        if tag == "img":
            code = found["src"].removeprefix("data:image/png;base64,")
            self.pictures.append(base64.b64decode(code, validate=True))
        if tag == "td":
            self._key = None
            if "data-part" in found:
                place = [found.get(f"data-{x}") for x in ("layer", "head")]
                place = [None if x is None else int(x) for x in place]
                self._key = (found["data-part"], *place)
                value = found.get("data-value")
                value = None if value is None else float(value)
                self.cells[self._key] = [value, found, ""]

    def handle_data(self, data):
        if self._key is not None:
            self.cells[self._key][2] += data

    def handle_endtag(self, tag):
        if tag == "td":
            self._key = None

    def values(self, part):
        """[L, N] of a part."""
        return [[self.cells[part, i, j][0] for j in range(N)] for i in range(L)]


def hold(page, heads):
    """Asserts that a page shows what heads.json says, exactly."""
    off = heads["switching_off"]
    plain = np.array(off["accuracy"]["report"])
    by_head = np.array(off["heads"]["report"]) - plain[:, None, None]
    by_layer = np.array(off["layers"]["report"]) - plain[:, None]
    assert page.values("accuracy") == by_head.mean(0).tolist()
    shown = [
        [float(page.cells["accuracy", i, j][2]) for j in range(N)]
        for i in range(L)
    ]
    np.testing.assert_allclose(shown, 100 * by_head.mean(0), atol=0.0051)
    assert page.values("cosine") == heads["change"]["mean"]
    for name, found in heads["attention_to"].items():
        assert page.values(f"to {name}") == found["mean"]
    for one in heads["relations"]:
        assert page.values(f"relation {one['name']}") == one["mean"]
    probabilities = np.array(heads["patterns"]["probabilities"])
    shares = probabilities.mean(1)
    for i in range(L):
        at = page.cells["layer accuracy", i, None]
        assert at[0] == by_layer.mean(0)[i]
        at = page.cells["layer cosine", i, None]
        assert at[0] == heads["change"]["by_layer"]["mean"][i]
        for c, name in enumerate(CLASSES):
            assert page.cells[f"share {name}", i, None][0] == shares[i, c]
        for j in range(N):
            value, found, text = page.cells["map", i, j]
            kind = probabilities[i, j].argmax()
            assert value == probabilities[i, j, kind]
            assert found["data-class"] == CLASSES[kind]
            assert text == f"{CLASSES[kind]}{value:.2f}"
    for part, value in (("reported on", -0.125), ("p", 0.625)):
        assert page.cells[part, None, None][0] == value


def test_page_says_what_the_file_says(tmp_path):
    heads = heads_of()
    path = report.write_report(heads, tmp_path)
    assert path == tmp_path / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    hold(page, heads)
    assert len(page.pictures) == L * N


def test_pictures_are_the_mean_maps(tmp_path):
    from PIL import Image

    heads = heads_of()
    page = Page(report.page(heads))
    maps = np.array(heads["mean_maps"]).reshape(L * N, S, S)
    for x, code in zip(maps, page.pictures):
        shades = np.asarray(Image.open(io.BytesIO(code)).convert("RGB"))
        dark = 1 - shades[..., 0] / 255
        np.testing.assert_allclose(
            dark, np.sqrt(x / x.max()) * 240 / 255, atol=0.003
        )


def test_nothing_is_fetched_or_run():
    source = report.page(heads_of())
    page = Page(source)
    assert all(x.startswith("data:image/png") for x in page.links)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert "url(" not in source and "http" not in re.sub(
        "http-equiv", "", source
    )
    assert "SST-2 &lt;script&gt;" in source
    assert "a &amp; b &lt;c&gt;" in source


@pytest.mark.parametrize(
    "part, title",
    [
        ("patterns", "Patterns by layer"),
        ("change", "Change by fine-tuning"),
        ("relations", "Relations"),
        ("switching_off", "Change of accuracy by switching off"),
    ],
)
def test_what_was_not_measured_is_not_shown(part, title):
    assert f"<h2>{title}</h2>" in report.page(heads_of())
    page = report.page(heads_of(**{part: None}))
    assert f"<h2>{title}</h2>" not in page
    assert Page(page).pictures


def test_no_deviation_of_one_model():
    heads = heads_of()
    heads["change"]["deviation"] = None
    heads["change"]["by_layer"]["deviation"] = None
    cells = Page(report.page(heads)).cells
    value = heads["change"]["mean"][0][0]
    assert cells["cosine", 0, 0][2] == f"{value:.2f}"


def test_a_file_of_another_form_is_refused(tmp_path):
    with pytest.raises(InputError, match="format"):
        report.write_report({"format": "heads 0"}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_colours():
    low, high, middle = (cell_style(x, (0, 1), RISES) for x in (-1, 2, 0.5))
    assert low == "background:#ffffff;color:#1d232b"
    assert high == "background:#084594;color:#ffffff"
    assert middle == "background:#9ecae1;color:#1d232b"
    # Limits the other way round.
    assert cell_style(1.0, (1.0, 0.5), RISES) == low


@pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium (Debian's package chromium)"
)
def test_what_a_browser_shows(tmp_path):
    heads = heads_of()
    path = report.write_report(heads, tmp_path)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"]
    command += ["--disable-background-networking", "--disable-sync"]
    command += ["--disable-component-update", "--no-first-run"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    process = subprocess.run(
        [*command, path.as_uri()], capture_output=True, timeout=60
    )
    assert process.returncode == 0, process.stderr[-500:]
    page = Page(process.stdout.decode())
    hold(page, heads)
    assert len(page.pictures) == L * N
