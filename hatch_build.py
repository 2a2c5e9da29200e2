"""Compiles the kernels when a wheel is built, with the machine's C compiler or with that of the package ``ziglang``. Without
either everything still works, in numpy, slower."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

_KERNELS = "streamtrain/kernels"


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds ``_kernels*.so`` to the wheel, or to the source tree of an editable installation."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What an isolated build installs first: ``ziglang``, where no C compiler of this machine can compile the kernels."""
        build = _build_module(self.root)
        return ["ziglang>=0.17"] if build.zig_has_wheels() and build.find_compiler() is None else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the kind of machine that the wheel is for."""
        if sys.platform == "win32":
            return
        build = _build_module(self.root)
        command = build.find_compiler()
        if command is None:
            self.app.display_warning("the kernels were not compiled, numpy replaces them: there is no C compiler")
            return
        try:
            libraries = build.compile_kernels(command, Path(self.root) / _KERNELS)
        except build.CompilerError as error:
            self.app.display_warning(f"the kernels were not compiled, numpy replaces them: {error}")
            return
        build_data["artifacts"] += [f"{_KERNELS}/{library.name}" for library in libraries]
        build_data["pure_python"] = False
        # The tag of this machine alone: a library that is linked to its C library may not work with an older one.
        build_data["tag"] = f"py3-none-{next(tag for tag in platform_tags() if 'linux_' not in tag[1:])}"


def _build_module(root: str) -> ModuleType:
    """``streamtrain.kernels.build``, which cannot be imported before streamtrain is installed."""
    spec = importlib.util.spec_from_file_location("kernels_build", Path(root) / _KERNELS / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
