"""What is shown of long work on a terminal; tests of the command line see what pipes get."""

import errno
import io

import pytest

from bertram.progress import training_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", shown)
    with training_progress("bert[v1]") as report:
        report({"preparing": "tokenizer", "characters": 2_000_000})
        report({"step": 1, "total": 4, "loss": 0.5, "tokens_per_second": 10.0, "data_share": 0.1})
        report({"step": 4, "total": 4, "validation": 0.75})
    for words in ("bert[v1]", "4/4", "loss 0.500", "validation 0.7500", "10 tokens/s (data 10.0%)"):
        assert words in shown.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_who_closed_the_terminal_does_not_stop_the_work(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def isatty(self) -> bool:
            return terminal

        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("bertram.progress._PLAIN_SECONDS", 0.0)
    monkeypatch.setattr("sys.stderr", Closed())
    with training_progress("bert") as report:
        report({"preparing": "tokenizer", "characters": 2_000_000})
        report({"step": 1, "total": 4, "loss": 0.5, "tokens_per_second": 10.0, "data_share": 0.1})


def test_lines_for_a_pipe_guess_no_time_from_a_single_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bertram.progress._PLAIN_SECONDS", 0.0)
    with training_progress("bert") as report:
        for step in (1, 2):
            report({"step": step, "total": 4, "loss": 0.5, "tokens_per_second": 10.0, "data_share": 0.1})
    first, second = capsys.readouterr().err.splitlines()
    assert first == "bert: step 1/4  loss 0.500  10 tokens/s (data 10.0%)"
    assert second.startswith("bert: step 2/4")
    assert second.endswith(" s left")
