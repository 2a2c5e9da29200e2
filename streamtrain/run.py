"""A run folder: the model, the report and the scores of each epoch. It appears whole or not at all."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

from streamtrain.errors import RunError
from streamtrain.model import Model
from streamtrain.report import Report

__all__ = ["RunFolder", "to_json"]


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that every parser takes: what is not finite becomes null.

    >>> to_json({"loss": float("nan"), "rows": [1]})
    '{"loss": null, "rows": [1]}'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class RunFolder:
    """A folder for a run to come. Raises RunError, before anything is done, where it cannot be written."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        if self.path.is_dir() and (self.path / "report.json").exists():
            raise RunError(f"--out {path}: holds a run already: name another folder, or remove it first")
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise RunError(f"--out {path}: exists and is not a run of streamtrain: name a new or an empty folder")
        parent = next(p for p in self.path.absolute().parents if p.exists())
        try:
            tempfile.TemporaryFile(dir=parent).close()  # nothing else tells for every file system and every user
        except OSError as error:
            raise RunError(f"--out {path}: {parent} cannot be written: name a folder elsewhere") from error

    def write(self, model: Model, report: Report, history: list[dict[str, Any]]) -> None:
        """Write every file to a folder beside, then give it its name."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{self.path.name}-", dir=self.path.parent))
            try:
                model.save(staging)
                lines = "".join(to_json(epoch) + "\n" for epoch in history)
                (staging / "metrics.jsonl").write_text(lines, encoding="utf-8")
                (staging / "report.json").write_text(to_json(report.as_dict(), indent=1) + "\n", encoding="utf-8")
                staging.chmod(0o755)
                staging.replace(self.path)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        except OSError as error:
            raise RunError(f"--out {self.path}: cannot be written: {error}") from error
