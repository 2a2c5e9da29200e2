"""Runs the kernels under AddressSanitizer and UndefinedBehaviorSanitizer.

A copy of the package gets kernels that were compiled with both. In it the tests of the kernels and of the parts that call them
run, with a thousand examples each, and then every kernel as often as ``--rounds`` says with other random numbers, with and
without AVX2. A read or a write beyond an array, a misaligned address, an overflow or a shift too far ends it with the report
of the sanitizer, and the exit code is 1.

    python bench/sanitize.py                      gcc
    python bench/sanitize.py --compiler clang
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from streamtrain.kernels import build

ROOT = Path(__file__).resolve().parent.parent
CALLERS = ("tests/learn", "tests/prepare/test_vocabulary.py", "tests/columns", "tests/metrics/test_metrics.py")
FLAGS = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
RUNTIME = {"gcc": ("libasan.so", ()), "clang": ("libclang_rt.asan-x86_64.so", ("-shared-libasan",))}
"""Of each compiler, the library that must be loaded before Python, and more flags."""

ROUNDS = """
import sys
import numpy as np
sys.path.insert(0, "tests/kernels")
import test_build as tests
from streamtrain import kernels
from streamtrain.kernels import compiled

for name in ("_kernels.so", "_kernels_avx2.so"):
    library, _ = compiled.open_library(compiled.FOLDER / name)
    if name == "_kernels.so" or library.st_has_avx2():
        with kernels.using(library):
            for seed in range(int(sys.argv[1])):
                for kernel in tests.KERNELS:
                    kernel(np.random.default_rng(seed))
        print(name, "clean:", sys.argv[1], "rounds of", ", ".join(kernel.__name__ for kernel in tests.KERNELS))
"""


def runtime(compiler: str) -> str:
    """The path of the sanitizers' library."""
    library = RUNTIME[compiler][0]
    asked = subprocess.run(
        [compiler, f"-print-file-name={library}"], capture_output=True, text=True, check=True, timeout=60
    )
    path = asked.stdout.strip()
    if not Path(path).is_file():
        raise FileNotFoundError(f"{compiler} has no {library}")
    return path


def copied(folder: Path, compiler: str) -> None:
    """A copy of the package and its tests, with kernels that watch what they do."""
    leave_out = shutil.ignore_patterns("*.so", "__pycache__")
    for name in ("streamtrain", "tests", "examples", "data"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave_out)
    shutil.copy(ROOT / "pyproject.toml", folder)
    build.compile_kernels((compiler,), folder / "streamtrain/kernels", extra=(*FLAGS, *RUNTIME[compiler][1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", choices=[*RUNTIME], default="gcc", help="compiles the kernels")
    parser.add_argument("--rounds", type=int, default=300, help="rounds of each kernel, each with other random numbers")
    parser.add_argument("--short", action="store_true", help="the tests of the kernels only, fewer examples, 3 rounds")
    asked = parser.parse_args()
    profile = [] if asked.short else ["--hypothesis-profile", "long"]
    with tempfile.TemporaryDirectory(prefix="streamtrain-") as work:
        copied(Path(work), asked.compiler)
        environment = os.environ | {
            "LD_PRELOAD": runtime(asked.compiler),
            "PYTHONPATH": work,
            "PYTHONMALLOC": "malloc",  # so that bytes objects have guards, too
            "ASAN_OPTIONS": "detect_leaks=0:handle_segv=0:handle_abort=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        # What a sanitizer prints before it ends the process must not be captured.
        options = ["-q", "--capture=sys", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=900", *profile]
        # test_build compiles for itself, and test_crash is about processes that die.
        kernels = ["tests/kernels", "--ignore=tests/kernels/test_build.py", "--ignore=tests/kernels/test_crash.py"]
        callers = () if asked.short else CALLERS
        rounds = ["-c", ROUNDS, str(3 if asked.short else asked.rounds)]
        tests = ["-m", "pytest", *options, *kernels, *callers]
        for name, arguments in (("tests", tests), ("rounds", rounds)):
            began = time.monotonic()
            done = subprocess.run([sys.executable, *arguments], cwd=work, env=environment, check=False)
            seconds = time.monotonic() - began
            print(f"{asked.compiler}, {name}: exit code {done.returncode} after {seconds:.0f} s", flush=True)
            if done.returncode:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
