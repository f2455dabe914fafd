"""Proof, at opening, that every site is what its name says.

On a short probe (a prompt, and its own beginning left-padded in the same batch):

1. logits with every module adapter connected = logits of the bare model, bit for bit on a CPU;
2. with the inside of attention materialised too, the same logits to rounding;
3. resid_pre + attn_out (+ mlp_out) = resid_mid, resid_post; each layer hands on its resid_post;
4. Σ head_out + bias, through the post-norm and multiplier = attn_out;
5. pattern · v = z; no head attends ahead or to padding; its weights sum to at most one;
6. unembed(final_norm) = logits;
7. the left-padded row gives the logits of the same tokens without padding;
8. a change at each kind of site changes the logits, and one of a head's q, k or v changes z of that
   head (or of the heads that share it) and of no other, unless a norm spans the heads.

Errors are relative, both by norm and by largest magnitude: a cosine would pass a tensor of the
wrong size. Each kind's causal check falls on another layer, so that the whole costs a few short
forward passes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import einsum
from torch import Tensor

from cutaway.errors import ModelError
from cutaway.model.anatomy import weight_of
from cutaway.model.edits import Edit, add, scale
from cutaway.model.model import Model
from cutaway.model.ports import nothing
from cutaway.model.run import Run
from cutaway.model.sites import KINDS, Site
from cutaway.model.tokens import Tokens, pad

_LENGTH, _SHORT, _TRIALS = 5, 3, 8


@dataclass(frozen=True, kw_only=True)
class Check:
    """One identity, at the place where it held worst."""

    identity: str
    """What should be equal, or should differ."""
    site: str
    """Where the error was largest."""
    by_norm: float
    """Relative error by norm."""
    by_magnitude: float
    """Relative error by largest magnitude."""
    bound: float
    """What is allowed."""

    @property
    def holds(self) -> bool:
        """Whether both errors are within the bound."""
        return self.by_norm <= self.bound and self.by_magnitude <= self.bound


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was proven of an opened model."""

    checks: tuple[Check, ...]
    """Every identity, each where it held worst."""
    seconds: float
    """How long it took."""

    @property
    def holds(self) -> bool:
        """Whether every identity holds."""
        return all(check.holds for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The identities that do not hold."""
        return tuple(check for check in self.checks if not check.holds)

    def refusal(self, name: str) -> ModelError:
        """The error that refuses a model, naming the first failing site and both numbers."""
        check = self.failures[0]
        return ModelError(
            f"{name} was refused: at {check.site}, {check.identity} fails with relative error "
            f"{check.by_norm:.2g} by norm and {check.by_magnitude:.2g} by magnitude (allowed "
            f"{check.bound:.2g}); verify=False opens it all the same."
        )


def _errors(found: Tensor, expected: Tensor) -> tuple[float, float]:
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    difference = found - expected
    if not bool(torch.isfinite(difference).all()):
        return float("inf"), float("inf")
    norm, largest = expected.norm(), expected.abs().max()
    tiny = torch.finfo(torch.float64).tiny
    by_norm = difference.norm() / norm.clamp(min=tiny)
    return float(by_norm), float(difference.abs().max() / largest.clamp(min=tiny))


class _Ledger:
    """Collects checks, keeping each identity where it held worst."""

    def __init__(self) -> None:
        self.worst: dict[str, Check] = {}

    def equal(
        self, identity: str, site: str, found: Tensor, expected: Tensor, bound: float
    ) -> None:
        by_norm, by_magnitude = _errors(found, expected)
        self.note(identity, site, by_norm, by_magnitude, bound)

    def note(
        self, identity: str, site: str, by_norm: float, by_magnitude: float, bound: float
    ) -> None:
        before = self.worst.get(identity)
        if before is None or by_norm > before.by_norm or by_magnitude > before.by_magnitude:
            self.worst[identity] = Check(
                identity=identity, site=site, by_norm=by_norm, by_magnitude=by_magnitude,
                bound=bound,
            )  # fmt: skip

    def checks(self) -> tuple[Check, ...]:
        return tuple(self.worst.values())


def tolerance(dtype: torch.dtype) -> float:
    """The relative error that rounding explains, per type of the stream.

    Families compute their softmax and norms in float32 whatever the type, so float64 gains nothing.
    """
    wide = (torch.float32, torch.float64)
    return 2e-5 if dtype in wide else 1e-2 if dtype == torch.float16 else 5e-2


def probe(model: Model) -> tuple[Tokens, Tokens]:
    """A prompt of random tokens alone, and beside its own beginning, left-padded."""
    generator = torch.Generator().manual_seed(0)
    rows = int(weight_of(model.anatomy.embed).shape[0])
    ids = torch.randint(min(3, rows - 1), rows, (_LENGTH,), generator=generator).tolist()
    alone = pad([ids], pad_id=0)
    return alone, pad([ids, ids[:_SHORT]], pad_id=0, padding="left")


def verify(model: Model) -> Verification:
    """Prove the identities of the module docstring on one model."""
    start = time.perf_counter()
    alone, padded = probe(model)
    ledger = _Ledger()
    bound = tolerance(model.dtype)
    alone, padded = alone.to(model.device), padded.to(model.device)
    with torch.no_grad(), model.connected([]):
        bare: Tensor = model.hf(input_ids=alone.ids, use_cache=False).logits
    if not bool(torch.isfinite(bare).all()):
        raise ModelError(
            f"{model.name} was refused: the bare model's own logits are not finite (NaN or "
            "infinity) on a short prompt; its weights are damaged, or need another dtype."
        )
    outside = [site for site in model.sites if not KINDS[site.kind].interior]
    connected = model.run(alone, keep=outside).logits
    exact = 0.0 if model.device.type == "cpu" else bound
    ledger.equal("logits with adapters = bare logits", "logits", connected, bare, exact)
    run = model.run(padded, keep=list(model.sites))
    ledger.equal(
        "logits with attention open = bare logits", "logits", run.logits[:1], bare, 5 * bound
    )
    _padding(ledger, run, bound)
    _stream(ledger, model, run, bound)
    for layer in range(model.n_layers):
        _attention(ledger, model, run, layer, bound)
    unembedded = model.unembed(run["final_norm"])
    real = run.tokens.mask
    ledger.equal(
        "unembed(final_norm) = logits", "final_norm", unembedded[real], run.logits[real], bound
    )
    _causes(ledger, model, alone, run, bound)
    return Verification(checks=ledger.checks(), seconds=time.perf_counter() - start)


def _padding(ledger: _Ledger, run: Run, bound: float) -> None:
    found, expected = run.logits[1, -_SHORT:], run.logits[0, :_SHORT]
    ledger.equal("left-padded logits = unpadded logits", "logits", found, expected, 5 * bound)


def _stream(ledger: _Ledger, model: Model, run: Run, bound: float) -> None:
    real = run.tokens.mask

    def at(kind: str, layer: int) -> Tensor:
        return run[Site(kind, layer)][real].to(model.device)

    for layer in range(model.n_layers):
        after_attention = at("resid_pre", layer) + at("attn_out", layer)
        whole = after_attention + at("mlp_out", layer)
        if not model.parallel:
            middle = at("resid_mid", layer)
            site = f"resid_mid.{layer}"
            ledger.equal("resid_pre + attn_out = resid_mid", site, after_attention, middle, bound)
        site = f"resid_post.{layer}"
        ledger.equal("resid_pre + attn_out + mlp_out = resid_post", site, whole,
                     at("resid_post", layer), bound)  # fmt: skip
        last = layer + 1 == model.n_layers
        handed = run["resid_final"][real].to(model.device) if last else at("resid_pre", layer + 1)
        ledger.equal(
            "resid_post = the next resid_pre", site, handed, at("resid_post", layer), bound
        )


def _attention(ledger: _Ledger, model: Model, run: Run, layer: int, bound: float) -> None:
    part, tokens = model.anatomy.layers[layer], run.tokens
    pattern, z = run[Site("pattern", layer)].float(), run[Site("z", layer)].float()
    v = run[Site("v", layer)].float()
    v = v.repeat_interleave(z.shape[2] // v.shape[2], dim=2)
    mixed = einsum(pattern, v, "b head q k, b k head d -> b q head d")
    real = tokens.mask.to(z.device)
    ledger.equal("pattern · v = z", f"z.{layer}", mixed[real], z[real], bound)
    keys = torch.arange(tokens.ids.shape[1], device=z.device)
    allowed = (keys[None, :] <= keys[:, None]) & real[:, None, :]
    leaked = (pattern * ~allowed[:, None])[real[:, None].expand(pattern.shape[:3])]
    excess = float(
        (pattern.sum(-1)[real[:, None].expand(pattern.shape[:3])] - 1).clamp(min=0).max()
    )
    worst = max(float(leaked.abs().max()), excess)
    ledger.note("a head reads only what its mask allows", f"pattern.{layer}", worst, worst, bound)
    heads = run[Site("head_out", layer)]
    scaled = 1.0 if part.attn_post_norm is not None else model.anatomy.multiplier
    summed = heads.sum(dim=2)
    with torch.no_grad():
        summed = summed + nothing(part.o_proj, run[Site("z", layer)]) * scaled
        if part.attn_post_norm is not None:
            summed = part.attn_post_norm(summed) * model.anatomy.multiplier
    attn_out = run[Site("attn_out", layer)]
    ledger.equal(
        "Σ head_out = attn_out", f"head_out.{layer}", summed[real], attn_out[real], 2 * bound
    )


def _trials(model: Model, run: Run) -> Iterator[tuple[Site, int | None]]:
    """Each kind of site at one layer, spread over the layers; q, k and v at one head."""
    by_kind: dict[str, list[Site]] = {}
    for site in model.sites:
        by_kind.setdefault(site.kind, []).append(site)
    for turn, (kind, sites) in enumerate(by_kind.items()):
        chosen = sites[turn % len(sites)]
        yield chosen, run[chosen].shape[2] - 1 if kind in ("q", "k", "v") else None


def _changing(site: Site, head: int | None, row: int, like: Tensor) -> Edit:
    """A change at one site of one row, as large as what passes there."""
    if site.kind == "router":
        return scale(site, 1.5, row=row)
    generator = torch.Generator().manual_seed(row)
    noise = torch.randn(like.shape[1:], generator=generator).to(like.device)
    size = like.float().pow(2).mean().sqrt().clamp(min=1e-3)
    if head is None:
        return add(site, noise * size, row=row)
    return add(site, noise[:, head : head + 1] * size, row=row, head=head)


def _causes(ledger: _Ledger, model: Model, alone: Tokens, run: Run, bound: float) -> None:
    trials = list(_trials(model, run))
    # A few at a time, so that the logits of a large vocabulary stay small beside the weights.
    for begin in range(0, len(trials), _TRIALS):
        _cause(ledger, model, alone, run, bound, trials[begin : begin + _TRIALS])


def _cause(
    ledger: _Ledger,
    model: Model,
    alone: Tokens,
    run: Run,
    bound: float,
    trials: list[tuple[Site, int | None]],
) -> None:
    batch = alone.rows([0] * (len(trials) + 1))
    edits: list[Edit] = []
    watched: list[Site] = []
    for row, (site, head) in enumerate(trials, start=1):
        edits.append(_changing(site, head, row, run[site][:1]))
        if head is not None:
            watched.append(Site("z", site.layer))
        if site.kind == "resid_mid":
            watched += [Site(kind, site.layer) for kind in ("resid_mid", "mlp_out", "resid_post")]
    edited = model.run(batch, edits=edits, keep=watched)
    for row, (site, head) in enumerate(trials, start=1):
        moved, _ = _errors(edited.logits[row], edited.logits[0])
        still = 0.0 if moved > 1e-7 else 1.0
        ledger.note("a change at each site changes the logits", str(site), still, still, 0.5)
        across = model.anatomy.layers[site.layer or 0].norm_across_heads and site.kind != "v"
        if head is not None and not across:
            _only_its_heads(ledger, site, head, edited[Site("z", site.layer)], row, run, bound)
        if site.kind == "resid_mid":
            kinds = ("resid_mid", "mlp_out", "resid_post")
            stream, added, left = (edited[Site(kind, site.layer)][row] for kind in kinds)
            identity = "a change of resid_mid is a change of the stream"
            ledger.equal(identity, str(site), stream + added, left, bound)


def _only_its_heads(
    ledger: _Ledger, site: Site, head: int, z: Tensor, row: int, run: Run, bound: float
) -> None:
    group = z.shape[2] // run[site].shape[2]
    own = torch.zeros(z.shape[2], dtype=torch.bool, device=z.device)
    own[head * group : (head + 1) * group] = True
    moved = (z[row] - z[0]).float().abs()
    elsewhere = (
        float(moved[:, ~own].max() / z.abs().max().clamp(min=1e-30)) if (~own).any() else 0.0
    )
    still = 0.0 if bool((moved[:, own].amax(dim=(0, 2)) > 0).all()) else 1.0
    worst = max(elsewhere, still)
    ledger.note("q, k and v belong to their heads", f"{site}.{head}", worst, worst, 5 * bound)
