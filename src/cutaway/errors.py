"""Every error that Cutaway raises at its boundary.

A message is one sentence that says what was found, what was expected and what to do about it.
The command line prints it without a traceback and exits with code 2.
"""


class CutawayError(Exception):
    """Something the user asked for cannot be done, and the message says why."""


class ModelError(CutawayError):
    """A model could not be found, opened safely, understood or verified."""


class SiteError(CutawayError):
    """A site, head, position, neuron or row that this model or run does not have."""


class InputError(CutawayError):
    """Text or tokens that cannot be fed to this model."""


class BehaviourError(CutawayError):
    """Prompts, answers or labels of a behaviour that do not fit together or with a tokenizer."""


class StudyError(CutawayError):
    """A study directory that cannot be written, or belongs to another study."""
