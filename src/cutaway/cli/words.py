"""What was typed as one word: sizes, places, parts of a layer."""

from __future__ import annotations

import re

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def size_in_bytes(size: str) -> int:
    """A size with its unit: 2GB, 512 MiB, 1.5G, or a number of bytes."""
    from cutaway.errors import InputError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?B?)", size.strip().upper())
    number = 0
    if found:
        units = _BINARY if found[3].startswith("I") else _UNITS
        number = int(float(found[1]) * units[found[2]])
    if number < 1:
        raise InputError(f"--memory takes a size such as 2GB or 512MiB; found {size!r}.")
    return number


def place(word: str) -> int | str:
    """A whole number where it is one, else a label."""
    return int(word) if re.fullmatch(r"-?\d+", word) else word


def listed(words: str | None) -> list[str]:
    """What stands between commas."""
    return [word.strip() for word in (words or "").split(",") if word.strip()]


def number(option: str, word: str, what: str) -> int:
    """A whole number from 0 on."""
    from cutaway.errors import InputError

    if not re.fullmatch(r"\d+", word):
        raise InputError(f"{option} takes {what}; found {word!r}.")
    return int(word)


def parts(words: list[str]) -> list[int] | dict[int, list[int]]:
    """Chosen parts of every layer, or by layer."""
    from cutaway.errors import InputError

    if all(re.fullmatch(r"\d+", word) for word in words):
        return [int(word) for word in words]
    by_layer: dict[int, list[int]] = {}
    for word in words:
        found = re.fullmatch(r"(\d+)\.(\d+)", word)
        if not found:
            raise InputError(
                f"--part takes numbers (6) or numbers of a layer (9.6), all of one kind; found "
                f"{', '.join(words)}."
            )
        by_layer.setdefault(int(found[1]), []).append(int(found[2]))
    return by_layer


def edges(word: str) -> int | float | None:
    """A number of edges, or a share of all of them: 40, 5%, 0.5 %; None for "smallest"."""
    from cutaway.errors import InputError

    if word == "smallest":
        return None
    found = re.fullmatch(r"(\d+)|(\d+(?:\.\d*)?|\.\d+)\s*%", word.strip())
    if found and found[1] and int(found[1]) > 0:
        return int(found[1])
    if found and found[2] and 0 < float(found[2]) <= 100:
        return float(found[2]) / 100
    raise InputError(
        "--edges takes a number of edges such as 40, a share of them such as 5%, or 'smallest'; "
        f"found {word!r}."
    )
