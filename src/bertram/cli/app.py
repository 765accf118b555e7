"""The program: all its commands, and how it ends."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, get_args

from cyclopts import App, CycloptsError, Parameter, Token, convert

from bertram import __version__
from bertram.cli import answering, shipping, training
from bertram.errors import BadInput, BertramError, check_utf8, line_of
from bertram.interruption import Interrupted, stoppable


def _unrounded(kind: Any, tokens: Sequence[Token]) -> Any:
    """A value as cyclopts converts it, but for a fraction in place of a whole number, which it would round."""
    if int in (kind, *get_args(kind)) and "." in tokens[0].value:
        raise ValueError(f"{tokens[0].value} is no whole number.")
    return convert(kind, tokens)


app = App(
    name="bertram",
    version=__version__,
    help="Train, compare and ship BERT, ALBERT and encoder–decoder models on your own hardware.",
    default_parameter=Parameter(converter=_unrounded),
    suppress_keyboard_interrupt=False,
)

app.command(training.check)
app.command(training.train)
app.command(training.compare)
app.command(training.pretrain)
app.command(training.shrink)
app.command(answering.evaluate)
app.command(answering.predict, alias="classify")
app.command(answering.embed)
app.command(answering.tag)
app.command(answering.fill_mask)
app.command(answering.translate)
app.command(answering.summarize)
app.command(shipping.export)
app.command(shipping.inspect)
app.command(shipping.bench)
app.command(shipping.version)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0; 1 I/O or internal error; 2 bad input; 3 nothing fits; 129, 130 or 143 stopped."""
    given = sys.argv[1:] if arguments is None else arguments
    _prepare_streams()
    try:
        for argument in given:
            check_utf8(argument)
        with stoppable():
            app(given, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(" ".join(str(error).split()), BadInput.exit_code)
    except BertramError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except MemoryError:
        _fail("out of memory", 1)
    except OSError as error:
        _fail(line_of(error), 1)
    except Interrupted as stop:
        _fail(str(stop), stop.exit_code)
    except KeyboardInterrupt:
        _fail("stopped at once", 130)


def _prepare_streams() -> None:
    """What a caller closed is empty, and what we write is UTF-8 as what we read, whatever the locale says."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.encoding.lower() != "utf-8":
        sys.stdout.reconfigure(encoding="utf-8")


def _fail(line: str, code: int) -> None:
    with suppress(OSError):  # the terminal was closed
        sys.stderr.write(f"bertram: {line}\n")
    sys.exit(code)
