"""Every discovery method against models whose circuit is known, and against none at all."""

from cutaway.ground_truth.agreement import Agreement, agreement
from cutaway.ground_truth.cases import MODELS, GroundTruthError, choose_methods, choose_models
from cutaway.ground_truth.measured import Row, identity, measure
from cutaway.ground_truth.reported import Report, known, nulls
from cutaway.ground_truth.table import GroundTruth, check_page, checked_file, into_page

__all__ = [
    "MODELS",
    "Agreement",
    "GroundTruth",
    "GroundTruthError",
    "Report",
    "Row",
    "agreement",
    "check_page",
    "checked_file",
    "choose_methods",
    "choose_models",
    "identity",
    "into_page",
    "known",
    "measure",
    "nulls",
]
