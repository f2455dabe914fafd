"""Attribution patching: the effect of every cell of a sweep, estimated from gradients.

Nanda 2023, "Attribution Patching: Activation Patching At Industrial Scale"; Syed et al. 2023,
"Attribution Patching Outperforms Automated Circuit Discovery". To first order, putting something
else in a cell's place changes the metric by

    estimate = Σ (source − base) · ∂metric/∂activation      over the cell's part

1. For each batch of examples, run the pair's two sides once, one of them (the base, see `sources`)
   with a backward pass (`slopes`); those are the two forward and the one backward pass.
2. Make each cell's change on the base run's own tensor, contract it with the gradient
   (`contraction`), and keep one number per example.
3. Patch a seeded sample of cells exactly, and report the agreement with them (`estimates`).

What differs between the methods is the gradient, or where the change is read:

| method | what it does | backward passes per batch |
|---|---|---|
| `gradient` | the formula above | 1 |
| `integrated` | the gradient's mean while the site goes from base to source, site by site, all of its cells together (integrated gradients, Sundararajan et al. 2017; along activations, Marks et al. 2024); a site's cells add up to the exact effect of patching them all | 1 + steps · sites |
| `integrated-inputs` | the gradient's mean while the token embeddings go from base to source (Hanna et al. 2024, EAP-IG); at `embed` the cells add up to the exact effect | 1 + steps |
| `qk` | the gradient, with the QK fix: for queries and keys the softmax is recomputed exactly and the change of the attention weights contracted with the gradient there (Kramár et al. 2024, AtP*, section 3.1.1) | 1, and one layer's attention per site and position |
| `atp*` | the QK fix and GradDrop (the same paper, section 3.1.2): one backward pass per layer, without the gradient through what that layer's attention and MLP add to the stream, so that a direct and an indirect effect that cancel are still seen: Σ_layer abs(estimate without that layer) / (layers − 1) | 1 + layers |

Deviations from the AtP* paper. GradDrop's estimate has no sign; here it is given the QK-fixed
estimate's, so that all methods estimate the same quantity, and absolute values are taken per
example. The stream's own sites (which the paper does not have as nodes) lie on a path in every one
of the backward passes, so there the sum is divided by the number of layers. The key fix runs the
layer's attention again, instead of the paper's incremental update of the softmax. Queries and keys
are patched as cells say: several positions of one cell go through the softmax together.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import xarray as xr
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import Metric
from cutaway.measure.batches import Progress, batch_size_for
from cutaway.measure.result import provenance
from cutaway.model.model import Model
from cutaway.model.sites import Site
from cutaway.patch.cells import By, Cell, Coordinate, Grid, SweepError, grid, sites_of
from cutaway.patch.contraction import QK, Contraction, Group, groups
from cutaway.patch.effects import Effects
from cutaway.patch.ends import metric_of
from cutaway.patch.estimates import Estimates, patched_sample
from cutaway.patch.slopes import Gradients, Slopes
from cutaway.patch.sources import Mode, check_mode, means_of

Method = Literal["gradient", "integrated", "integrated-inputs", "qk", "atp*"]
"""How effects are estimated; see the module's table."""

_STEPS = 10
_BYTES = 512 * 2**20
"""How much memory the kept activations and their gradients may take."""


def attribution_patching(
    model: Model,
    behaviour: Behaviour,
    site: str | Site,
    *,
    by: By = ("layer", "head"),
    mode: Mode = "denoise",
    method: Method = "gradient",
    metric: str | Metric | None = None,
    positions: Sequence[Coordinate] | Coordinate | None = None,
    steps: int | None = None,
    verify: int = 24,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Estimates:
    """Estimate what `sweep` with the same arguments would measure, from gradients.

    `method` is explained in this module's table; `steps` is how many points the paths of the
    integrated methods have (10 when not given). `verify` cells, drawn with `seed`, are patched
    exactly for the result's agreement; 0 turns that off. `progress` is called with the examples
    done and their total.

    Raises `SweepError` or `SiteError` for what does not exist or does not fit together.
    """
    chosen = _metric(behaviour, metric)
    _check(model, site, method, mode, chosen, steps, verify)
    sites = sites_of(model, site, by)
    probe = model.run(behaviour.clean.rows([0]), keep=list(sites))
    sizes = dict(zip(sites[0].axes, probe[sites[0]].shape, strict=True))
    cells = grid(behaviour, sites, sizes, by, positions)
    check_mode(mode, behaviour, cells)
    if cells.kind == "head_out":
        # What every mode puts into head_out is linear in z, and so is all that follows it there.
        cells = replace(cells, kind="z")
    kept = sum(values.numel() * values.element_size() for values in probe.kept.values())
    size = _batch_size(model, behaviour, batch_size, kept, method)
    estimator = _Estimator(
        model, behaviour, cells, mode, method, chosen, _STEPS if steps is None else steps, seed
    )
    values, clean, corrupt = estimator.run(size, progress)
    exact = patched_sample(model, behaviour, cells, mode, chosen, verify, seed, size)
    settings = {
        "site": str(site), "by": list(cells.axes), "mode": mode, "metric": chosen.name,
        "positions": list(cells.positions) if cells.positions is not None else None,
        "method": method, "steps": estimator.steps if method.startswith("integrated") else None,
        "verified": 0 if exact is None else len(exact), "seed": seed,
    }  # fmt: skip
    effects = Effects(
        values=xr.DataArray(
            values.reshape(*cells.shape, -1), cells.coords, (*cells.axes, "example"), chosen.name
        ),
        clean=xr.DataArray(clean, dims="example", name=chosen.name),
        corrupt=xr.DataArray(corrupt, dims="example", name=chosen.name),
        site=str(site),
        mode=mode,
        metric=chosen.name,
        provenance=provenance(model, behaviour, settings),
    )
    return Estimates(effects=effects, exact=exact)


def _batch_size(
    model: Model, behaviour: Behaviour, asked: int | None, kept: int, method: Method
) -> int:
    """Examples at a time, where one keeps `kept` bytes at the sites, and as much per gradient."""
    size = batch_size_for(model, behaviour, asked)
    runs = 2 + (model.n_layers if method == "atp*" else 1)
    return size if asked is not None else max(1, min(size, _BYTES // (kept * runs)))


def _metric(behaviour: Behaviour, metric: str | Metric | None) -> Metric:
    found = metric_of(behaviour, metric)
    if found.name == "accuracy":
        raise SweepError(
            "The metric 'accuracy' counts and has no gradient; choose another, or use sweep."
        )
    return found


def _check(
    model: Model, site: str | Site, method: str, mode: str, metric: Metric, steps: int | None,
    verify: int,
) -> None:  # fmt: skip
    if method not in get_args(Method):
        known = ", ".join(get_args(Method))
        raise SweepError(f"There is no method {method!r}; choose one of {known}.")
    if steps is not None and not method.startswith("integrated"):
        raise SweepError(f"The method {method!r} has no steps; leave them out.")
    if steps is not None and (isinstance(steps, bool) or steps < 1):
        raise SweepError(f"steps must be a whole number of 1 or more; found {steps!r}.")
    if isinstance(verify, bool) or verify < 0 or verify == 1:
        raise SweepError(
            f"verify must be 0 (off) or at least 2 cells, to have a rank; found {verify!r}."
        )
    kind = str(site).partition(".")[0]
    if method == "qk" and kind not in QK:
        raise SweepError(
            f"The QK fix is for queries and keys and changes nothing at {kind!r}; use the method "
            "'gradient'."
        )
    if method == "atp*" and model.n_layers < 2:
        raise SweepError("GradDrop needs a model of two layers or more; use another method.")
    if method == "integrated-inputs" and mode in ("zero", "mean"):
        raise SweepError(
            f"Mode {mode!r} puts in what no prompt's embeddings lead to; use the method "
            "'integrated', or the mode 'denoise', 'noise' or 'resample'."
        )
    if metric.needs_reference and mode != "denoise" and method in ("gradient", "qk", "atp*"):
        raise SweepError(
            f"The metric {metric.name!r} compares with the clean run, where its gradient is zero; "
            "use mode 'denoise', another metric, or an integrated method."
        )


@dataclass(frozen=True)
class _Estimator:
    """Estimates every cell of a grid, a batch of examples at a time."""

    model: Model
    behaviour: Behaviour
    cells: Grid
    mode: Mode
    method: Method
    metric: Metric
    steps: int
    seed: int

    def run(
        self, size: int, progress: Progress | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(cell, example) estimated values of the metric, and its clean and corrupt ends."""
        model, behaviour, n = self.model, self.behaviour, len(self.behaviour)
        every, listed = self._groups(), list(self.cells.cells())
        values, clean, corrupt = np.empty((len(listed), n)), np.empty(n), np.empty(n)
        means = means_of(model, behaviour, self.cells, size) if self.mode == "mean" else None
        for start in range(0, n, size):
            where = slice(start, min(start + size, n))
            slopes = Slopes(
                model, behaviour, where, mode=self.mode, metric=self.metric,
                sites=self.cells.sites, reads=self._reads(),
            )  # fmt: skip
            clean[where], corrupt[where] = slopes.ends()
            base = corrupt if self.mode == "denoise" else clean
            source = means if means is not None else slopes.source(self.seed)
            contraction = Contraction(slopes, source, every, fix=self.fix)
            for number, change in self._changes(slopes, contraction):
                found = change.double().cpu().numpy()
                _check_finite(found, listed[number], start)
                values[number, where] = base[where] + found
            if progress is not None:
                progress(where.stop, n)
        return values, clean, corrupt

    @property
    def fix(self) -> bool:
        """Whether the softmax is recomputed."""
        return self.method in ("qk", "atp*") and self.cells.kind in QK

    def _groups(self) -> list[Group]:
        layers = self.model.anatomy.layers
        across = any(layers[layer or 0].norm_across_heads for layer in self.cells.layers)
        alone = self.fix and across and self.cells.kind in ("q", "k")
        return groups(list(self.cells.cells()), alone=alone)

    def _reads(self) -> list[Site]:
        """Where gradients are needed, with what the QK fix starts from."""
        if not self.fix:
            return list(self.cells.sites)
        return [
            Site(kind, layer) for layer in self.cells.layers for kind in ("resid_pre", "pattern")
        ]

    def _changes(self, slopes: Slopes, contraction: Contraction) -> Iterator[tuple[int, Tensor]]:
        """Each cell's number and the estimated change, per example."""
        for number, found in contraction.estimates(self._gradients(slopes, contraction)):
            if self.method != "atp*":
                yield number, found[0]
                continue
            kind, depth = self.cells.kind, self.model.n_layers
            on_every_path = kind.startswith("resid") or self.cells.layers[0] is None
            own = 0 if on_every_path else 1
            yield number, found[0].sign() * found[1:].abs().sum(dim=0) / (depth - own)

    def _gradients(self, slopes: Slopes, contraction: Contraction) -> list[Gradients]:
        """The sets of gradients that the method contracts with."""
        plain, reads = dict(slopes.base.gradients), self._reads()
        if self.method == "integrated":
            return [contraction.along_sites(self.steps)]
        if self.method == "integrated-inputs":
            return [slopes.along_inputs(reads, self.steps, self.seed)]
        if self.method == "atp*":
            return [plain, *(slopes.dropped(reads, i) for i in range(self.model.n_layers))]
        return [plain]


def _check_finite(values: np.ndarray, cell: Cell, start: int) -> None:
    """Refuse an estimate that is not finite."""
    if not np.isfinite(values).all():
        row = start + int(np.argmin(np.isfinite(values)))
        raise SweepError(
            f"The gradient of example {row} at {cell.site.kind!r}, {cell}, is not finite (NaN or "
            "infinity); open the model in float32, or use sweep."
        )
