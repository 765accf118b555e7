"""Every script says how it is used, and begins nothing, when it is asked for --help."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [*(ROOT / "scripts").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
SCRIPTS = [file for file in FILES if "__main__" in file.read_text(encoding="utf-8")]


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # they are in sys.argv
@pytest.mark.parametrize("script", sorted(SCRIPTS), ids=lambda script: script.name)
def test_help(script, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    monkeypatch.syspath_prepend(script.parent)
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(script), run_name="__main__")
    assert left.value.code in (0, None)
    assert capsys.readouterr().out.lower().startswith("usage: ")
