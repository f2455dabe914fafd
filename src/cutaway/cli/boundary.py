"""Where errors become one sentence and an exit code.

A `CutawayError`, a full disk or a path that cannot be written ends in one sentence on standard
error and exit code 2, Ctrl-C in exit code 130; nobody sees a traceback for what they typed. Other
exceptions are our own mistakes and keep theirs.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from cutaway.errors import CutawayError


class Interrupted(Exception):  # noqa: N818 (it is no error)
    """Ctrl-C, with a sentence about how to go on."""


@contextmanager
def boundary() -> Generator[None]:
    """Run a command; see the module docstring."""
    try:
        with warnings.catch_warnings():
            # other packages' advice to developers; ours are errors or sentences
            warnings.simplefilter("ignore")
            yield
    except CutawayError as error:
        _say(f"Error: {error}")
        raise typer.Exit(2) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _say(f"Error: {error.strerror or error}{where}; free some space or name another place.")
        raise typer.Exit(2) from None
    except Interrupted as interrupted:
        _say(str(interrupted))
        raise typer.Exit(130) from None
    except KeyboardInterrupt:
        _say("Interrupted; nothing was left half done, and the same command starts again.")
        raise typer.Exit(130) from None


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


class Group(TyperGroup):
    """The commands, run inside the boundary."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        with boundary():
            return super().invoke(ctx)
