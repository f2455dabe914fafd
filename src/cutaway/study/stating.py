"""What a study states when nobody else does: the roles it observes, and what is known of them.

On prompts that do not test it:

1. *writers*: heads and MLPs that add at least a twentieth of the logit difference directly
   (p < 0.05, corrected for all parts): each "writes the answer";
2. *where they look*: for the strongest heads among them, the place that gets most of their
   attention at `end`, when that is a fifth of it: "attends from end to PLACE";
3. *feeders*: path patching of every earlier head and MLP into each input of these heads and into
   the strongest writing MLP, and once more into the strongest MLP that was found so; what carries
   at least a fiftieth of the behaviour (p < 0.05, corrected for the senders) "feeds PART through
   INPUT", the strongest first;
4. what the literature found of another model (`published`), said of this one's strongest parts;
5. a wrong one, as control: the head that writes most in another behaviour (or the next, where that
   one writes here too), and nothing to speak of in this one, "writes the answer" here.

To choose on some prompts and test on others is what makes the verdicts worth something; nothing
here tests anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from cutaway.behaviours import Behaviour
from cutaway.behaviours.build import build
from cutaway.behaviours.builtin import GENERATORS
from cutaway.errors import CutawayError
from cutaway.measure.significance import sign_flips
from cutaway.model import Model, Site
from cutaway.observe import attention_to, attribute
from cutaway.patch.routes import reads, writes
from cutaway.study.bench import Bench, inputs_of
from cutaway.study.hypothesis import RoleHypothesis
from cutaway.study.places import places
from cutaway.study.published import PUBLISHED
from cutaway.study.tested import Tested
from cutaway.study.verdict import LEVEL

_WRITES, _LOOKS, _FEEDS, _WRONG = 0.05, 0.2, 0.02, 0.01
_MOST = {"head_out": 6, "mlp_out": 3}
_MOST_FEEDERS, _OTHERS, _RANKS = 8, 24, 3
WRITES = "writes the answer"


class Observer:
    """What can be seen on the prompts that hypotheses are chosen on."""

    def __init__(self, model: Model, rows: Behaviour, *, followed: int, seed: int) -> None:
        self.model, self.rows, self.followed, self.seed = model, rows, followed, seed
        self.bench = Bench(model, rows, seed=seed)
        self._share = _shares(self.bench)
        self.writers = self._writers()
        """The parts that write the answer, the strongest first."""

    def _writers(self) -> list[str]:
        order = sorted(self._share, key=lambda part: -self._share[part][0])
        found: list[str] = []
        for part in order:
            share, p = self._share[part]
            kind = part.partition(".")[0]
            room = sum(one.startswith(kind) for one in found) < _MOST[kind]
            if share >= _WRITES and p < LEVEL and room:
                found.append(part)
        return found

    @property
    def heads(self) -> list[str]:
        """The heads among the writers that are followed back."""
        return [part for part in self.writers if part.startswith("head_out")][: self.followed]

    def observed(self) -> Iterator[RoleHypothesis]:
        """Every role that is observed here."""
        yield from (RoleHypothesis((part,), WRITES) for part in self.writers)
        named = [str(place) for place in places(self.rows) if isinstance(place, str)]
        if len(named) > 1 and self.heads:
            weights = attention_to(self.model, self.rows, positions=named).mean
            for head in self.heads:
                site = Site.parse(head)
                each = weights.sel(layer=site.layer, head=site.index).to_numpy()
                if each.max() >= _LOOKS:
                    place = named[int(each.argmax())]
                    yield RoleHypothesis((head,), f"attends from end to {place}")
        yield from self._feeders()

    def _feeders(self) -> Iterator[RoleHypothesis]:
        mlps = [part for part in self.writers if part.startswith("mlp_out")][:1]
        ways = [(head, kind) for head in self.heads for kind in ("q", "k", "v")]
        found = [
            way for into in (*ways, *((mlp, None) for mlp in mlps)) for way in self._into(*into)
        ]
        found.sort(key=lambda way: -way[0])
        behind = [sender for _, sender, _, _ in found if sender.startswith("mlp_out")]
        deeper = [way for mlp in behind[:1] if mlp not in mlps for way in self._into(mlp, None)]
        deeper.sort(key=lambda way: -way[0])
        for _, sender, part, kind in (*found[:_MOST_FEEDERS], *deeper[: self.followed]):
            through = f" through {kind}" if kind else ""
            yield RoleHypothesis((sender,), f"feeds {_short(part)}{through}")

    def _into(self, part: str, kind: str | None) -> list[tuple[float, str, str, str | None]]:
        """What feeds one part: the share of the behaviour, the sender, the part and the input."""
        senders, each = self.senders(part, kind)
        if not senders:
            return []
        gap = float(self.bench.gap.mean())
        p = sign_flips(each, seed=self.seed).p_corrected
        shares = each.mean(axis=1) / gap
        return [
            (float(share), sender, part, kind)
            for sender, share, chance in zip(senders, shares, p, strict=True)
            if share >= _FEEDS and chance < LEVEL
        ]

    def senders(self, part: str, kind: str | None) -> tuple[list[str], np.ndarray]:
        """Everything that writes before a part reads, and (sender, example) what it sends there."""
        receivers = inputs_of(self.model, part, kind)
        until = max(reads(self.model, Site.parse(one)) for one in receivers)
        senders = [part for part in self._share if writes(Site.parse(part)) < until]
        if not senders:
            return [], np.empty((0, len(self.rows)))
        found = self.bench.sent([(sender,) for sender in senders], receivers)
        return senders, found.to_numpy()

    def published(self) -> Iterator[Tested]:
        """What the literature found elsewhere, about this model's strongest writing head."""
        known = PUBLISHED.get(_generator(self.rows))
        if known is None or not self.heads:
            return
        writer = self.heads[0]
        for each in known.roles:
            part = writer
            if each.of != "writer":
                senders, sent = self.senders(writer, each.of[-1])
                if not senders:
                    continue
                part = senders[int(np.abs(sent.mean(axis=1)).argmax())]
            role = each.role.replace("WRITER", _short(writer))
            says = f"{known.paper}, of {known.model}: {each.says}"
            yield Tested(
                hypothesis=RoleHypothesis((part,), role), origin="published", says=says
            )  # fmt: skip

    def wrong(self) -> Iterator[Tested]:
        """The head that writes most in another behaviour and next to nothing in this one."""
        if self.model.tokenizer is None:
            return
        others: dict[str, list[str]] = {}
        names = [name for name in GENERATORS if name != _generator(self.rows)]
        # the strongest of another behaviour; where it writes here too, the next one
        for rank, name in product(range(_RANKS), names):
            if name not in others:
                others[name] = self._strongest(name)
            for head in others[name][rank : rank + 1]:
                if head not in self.writers and abs(self._share[head][0]) < _WRONG:
                    most = "the head that writes most" if rank == 0 else "a head that writes"
                    yield Tested(
                        hypothesis=RoleHypothesis((head,), WRITES), origin="wrong",
                        says=f"{most} in {name} and next to nothing here",
                    )  # fmt: skip
                    return

    def _strongest(self, name: str) -> list[str]:
        """The heads that write most in another behaviour; none where it cannot be written."""
        try:
            other = build(name, self.model.tokenizer, n=_OTHERS, seed=self.seed)
            added = attribute(self.model, other).mean
        except CutawayError:
            return []
        heads = added[(added["kind"] == "head_out").to_numpy()]
        order = np.argsort(-heads.to_numpy(), kind="stable")[:_RANKS]
        return [str(head) for head in heads["component"].to_numpy()[order]]


def _shares(bench: Bench) -> dict[str, tuple[float, float]]:
    """Of each head and MLP: its share of the logit difference, and its corrected p."""
    found = bench.attribution
    parts = found.values[:, found.values["kind"].isin(["head_out", "mlp_out"]).to_numpy()]
    p = sign_flips(parts.to_numpy().T, seed=bench.seed).p_corrected
    shares = parts.mean("example").to_numpy() / float(found.target.mean())
    names = [str(name) for name in parts["component"].to_numpy()]
    return dict(zip(names, zip(shares.tolist(), p.tolist(), strict=True), strict=True))


def _generator(rows: Behaviour) -> str:
    """The built-in behaviour; empty for one's own."""
    built_in = rows.provenance.get("source") == "built-in"
    return str(rows.provenance.get("generator")) if built_in else ""


def _short(part: str) -> str:
    """A part as roles write it."""
    site = Site.parse(part)
    return f"mlp {site.layer}" if site.index is None else f"{site.layer}.{site.index}"


def stated(hypotheses: Sequence[RoleHypothesis]) -> list[Tested]:
    """What a user states."""
    return [Tested(hypothesis=each, origin="stated") for each in hypotheses]


def own(observer: Observer) -> list[Tested]:
    """What the study states itself."""
    observed = [Tested(hypothesis=each, origin="observed") for each in observer.observed()]
    return [*observed, *observer.published()]
