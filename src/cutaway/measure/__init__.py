"""What every measurement on a model stands on: batches that fit, results that can be kept."""

from cutaway.measure.batches import Progress, Prompts
from cutaway.measure.result import Result, ResultError, interval

__all__ = ["Progress", "Prompts", "Result", "ResultError", "interval"]
