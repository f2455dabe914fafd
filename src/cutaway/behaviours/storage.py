"""A behaviour on disk: a directory with `tokens.safetensors` and `behaviour.json`.

Both are written beside their final names and then moved into place, so that an interrupted save
leaves either the old files or the new ones. A directory that already holds another behaviour is
refused, never overwritten.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cutaway.errors import BehaviourError
from cutaway.model.tokens import Tokens

TENSORS = "tokens.safetensors"
RECORD = "behaviour.json"
FORMAT = 1
LISTED = (
    "clean_texts",
    "corrupt_texts",
    "answers",
    "wrong_answers",
    "held_out",
    "token_texts",
    "corrupt_token_texts",
)
"""The fields with one entry per example, tokens aside."""


def write(directory: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write both files; `record["fingerprint"]` says whether what is there is the same."""
    if (directory / RECORD).exists():
        found = _record(directory).get("fingerprint")
        if found != record["fingerprint"]:
            raise BehaviourError(
                f"{directory} already holds another behaviour ({found}, not "
                f"{record['fingerprint']}); save to a new directory."
            )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        partial = directory / f"{TENSORS}.part"
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial)
        os.replace(partial, directory / TENSORS)
        text = json.dumps({"format": FORMAT, **record}, indent=1, ensure_ascii=False)
        partial = directory / f"{RECORD}.part"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, directory / RECORD)
    except (OSError, SafetensorError) as error:
        raise BehaviourError(
            f"The behaviour cannot be saved in {directory} ({error}); choose a directory that "
            f"can be written."
        ) from error


def read(directory: Path) -> tuple[dict[str, Any], str]:
    """The fields of a saved behaviour, and the fingerprint it was saved with."""
    record = _record(directory)
    try:
        tensors = load_file(directory / TENSORS)
        fields: dict[str, Any] = {key: record[key] for key in ("name", "description", "metric")}
        fields |= {key: _tuples(record[key]) for key in LISTED}
        fields |= {side: _tokens(side, tensors) for side in ("clean", "corrupt")}
        fields["provenance"] = record["provenance"]
        fields["variations"] = {k: tuple(values) for k, values in record["variations"].items()}
        return fields, str(record["fingerprint"])
    except (OSError, SafetensorError) as error:
        raise BehaviourError(
            f"The behaviour in {directory} has no readable {TENSORS} ({error}); save it again."
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise BehaviourError(
            f"The behaviour in {directory} is incomplete ({error}); save it again."
        ) from error


def _tokens(side: str, tensors: Mapping[str, Tensor]) -> Tokens:
    """One side's batch with its labels."""
    prefix = f"{side}.label."
    return Tokens(
        ids=tensors[f"{side}.ids"],
        mask=tensors[f"{side}.mask"],
        labels={
            name.removeprefix(prefix): where
            for name, where in tensors.items()
            if name.startswith(prefix)
        },
    )


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples, all the way down."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _record(directory: Path) -> dict[str, Any]:
    """The JSON part, checked to be one."""
    try:
        record: Any = json.loads((directory / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BehaviourError(
            f"{directory} holds no saved behaviour ({RECORD}: {error}); give a directory that "
            f"Behaviour.save wrote."
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise BehaviourError(
            f"{directory / RECORD} is not a behaviour in format {FORMAT}; save it again with this "
            f"version."
        )
    return record
