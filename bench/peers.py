"""What others make of the same rows: scikit-learn and Vowpal Wabbit, one pass, five, and the converged solution.

scikit-learn gets what its users would prepare: numbers standardised, one column for each category, what is missing at the
mean. Vowpal Wabbit gets the raw columns. Both get the rows in one shuffled order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peers_vw
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

SEED = 20  # of the shuffled order
SLICE_ROWS = 10_000  # that are text at a time
Scores = dict[str, float]


@dataclass
class Rows:
    """Training and test rows of one set: tables, and the classes of the target (None for regression)."""

    train: pa.Table
    test: pa.Table
    target: str
    task: str

    @property
    def classes(self) -> list[Any] | None:
        return sorted(pc.unique(self.train[self.target]).to_pylist()) if self.task == "classify" else None

    def targets(self, table: pa.Table) -> NDArray[Any]:
        """The target: the index of its class, or a number."""
        column = table[self.target].combine_chunks()
        if self.classes is None:
            return np.asarray(column, np.float64)
        return np.asarray(pc.index_in(column, pa.array(self.classes, column.type)))


def read(path: Path) -> pa.Table:
    """A Parquet file or folder, or a Zarr group: an array of more dimensions becomes a column for each entry."""
    if path.suffix != ".zarr":
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        return pa.concat_tables([pq.read_table(file) for file in files], promote_options="permissive")
    import zarr

    columns: dict[str, NDArray[Any]] = {}
    for name, array in zarr.open_group(path, mode="r").arrays():
        values = np.asarray(array[:]).reshape(array.shape[0], -1)
        single = array.ndim == 1
        columns |= {
            name if single else f"{name}{i}": np.ascontiguousarray(values[:, i]) for i in range(values.shape[1])
        }
    return pa.table(columns)


def shuffled(table: pa.Table) -> pa.Table:
    return table.take(np.random.default_rng(SEED).permutation(table.num_rows))


def matrices(rows: Rows) -> tuple[Any, Any]:
    """Training and test rows as scikit-learn wants them: dense where all columns are numbers, else sparse."""
    from scipy import sparse  # type: ignore[import-untyped]

    numbers, categories = [], []
    for name in rows.train.column_names:
        if name == rows.target:
            continue
        pair = [_plain(table[name].combine_chunks()) for table in (rows.train, rows.test)]
        if pa.types.is_string(pair[0].type):
            categories.append(_one_hot(*pair))
        else:
            numbers.append(_standardised(*pair))
    dense = [np.column_stack(part) for part in zip(*numbers, strict=True)]
    if not categories:
        return dense[0], dense[1]
    hot = [sparse.hstack(part) for part in zip(*categories, strict=True)]
    train, test = (sparse.hstack([sparse.csr_matrix(a), b]).tocsr() for a, b in zip(dense, hot, strict=True))
    return train, test


def _plain(values: pa.Array) -> pa.Array:
    """Text as strings, all else as float64."""
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return values.cast(kind).cast(pa.string())
    if pa.types.is_temporal(kind):
        values = values.cast(pa.int64())
    return values.cast(pa.float64())


def _standardised(train: pa.Array, test: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    known = np.asarray(train.drop_null())
    mean, spread = known.mean(), known.std() or 1.0
    first, second = ((np.asarray(part.fill_null(mean)) - mean) / spread for part in (train, test))
    return first, second


def _one_hot(train: pa.Array, test: pa.Array) -> tuple[Any, Any]:
    """A column for each value of the training rows; none for what is missing or was not seen there."""
    from scipy import sparse

    values = pc.unique(train).drop_null()
    found = []
    for part in (train, test):
        codes = np.asarray(pc.index_in(part, values).fill_null(-1))
        at = np.flatnonzero(codes >= 0)
        found.append(sparse.csr_matrix((np.ones(len(at)), (at, codes[at])), (len(part), len(values))))
    return found[0], found[1]


def score(task: str, targets: NDArray[Any], predictions: NDArray[Any]) -> Scores:
    """The metrics that `streamtrain evaluate` reports; predictions are probabilities, shape (rows, classes), or numbers."""
    from sklearn import metrics

    if task == "regress":
        squared = float(np.mean((targets - predictions) ** 2))
        return {"rmse": squared**0.5, "r2": 1 - squared / float(np.var(targets))}
    likely = np.clip(predictions[np.arange(len(targets)), targets], 1e-15, 1)
    found = {"loss": float(-np.log(likely).mean()), "accuracy": float(np.mean(predictions.argmax(1) == targets))}
    if predictions.shape[1] == 2:
        found["auc"] = float(metrics.roc_auc_score(targets, predictions[:, 1]))
    return found


def estimators(task: str) -> dict[str, Callable[[], Any]]:
    from sklearn import linear_model

    def sgd(epochs: int) -> Any:
        options = {"average": True, "max_iter": epochs, "tol": None, "random_state": 0}
        if task == "regress":
            return linear_model.SGDRegressor(**options)
        return linear_model.SGDClassifier(loss="log_loss", **options)

    def full() -> Any:
        return linear_model.Ridge() if task == "regress" else linear_model.LogisticRegression(C=1, max_iter=1000)

    return {"scikit-learn SGD, 1 epoch": lambda: sgd(1), "scikit-learn SGD, 5 epochs": lambda: sgd(5), FULL: full}


FULL = "scikit-learn, full batch"


def scikit_learn(rows: Rows, full_rows: int | None) -> dict[str, Scores]:
    """Each estimator's scores. ``full_rows``: with three classes or more the converged one, which is slow, gets no more."""
    train, test = matrices(rows)
    targets, wanted = rows.targets(rows.train), rows.targets(rows.test)
    found = {}
    for name, make in estimators(rows.task).items():
        cap = full_rows if name == FULL and len(rows.classes or []) > 2 else None
        began = time.perf_counter()
        fitted = make().fit(train[:cap], targets[:cap])
        seconds = time.perf_counter() - began
        if rows.task == "regress":
            predictions = fitted.predict(test)
        else:  # rows that were cut off may have held all of a class
            predictions = np.zeros((len(wanted), len(rows.classes or [])))
            predictions[:, fitted.classes_] = fitted.predict_proba(test)
        used = train.shape[0] if cap is None else min(cap, train.shape[0])
        label = name if used == train.shape[0] else f"{name} of {used:,} rows"
        found[label] = score(rows.task, wanted, predictions) | {"seconds": seconds}
    return found


def vowpal_wabbit(rows: Rows, work: Path) -> dict[str, Scores]:
    """One pass and five, default settings; every row is learned (no hold-out)."""
    classes = rows.classes
    for name, table in (("train", rows.train), ("test", rows.test)):
        slices = (table.slice(start, SLICE_ROWS) for start in range(0, table.num_rows, SLICE_ROWS))
        peers_vw.write(slices, work / name, rows.target, classes)
    several = classes is not None and len(classes) > 2
    form = ["--probabilities"] if several else ["--link", "logistic"] if classes else []
    learn = ["--loss_function", peers_vw.LOSS[rows.task], "-f", str(work / "model"), "-d", str(work / "train"), *form]
    learn += ["--oaa", str(len(classes or []))] if several else []
    predict = ["-t", "-i", str(work / "model"), "-d", str(work / "test"), "-p", str(work / "predicted"), *form]
    found = {}
    for passes in (1, 5):
        more = ["--passes", str(passes), "--holdout_off", "-c", "-k"] if passes > 1 else []
        ran = peers_vw.drive(*learn, *more)
        peers_vw.drive(*predict)
        predicted = np.array(peers_vw.predictions(work / "predicted"))
        if classes is None:
            predicted = predicted[:, 0]
        elif not several:
            predicted = np.column_stack([1 - predicted[:, 0], predicted[:, 0]])
        scores = score(rows.task, rows.targets(rows.test), predicted)
        found[f"Vowpal Wabbit, {passes} pass{'es' if passes > 1 else ''}"] = scores | {"seconds": ran["seconds"]}
    return found
