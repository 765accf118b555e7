"""The errors that Bertram raises on purpose; the command line prints their one line and exits with their code."""

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType


class BertramError(Exception):
    """Something failed that the user should read about in one line."""

    exit_code = 1


class BadInput(BertramError, ValueError):
    """The user's file, argument or text cannot be used as it is."""

    exit_code = 2


def bad_option(name: str, value: object, rule: str) -> BadInput:
    """The error that an option, named as in Python, has this value and breaks this rule."""
    return BadInput(f"--{name.replace('_', '-')} {value!r:.40}: {rule}")


class NoCandidateFits(BertramError):
    """A comparison ended and no candidate keeps within the stated limits."""

    exit_code = 3


def require_all(modules: Iterable[str], extra: str) -> None:
    """`require` each of several, before work that would end for want of one."""
    for module in modules:
        require(module, extra)


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra brings it.

    Raises:
        BadInput: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise BadInput(
            f"{module.split('.')[0]} is not installed; it comes with: pip install 'bertram[{extra}]'"
        ) from None


def line_of(error: OSError) -> str:
    """What the system refused, in one line: the file, where there is one, and why."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


@contextmanager
def failing_as(reason: str) -> Iterator[None]:
    """Tell in one line what a library raises that has no narrower errors.

    Panics of Rust, which are not even Exceptions, come with lines of their own before it.

    Raises:
        BadInput: it raised something.
    """
    try:
        yield
    except (BadInput, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        said = next(iter(str(error).splitlines()), "")
        raise BadInput(f"{reason} ({said:.200})") from None


@contextmanager
def failing_in(place: object) -> Iterator[None]:
    """Say where it is that something is refused: `place`, such as a file, comes before the reason.

    Raises:
        BadInput: something was refused.
    """
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{place}: {error}") from None


def check_utf8(argument: str) -> None:
    """Refuse an argument that is not valid UTF-8, such as a name from an old archive; no file of ours could hold it.

    Raises:
        BadInput: it is not in UTF-8.
    """
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{argument!a}: is not in UTF-8, as names of files and texts must be") from None
