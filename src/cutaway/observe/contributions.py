"""Contributions to the logit difference: how they are named, grouped, checked and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import xarray as xr

from cutaway.errors import CutawayError
from cutaway.measure.result import Result, interval
from cutaway.model.model import Model
from cutaway.model.sites import Site

_NO_LAYER = -1


class AttributionError(CutawayError):
    """Contributions that do not add up to what the model gave."""


@dataclass(frozen=True)
class Parts:
    """The parts of one model that write to the stream, in the order of a forward pass."""

    names: tuple[str, ...]
    """`embed`, `pos_embed`, then per layer `head_out.L.H`, `attn_bias.L`, `mlp_out.L`, then
    `norm_bias` and `unembed_bias`."""

    @classmethod
    def of(cls, model: Model) -> Parts:
        """The parts of a model."""
        names = ["embed", *(["pos_embed"] if Site("pos_embed") in model.sites else [])]
        for layer in range(model.n_layers):
            names += [f"head_out.{layer}.{head}" for head in range(model.n_heads)]
            names += [f"attn_bias.{layer}", f"mlp_out.{layer}"]
        return cls((*names, "norm_bias", "unembed_bias"))

    def array(self, values: np.ndarray) -> xr.DataArray:
        """Values (example, component) with each component's kind, layer and head beside it."""
        split = [name.split(".") for name in self.names]
        numbers = [[int(part) for part in parts[1:]] + [_NO_LAYER] * 2 for parts in split]
        coords = {
            "component": list(self.names),
            "kind": ("component", [parts[0] for parts in split]),
            "layer": ("component", [each[0] for each in numbers]),
            "head": ("component", [each[1] for each in numbers]),
        }
        return xr.DataArray(values, coords, ("example", "component"), "contribution")


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution(Result):
    """What each part of the model contributes directly to the logit difference (or another target)
    at `end`."""

    values: xr.DataArray
    """(example, component), in logits. `component` holds names like "head_out.9.6"; beside it stand
    `kind`, `layer` and `head` (-1 where a component has none)."""
    target: xr.DataArray
    """(example,): what the contributions must add up to."""
    measured: xr.DataArray
    """(example,): what the model gave; `target` unless `before_cap`."""
    before_cap: bool
    """Whether the family caps its logits softly, so that `target` is the difference before that."""
    embeddings: str
    """What the embeddings' contributions were read from: "embed", "embed + pos_embed", or
    "resid_pre.0" where a family multiplies or normalises them, and `embed` stands for the whole
    stream that enters the first layer."""
    provenance: Mapping[str, Any] = field(repr=False)
    """Versions, model, data and settings."""

    @property
    def total(self) -> xr.DataArray:
        """(example,): the contributions added up."""
        return self.values.sum("component")

    @property
    def relative_error(self) -> float:
        """‖total − target‖ / ‖target‖ over the examples."""
        missing = np.linalg.norm((self.total - self.target).to_numpy())
        size = np.linalg.norm(self.target.to_numpy())
        return float(missing / size) if size else float(missing)

    @property
    def mean(self) -> xr.DataArray:
        """(component,): averaged over examples."""
        return self.values.mean("example")

    @property
    def heads(self) -> xr.DataArray:
        """(example, layer, head): the heads' contributions as a grid."""
        chosen = self.values[:, (self.values["kind"] == "head_out").to_numpy()]
        layers = np.unique(chosen["layer"].to_numpy())
        grid = chosen.to_numpy().reshape(chosen.sizes["example"], len(layers), -1)
        coords = {"layer": layers, "head": np.arange(grid.shape[2])}
        return xr.DataArray(grid, coords, ("example", "layer", "head"), "contribution")

    def grouped(self, by: Literal["component", "layer"] = "layer") -> xr.DataArray:
        """(example, component), with each attention as one, or each layer as one.

        by="component": `embed`, `pos_embed`, `attn_out.L`, `mlp_out.L`, `constant`;
        by="layer": `embed`, `pos_embed`, `layer.L`, `constant`. The sum stays the same.
        """
        if by not in ("component", "layer"):
            raise AttributionError(f"by must be 'component' or 'layer'; found {by!r}.")
        kinds, layers = self.values["kind"].to_numpy(), self.values["layer"].to_numpy()
        groups = [_group(str(k), int(n), by) for k, n in zip(kinds, layers, strict=True)]
        names = list(dict.fromkeys(groups))
        member = np.array([[group == name for name in names] for group in groups], dtype=float)
        return xr.DataArray(
            self.values.to_numpy() @ member, {"component": names}, ("example", "component"),
            "contribution",
        )  # fmt: skip

    def interval(self, level: float = 0.95) -> xr.Dataset:
        """`mean`, `low`, `high` of every component over examples."""
        return interval(self.values, level)

    def top(self, k: int = 10) -> pd.DataFrame:
        """The `k` components with the largest mean contribution by magnitude."""
        data = self.interval()
        order = np.argsort(-np.abs(data["mean"].to_numpy()), kind="stable")[:k]
        chosen = data.isel(component=order)
        columns = ("component", "kind", "layer", "head", "mean", "low", "high")
        return pd.DataFrame({name: chosen[name].to_numpy() for name in columns})

    def to_dataset(self) -> xr.Dataset:
        """All arrays in one."""
        names = ("before_cap", "embeddings", "provenance")
        return xr.Dataset(
            {"values": self.values, "target": self.target, "measured": self.measured},
            attrs={name: getattr(self, name) for name in names},
        )

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        """The inverse of `to_dataset`."""
        arrays = {name: data[name] for name in ("target", "measured")}
        plain = {name: values.reset_coords(drop=True) for name, values in arrays.items()}
        return cls(values=data["values"], **plain, **data.attrs)


def _group(kind: str, layer: int, by: str) -> str:
    if kind in ("norm_bias", "unembed_bias"):
        return "constant"
    if layer == _NO_LAYER:
        return kind
    if by == "layer":
        return f"layer.{layer}"
    return f"mlp_out.{layer}" if kind == "mlp_out" else f"attn_out.{layer}"


def refuse_unless_sum(found: Attribution, *, bound: float) -> None:
    """Refuse contributions whose sum misses the target by more than rounding explains.

    `bound` is relative to the magnitudes added up, since these are what is rounded.
    """
    missing = np.abs((found.total - found.target).to_numpy())
    added = np.abs(found.values.to_numpy()).sum(axis=1)
    worst = int(np.argmax(np.where(np.isfinite(missing), missing, np.inf)))
    if missing.max() <= bound * added.max():
        return
    raise AttributionError(
        f"The contributions add up to {float(found.total[worst]):.6g} where the model's logit "
        f"difference is {float(found.target[worst]):.6g} (example {worst}; relative error "
        f"{found.relative_error:.2g} over all examples), so they are not an attribution of it; "
        "check the model with `cutaway check`."
    )
