"""What a run was made with: the versions of what it learns with, the libraries and the machine; and whether they still are."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from streamtrain import learn, metrics, prepare
from streamtrain.errors import RunError
from streamtrain.kernels import COMPILED
from streamtrain.learn.own_code import is_own_code
from streamtrain.plan import order as shuffle

__all__ = ["environment", "environment_changes", "require_same_versions", "software", "versions"]

_DECISIVE = ("numpy", "kernels", "machine")  # of the environment, for the bits of a built-in learner
_BLAS = ("internal_api", "version", "architecture")


def versions() -> dict[str, int]:
    """The versions of the parts that determine the result. A change of one of these parts raises its version."""
    return {
        "order": shuffle.VERSION,
        "preparation": prepare.VERSION,
        "learner": learn.VERSION,
        "metrics": metrics.VERSION,
    }


def require_same_versions(header: Mapping[str, Any]) -> None:
    """Raise RunError if the order, the preparation or the learner has another version than the run."""
    for name, now in versions().items():
        if (was := header["versions"].get(name)) != now:
            raise RunError(
                f"--resume: the run was started with version {was} of the {name}, and this is version {now}: go on with "
                f"streamtrain {header['environment']['streamtrain']}, or start a new run in another folder"
            )


def environment() -> dict[str, str]:
    """The software and hardware that can change the last bits of sums: all of it for a learner of the user's own code, numpy,
    kernels and machine for the built-in ones."""
    return {
        "streamtrain": sys.modules["streamtrain"].__version__,  # which imports this, so it cannot be imported here
        "numpy": np.__version__,
        "kernels": "compiled" if COMPILED else "numpy",
        "machine": platform.machine(),
        "blas": _blas(),
        "features": _features(),
        "c_library": " ".join(platform.libc_ver()).strip() or platform.system(),
        "processor": _processor(),
    }


def software() -> dict[str, str]:
    """The versions of the software that ran, for the report."""
    libraries = {name: version(name) for name in ("pyarrow", "dask")}
    return {"python": platform.python_version()} | environment() | libraries


def environment_changes(header: Mapping[str, Any], learner: Any) -> list[str]:
    """Warnings where the last bits may differ from those of an uninterrupted run with this learner."""
    was, now = header["environment"], environment()
    decisive = [name for name in now if name != "streamtrain"] if is_own_code(learner) else _DECISIVE
    changed = [
        f"{name.replace('_', ' ')} {was.get(name, 'not recorded')} then, {now[name]} now"
        for name in decisive
        if was.get(name) != now[name]
    ]
    if not changed:
        return []
    return [f"resumed elsewhere: {'; '.join(changed)}: results may differ in the last bits from an uninterrupted run"]


def _blas() -> str:
    """The BLAS of numpy, and for which processor it chose its kernels; other libraries may have loaded others."""
    libraries = [each for each in threadpool_info() if each["user_api"] == "blas"]
    own = [each for each in libraries if "numpy" in each["filepath"]] or libraries
    return ", ".join(sorted({" ".join(str(each[key]) for key in _BLAS if each.get(key)) for each in own})) or "unknown"


def _features() -> str:
    """The features of the processor for which numpy has chosen its loops."""
    found = np.show_config(mode="dicts").get("SIMD Extensions", {})
    return ", ".join([*found.get("baseline", ()), *found.get("found", ())]) or "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
