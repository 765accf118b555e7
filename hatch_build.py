"""Builds the engine's kernels with the package.

Without a C++ compiler the package is whole all the same, and engine files are computed by numpy.
"""

import runpy
import subprocess
import sys
import sysconfig
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = "src/bertram/inference/native"


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the library beside its sources; the wheel is then one for this kind of machine."""
        if self.target_name != "wheel":
            return
        try:
            runpy.run_path(f"{self.root}/{NATIVE}/make.py")["make"]()
        except (OSError, subprocess.CalledProcessError) as error:
            sys.stderr.write(f"bertram: engine files will be slow, as there are no compiled kernels: {error}\n")
            return
        build_data["artifacts"].append(f"{NATIVE}/*.so")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
