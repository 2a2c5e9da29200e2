"""Compiles the kernels when the package is built, where there is a C compiler. Without one everything still works, in
numpy, slower."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-Wno-psabi", "-shared", "-fPIC"]


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds ``_kernels*.so`` to the wheel, or to the source tree of an editable installation."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        folder = Path(self.root) / "streamtrain" / "kernels"
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if self.target_name != "wheel" or compiler is None or sys.platform == "win32":
            return
        builds = {"_kernels.so": []} | ({"_kernels_avx2.so": ["-march=x86-64-v3"]} if _is_x86() else {})
        made = [name for name, extra in builds.items() if self._compile(compiler, folder, name, extra)]
        if made:
            build_data["artifacts"] += [f"streamtrain/kernels/{name}" for name in made]
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")

    def _compile(self, compiler: str, folder: Path, name: str, extra: list[str]) -> bool:
        command = [compiler, *FLAGS, *extra, "-o", str(folder / name), str(folder / "kernels.c"), "-lm"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            self.app.display_warning(f"{name} was not compiled, numpy does its work: {result.stderr.strip()}")
        return result.returncode == 0


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")
