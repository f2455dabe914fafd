"""What every measured result can do: know its uncertainty, say where it came from, be saved.

A result is a small frozen value over `xarray` arrays that keep one number per example. On disk it
is one netCDF file; its attribute `cutaway` holds the rest as JSON: which result it is, its single
values, and its provenance. So the numbers and where they came from cannot be separated, and nothing
is ever pickled. The file is written beside its final name and then moved into place, so that an
interrupted save leaves either the old file or the new one.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any, Self, cast

import torch
import xarray as xr

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.interval import bootstrap
from cutaway.behaviours.provenance import version
from cutaway.errors import CutawayError
from cutaway.model.model import Model

FORMAT = 1


class ResultError(CutawayError):
    """A result that cannot be saved, or a file that is not one."""


class Result(ABC):
    """A measured result that can be saved."""

    @abstractmethod
    def to_dataset(self) -> xr.Dataset:
        """Every array of the result; what is not an array stands in the attributes."""

    @classmethod
    @abstractmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The result that `to_dataset` gave these arrays and attributes."""

    def save(self, path: str | Path) -> Path:
        """Write one netCDF file; a file that holds another kind of thing is refused."""
        target = Path(path)
        data = self.to_dataset()
        record = {"format": FORMAT, "result": type(self).__name__, **data.attrs}
        if target.exists():
            read_record(target, type(self).__name__)
        partial = target.with_name(f"{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            data.drop_attrs().assign_attrs(
                cutaway=json.dumps(record, ensure_ascii=False, default=str)
            ).to_netcdf(partial, engine="h5netcdf")
            os.replace(partial, target)
        except OSError as error:
            raise ResultError(
                f"The result cannot be saved as {target} ({error.strerror or error}); choose a "
                "place that can be written."
            ) from error
        return target

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote."""
        record = read_record(Path(path), cls.__name__)
        data = xr.load_dataset(path, engine="h5netcdf").drop_attrs()
        texts = {name: array.astype(str) for name, array in data.variables.items()
                 if array.dtype == object}  # fmt: skip
        attributes = {
            key: value for key, value in record.items() if key not in ("format", "result")
        }
        return cls.from_dataset(data.assign(texts).assign_attrs(attributes))


class Fields(Result):
    """A result whose fields are all saved as they are: arrays, and single values beside them.

    Lists of single values come back as tuples.
    """

    def to_dataset(self) -> xr.Dataset:
        """Every array by its field's name; the single values stand in the attributes."""
        values = {each.name: getattr(self, each.name) for each in fields(cast(Any, self))}
        arrays = {name: value.rename(None) for name, value in values.items()
                  if isinstance(value, xr.DataArray)}  # fmt: skip
        rest = {name: value for name, value in values.items() if name not in arrays}
        return xr.Dataset(arrays, attrs=rest)

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        arrays = {str(name): each.reset_coords(drop=True) for name, each in data.items()}
        rest = {
            str(name): tuple(value) if isinstance(value, list) else value
            for name, value in data.attrs.items()
        }
        return cls(**arrays, **rest)


def read_record(path: Path, expected: str) -> dict[str, Any]:
    """The JSON part of a saved result, checked to be of the expected kind and format."""
    try:
        with xr.open_dataset(path, engine="h5netcdf") as data:
            record: Any = json.loads(data.attrs["cutaway"])
    except FileNotFoundError as error:
        raise ResultError(f"There is no result at {path}; give a file that save wrote.") from error
    except (OSError, KeyError, ValueError) as error:
        raise ResultError(
            f"{path} is not a saved result of Cutaway; give a file that save wrote."
        ) from error
    if record.get("format") != FORMAT or record.get("result") != expected:
        raise ResultError(
            f"{path} holds a result {record.get('result')!r} in format {record.get('format')}, not "
            f"{expected!r} in format {FORMAT}."
        )
    return record


def interval(values: xr.DataArray, level: float = 0.95) -> xr.Dataset:
    """`mean`, `low` and `high` over the dimension `example`, by bootstrap (behaviours.interval)."""
    kept = values.mean("example")
    found = bootstrap(values.to_numpy(), axis=values.get_axis_num("example"), confidence=level)
    return xr.Dataset(
        {
            "mean": kept.copy(data=found.mean),
            "low": kept.copy(data=found.low),
            "high": kept.copy(data=found.high),
        }
    )


def provenance(
    model: Model, behaviour: Behaviour, configuration: Mapping[str, object]
) -> dict[str, object]:
    """Where a result came from: versions, model, data and how it was computed."""
    return {
        "versions": {
            "cutaway": version(),
            "torch": torch.__version__,
            "transformers": metadata.version("transformers"),
        },
        "model": {
            "name": model.name,
            "family": model.family,
            "fingerprint": model.fingerprint,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
        },
        "behaviour": {
            "name": behaviour.name,
            "fingerprint": behaviour.fingerprint,
            "examples": len(behaviour),
            "provenance": dict(behaviour.provenance),
        },
        "configuration": dict(configuration),
    }
