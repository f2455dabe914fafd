"""What a head may do at `end` in a behaviour whose answers stand in its prompts.

A role says where `end` looks, and what the head must do with what it finds there:

| role | `end` looks at | and the head |
|---|---|---|
| name mover | earlier occurrences of the answer | raises the answer |
| negative name mover | the same | lowers the answer |
| S-inhibition | a wrong answer's last mention, if twice said | turns name movers away from it |
| copy suppression | a token predicted before the head's layer | lowers that token |

(Wang et al. 2022, "Interpretability in the Wild"; McDougall et al. 2023, "Copy Suppression".) The
names are those of the papers, but any behaviour whose answer or wrong answers stand earlier in its
prompt will do: an induction head is a name mover here. Occurrences are of the same token: " Mary"
and "Mary" are two. Where there is a label `S2` it is the last mention.

- *Raises* and *lowers* are direct attribution: the head's shares, by source position, of the
  behaviour's logit difference. Shares from wrong answers' places count as well, so that a head that
  copies everything it sees is no name mover.
- *Predicted* before a layer is, of the tokens in the prompt, the likeliest by the logit lens on the
  stream that enters that layer, if it is among the ten likeliest of all tokens (a tenth of them, in
  a small vocabulary). The token at `end` itself is left out, since early streams predict what they
  hold, and so is the first layer, before which nothing has been predicted. What is lowered is
  its logit less the mean logit, by the shares from its places.
- S-inhibition is measured as it is defined, on the name movers themselves (see `movers`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import METRICS, Coefficients
from cutaway.model.model import Model
from cutaway.model.sites import Site

Keys = Bool[Tensor, "batch position"]
_AMONG = 10
_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class Looked:
    """Where `end` looks on some examples, and which logits the head is to move."""

    keys: Keys
    """The positions that the head must look at; none in an example that says nothing."""
    counted: Keys
    """The positions whose shares count."""
    target: Coefficients
    """The logits that are raised or lowered."""
    centred: bool = False
    """Whether the mean logit is taken off them."""


@dataclass(frozen=True, kw_only=True)
class Role:
    """Something that a head may do at `end`."""

    name: str
    """Its name."""
    says: str
    """What the head does, in words."""
    needs: str
    """What prompts must have, in words that follow "no prompt has"."""
    sign: int
    """1 where the head raises what it looks for, or the answer; -1 where it lowers it."""
    look: Callable[[Behaviour, Tensor | None], Looked]
    """Where it looks, from the examples and, if `predicts`, the logits before its layer (None:
    nothing has been predicted yet)."""
    predicts: bool = False
    """Whether where it looks depends on what is predicted before its layer."""
    steers: bool = False
    """Whether it acts on other heads' attention rather than on logits."""


def occurrences(rows: Behaviour, tokens: Sequence[Sequence[int]]) -> Keys:
    """Where each example has one of its tokens before `end`."""
    found = torch.zeros_like(rows.clean.mask)
    for row, listed in enumerate(tokens):
        found[row] = torch.isin(rows.clean.ids[row], torch.tensor(list(listed)))
    return found & before_end(rows)


def before_end(rows: Behaviour) -> Keys:
    """The real positions before `end`."""
    places = torch.arange(rows.clean.mask.shape[1])
    return rows.clean.mask & (places < rows.clean.labels["end"][:, None])


def _answer(rows: Behaviour, predicted: Tensor | None) -> Looked:
    right, wrong = occurrences(rows, rows.answers), occurrences(rows, rows.wrong_answers)
    spoken = right & right.any(dim=1)[:, None]
    return Looked(
        keys=spoken, counted=spoken | wrong, target=METRICS["logit_diff"].coefficients(rows)
    )


def _said_again(rows: Behaviour, predicted: Tensor | None) -> Looked:
    keys = torch.zeros_like(rows.clean.mask)
    earlier = before_end(rows)
    for row, wrong in enumerate(rows.wrong_answers):
        for token in wrong:
            places = ((rows.clean.ids[row] == token) & earlier[row]).nonzero()[:, 0]
            if len(places) > 1:
                keys[row, places[-1]] = True
    if "S2" in rows.labels:
        keys = torch.zeros_like(keys)
        keys[torch.arange(len(rows)), rows.clean.labels["S2"]] = True
        keys &= earlier
    return Looked(keys=keys, counted=keys, target=METRICS["logit_diff"].coefficients(rows))


def _nothing(rows: Behaviour) -> Looked:
    none = torch.zeros_like(rows.clean.mask)
    target = Coefficients(
        ids=torch.zeros(len(rows), 1, dtype=torch.long), weights=torch.zeros(len(rows), 1)
    )
    return Looked(keys=none, counted=none, target=target, centred=True)


def _predicted(rows: Behaviour, predicted: Tensor | None) -> Looked:
    if predicted is None:
        return _nothing(rows)
    ids, row = rows.clean.ids, torch.arange(len(rows))
    logits = predicted.float().cpu()
    own = ids[row, rows.clean.labels["end"]]
    inside = before_end(rows) & (ids != own[:, None])
    read = logits.gather(1, ids).masked_fill(~inside, -torch.inf)
    token = ids.gather(1, read.argmax(dim=1, keepdim=True))
    rank = (logits > logits.gather(1, token)).sum(dim=1)
    sure = inside.any(dim=1) & (rank < max(1, min(_AMONG, logits.shape[1] // 10)))
    keys = inside & (ids == token) & sure[:, None]
    target = Coefficients(ids=token, weights=torch.ones(len(rows), 1))
    return Looked(keys=keys, counted=keys, target=target, centred=True)


@torch.no_grad()
def predicted_by(
    model: Model, stream: Float[Tensor, "batch d_model"]
) -> Float[Tensor, "batch vocab"]:
    """What the logit lens reads of a stream."""
    return model.unembed(model.anatomy.final_norm(stream.to(model.dtype)))


def predicted_before(
    model: Model, rows: Behaviour, layer: int
) -> Float[Tensor, "batch vocab"] | None:
    """What is predicted at `end` by the stream that enters a layer; None for the first."""
    if layer == 0:
        return None
    site = Site("resid_pre", layer)
    stream = model.run(rows.clean, keep=[site])[site]
    end = rows.clean.labels["end"].to(stream.device)
    return predicted_by(model, stream[torch.arange(len(rows), device=stream.device), end])


def mean_direction(model: Model) -> Float[Tensor, " d_model"]:
    """The direction of `final_norm` that the mean logit reads."""
    parts = torch.arange(model.d_vocab).split(_ROWS)
    total = torch.stack([model.logit_directions(part).sum(dim=0) for part in parts])
    return total.sum(dim=0) / model.d_vocab


def why_not(role: Role, behaviour: Behaviour) -> str | None:
    """Why a role cannot be looked for in a behaviour, in one sentence; None when it can.

    What is predicted is known only when a model has run.
    """
    if role.predicts or bool(role.look(behaviour, None).keys.any()):
        return None
    return f"{role.name}: no prompt of {behaviour.name!r} has {role.needs}."


_LISTED = (
    Role(
        name="name mover", says="looks at the answer and raises it",
        needs="its answer before its end", sign=1, look=_answer,
    ),
    Role(
        name="negative name mover", says="looks at the answer and lowers it",
        needs="its answer before its end", sign=-1, look=_answer,
    ),
    Role(
        name="S-inhibition",
        says="looks at the wrong answer's second mention and turns the name movers away from it",
        needs="a wrong answer that is said twice before its end", sign=1, look=_said_again,
        steers=True,
    ),
    Role(
        name="copy suppression", says="looks at a token that is predicted and lowers it",
        needs="a token that is predicted and stands in it", sign=-1, look=_predicted,
        predicts=True,
    ),
)  # fmt: skip

ROLES: Mapping[str, Role] = MappingProxyType({each.name: each for each in _LISTED})
"""Every role by name."""
