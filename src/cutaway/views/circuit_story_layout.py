"""Where the boxes of a circuit in short stand, and by which ways arrows go between them.

Boxes stand in columns by depth, heads in an upper row and MLPs in a lower one, between the two ends
that are as tall as the picture. An arrow that has to pass a box takes a lane of its own: above the
heads, below the MLPs, or between the rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from cutaway.views.circuit_values import CircuitNode
from cutaway.views.svg import NORMAL, SMALL, fitted
from cutaway.views.text import text_width

BAR, GAP, PILL, PILL_GAP, PAD = 26.0, 42.0, 22.0, 5.0, 9.0
"""Sizes in pixels: the ends' width, the room between columns, a part, and what is round it."""
LANE, HEADING = 13.0, 20.0
"""From a lane to the next, and the room above for the layers' numbers."""
_ACROSS, _ROOM = 3, 118.0


@dataclass(frozen=True)
class Box:
    """Parts of one layer with one role, or one of the two ends."""

    parts: tuple[CircuitNode, ...]
    """The parts, in the model's order."""
    role: str
    """What they do; empty where nothing is said of it."""
    column: int
    """Its column, from the left."""

    @property
    def kind(self) -> str:
        """What its parts are."""
        return self.parts[0].kind

    @property
    def end(self) -> bool:
        """Whether it is the prompt or the answer."""
        return self.kind in ("input", "logits")

    @property
    def below(self) -> bool:
        """Whether it stands in the lower row."""
        return self.kind == "mlp"

    @property
    def pills(self) -> list[str]:
        """What is written on each part."""
        return [short(part) for part in self.parts]

    @property
    def across(self) -> int:
        """How many parts stand beside each other."""
        return min(len(self.parts), _ACROSS if len(self.parts) != 4 else 2)

    @property
    def pill(self) -> float:
        """How wide a part is."""
        return max(text_width(text, NORMAL) for text in self.pills) + 14

    @property
    def width(self) -> float:
        """In pixels."""
        if self.end:
            return BAR
        pills = self.across * self.pill + (self.across - 1) * PILL_GAP
        named = max((text_width(line, SMALL) for line in self.lines), default=0.0)
        return max(pills, named, 52.0) + 2 * PAD

    @property
    def lines(self) -> list[str]:
        """The role, on at most two lines."""
        words, lines = self.role.split(), [""]
        for word in words:
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and text_width(longer, SMALL) > _ROOM:
                lines.append(word)
            else:
                lines[-1] = longer
        if len(lines) > 2:
            lines = [lines[0], " ".join(lines[1:])]
        return [fitted(line, _ROOM + 20) for line in lines if line]

    @property
    def height(self) -> float:
        """In pixels; that of the ends is the picture's."""
        rows = -(-len(self.parts) // self.across)
        return 2 * PAD + len(self.lines) * 14 + rows * (PILL + PILL_GAP) - PILL_GAP


@dataclass(frozen=True)
class Placed:
    """Where everything stands."""

    boxes: Sequence[Box]
    """Every box, from left to right."""
    x: dict[Box, float]
    """Each one's left side."""
    y: dict[Box, float]
    """Each one's top."""
    above: float
    """How far down the first lane above the heads is."""
    between: float
    """The same between heads and MLPs."""
    below: float
    """The same below the MLPs."""
    width: float
    """Of the whole picture."""
    height: float
    """Of the whole picture."""
    used: dict[float, int] = field(default_factory=lambda: defaultdict(int))
    """How many lanes are taken, by where the first of them is."""


def place(boxes: Sequence[Box], arrows: dict[tuple[Box, Box], float]) -> Placed:
    """Places for boxes in their columns, with room for the lanes that arrows take."""
    columns = sorted({box.column for box in boxes})
    in_column = {at: [box for box in boxes if box.column == at] for at in columns}
    x: dict[Box, float] = {}
    left = 0.0
    for members in in_column.values():
        wide = max(box.width for box in members)
        x |= {box: left + (wide - box.width) / 2 for box in members}
        left += wide + GAP
    upper = _tallest(in_column, below=False)
    lower = _tallest(in_column, below=True)
    lanes = _lanes(boxes, arrows)
    top = HEADING + 6 + lanes[0] * LANE
    middle = top + upper + 14 + lanes[1] * LANE
    bottom = middle + lower
    height = bottom + lanes[2] * LANE + 6
    y: dict[Box, float] = {}
    for members in in_column.values():
        if members[0].end:
            y[members[0]] = HEADING
            continue
        tall = sum(box.height for box in members) + 10 * (len(members) - 1)
        start = (middle + (lower - tall) / 2) if members[0].below else (top + (upper - tall) / 2)
        for box in members:
            y[box] = start
            start += box.height + 10
    return Placed(
        boxes, x, y, top - LANE * 0.6, top + upper + 7 + LANE * 0.5, bottom + LANE * 0.6,
        left - GAP, height,
    )  # fmt: skip


def _tallest(columns: dict[int, list[Box]], *, below: bool) -> float:
    return max(
        (
            sum(box.height for box in members) + 10 * (len(members) - 1)
            for members in columns.values()
            if not members[0].end and members[0].below == below
        ),
        default=0.0,
    )


def lane_of(boxes: Sequence[Box], source: Box, target: Box) -> int | None:
    """By which lane an arrow goes: 0 above, 1 between, 2 below; None straight across."""
    rows = {box.below for box in (source, target) if not box.end} or {True}
    passed = {box.below for box in boxes if source.column < box.column < target.column}
    if not rows & passed and len(rows) == 1:
        return None
    if len(rows) == 2:
        return 1 if passed else None
    return 2 if True in rows else 0


def _lanes(boxes: Sequence[Box], arrows: dict[tuple[Box, Box], float]) -> list[int]:
    taken = [lane_of(boxes, *ends) for ends in arrows]
    return [taken.count(lane) for lane in range(3)]


def short(node: CircuitNode) -> str:
    """What is written on a part: `2.1`, `MLP 0`."""
    if node.kind == "mlp":
        return f"MLP {node.layer}"
    return f"{node.layer}.{node.index}" if node.kind == "head" else node.name
