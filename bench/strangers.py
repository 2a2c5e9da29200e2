"""Model folders and checkpoints from strangers, hundreds of them: none is believed.

Good runs of several kinds get one thing changed that no run writes (a size, a shape, a name, a type, a value, nesting), and
right checksums. Every command that opens them must answer with one error, exit code 2 (3 where memory is short), within 200 MB;
and no array may be loaded unless only its values are wrong. Some changes are allowed (a default in the place of a field that
is gone); these are counted apart. A few are very large: terabytes that are not there, millions of names.

Each case is forked from a process that has imported everything; memory, processor time and seconds are those of the child.

    python bench/strangers.py --count 500
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from forks import Ended, command, run
from strangers_cases import Crafted, Good, craft, make, seal_model

from streamtrain.memory.process import peak_bytes, reset_peak
from streamtrain.model import tensors

LIMIT_BYTES, LIMIT_SECONDS = 200_000_000, 2.0
TIMEOUT_S = 60
LOADED = "an array was loaded"
COMMANDS = {
    "model": ("predict", "evaluate", "continue", "report", "runs"),
    "checkpoint": ("resume", "resume", "report", "runs"),
}


class Found(NamedTuple):
    """What came of a case: its command, what it ended with, and what was wrong with that; empty if nothing."""

    case: Crafted
    command: str
    ended: Ended
    wrong: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="show every case")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.chdir(work)
        sys.path.insert(0, str(work))
        goods = _made(work)
        found = [small(goods, asked.seed, number, work) for number in range(asked.count)]
        found += [large(goods[0], name, work) for name in LARGE]
    for each in found:
        if asked.verbose or each.wrong:
            case = each.case
            print(f"{each.wrong or 'ok'}: {each.command} of {case.good.kind}: {case.file}: {case.what}: {_said(each)}")
    print(table(found))
    bad = [each for each in found if each.wrong]
    print(f"{len(found):,} cases, {len(bad)} wrong")
    sys.exit(bool(bad))


def _made(work: Path) -> list[Good]:
    """The good runs, made in a child, so that the memory of fitting does not count for the cases."""
    import pickle  # between this process and its own child

    def made() -> None:
        (work / "goods").write_bytes(pickle.dumps(make(work)))

    ended = run(made, 10 * TIMEOUT_S)
    if ended.code:
        raise SystemExit(ended.err)
    goods: list[Good] = pickle.loads((work / "goods").read_bytes())
    return goods


def small(goods: list[Good], seed: int, number: int, work: Path) -> Found:
    """A case with one small change."""
    rng = np.random.default_rng([seed, number])
    good = goods[number % len(goods)]
    case = craft(rng, good, work / "crafted")
    commands = COMMANDS[case.file]
    return judged(case, commands[int(rng.integers(len(commands)))], work)


def judged(case: Crafted, what: str, work: Path, limit: float = LIMIT_BYTES) -> Found:
    """Run a command on a crafted run, whose folder goes."""
    ended = run(_work(what, case, work), TIMEOUT_S)
    shutil.rmtree(case.folder)
    shutil.rmtree(work / "new", ignore_errors=True)
    return Found(case, what, ended, _wrong(case, what, ended, limit))


def _work(what: str, case: Crafted, work: Path) -> Callable[[], None]:
    own = ["--learner", case.good.learner] if case.good.learner else []
    data, folder, memory = str(work / "data.parquet"), str(case.folder), ["--memory", "200MB"]
    lines = {
        "predict": ["predict", folder, data, "--out", str(work / "p.parquet"), *memory, *own],
        "evaluate": ["evaluate", folder, data, *memory, *own],
        "continue": ["fit", data, "--continue-from", folder, "--out", str(work / "new"), *memory, *own],
        "resume": ["fit", data, "--out", folder, "--resume", *memory, *own],
        "report": ["report", folder, "--out", str(work / "p.html")],
        "runs": ["runs", folder],
    }

    def watched() -> None:
        load = tensors.load

        def loud(*arguments: Any, **how: Any) -> Any:
            print(LOADED, file=sys.stderr)
            return load(*arguments, **how)

        tensors.load = loud
        reset_peak()
        try:
            command(*lines[what])()
        finally:
            print(f"took {peak_bytes()} {time.process_time()}", file=sys.stderr)

    return watched


def _wrong(case: Crafted, what: str, ended: Ended, limit: float) -> str:
    if ended.code is None:
        return "a hang"
    if ended.code not in (0, 2, 3) or "Traceback" in ended.err:
        return f"exit code {ended.code}"
    if _took(ended)[0] > limit:
        return f"took {_took(ended)[0] / 1e6:.0f} MB"
    if ended.code == 0:
        return "" if case.may_pass or what in ("report", "runs") else "believed"
    if sum(line.startswith("error: ") for line in ended.err.splitlines()) != 1:
        return "not one error"
    if LOADED in ended.err and not case.is_value and not case.may_pass:
        return "loaded an array"
    return ""


def _took(ended: Ended) -> tuple[int, float]:
    """The most bytes that a child took, and its seconds of processor time; 0 where it did not say."""
    taken = [line.split()[1:] for line in ended.err.splitlines() if line.startswith("took ")]
    return (int(taken[-1][0]), float(taken[-1][1])) if taken else (0, 0.0)


def _said(found: Found) -> str:
    errors = [line for line in found.ended.err.splitlines() if line.startswith("error: ")]
    peak, seconds = _took(found.ended)
    sizes = f"{peak / 1e6:.0f} MB, {seconds:.2f} s of {found.ended.seconds:.2f}"
    return f"exit code {found.ended.code}, {sizes}: {(errors or [''])[0][:240]}"


# -- large ones ------------------------------------------------------------------------------------------------------------


def _header(folder: Path, text: bytes, array_bytes: int = 0) -> None:
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + array_bytes)


def _sparse(folder: Path, size: int) -> None:
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    _header(folder, json.dumps({"learner.weights": entry}).encode(), size)


def _described(folder: Path, good: Good, **changes: Any) -> None:
    seal_model(folder, good.description | changes)


def _feature(good: Good, **changes: Any) -> list[dict[str, Any]]:
    first, *rest = good.description["features"]
    return [first | changes, *rest]


def _names(count: int) -> bytes:
    one = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return ("{" + ",".join(f'"{i}":{one}' for i in range(count)) + "}").encode()


LARGE: dict[str, Callable[[Path, Good], None]] = {
    "a terabyte that is not there": lambda folder, good: _sparse(folder, 10**12),
    "3 GB that are not there": lambda folder, good: _sparse(folder, 3 * 10**9),
    "90 MB of blanks": lambda folder, good: _header(folder, b"{" + b" " * 90_000_000 + b"}"),
    "30 MB of brackets": lambda folder, good: _header(folder, b'{"a":' + b"[" * 15_000_000 + b"]" * 15_000_000 + b"}"),
    "1,500,000 names": lambda folder, good: _header(folder, _names(1_500_000)),
    "100,000 names": lambda folder, good: _header(folder, _names(100_000)),
    "2,000,000 classes": lambda folder, good: _described(
        folder,
        good,
        targets=[good.description["targets"][0] | {"classes": [f"c{i}" for i in range(2_000_000)], "counts": []}],
    ),
    "100,000 classes": lambda folder, good: _described(
        folder,
        good,
        targets=[good.description["targets"][0] | {"classes": [f"c{i}" for i in range(100_000)], "counts": []}],
    ),
    "500,000 features": lambda folder, good: _described(
        folder, good, features=[good.description["features"][0] | {"name": f"f{i}"} for i in range(500_000)]
    ),
    "40,000 features": lambda folder, good: _described(
        folder, good, features=[good.description["features"][0] | {"name": f"f{i}"} for i in range(40_000)]
    ),
    "a value of 10^8 numbers": lambda folder, good: _described(folder, good, features=_feature(good, shape=[10**8])),
    "a value of 2^31 numbers": lambda folder, good: _described(folder, good, features=_feature(good, shape=[2**31])),
    "100,000 crosses": lambda folder, good: _described(folder, good, crosses=[["k", "a"]] * 100_000),
    "text of 200 MB": lambda folder, good: _blank(folder / "model.json"),
    "a number of 4,000 digits": lambda folder, good: _described(folder, good, format=10**4000),
    "a million digits": lambda folder, good: (
        (folder / "model.json").write_text('{"format": ' + "9" * 10**6 + "}") and None
    ),
    "200,000 brackets": lambda folder, good: (folder / "model.json").write_text("[" * 200_000) and None,
    "60 MB of report": lambda folder, good: (
        (folder / "report.json").write_text(json.dumps({"rows": [[]] * 15_000_000})) and None
    ),
    "a terabyte of scores": lambda folder, good: _blank(folder / "metrics.jsonl", 10**12),
    "a pipe": lambda folder, good: _pipe(folder / "report.json"),
}


def _blank(path: Path, size: int = 200_000_000) -> None:
    with open(path, "wb") as file:
        file.truncate(size)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def large(good: Good, name: str, work: Path) -> Found:
    """A case of great size."""
    folder = work / "crafted"
    shutil.copytree(good.finished, folder)
    child = run(lambda: LARGE[name](folder, good), TIMEOUT_S)  # in a child: this process must stay small
    if child.code:
        raise SystemExit(child.err)
    of_report = any(word in name for word in ("report", "scores", "pipe"))
    return judged(
        Crafted(good, "report" if of_report else "model", name, folder), "report" if of_report else "predict", work
    )


def table(found: list[Found]) -> str:
    """How often what came of which file; the most memory and seconds; as Markdown."""
    counts = Counter((each.case.file, each.command, each.wrong or _outcome(each)) for each in found)
    names = sorted({outcome for *_, outcome in counts})
    lines = [
        "| file | command | " + " | ".join(names) + " | most MB | most CPU s | most s |",
        "| --- | --- |" + " ---: |" * (len(names) + 3),
    ]
    for file, what in sorted({(each.case.file, each.command) for each in found}):
        own = [each.ended for each in found if (each.case.file, each.command) == (file, what)]
        row = [str(counts[file, what, name]) for name in names]
        peaks, seconds = zip(*map(_took, own), strict=True)
        most = f"{max(peaks) / 1e6:.0f} | {max(seconds):.2f} | {max(each.seconds for each in own):.1f}"
        lines.append(f"| {file} | {what} | {' | '.join(row)} | {most} |")
    slow = sum(_took(each.ended)[1] > LIMIT_SECONDS for each in found)
    return "\n".join([*lines, "", f"{slow} took more than {LIMIT_SECONDS:g} s of processor time"])


def _outcome(found: Found) -> str:
    if found.ended.code == 0:
        return "allowed" if found.case.may_pass else "shown"
    return f"exit {found.ended.code}"


if __name__ == "__main__":
    main()
