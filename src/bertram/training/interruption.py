"""SIGINT and SIGTERM as a request that the loop answers between two steps."""

import signal
from types import FrameType, TracebackType

from bertram.errors import BertramError


class Interrupted(BertramError):
    """A signal asked to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command with --resume goes on from here")
        self.exit_code = 128 + number


class StopRequests:
    """While entered, the first signal is noted and `check` raises it; a second one stops at once, as without us."""

    _active: "StopRequests | None" = None

    def __init__(self) -> None:
        self._number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequests":
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: whoever runs us there handles signals
                break
        StopRequests._active = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        StopRequests._active = None
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        signal.signal(number, self._before[number])  # type: ignore[arg-type]

    def check(self) -> None:
        """Raises:
        Interrupted: a signal came since the beginning.
        """
        if self._number:
            raise Interrupted(self._number)


def check_stop() -> None:
    """`check` of the training that is running, if one is: long work inside it (an evaluation) calls this.

    Raises:
        Interrupted: a signal came.
    """
    if StopRequests._active is not None:
        StopRequests._active.check()
