"""Programs and commands in a process of their own, where torch cannot be imported."""

import os
import subprocess
import sys

WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTorch())
"""


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "80", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False, timeout=120
    )


def run_without_torch(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `bertram …` where torch cannot be imported."""
    program = f"{WITHOUT_TORCH}from bertram.cli import main; main({list(map(str, arguments))})"
    return run_python(program)
