"""A learner in a process of its own: whether it comes to the same bits there.

``python -m streamtrain.testing.learners.process`` is that process: a pickle on stdin, JSON on the last line of stdout.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys

from streamtrain.testing.learners.subject import LearnerSubject
from streamtrain.testing.readers.process import CallerModules
from streamtrain.testing.readers.subject import CheckFailed, Skipped

__all__ = ["elsewhere", "traces"]

_TIMEOUT_SECONDS = 300.0


def traces(subject: LearnerSubject) -> list[dict[str, str]]:
    """Hashes of its state and of what it gives, by name: before the first batch, and after each."""
    thing, probe = subject.make(), subject.probe
    found = []
    for batch in [None, *subject.stream()]:
        if batch is not None:
            subject.feed(thing, batch)
        parts = subject.state(thing) | subject.gives(thing, probe)
        found.append({name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in parts.items()})
    return found


def elsewhere(subject: LearnerSubject) -> list[dict[str, str]]:
    """`traces`, found by a fresh process, which has other hashes of strings than this one. Raises Skipped where the test
    class cannot go there, CheckFailed where it fails there."""
    try:
        work = pickle.dumps(subject)
    except Exception as error:
        raise Skipped(
            f"the test class cannot be sent to another process: {error}: define it at the top level of a module"
        ) from error
    files = {name: module.__file__ for name, module in list(sys.modules.items()) if getattr(module, "__file__", None)}
    order = pickle.dumps({"path": sys.path, "files": files, "work": work})
    # strings that hash alike in both, as where PYTHONHASHSEED is set, would show nothing
    environment = os.environ | {"PYTHONHASHSEED": str(hash("a string") % 4_000_000_000 + 1)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "streamtrain.testing.learners.process"],
            input=order, capture_output=True, check=False, timeout=_TIMEOUT_SECONDS, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise CheckFailed(f"another process did not end within {_TIMEOUT_SECONDS:.0f} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise CheckFailed(f"another process ended with exit code {done.returncode}; its last line was: {said[-1]}")
    found: list[dict[str, str]] = json.loads(done.stdout.decode().strip().splitlines()[-1])
    return found


def main() -> None:
    order = pickle.load(sys.stdin.buffer)
    sys.path[:] = order["path"]
    sys.meta_path.append(CallerModules(order["files"]))
    print("\n" + json.dumps(traces(pickle.loads(order["work"]))))


if __name__ == "__main__":
    main()
