"""Imports every module of the packages that an extra of tf-lamb names.

`python -I import_extra.py jax`: those of the extra's own list, not what they
depend on. It needs nothing of this repository.
"""

import importlib
import importlib.metadata
import re
import sys


def _plain(name: str) -> str:
    """A package's name in the form in which names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packages(extra: str) -> set[str]:
    """The distributions that the installed tf-lamb asks for under an extra."""
    names = set()
    for requirement in importlib.metadata.requires("tf-lamb"):
        name = _plain(re.match(r"[\w.-]+", requirement)[0])
        if re.search(rf"extra == ['\"]{extra}['\"]", requirement):
            nested = re.match(r"[\w.-]+\[(.+?)\]", requirement)
            names |= packages(nested[1]) if nested else {name}
    return names


def main(extra: str) -> None:
    names = packages(extra)
    assert names, f"tf-lamb has no extra {extra!r}"
    owners = importlib.metadata.packages_distributions()
    modules = {
        module
        for module in owners
        if not module.startswith("_")
        and names & set(map(_plain, owners[module]))
    }
    for module in sorted(modules):
        importlib.import_module(module)
    print(f"[{extra}]: imported {', '.join(sorted(modules))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
