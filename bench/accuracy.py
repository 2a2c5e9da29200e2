"""How good are the models of `streamtrain fit` with default settings, on real tables, in the order that they came in?

Every set is learned in one pass and in five, as it is and as a copy whose rows were shuffled before, and scored on its
test part. Scikit-learn and Vowpal Wabbit learn the same rows in the same run. Writes bench/ACCURACY.md; exits 1 if a
figure misses what is wanted.

    python bench/accuracy.py                                  # all sets of ../shared/data; `pip install 'streamtrain[bench]'`
    python bench/accuracy.py --check                          # ours only, against the figures; writes nothing
    python bench/accuracy.py --only a9a,skin --peers none

What is wanted: in one pass at least the better of the one-pass figures of scikit-learn's SGD and Vowpal Wabbit; in five passes
at most 1 % from the converged solution (3 % for covertype20k); and in both, the order of the rows changes nothing by more
than 1 %. Of losses and errors, less is better.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import peers
import peers_page
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "bench" / "ACCURACY.md"
TIMEOUT_S = 900
ORDERS = ("original order", "shuffled")
ORDER_SHARE = 0.01  # by which the order of the rows may change a figure
PASSES = (1, 5)


@dataclass(frozen=True)
class Set:
    """A set, its figures to beat (one pass) and to come near to (five passes: within ``slack``)."""

    name: str
    target: str
    metric: str
    one_pass: float
    full: float
    slack: float = 0.01
    exclude: tuple[str, ...] = ()
    ending: str = ""

    @property
    def task(self) -> str:
        return "regress" if self.metric == "rmse" else "classify"

    @property
    def more_is_better(self) -> bool:
        return self.metric == "accuracy"

    @property
    def five_passes(self) -> float:
        return self.full * (1 - self.slack if self.more_is_better else 1 + self.slack)

    def meets(self, figure: float, wanted: float) -> bool:
        return figure >= wanted if self.more_is_better else figure <= wanted

    def parts(self, data: Path) -> tuple[Path, Path]:
        """The paths of the training and the test rows."""
        folder = data / self.name
        return folder / f"train{self.ending}", folder / f"test{self.ending or '.parquet'}"


SETS = [
    Set("a9a", "label", "loss", 0.3245, 0.3257),
    Set("skin", "label", "loss", 0.247, 0.2463),
    Set("elec2", "class", "loss", 0.565, 0.5148),
    Set("covertype20k", "cover", "accuracy", 0.6875, 0.7195, slack=0.03),
    Set("kdd99", "label", "accuracy", 0.9961, 0.9992),
    Set("flights", "arr_delay", "rmse", 17.7, 17.90, exclude=("arr_time", "air_time", "dep_time")),
    Set("beijing_pm25", "pm25", "rmse", 31.5, 31.45),
    Set("mnist", "y", "accuracy", 0.9088, 0.9092, ending=".zarr"),
]


@dataclass
class Check:
    """One thing that is wanted, and what was found (None: the run failed)."""

    what: str
    found: float | None
    wanted: float
    met: bool
    is_share: bool = False  # how far two figures are apart, not a figure


@dataclass
class Result:
    """Everything known of one set: the scores of each run by its name, what failed, what is wanted."""

    set: Set
    rows: int
    scores: dict[str, peers.Scores] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)


class RunFailed(Exception):
    """A command ended with an error; its words."""


def cli(*arguments: str) -> dict[str, Any]:
    """A command of streamtrain in a fresh process. Raises RunFailed with the last line that it said."""
    command = [sys.executable, "-m", "streamtrain", *arguments, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    if ended.returncode:
        raise RunFailed((ended.stderr.strip() or f"exit {ended.returncode}").splitlines()[-1])
    printed: dict[str, Any] = json.loads(ended.stdout)
    return printed


def fit(case: Set, train: Path, test: Path, epochs: int, work: Path) -> peers.Scores:
    """The scores on the test rows after so many passes, default settings otherwise."""
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    exclude = ["--exclude", ",".join(case.exclude)] if case.exclude else []
    more = ["--epochs", str(epochs)] if epochs > 1 else []
    report = cli("fit", str(train), "--target", case.target, "--out", str(run), *exclude, *more)
    scores: peers.Scores = {k: v for k, v in cli("evaluate", str(run), str(test))["metrics"].items() if _number(v)}
    return scores | {"seconds": report["seconds"]}


def _number(value: Any) -> bool:
    return isinstance(value, int | float)


def shuffled_copy(table: pa.Table, train: Path, work: Path) -> Path:
    """The rows in the one shuffled order that the peers get, in files and chunks of the size of the original's."""
    path = work / f"shuffled{train.suffix}"
    if train.suffix == ".zarr":
        return _zarr_copy(table, train, path)
    path.mkdir()
    start = 0
    for file in sorted(train.glob("*.parquet")):
        meta = pq.read_metadata(file)
        part = table.slice(start, meta.num_rows)
        pq.write_table(part, path / file.name, row_group_size=meta.row_group(0).num_rows, compression="zstd")
        start += meta.num_rows
    return path


def _zarr_copy(table: pa.Table, train: Path, path: Path) -> Path:
    import zarr

    copy = zarr.create_group(path)
    for name, array in zarr.open_group(train, mode="r").arrays():
        names = [name] if array.ndim == 1 else [f"{name}{i}" for i in range(int(np.prod(array.shape[1:])))]
        values = np.column_stack([table[n].to_numpy() for n in names]).reshape(array.shape)
        copy.create_array(name, data=values, chunks=array.chunks)
    return path


def measure(case: Set, data: Path, asked: argparse.Namespace, work: Path) -> Result:
    train, test = case.parts(data)
    table = peers.shuffled(peers.read(train))
    result = Result(case, table.num_rows)
    orders = dict(zip(ORDERS, (train, shuffled_copy(table, train, work)), strict=True))
    for passes in PASSES:
        for order, ours in orders.items():
            name = label(passes, order)
            say(f"{case.name}: {name}")
            try:
                result.scores[name] = fit(case, ours, test, passes, work)
            except RunFailed as failure:
                result.failed[name] = str(failure)
    result.checks = list(checks(case, result.scores))
    if asked.peers != "none":
        drop = list(case.exclude)
        rows = peers.Rows(table.drop_columns(drop), peers.read(test).drop_columns(drop), case.target, case.task)
        say(f"{case.name}: scikit-learn")
        result.scores |= peers.scikit_learn(rows, None if asked.peers == "all" else asked.full_rows)
        say(f"{case.name}: Vowpal Wabbit")
        result.scores |= peers.vowpal_wabbit(rows, work)
    return result


def label(passes: int, order: str) -> str:
    return f"ours, {_passes(passes)}, {order}"


def _passes(passes: int) -> str:
    return "1 pass" if passes == 1 else f"{passes} passes"


def checks(case: Set, scores: dict[str, peers.Scores]) -> Iterator[Check]:
    """What is wanted of our runs, against what they scored."""
    for passes, wanted in zip(PASSES, (case.one_pass, case.five_passes), strict=True):
        found, other = (scores.get(label(passes, order), {}).get(case.metric) for order in ORDERS)
        met = found is not None and case.meets(found, wanted)
        yield Check(_passes(passes), found, wanted, met)
        apart = abs(found - other) / other if found is not None and other else None
        met = apart is not None and apart <= ORDER_SHARE
        yield Check(f"order of rows, {_passes(passes)}", apart, ORDER_SHARE, met, is_share=True)


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="the folder of the sets")
    parser.add_argument("--only", help="these sets: a,b")
    parser.add_argument(
        "--peers", default="fast", choices=["all", "fast", "none"], help="fast: the full batch learns --full-rows"
    )
    parser.add_argument("--full-rows", type=int, default=20_000, help="rows of the converged classifier with fast")
    parser.add_argument("--check", action="store_true", help="ours only, write nothing")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page to write")
    asked = parser.parse_args()
    asked.peers = "none" if asked.check else asked.peers
    wanted = asked.only.split(",") if asked.only else [case.name for case in SETS]
    if unknown := set(wanted) - {case.name for case in SETS}:
        parser.error(
            f"--only {asked.only}: no set {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in SETS)}"
        )
    if missing := [str(p) for case in SETS if case.name in wanted for p in case.parts(asked.data) if not p.exists()]:
        parser.error(f"--data {asked.data}: no {', '.join(missing)}")
    results = []
    for case in SETS:
        if case.name in wanted:
            with tempfile.TemporaryDirectory() as work:
                results.append(measure(case, asked.data, asked, Path(work)))
    if not asked.check:
        asked.out.write_text(peers_page.page(results))
    print(peers_page.summary(results))
    return 0 if all(check.met for result in results for check in result.checks) else 1


if __name__ == "__main__":
    sys.exit(main())
