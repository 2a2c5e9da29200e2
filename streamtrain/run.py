"""A run folder: the scores as they come, then the model and the report."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamtrain.errors import RunError, StreamtrainError
from streamtrain.model import Model
from streamtrain.report import Report

__all__ = ["RunFolder", "to_json"]

_SCORES = "metrics.jsonl"
_STAGING = ".writing-"


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
    """A folder for a run to come. Raises RunError, before anything is done, where it cannot be written.

    Scores are written as they come (`record`); model and report appear together, when the run is over (`write`). A run that
    failed leaves the scores that it had, if any, and nothing else, and the folder can be used again.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self._asked = path
        if self.path.is_dir() and (self.path / "report.json").exists():
            raise RunError(f"--out {path}: holds a run already: name another folder, or remove it first")
        if self.path.exists() and (not self.path.is_dir() or any(not _is_left_over(p) for p in self.path.iterdir())):
            raise RunError(f"--out {path}: exists and is not a run of streamtrain: name a new or an empty folder")
        parent = self.path if self.path.is_dir() else next(p for p in self.path.absolute().parents if p.exists())
        try:
            tempfile.TemporaryFile(dir=parent).close()  # nothing else tells for every file system and every user
        except OSError as error:
            raise RunError(f"--out {path}: {parent} cannot be written: name a folder elsewhere") from error

    def start(self) -> None:
        """Remove what a run that failed here left behind: its scores, and files that it was writing when it was killed."""
        with self._writing():
            (self.path / _SCORES).unlink(missing_ok=True)
            for staging in self.path.glob(_STAGING + "*") if self.path.is_dir() else ():
                shutil.rmtree(staging)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, StreamtrainError):
                raise
            raise RunError(f"--out {self._asked}: cannot be written: {error}") from error

    def record(self, scores: dict[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``, where it can be read at once; the first one makes the folder."""
        line = to_json(scores) + "\n"
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            with open(self.path / _SCORES, "a", encoding="utf-8") as file:
                file.write(line)

    def write(self, model: Model, report: Report) -> None:
        """Write model and report to a folder inside, then move them out of it, the report last."""
        with self._writing():
            staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self.path))
            try:
                model.save(staging)
                (staging / "report.json").write_text(to_json(report.as_dict(), indent=1) + "\n", encoding="utf-8")
                for name in ("model.safetensors", "model.json", "report.json"):
                    (staging / name).replace(self.path / name)
            finally:
                shutil.rmtree(staging, ignore_errors=True)


def _is_left_over(path: Path) -> bool:
    """Whether a run that failed may have left this."""
    return path.name == _SCORES or path.name.startswith(_STAGING)
