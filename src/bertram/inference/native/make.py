"""Compiles the kernels into one shared library beside their sources: `python make.py`. The package's build calls it."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
LIBRARY = HERE / "libbertram.so"
FLAGS = ["-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
LINKED = ["-shared", "-pthread", *(["-static-libstdc++", "-static-libgcc"] if sys.platform == "linux" else [])]
X86 = {
    "avx512": ["-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"],
    "avxvnni": ["-march=x86-64-v3", "-mavxvnni"],
    "avx2": ["-march=x86-64-v3"],
}


def make() -> None:
    """Compile kernels.cpp once for each kind of processor, and the rest once.

    Raises:
        OSError: there is no compiler.
        subprocess.CalledProcessError: it failed.
    """
    compiler = shlex.split(os.environ.get("CXX", "")) or [next(filter(shutil.which, ("c++", "g++", "clang++")), "c++")]
    variants = {"portable": list[str](), **(X86 if platform.machine() in ("x86_64", "AMD64") else {})}
    with tempfile.TemporaryDirectory(dir=HERE) as scratch:  # whence it can replace one that is in use
        objects = [Path(scratch, f"{name}.o") for name in variants]
        for (name, flags), target in zip(variants.items(), objects, strict=True):
            source = ["-c", str(HERE / "kernels.cpp"), "-o", str(target)]
            subprocess.run([*compiler, *FLAGS, *flags, f"-DVARIANT={name}", *source], check=True)
        library = Path(scratch, LIBRARY.name)
        subprocess.run([*compiler, *FLAGS, HERE / "encoder.cpp", *objects, *LINKED, "-o", library], check=True)
        library.replace(LIBRARY)


if __name__ == "__main__":
    make()
