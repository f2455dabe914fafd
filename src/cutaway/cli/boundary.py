"""Where errors become one sentence and an exit code.

A `CutawayError`, a full disk or a path that cannot be written ends in one sentence on standard
error and exit code 2, Ctrl-C in exit code 130; nobody sees a traceback for what they typed. Other
exceptions are our own mistakes and keep theirs.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from cutaway.errors import CutawayError

if TYPE_CHECKING:
    from pathlib import Path

    from cutaway.patch import Journal


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


@contextmanager
def kept_beside(target: Path, identity: Mapping[str, object]) -> Generator[Journal]:
    """The journal of the work that the block does and saves as `target`.

    It is gone once the block has saved its work, and where nothing was finished; after Ctrl-C a
    sentence says how to go on.
    """
    from cutaway.patch import Journal

    with Journal.beside(target, identity) as journal:
        try:
            yield journal
        except BaseException as error:
            if not journal.count:
                journal.remove()
            elif isinstance(error, KeyboardInterrupt):
                raise Interrupted(
                    f"Interrupted. What is finished is kept in {journal.path}; the same command "
                    "goes on from there."
                ) from None
            raise
        journal.remove()


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


class Group(TyperGroup):
    """The commands, run inside the boundary; one may have a name of two words."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that was typed, the longer name first."""
        two = " ".join(args[:2])
        if two in self.commands:
            return two, self.commands[two], args[2:]
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        with boundary():
            return super().invoke(ctx)
