"""`study.json`: what a study is, how far it is, and which files hold it.

A study is its model (fingerprint), its behaviour (fingerprint), its seed and the versions of what
computes it; other settings may change, and then what reads them is computed again. The manifest is
written before the first stage and again, whole, whenever a stage changes its status.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from cutaway.behaviours import Behaviour
from cutaway.behaviours.provenance import version
from cutaway.errors import StudyError
from cutaway.model import Model
from cutaway.study.directory import MANIFEST
from cutaway.study.saving import write_json
from cutaway.study.settings import Settings

FORMAT = 1
_PACKAGES = ("torch", "transformers", "numpy", "xarray")

Status = Literal["running", "done", "skipped", "interrupted", "failed"]


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """How one stage stands."""

    status: Status
    """Only "done" and "skipped" count; a stage that was killed stays "running" and is computed
    again."""
    inputs: str
    """The fingerprint of what it was computed from."""
    started: str
    """UTC time, ISO 8601."""
    seconds: float = 0.0
    """How long it took."""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """Its files, relative to the study's directory, each with the hash (SHA-256) of its bytes."""
    message: str = ""
    """Why it failed, or was skipped."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The whole of `study.json`."""

    format: int = FORMAT
    """Changes when older studies cannot be read any more."""
    versions: Mapping[str, str]
    """Python and the packages that the numbers depend on."""
    model: Mapping[str, Any]
    """Name, fingerprint, family, sizes, type and device."""
    behaviour: Mapping[str, Any]
    """Name, description, fingerprint, number of examples and provenance."""
    settings: Mapping[str, Any]
    """See `Settings`; the seed is in it."""
    command: str
    """The command line that makes the study again."""
    python: str
    """The same in Python."""
    stages: Mapping[str, StageRecord] = field(default_factory=dict[str, StageRecord])
    """How each stage stands."""

    def write(self, directory: Path) -> None:
        """Put `study.json` in place, whole."""
        write_json(directory / MANIFEST, asdict(self))

    @classmethod
    def read(cls, directory: Path) -> Manifest | None:
        """What `study.json` says; None where there is none."""
        path = directory / MANIFEST
        if directory.exists() and not directory.is_dir():
            raise StudyError(f"{directory} is a file; give the directory of a study.")
        try:
            found: Any = json.loads(path.read_text(encoding="utf-8"))
            if found["format"] != FORMAT:
                raise StudyError(
                    f"{path} has format {found['format']} and this version of Cutaway writes "
                    f"{FORMAT}; start afresh (--fresh) or name another directory."
                )
            stages = {name: StageRecord(**record) for name, record in found["stages"].items()}
            known = {entry.name for entry in fields(cls)} - {"stages"}
            return cls(stages=stages, **{name: found[name] for name in known})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StudyError(
                f"{path} is damaged and cannot be read ({type(error).__name__}: {error}); start "
                "afresh (--fresh), which keeps it aside, or name another directory."
            ) from error

    def differences(self, other: Manifest) -> list[str]:
        """In what another study differs, in words; nothing when it is the same study."""
        found = [
            f"its {what} is {mine['name']} ({mine['fingerprint']}) and not "
            f"{yours['name']} ({yours['fingerprint']})"
            for what, mine, yours in (
                ("model", self.model, other.model),
                ("behaviour", self.behaviour, other.behaviour),
            )
            if mine["fingerprint"] != yours["fingerprint"]
        ]
        versions = [
            f"it was made with {name} {value} and not {other.versions.get(name, 'none')}"
            for name, value in self.versions.items()
            if value != other.versions.get(name)
        ]
        seeds = [each for each in self.other_settings(other) if each.startswith("its seed ")]
        return found + versions + seeds

    def other_settings(self, other: Manifest) -> list[str]:
        """Which settings differ, in words; new ones that an older study lacks do not count."""
        return [
            "its hypotheses are others"
            if name == "hypotheses"
            else f"its {name} is {value} and not {other.settings.get(name)}"
            for name, value in self.settings.items()
            if value != other.settings.get(name)
        ]


def describe(
    model: Model, behaviour: Behaviour, settings: Settings, command: str, python: str
) -> Manifest:
    """The manifest of a study that has not begun."""
    versions = {"python": platform.python_version()}
    versions |= {"cutaway": version(), **{name: metadata.version(name) for name in _PACKAGES}}
    return Manifest(
        versions=versions,
        model={
            "name": short_name(model),
            "fingerprint": model.fingerprint,
            "family": model.family,
            "n_layers": model.n_layers,
            "n_heads": model.n_heads,
            "d_model": model.d_model,
            "d_vocab": model.d_vocab,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": str(model.device),
        },
        behaviour={
            "name": behaviour.name,
            "description": behaviour.description,
            "fingerprint": behaviour.fingerprint,
            "n": len(behaviour),
            "held_out": sum(behaviour.held_out),
            "metric": behaviour.metric,
            "provenance": json.loads(json.dumps(dict(behaviour.provenance), default=str)),
        },
        settings=json.loads(json.dumps(asdict(settings))),
        command=command,
        python=python,
    )


def short_name(model: Model) -> str:
    """The model's name without the path that led to its directory."""
    return Path(model.name).name if Path(model.name).is_dir() else model.name


def now() -> str:
    """This moment, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
