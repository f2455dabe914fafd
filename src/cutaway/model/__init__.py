"""A Hugging Face decoder, opened: sites, anatomy, taps, runs, generation, verification."""

from cutaway.model.edits import (
    Edit,
    ablate,
    add,
    apply,
    freeze,
    project_out,
    replace,
    scale,
)
from cutaway.model.family import FAMILIES, Family, declare
from cutaway.model.load import open_model
from cutaway.model.model import Model
from cutaway.model.run import Run
from cutaway.model.sites import KINDS, Site
from cutaway.model.taps import Tap
from cutaway.model.tokens import Tokens
from cutaway.model.verify import Check, Verification

__all__ = [
    "FAMILIES",
    "KINDS",
    "Check",
    "Edit",
    "Family",
    "Model",
    "Run",
    "Site",
    "Tap",
    "Tokens",
    "Verification",
    "ablate",
    "add",
    "apply",
    "declare",
    "freeze",
    "open_model",
    "project_out",
    "replace",
    "scale",
]
