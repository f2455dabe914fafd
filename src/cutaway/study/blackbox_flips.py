"""What breaks it: for each prompt the smallest change that turns the model's answer round.

Behavioural testing by perturbation (Ribeiro et al. 2020, "Beyond accuracy"), as a search for the
smallest counterexample:

1. A change puts another value into one slot of a prompt (`behaviours.recipe`). The right answer of
   the changed prompt is the recipe's own, so a change never asks for what is no longer right.
2. Single changes: all of them, or, where their number is above half of the passes, those to a
   sample of each slot's values, the same ones for every prompt.
3. Two changes, then more: the `beam` edits with the smallest margin are each joined with single
   changes of other slots, in the order of what both would take from the margin if they added up,
   as far as the passes reach. A prompt that is flipped is not searched further.
4. Of an edit of three changes or more that flips, every part that was not run is run, for which a
   quarter of the passes is kept back: what is reported has no smaller part that flips.
5. Among the flips of one size, the one with the fewest changed tokens is reported (edit distance
   between the two prompts), then the one with the lowest margin.

So one change is the smallest by proof where all were run; two and more are the smallest found.
The single changes also say how the behaviour fares with each value of each slot, on the same
prompts (`Flips.by_slot`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TypeVar

import numpy as np

from cutaway.behaviours import Behaviour, Choice, Chosen, choices
from cutaway.errors import BehaviourError, InputError
from cutaway.measure.batches import Progress
from cutaway.model import Model
from cutaway.study.blackbox_flipped import Flip, Flips, Searched, Tried, gathered
from cutaway.study.blackbox_prompts import Question, Speller, ask

Edit = frozenset[tuple[str, str]]
"""Slots with their new values."""
Item = TypeVar("Item")
_PAIR = 2
"""Edits of so many changes are made of single ones, all of which were run."""


def flips(
    model: Model,
    behaviour: Behaviour,
    *,
    slots: Chosen | None = None,
    examples: int = 12,
    most: int = 3,
    beam: int = 6,
    passes: int = 3000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Flips:
    """Search the smallest change that flips each of some examples.

    Args:
        model: the opened model.
        behaviour: its examples.
        slots: what they were filled with; found by itself for built-in behaviours.
        examples: at most so many are searched, drawn with the seed.
        most: at most so many slots are changed at once.
        beam: so many edits of each prompt are carried on to the next size.
        passes: at most so many prompts are run for all of it, and never more.
        seed: chooses the examples and, where not all are run, the changes.
        progress: is told of prompts run, of `passes`.

    Raises:
        BehaviourError: prompts without slots, or a model without a tokenizer.
        InputError: a number below 1, or fewer passes than examples.
    """
    for name, value in (("examples", examples), ("most", most), ("beam", beam)):
        if value < 1:
            raise InputError(f"{name} must be 1 or more; found {value}.")
    known = choices(behaviour, model.tokenizer) if slots is None else slots
    rng = np.random.default_rng(seed)
    speller = Speller(behaviour, model.tokenizer)
    at = [row for row, choice in enumerate(known.choices) if choice is not None]
    if not at:
        raise BehaviourError(
            f"No example of {behaviour.name!r} is as its generator drew it, so that its slots are "
            "not known; build the behaviour again."
        )
    rows = sorted(_sample(at, examples, rng))
    if passes < len(rows):
        raise InputError(
            f"The search over {len(rows)} examples needs at least as many passes; found {passes}."
        )
    search = _Search(model, speller, known, rows, passes, rng, progress)
    search.check(behaviour)
    for size in range(1, most + 1):
        search.go_to(size, most, beam)
    settings = {"examples": examples, "most": most, "beam": beam, "passes": passes, "seed": seed}
    return gathered(
        model, behaviour, [search.found(row) for row in rows], search.singles, search.levels,
        settings,
    )  # fmt: skip


class _Search:
    """What was run of each prompt, and what is left to run."""

    def __init__(
        self,
        model: Model,
        speller: Speller,
        known: Chosen,
        rows: list[int],
        passes: int,
        rng: np.random.Generator,
        progress: Progress | None,
    ) -> None:
        self.model, self.speller, self.recipe = model, speller, known.recipe
        self.rows, self.passes, self.left, self.rng = rows, passes, passes, rng
        self.progress = progress
        self.base = {row: _known(known.choices[row]) for row in rows}
        self.margins: dict[int, dict[Edit, float]] = {row: {} for row in rows}
        self.asked: dict[int, dict[Edit, Question]] = {row: {} for row in rows}
        self.none: dict[int, dict[Edit, None]] = {row: {} for row in rows}
        self.texts: dict[int, set[str]] = {row: set() for row in rows}
        self.singles: list[Tried] = []
        self.levels: list[Searched] = []
        self._run([(row, frozenset()) for row in rows])

    def check(self, behaviour: Behaviour) -> None:
        """Refuse slots that do not give the examples' own prompts and answers."""
        for row in self.rows:
            found = self.asked[row].get(frozenset())
            own = (tuple(behaviour.clean.row_ids(row)), *_sets(behaviour, row))
            if found is None or own != (found.ids, set(found.answers), set(found.wrong_answers)):
                raise BehaviourError(
                    f"Written from its slots, example {row} is not the behaviour's own: its "
                    "answers were changed, or the recipe is that of other prompts."
                )

    def open(self) -> list[int]:
        """The prompts that are answered well and not flipped yet."""
        return [row for row in self.rows if min(self.margins[row].values()) > 0]

    def go_to(self, size: int, most: int, beam: int) -> None:
        """Run edits of this size."""
        # at first all are run, for what each value does is told of every prompt
        rows = self.rows if size == 1 else self.open()
        if not rows:
            return
        share = self.left // 2 if size == 1 < most else self.left // (most - size + 1)
        if size > _PAIR:
            share -= share // 4
        before = self.left
        if size == 1:
            wanted = self._all_singles(rows, share)
        else:
            wanted = [
                (row, edit) for row in rows for edit in self._joined(row, size, beam)
                [: share // len(rows)]
            ]  # fmt: skip
        void = self._run(wanted)
        if size > _PAIR:
            self._run(list(self._parts(rows, size)))
        self.levels.append(
            Searched(
                size=size, prompts=len(rows), tried=before - self.left, void=void,
                possible=len(rows) * self._possible(size),
            )
        )  # fmt: skip

    def _possible(self, size: int) -> int:
        """How many edits of this size the pools allow for one prompt."""
        others = [len(values) - 1 for values in self.recipe.slots.values()]
        # elementary symmetric polynomial: one slot from each subset of this size
        ways = [1, *([0] * size)]
        for count in others:
            for k in range(size, 0, -1):
                ways[k] += ways[k - 1] * count
        return ways[size]

    def _all_singles(self, rows: list[int], share: int) -> list[tuple[int, Edit]]:
        """Every change of one slot, or to as many values (for all prompts the same) as may be."""
        sizes = [len(values) for values in self.recipe.slots.values()]
        each = _most_of_each(sizes, share, len(rows))
        values = {
            slot: _sample(list(pool), each, self.rng) for slot, pool in self.recipe.slots.items()
        }
        wanted = [
            (row, frozenset({(slot, value)}))
            for row in rows for slot in values for value in values[slot]
            if value != self.base[row][slot]
        ]  # fmt: skip
        return _sample(wanted, share, self.rng)

    def _joined(self, row: int, size: int, beam: int) -> list[Edit]:
        """Edits of one size more, the most promising first."""
        found = self.margins[row]
        start = found[frozenset()]
        last = [edit for edit in found if len(edit) == size - 1]
        singles = [(edit, found[edit] - start) for edit in found if len(edit) == 1]
        promise: dict[Edit, float] = {}
        for edit in sorted(last, key=lambda edit: found[edit])[:beam]:
            slots = {slot for slot, _ in edit}
            for single, drop in singles:
                ((slot, _),) = single
                if slot not in slots and edit | single not in found:
                    promise[edit | single] = found[edit] + drop
        return sorted(promise, key=lambda edit: (promise[edit], sorted(edit)))

    def _parts(self, rows: list[int], size: int) -> dict[tuple[int, Edit], None]:
        """The parts that were not run of the edits that flip."""
        return {
            (row, part): None
            for row in rows
            for edit in self._flips(row)
            if len(edit) == size
            for part in self._not_run(row, edit)
        }

    def _not_run(self, row: int, edit: Edit) -> list[Edit]:
        """The parts of an edit of which it is not known whether they flip."""
        parts = [
            frozenset(part) for few in range(_PAIR, len(edit))
            for part in combinations(sorted(edit), few)
        ]  # fmt: skip
        margins, none = self.margins[row], self.none[row]
        return [part for part in parts if part not in margins and part not in none]

    def _flips(self, row: int) -> list[Edit]:
        return [edit for edit, margin in self.margins[row].items() if edit and margin <= 0]

    def _run(self, wanted: list[tuple[int, Edit]]) -> int:
        """Ask those that can be asked, as far as passes are left; gives how many cannot."""
        queue: list[tuple[int, Edit, Question]] = []
        void = 0
        for row, edit in wanted:
            if len(queue) >= self.left:
                break
            question = self._question(row, edit)
            if question is None:
                void += 1
                self.none[row][edit] = None
            else:
                queue.append((row, edit, question))
        spent = self.passes - self.left
        found = ask(
            self.model, [question for _, _, question in queue],
            progress=lambda done, _: self._told(spent + done),
        )  # fmt: skip
        self.left -= len(queue)
        for index, (row, edit, question) in enumerate(queue):
            self.margins[row][edit] = float(found.margin[index])
            self.asked[row][edit] = question
            if len(edit) == 1:
                ((slot, value),) = edit
                self.singles.append(
                    Tried(
                        example=row, slot=slot, value=value, margin=float(found.margin[index]),
                        logit_diff=float(found.logit_diff[index]),
                    )
                )  # fmt: skip
        return void

    def _question(self, row: int, edit: Edit) -> Question | None:
        """The edited prompt; None where there is none, or none that was not run already."""
        filled = self.recipe.write({**self.base[row], **dict(edit)})
        if filled is None or filled.clean.text in self.texts[row]:
            return None
        self.texts[row].add(filled.clean.text)
        return self.speller.question(filled.clean.text, filled.answers, filled.wrong_answers)

    def _told(self, done: int) -> None:
        if self.progress is not None:
            self.progress(done, self.passes)

    def found(self, row: int) -> Flip:
        """What is to be reported of one prompt."""
        margins, asked = self.margins[row], self.asked[row]
        start = asked[frozenset()]
        if margins[frozenset()] <= 0:
            return Flip(example=row, margin=margins[frozenset()], changes=0, before=start.text)
        sized = [
            (len(edit), distance(start.ids, asked[edit].ids), margins[edit], sorted(edit))
            for edit in self._flips(row)
            if not self._not_run(row, edit)
        ]
        if not sized:
            return Flip(example=row, margin=margins[frozenset()], changes=None, before=start.text)
        size, tokens, margin, changed = min(sized)
        after = asked[frozenset(changed)]
        return Flip(
            example=row, margin=margins[frozenset()], changes=size, before=start.text,
            tokens=tokens, flipped_margin=margin, after=after.text,
            edit={slot: (self.base[row][slot], value) for slot, value in changed},
            ids=after.ids, answers=after.answers, wrong_answers=after.wrong_answers,
        )  # fmt: skip


def distance(before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """The fewest tokens to put in, take out or replace to get from one prompt to the other."""
    row = list(range(len(after) + 1))
    for i, left in enumerate(before, start=1):
        corner, row[0] = row[0], i
        for j, right in enumerate(after, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (left != right))
    return row[-1]


def _sets(behaviour: Behaviour, row: int) -> tuple[set[int], set[int]]:
    return set(behaviour.answers[row]), set(behaviour.wrong_answers[row])


def _known(choice: Choice | None) -> Mapping[str, str]:
    assert choice is not None, "only examples with a choice are searched"
    return choice


def _sample(items: list[Item], count: int, rng: np.random.Generator) -> list[Item]:
    """At most `count` of the items, in their order."""
    if len(items) <= count:
        return items
    return [items[at] for at in sorted(rng.choice(len(items), size=count, replace=False))]


def _most_of_each(sizes: list[int], total: int, rows: int) -> int:
    """The largest number of values of each slot with which all rows stay within the total."""
    each = 1
    while each < max(sizes) and rows * sum(min(size, each + 1) for size in sizes) <= total:
        each += 1
    return each
