"""Model organisms: models whose workings are known, to try methods on."""

from cutaway.organisms.nulls import NULLS, null
from cutaway.organisms.organism import ORGANISMS, Organism, OrganismError, constructed
from cutaway.organisms.shipped import TRAINED, trained

__all__ = [
    "NULLS",
    "ORGANISMS",
    "TRAINED",
    "Organism",
    "OrganismError",
    "constructed",
    "null",
    "trained",
]
