"""Small imitations of GLUE's and SQuAD's files, and a vocabulary for them."""

import json

ADJECTIVES = {"good": 1, "fine": 1, "great": 1, "bad": 0, "poor": 0, "dull": 0}
NOUNS = ("film", "book", "song", "play")
PLACES = ("paris", "rome", "oslo", "cairo", "lima", "tokyo")
WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("a", "the", "is", "was", "very", "it", "in", "where", "who", "lives"),
    *(".", ",", "?", "'", "##s", "##ed", "anna", "bob", "not", "and"),
    *ADJECTIVES,
    *NOUNS,
    *PLACES,
)


def write_vocab(folder):
    """The vocabulary's file."""
    path = folder / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return path


def sentences(number):
    """(text, label): an adjective decides."""
    adjectives = list(ADJECTIVES)
    for i in range(number):
        word = adjectives[i % len(adjectives)]
        yield f"the {NOUNS[i % 4]} is very {word} .", ADJECTIVES[word]


def write_sst2(folder, train=48, dev=11, test=7):
    """SST-2 as GLUE publishes it."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, number in (("train", train), ("dev", dev)):
        lines = [f"{text}\t{label}" for text, label in sentences(number)]
        _write(folder / f"{split}.tsv", ["sentence\tlabel", *lines])
    lines = [f"{i}\t{t}" for i, (t, _) in enumerate(sentences(test))]
    _write(folder / "test.tsv", ["index\tsentence", *lines])
    return folder


def write_stsb(folder, train=48, dev=11):
    """STS-B's columns: pairs whose adjectives agree (5) or not (0)."""
    for split, number in (("train", train), ("dev", dev)):
        lines = ["index\tsentence1\tsentence2\tscore"]
        for i, (text, label) in enumerate(sentences(number)):
            other = ("it is good .", "it is bad .")[i // 6 % 2]
            score = 5.0 * (label == ("good" in other))
            lines.append(f"{i}\t{text}\t{other}\t{score:.3f}")
        _write(folder / f"{split}.tsv", lines)
    return folder


def write_mnli(folder, train=16, dev=(5, 3), test=(4, 2)):
    """MNLI as GLUE publishes it; the mismatched sets are the second ones."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = "matched", "mismatched"
    sizes = {
        "train": train,
        **{f"dev_{kind}": n for kind, n in zip(kinds, dev)},
        **{f"test_{kind}": n for kind, n in zip(kinds, test)},
    }
    names = ["index", "sentence1", "sentence2", "gold_label"]
    labels = "neutral", "entailment", "contradiction"
    for split, number in sizes.items():
        columns = names[:3] if split.startswith("test") else names
        rows = [
            [str(i), text, "it is good .", labels[i % 3]]
            for i, (text, _) in enumerate(sentences(number))
        ]
        lines = ["\t".join(row[: len(columns)]) for row in [columns, *rows]]
        _write(folder / f"{split}.tsv", lines)
    return folder


def _write(path, lines, encoding="utf-8"):
    path.write_text("\n".join(lines) + "\n", encoding=encoding)


def squad(number, negative=False):
    """SQuAD's JSON: where Anna lives, `number` times.

    Where `negative`, as many paragraphs follow that do not say it.
    """
    paragraphs = []
    for i in range(number):
        here, there = PLACES[i % 6], PLACES[(i + 2) % 6]
        rest = f"Bob was in {there} , not in Lima ."
        entry = {
            "id": f"q{i}",
            "question": "Where is Anna ?",
            "answers": [{"text": here, "answer_start": 14}],
        }
        context = f"Anna lives in {here} . {rest}"
        paragraphs.append({"context": context, "qas": [entry]})
        if negative:
            entry["is_impossible"] = False
            other = {
                "id": f"n{i}",
                "question": "Where is Anna ?",
                "answers": [],
                "is_impossible": True,
            }
            paragraphs.append({"context": rest, "qas": [other]})
    data = [{"title": "places", "paragraphs": paragraphs}]
    return {"version": "2.0" if negative else "1.1", "data": data}


def write_squad(path, number, negative=False):
    """`squad` as a file."""
    path.write_text(json.dumps(squad(number, negative)), encoding="utf-8")
    return path
