"""Running the rest of a model: from a layer on, from a position on.

A forward pass that differs from one already run only at and after some layer and position need not
be run from the beginning. `resume` hands the model's own forward the tokens from that position on
and a cache with the earlier positions' keys and values; the layers before hand their input through
untouched, and the first one that runs is given the changed stream. So masks, rotary angles, biases
and everything else are made by the model's own code, and every layer that runs is the model's own.

The last layer's MLP, the final norm and the unembedding are needed at one position per prompt only:
the pass stops when the stream between the last attention and the last MLP is known, and `finish`
does the rest there.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from cutaway.model.anatomy import Layer
from cutaway.model.memory import is_out_of_memory
from cutaway.model.model import Model
from cutaway.model.ports import Passing
from cutaway.model.run import Recorder, Run, ordered
from cutaway.model.sites import Site
from cutaway.model.taps import Tap
from cutaway.model.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class Base:
    """A whole run, with what is needed to run parts of it again."""

    run: Run
    """Logits and kept tensors."""
    keys: tuple[tuple[Tensor, Tensor], ...]
    """Each layer's cached keys and values, (batch, head, position, width)."""


class _Stop(Exception):  # noqa: N818
    """Ends a forward pass once what was wanted is known."""


def run_base(
    model: Model,
    tokens: Tokens,
    kept: Sequence[Site],
    *,
    taps: Sequence[Tap] = (),
    logits: bool = True,
) -> Base:
    """Run a batch whole, keeping sites and the cache; `taps` change it before it is kept.

    Without `logits` the pass ends at the stream leaving the last layer (kept as `resid_final`), and
    the run's logits are empty along `position`.
    """
    tokens = tokens.to(model.device)
    cache = DynamicCache()
    run = _run(model, tokens, kept, taps, cache, logits=logits)
    layers: Any = cache.layers
    return Base(run=run, keys=tuple((layer.keys, layer.values) for layer in layers))


def run_streams(model: Model, tokens: Tokens, kept: Sequence[Site]) -> Run:
    """Run a batch up to the stream leaving the last layer, keeping it and other sites."""
    return _run(model, tokens.to(model.device), kept, (), None, logits=False)


def _run(
    model: Model,
    tokens: Tokens,
    kept: Sequence[Site],
    taps: Sequence[Tap],
    cache: DynamicCache | None,
    *,
    logits: bool,
) -> Run:
    recorder = Recorder([model.check_site(site) for site in kept])
    caches: dict[str, Any] = {"past_key_values": cache, "use_cache": cache is not None}
    if logits:
        with model.connected([*taps, recorder]), torch.no_grad():
            found = model.forward(tokens, **caches)
        return Run(logits=found, tokens=tokens, kept=ordered(recorder.kept))
    catch = Catch(Site("resid_final"))
    with suppress(_Stop), model.connected([*taps, recorder, catch]), torch.no_grad():
        model.forward(tokens, **caches)
    assert catch.value is not None
    kept_too = recorder.kept | {catch.site: catch.value}
    empty = catch.value.new_empty(len(tokens), 0, model.d_vocab)
    return Run(logits=empty, tokens=tokens, kept=ordered(kept_too))


@dataclass(frozen=True)
class _Entry:
    """The tap that gives the first layer its stream."""

    site: Site
    stream: Tensor

    def wants(self, site: Site) -> bool:
        return site == self.site

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        return self.stream


class Catch:
    """The tap that ends the pass with what passes at a site, once it has it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.value: Tensor | None = None

    def wants(self, site: Site) -> bool:
        """Whether this is the place."""
        return site == self.site

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        """Keep it and stop."""
        self.value = x.clone()
        raise _Stop


def resume(
    model: Model,
    base: Base,
    rows: Tensor,
    layer: int,
    start: int,
    stream: Float[Tensor, "row position d_model"],
    until: Site,
    taps: Sequence[Tap] = (),
) -> Tensor:
    """What passes at `until` when `layer` is given `stream` at the positions from `start` on.

    `rows` (row,) says which prompt of the base each row is; earlier positions have the base's keys
    and values.
    """
    rows = rows.to(base.run.tokens.ids.device)
    tokens = base.run.tokens
    arguments: dict[str, Any] = {"use_cache": start > 0}
    if start:
        arguments["past_key_values"] = _earlier(base, rows, start)
    if not bool(tokens.mask.all()):
        arguments["attention_mask"] = tokens.mask[rows].long()
    if "position_ids" in model.accepts and (start or "attention_mask" in arguments):
        arguments["position_ids"] = tokens.position_ids[rows, start:]
    catch = Catch(until)
    entry = _Entry(Site("resid_pre", layer), stream)
    whole = layer > 0 and model.blocks_return_tuples  # a run of its own, before this one's taps
    # Connected first: that takes the model's lock, and nobody else's pass may skip layers.
    connected = model.connected([entry, *taps, catch])
    with suppress(_Stop), connected, _skipped(model, layer, whole=whole), torch.no_grad():
        model.hf(input_ids=tokens.ids[rows, start:], **arguments)
    assert catch.value is not None
    return catch.value


class _Earlier(DynamicLayer):
    """One layer's cache: the base run's keys and values before a position, for some of its rows.

    They are gathered when the layer asks for them, and nothing new is kept.
    """

    def __init__(self, pair: tuple[Tensor, Tensor], rows: Tensor, start: int) -> None:
        super().__init__()
        self._pair, self._rows, self._start = pair, rows, start
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The earlier positions' keys and values with the new ones behind them."""
        keys, values = (
            torch.cat([old[:, :, : self._start].index_select(0, self._rows.to(old.device)), new], 2)
            for old, new in zip(self._pair, (key_states, value_states), strict=True)
        )
        return keys, values

    def get_seq_length(self) -> int:
        """How many positions come before."""
        return self._start


def _earlier(base: Base, rows: Tensor, start: int) -> DynamicCache:
    cache: Any = DynamicCache()
    cache.layers = [_Earlier(pair, rows, start) for pair in base.keys]
    return cache


@contextmanager
def _skipped(model: Model, layer: int, *, whole: bool) -> Generator[None]:
    """The layers before `layer` hand their input through, in a tuple where the family does."""

    def through(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (hidden_states, None) if whole else hidden_states

    with ExitStack() as stack:
        for part in model.anatomy.layers[:layer]:
            before = vars(part.block).get("forward")
            if before is None:
                stack.callback(delattr, part.block, "forward")
            else:
                stack.callback(setattr, part.block, "forward", before)
            part.block.forward = through
        yield


# ── what can be taken up ──────────────────────────────────────────────────────────────────────────

_PROBE_TOKENS = 8
_PROBED: WeakKeyDictionary[Model, tuple[bool, str | None]] = WeakKeyDictionary()


def probed(model: Model) -> tuple[bool, str | None]:
    """Whether layers have halves, and why this model cannot be taken up in the middle, if so.

    One prompt is run, and taken up again from half its layers and half its positions; once per
    opened model, since it is the forward's shape that is asked about.
    """
    if model not in _PROBED:
        try:
            _PROBED[model] = _probe(model)
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            why = f"its own forward cannot be taken up in the middle ({error})"
            _PROBED[model] = (False, why)
    return _PROBED[model]


def _probe(model: Model) -> tuple[bool, str | None]:
    width = min(_PROBE_TOKENS, model.n_ctx or _PROBE_TOKENS)
    tokens = model.checked(model.tokens(torch.arange(width)[None] % model.d_vocab))
    kinds = ("resid_pre", "resid_mid", "resid_post")
    base = run_base(model, tokens, [s for s in model.sites if s.kind in kinds], logits=False)
    layer, start = model.n_layers // 2, width // 2
    row, final = torch.zeros(1, dtype=torch.long), Site("resid_final")
    stream = base.run[Site("resid_pre", layer)][:, start:]
    again = resume(model, base, row, layer, start, stream, final)
    expected = base.run[final][:, start:]
    error = float((again - expected).norm() / expected.norm())
    tolerance = 1e-4 if model.dtype == torch.float32 else 0.05
    if not error < tolerance:
        return False, f"taken up in its middle, this model differs from itself by {error:.1g}"
    return has_halves(model, base), None


# ── the second half of a layer ───────────────────────────────────────────────────────────────────


def has_halves(model: Model, base: Base) -> bool:
    """Whether every layer is stream + MLP(norm(stream)) after its attention, as `after_mlp` says.

    Measured on the base run, so that nothing is assumed of a family's own forward.
    """
    if model.parallel:
        return False
    for index in range(model.n_layers):
        middle = base.run[Site("resid_mid", index)]
        expected = base.run[Site("resid_post", index)]
        found = after_mlp(model, index, middle)
        if bool((found - expected).norm() > 1e-5 * expected.norm()):
            return False
    return True


def after_mlp(
    model: Model, layer: int, middle: Float[Tensor, "row position d_model"]
) -> Float[Tensor, "row position d_model"]:
    """The stream leaving a layer, from the stream between its attention and its MLP."""
    part = model.anatomy.layers[layer]
    with torch.no_grad():
        out = _mlp(part, middle)
        if part.mlp_post_norm is not None:
            out = part.mlp_post_norm(out)
        if model.anatomy.multiplier != 1.0:
            out = out * model.anatomy.multiplier
        return middle + out


def _mlp(part: Layer, middle: Tensor) -> Tensor:
    read = middle if part.reads_mid is part.mlp else part.reads_mid(middle)
    if part.down is None or part.up is None:
        out = part.mlp(read)
        return out[0] if isinstance(out, tuple) else out
    if part.mlp_in_layer:
        activation: nn.Module = getattr(part.block, "activation_fn")  # noqa: B009
        return part.down(activation(part.up(read)))
    if "residual" in part.mlp.forward.__code__.co_varnames:
        return part.mlp(read, torch.zeros_like(middle))
    return part.mlp(read)


def finish(model: Model, stream: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
    """What the unembedding reads, from the stream leaving the last layer."""
    with torch.no_grad():
        return model.anatomy.final_norm(stream[:, None])[:, 0]
