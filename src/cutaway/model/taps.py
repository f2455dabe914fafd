"""Taps: the only way in which anything reads or changes a forward pass.

    tap(site, x) -> x

`connected` attaches a thin adapter at each site that a tap wants, for one call: forward hooks on
the modules that pass it, and `Interior` for the inside of attention. A site that nobody wants costs
nothing, and nothing stays attached afterwards, whatever happens in between. A tap that returns the
very tensor it was given leaves the pass untouched, bit for bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from torch import Tensor, nn

from cutaway.model.anatomy import Anatomy
from cutaway.model.interior import Interior
from cutaway.model.ports import Mixture, Passing, Port, Side
from cutaway.model.sites import KINDS, Site


class Tap(Protocol):
    """Reads or changes what passes at the sites it wants."""

    def wants(self, site: Site) -> bool:
        """Whether this tap needs to be called at `site` (a whole site, without an index)."""
        ...

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        """What passes on; the very same tensor when nothing changes."""
        ...


@contextmanager
def connected(
    hf: nn.Module,
    anatomy: Anatomy,
    ports: Sequence[Port],
    taps: Sequence[Tap],
) -> Generator[Passing]:
    """Attach the taps, first to last, to the sites they want, until the block ends."""
    now = Passing()
    sites = [*(port.site for port in ports), *interior_sites(anatomy)]
    taps = [*taps, _Remember({site for site in sites if any(tap.wants(site) for tap in taps)})]
    wanted = {site: [tap for tap in taps if tap.wants(site)] for site in sites}
    wanted = {site: chosen for site, chosen in wanted.items() if chosen}
    if not wanted:
        yield now
        return

    def run(site: Site, x: Tensor) -> Tensor:
        for tap in wanted.get(site, ()):
            x = tap(site, x, now)
        return x

    with ExitStack() as stack:
        interior: Interior | None = None
        if any(KINDS[site.kind].interior for site in wanted):
            interior = Interior(now, anatomy.n_heads, anatomy.n_kv_heads, run)
            if not anatomy.own_kernel:
                stack.enter_context(eager_attention(hf))
            stack.enter_context(interior)
        attach = _Attacher(now, interior, run, stack)
        attach.measure(hf)
        for (module, side), chosen in _grouped(ports, wanted).items():
            attach.adapter(module, side, chosen)
        if interior is not None:
            for index, layer in enumerate(anatomy.layers):
                if any(Site(kind, index) in wanted for kind in _INTERIOR):
                    attach.attention(layer.attn, index, interior)
        yield now


_INTERIOR = tuple(name for name, kind in KINDS.items() if kind.interior)


def interior_sites(anatomy: Anatomy) -> list[Site]:
    """The sites inside attention, which no port passes."""
    return [Site(kind, layer) for layer in range(len(anatomy.layers)) for kind in _INTERIOR]


@contextmanager
def eager_attention(hf: nn.Module) -> Generator[None]:
    """The model's own eager attention, until the block ends."""
    found: list[Any] = [getattr(module, "config", None) for module in hf.modules()]
    before: dict[int, tuple[Any, str]] = {}
    for config in found:
        chosen = getattr(config, "_attn_implementation", None)
        if chosen not in (None, "eager"):
            before[id(config)] = (config, chosen)
    for config, _ in before.values():
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        for config, chosen in before.values():
            config._attn_implementation = chosen


class _Remember:
    """Keeps z, as it is after every edit, where `head_out` is to be made from it."""

    def __init__(self, wanted: Collection[Site]) -> None:
        self.sources = {Site("z", site.layer) for site in wanted if site.kind == "head_out"}

    def wants(self, site: Site) -> bool:
        return site in self.sources

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        assert site.layer is not None
        now.zs[site.layer] = x
        return x


def _grouped(
    ports: Sequence[Port], wanted: Mapping[Site, object]
) -> dict[tuple[nn.Module, Side], list[Port]]:
    groups: dict[tuple[nn.Module, Side], list[Port]] = defaultdict(list)
    for port in ports:
        if port.site in wanted:
            groups[port.module, port.side].append(port)
    return groups


class _Attacher:
    """Registers hooks that a stack removes."""

    def __init__(
        self,
        now: Passing,
        interior: Interior | None,
        run: Callable[[Site, Tensor], Tensor],
        stack: ExitStack,
    ) -> None:
        self.now, self.mode, self.run, self.stack = now, interior, run, stack

    def before(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        self.stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def after(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        self.stack.callback(module.register_forward_hook(hook).remove)

    def measure(self, hf: nn.Module) -> None:
        """Know the shape of what passes, before anything else does."""
        now = self.now

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            ids: Tensor | None = args[0] if args else kwargs.get("input_ids")
            passed = kwargs["inputs_embeds"] if ids is None else ids
            now.batch, now.width = int(passed.shape[0]), int(passed.shape[1])
            cache = kwargs.get("past_key_values")
            now.past = int(cache.get_seq_length()) if cache is not None else 0

        self.before(hf, hook)

    def attention(self, attn: nn.Module, layer: int, interior: Interior) -> None:
        """Tell the interior which attention is running."""

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            interior.enter(layer)

        def leave(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            interior.leave()

        self.before(attn, enter)
        self.after(attn, leave)

    def adapter(self, module: nn.Module, side: Side, ports: list[Port]) -> None:
        """One hook for all the sites on one side of one module."""
        codec = ports[0].codec
        if side == "in":
            self.before(
                module, lambda _m, args, kwargs: _write_input(args, kwargs, self._through(ports))
            )
        elif isinstance(codec, Mixture):
            self.after(module, lambda _m, _a, out: _write_router(out, codec, self._through(ports)))
        else:
            self.after(module, lambda _m, _a, out: _write_output(out, self._through(ports)))

    def _through(self, ports: list[Port]) -> Callable[[Tensor], Tensor]:
        def through(passed: Tensor) -> Tensor:
            for port in ports:
                old = port.codec.view(passed, self.now)
                new = self.run(port.site, old)
                if new is not old:
                    passed = port.codec.write(passed, old, new, self.now)
            return passed

        return through if self.mode is None else self.mode.unwatched(through)


_STREAM_NAMES = ("hidden_states", "x", "input", "inputs")


def _write_input(
    args: tuple[Any, ...], kwargs: dict[str, Any], through: Callable[[Tensor], Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    if args and isinstance(args[0], Tensor):
        new = through(args[0])
        return None if new is args[0] else ((new, *args[1:]), kwargs)
    name = next(name for name in _STREAM_NAMES if name in kwargs)
    new = through(kwargs[name])
    return None if new is kwargs[name] else (args, {**kwargs, name: new})


def _write_output(out: Any, through: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(out, Tensor):
        new = through(out)
        return None if new is out else new
    if isinstance(out, tuple):
        new = through(out[0])
        return None if new is out[0] else (new, *out[1:])
    new = through(out.logits)
    if new is out.logits:
        return None
    out.logits = new
    return out


def _write_router(
    out: tuple[Tensor, Tensor, Tensor], codec: Mixture, through: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor] | None:
    logits, weights, indices = out
    old = codec.dense(weights, indices)
    new = through(old)
    return None if new is old else (logits, *codec.chosen(new, indices))
