"""Parts of a study: made once, read afterwards, until the time is up."""

import json

import pytest

from official_models.common.store import OutOfTime, Store
from tests.official_models.scripts import refusal


def test_a_part_is_made_once_until_the_time_is_up(tmp_path):
    now = iter([0.0, 3599.0, 3600.0])
    store = Store(tmp_path / "cells", 1.0, lambda: next(now))
    assert not (tmp_path / "cells").exists()
    assert store.get("one", lambda: {"a": 1}) == {"a": 1}
    assert json.loads((tmp_path / "cells/one.json").read_text()) == {"a": 1}
    with pytest.raises(OutOfTime, match="two"):
        store.get("two", dict)
    assert store.get("one", dict) == {"a": 1}  # read, not made

    unlimited = Store(tmp_path / "cells")
    assert unlimited.get("two", lambda: [2]) == [2]
    refusal(lambda: Store(tmp_path, 0.0), "--hours 0", "above 0")
    (tmp_path / "cells/two.json").write_text("[2")
    refusal(lambda: unlimited.get("two", dict), "two.json", "remove it")


def test_what_is_there_is_read(tmp_path):
    store = Store(tmp_path / "parts")
    assert not store.has("a")
    store.get("a", lambda: [1])
    assert store.has("a") and store.read("a") == [1]
    refusal(lambda: store.read("b"), "b.json")
