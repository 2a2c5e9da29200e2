"""Compiles the kernels: when the package is built, and again with ``python -m streamtrain.kernels.build``.

Any C compiler with ``__builtin_shufflevector`` and GNU's vectors will do: GCC 12, clang, or the one in the package
``ziglang``. Their libraries give the same bits. This module imports nothing but the standard library: the
build of the package runs it before anything is installed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["FLAGS", "LIBRARIES", "ZIG", "CompilerError", "compile_kernels", "find_compiler", "zig_has_wheels"]

FOLDER = Path(__file__).parent
LIBRARIES = {"_kernels.so": ()} | (
    {"_kernels_avx2.so": ("-mavx2", "-mbmi2")} if platform.machine().lower() in ("x86_64", "amd64") else {}
)
"""Names of the files, and the flags of each beside those of all."""

FLAGS = (
    "-std=gnu17",
    "-O3",
    "-ffp-contract=off",  # a fused multiply-add would give other bits
    "-fno-math-errno",  # so that a square root is an instruction
    "-Wno-psabi",  # vectors are passed between static functions only
    "-shared",
    "-fPIC",
)
# zig would otherwise compile for the processor of this machine alone, and add checks and symbols.
ZIG = (sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline", "-fno-sanitize=undefined", "-s")
_ZIG_MACHINES = ("x86_64", "amd64", "i686", "aarch64", "arm64", "armv7l", "ppc64le", "riscv64", "s390x")
_SECONDS = 300


class CompilerError(Exception):
    """A compiler failed; the message is its output."""


def find_compiler() -> tuple[str, ...] | None:
    """The first command that can compile the kernels: ``$CC`` or else cc, gcc and clang; then zig. None if there is none."""
    named = os.environ.get("CC")
    commands = [tuple(shlex.split(named))] if named else [(name,) for name in ("cc", "gcc", "clang")]
    found = next((command for command in commands if shutil.which(command[0]) and _works(command)), None)
    return found or (ZIG if importlib.util.find_spec("ziglang") else None)


def zig_has_wheels() -> bool:
    """Whether the package ``ziglang`` exists for this kind of machine."""
    return sys.platform in ("linux", "darwin") and platform.machine().lower() in _ZIG_MACHINES


def compile_kernels(command: tuple[str, ...], folder: Path, *, extra: tuple[str, ...] = ()) -> list[Path]:
    """Compile all ``LIBRARIES`` into a folder, and return the files. Existing files are replaced only after
    all libraries were compiled. extra: more flags.

    Raises CompilerError if a compilation fails.
    """
    with tempfile.TemporaryDirectory(prefix="streamtrain-") as work:
        for name in LIBRARIES:
            _compile(command, Path(work) / name, (*LIBRARIES[name], *extra))
        for name in LIBRARIES:
            beside = folder / f"{name}.part"
            shutil.copyfile(Path(work) / name, beside)
            beside.replace(folder / name)
    return [folder / name for name in LIBRARIES]


def _compile(command: tuple[str, ...], to: Path, flags: tuple[str, ...]) -> None:
    sources = sorted(map(str, FOLDER.glob("*.c")))
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(to.parent), "ZIG_LOCAL_CACHE_DIR": str(to.parent)}  # else some stay behind
    result = subprocess.run(
        [*command, *FLAGS, *flags, "-o", str(to), *sources],
        capture_output=True, text=True, check=False, timeout=_SECONDS, env=os.environ | caches,
    )  # fmt: skip
    if result.returncode:
        raise CompilerError(f"{shlex.join(command)} could not compile {to.name}: {result.stderr.strip()}")


def _works(command: tuple[str, ...]) -> bool:
    """Whether a compiler can compile the kernels: it may be too old, or lack the headers of the C library."""
    with tempfile.TemporaryDirectory(prefix="streamtrain-") as work:
        try:
            _compile(command, Path(work) / "_kernels.so", ("-O0",))
        except CompilerError:
            return False
    return True


def main() -> int:
    """Compile all libraries into the package; returns the exit code."""
    command = find_compiler()
    if command is None:
        print("error: no working C compiler: install one, or `pip install ziglang`", file=sys.stderr)
        return 2
    for path in compile_kernels(command, FOLDER):
        print(f"{path}: compiled with {shlex.join(command)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
