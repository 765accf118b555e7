"""SIGINT, SIGTERM and SIGHUP: a training answers them with a checkpoint, everything else by leaving at once."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType

_HANGUP = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()  # a terminal was closed; Windows has none
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *_HANGUP)
_ECHO = 1.0  # seconds in which a signal that comes twice counts once: init systems send it to every process of a group
_PATIENCE = 8.0  # seconds that native code may go on after a signal


_on_its_way: list[int] = []
"""A signal whose Interrupted has not come out yet, or never will: in a destructor Python says it and goes on."""


class Interrupted(KeyboardInterrupt):
    """Raised when a signal asks to stop; not an `Exception`, so that `except Exception` does not swallow it."""

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{hint}")
        self.number, self.exit_code = number, 128 + number


class StopRequests:
    """While entered, the first signal is noted and `check` raises it; a later one stops at once, whatever is going on.

    `tell` is called with the first signal's number.
    """

    _active: "StopRequests | None" = None

    def __init__(
        self,
        tell: Callable[[int], object] = lambda number: None,
        hint: str = "; a checkpoint was written, and the same command with --resume goes on from it",
    ) -> None:
        self._tell, self._hint = tell, hint
        self._number, self._noted = 0, 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequests":
        for number in _heard():
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: whoever runs us there handles signals
                break
        StopRequests._active = self
        if _on_its_way:
            self._note(_on_its_way[0], None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        StopRequests._active = None
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if kind is None and self._number:  # it came after the last check
            os.kill(os.getpid(), self._number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._number:
            self._number, self._noted = number, now
            self._tell(number)
        elif now - self._noted > _ECHO:
            raise KeyboardInterrupt  # not Interrupted: what is half done must not be saved

    @property
    def requested(self) -> bool:
        """Whether a signal came since the beginning."""
        return self._number != 0

    def check(self) -> None:
        """Stop if that was asked for.

        Raises:
            Interrupted: a signal came since the beginning.
        """
        if self.requested:
            self.stop()

    def stop(self) -> None:
        """Stop, for the signal that came or that came to another process.

        Raises:
            Interrupted: always.
        """
        raise Interrupted(self._number or signal.SIGTERM, self._hint)


def check_stop() -> None:
    """`check` of the training that is running, if one is: long work inside it (an evaluation) calls this.

    Raises:
        Interrupted: a signal came.
    """
    if StopRequests._active is not None:
        StopRequests._active.check()


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is gone afterwards.

    Raises:
        Interrupted: a signal came; the checkpoint that a training wrote here promises nothing.
    """
    from tempfile import TemporaryDirectory  # which loads what no command needs to say its help

    with TemporaryDirectory() as folder:
        try:
            yield Path(folder)
        except Interrupted as stopped:
            raise Interrupted(stopped.number) from None


@contextmanager
def stoppable() -> Iterator[None]:
    """For a program's main thread: a signal raises Interrupted where it comes, unless StopRequests are entered.

    Native code, such as a tokenizer's trainer, lets no handler run until it returns; if that takes too long, the
    process ends without it. Files are whole or not there all the same.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    left = threading.Event()
    watch = threading.Thread(target=_watch, args=(reader, left), daemon=True)
    before = {number: signal.signal(number, _leave) for number in _heard()}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)  # written to even while native code runs
    watch.start()
    try:
        yield
    finally:
        _on_its_way.clear()
        left.set()
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)
        watch.join()
        os.close(reader)


def _heard() -> list[signal.Signals]:
    """The signals to answer: a hangup is ignored where `nohup` says so."""
    return [n for n in _SIGNALS if n not in _HANGUP or signal.getsignal(n) is not signal.SIG_IGN]


def _leave(number: int, frame: FrameType | None) -> None:
    _on_its_way[:] = [number]
    raise Interrupted(number)


def _watch(reader: int, left: threading.Event) -> None:
    for number in iter(lambda: os.read(reader, 1), b""):
        if number[0] in _SIGNALS and not left.wait(_PATIENCE) and StopRequests._active is None:
            with suppress(OSError):  # whose terminal was closed
                os.write(2, f"bertram: {Interrupted(number[0])}\n".encode())
            os._exit(128 + number[0])
