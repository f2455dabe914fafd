"""A head, however it is written."""

from __future__ import annotations

from cutaway.errors import SiteError
from cutaway.model.sites import Site

Head = str | Site | tuple[int, int]
"""A head: (layer, head), "9.6", "pattern.9.6", or a site that names one."""


def layer_and_head(head: Head) -> tuple[int, int]:
    """A head's layer and number, however it is written."""
    if isinstance(head, tuple):
        return int(head[0]), int(head[1])
    text = str(head)
    parts = text.split(".")[-2:]
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise SiteError(f"{text!r} is not a head; write (layer, head) or 'LAYER.HEAD'.")
    return int(parts[0]), int(parts[1])
