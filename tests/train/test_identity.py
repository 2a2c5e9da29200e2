"""What a run goes on with: the same settings, data and versions. What differs is said, and nothing is changed."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from make import CommandLine, content, examples

from streamtrain import fit, reader_from
from streamtrain.errors import RunError, StreamtrainError, UsageError
from streamtrain.learn import Linear
from streamtrain.model import tensors
from streamtrain.options import flag, options_of, plain
from streamtrain.runs.checkpoint import Checkpoints, CheckpointSchedule
from streamtrain.train import environment, identity
from streamtrain.train.history import Scores
from streamtrain.train.result import FitResult
from streamtrain.train.settings import Settings

ROWS = 300


def table(rows: int = ROWS, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 2))
    kinds = rng.integers(0, 9, rows)
    y = (x[:, 0] + 0.2 * kinds > 1).astype(int)
    return pa.table({"a": x[:, 0], "b": x[:, 1], "k": [f"k{v}" for v in kinds], "w": np.ones(rows), "y": y})


def write(path: Path, rows: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path, row_group_size=50)


def begin(data: Any, out: Path, **asked: Any) -> None:
    """A run that is stopped in the second of its steps."""
    steps, on_the_way = [0], Scores.on_the_way

    def counted(*found: Any) -> Any:
        steps[0] += 1
        if steps[0] == 2:
            signal.raise_signal(signal.SIGINT)
        return on_the_way(*found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scores, "on_the_way", counted)
        with pytest.raises(KeyboardInterrupt):
            fit(data, out=out, **asked)
    assert (out / "checkpoints/checkpoint-00000001.safetensors").exists()


ASKED: dict[str, Any] = {"target": "y", "features": ["a", "b", "k"], "window_rows": 100, "epochs": 2, "seed": 3}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data`` and ``other``, each of two files; the run ``r`` over the first."""
    root = tmp_path_factory.mktemp("base")
    for number in range(2):
        write(root / f"data/{number}.parquet", table(seed=number))
        write(root / f"other/{number}.parquet", table(seed=number + 10))
    begin(root / "data", root / "r", **ASKED)
    return root


@pytest.fixture
def mine(base: Path, tmp_path: Path) -> Path:
    """A copy, that may be changed."""
    shutil.copytree(base, tmp_path / "mine")
    return tmp_path / "mine"


def with_copy(data: Any, out: Path, **given: Any) -> FitResult:
    """A resume with a copy of the data."""
    return fit(data, out=out, resume=True, verify="full", **given)


def refused(data: Any, out: Path, says: str, error: type[Exception] = RunError, **given: Any) -> str:
    """A resume that is refused, and leaves all as it was. Gives the message."""
    was = content(out)
    with pytest.raises(error) as caught:
        fit(data, out=out, resume=True, **given)
    text = str(caught.value)
    assert re.search(says, text), text
    assert "\n" not in text and len(text) < 600, text
    assert content(out) == was
    return text


# -- settings ------------------------------------------------------------------------------------------------------------

OTHER: list[tuple[dict[str, Any], str]] = [
    ({"target": "w"}, "--target is w, the run has y"),
    ({"features": ["a", "b"]}, "--features is a,b, the run has a,b,k"),
    ({"features": ["b", "a", "k"]}, "--features is b,a,k, the run has a,b,k"),
    ({"exclude": ["w"]}, "--exclude is w, the run has none"),
    ({"roles": {"k": "text"}}, "--as is k=text, the run has none"),
    ({"crosses": ["k:a"]}, "--cross is k:a, the run has none"),
    ({"hash_bits": 12}, "--hash-bits is 12, the run has [0-9]+"),
    ({"weight": "w"}, "--weight is w, the run has none"),
    ({"task": "regress"}, "--task is regress, the run has classify"),
    ({"classes": ["0", "1"]}, "--classes is 0,1, the run has none"),
    ({"loss": "hinge"}, "--loss is hinge, the run has logistic"),
    ({"optimizer": "sgd"}, "--optimizer is sgd, the run has normalized"),
    (
        {"optimizer": "sgd", "learning_rate_schedule": "constant"},
        "--optimizer is sgd, the run has normalized; --learning-rate-schedule is constant, the run has sqrt",
    ),
    ({"learning_rate_schedule": "constant"}, "--learning-rate-schedule is constant, the run has sqrt"),
    ({"learning_rate": 0.5}, "--learning-rate is 0.5, the run has none"),
    ({"l1": 0.1}, "--l1 is 0.1, the run has 0.0"),
    ({"l2": 0.1}, "--l2 is 0.1, the run has 0.0"),
    ({"average": False}, "--average is False, the run has True"),
    ({"delta": 1.0}, "--delta is 1.0, the run has none"),
    ({"quantile": 0.1}, "--quantile is 0.1, the run has none"),
    ({"class_weight": "balanced"}, "--class-weight is balanced, the run has none"),
    ({"class_weight": {0: 2.0}}, "--class-weight is 0=2.0, the run has none"),
    ({"patience": 2}, "--patience is 2, the run has none"),
    ({"batch_size": 32}, "--batch-size is 32, the run has 16"),
    ({"window_rows": 50}, "--window-rows is 50, the run has 100"),
    ({"shuffle": False}, "--no-shuffle is True, the run has False"),
    ({"seed": 4}, "--seed is 4, the run has 3"),
    ({"holdout": 0.1}, "--holdout is 0.1, the run has 0.0"),
    ({"missing_chunks": "fill"}, "--missing-chunks is fill, the run has error"),
    ({"sample_dim": "t"}, "--sample-dim is t, the run has none"),
    ({"table_version": 1}, "--table-version is 1, the run has none"),
    ({"as_of": "2026-01-15"}, r"--as-of is 2026-01-15T00:00:00\+00:00, the run has none"),
    ({"where": "y = 1"}, "--where is y = 1, the run has none"),
    ({"holdout_by": "x"}, "--holdout-by is x, the run has none"),
    ({"holdout_after": "x=1"}, "--holdout-after is x=1, the run has none"),
]


@pytest.mark.parametrize(("other", "says"), OTHER, ids=["-".join(other) for other, _ in OTHER])
def test_other_settings(base: Path, other: dict[str, Any], says: str) -> None:
    for beside in ({}, {"epochs": 5, "threads": 1}):
        text = refused(base / "data", base / "r", says, **other, **beside)
        assert text.startswith("--resume: the run was started with other settings: ") and "leave out" in text


TEXT: list[dict[str, Any]] = [
    {"input_format": "csv"}, {"delimiter": "|"}, {"header": False}, {"na": ["q"]}, {"decimal": ","}, {"encoding": "latin-1"},
]  # fmt: skip


def test_other_settings_of_text_files(tmp_path: Path) -> None:
    data = tmp_path / "d.csv"
    data.write_text("x,y\n" + "".join(f"{i % 7},{i % 2}\n" for i in range(400)))
    begin(data, tmp_path / "r", target="y", window_rows=100, epochs=2)
    for other in TEXT:
        refused(data, tmp_path / "r", f"--(no-)?{next(iter(other)).replace('_', '-')} is ", **other)


def test_every_setting_is_free_or_must_be_the_same() -> None:
    """A new one is not forgotten here."""
    tried = {name for other, _ in OTHER for name in other} | {"learner"} | {name for other in TEXT for name in other}
    rules = {name: option.resume for name, (_, option) in options_of(Settings).items()}
    assert tried == {name for name, rule in rules.items() if rule in ("same", "resolved")}
    assert {name for name, rule in rules.items() if rule == "free"} == {
        "epochs", "memory", "threads", "on_overrun",
    }  # fmt: skip
    assert {name for name, rule in rules.items() if rule == "recorded"} == {"infinities", "on_error", "max_skipped"}


def test_a_setting_that_may_change_is_recorded(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rows that had been learned; it stays changed, and the change stays in the report."""
    field = Settings.__dataclass_fields__["learning_rate"]
    recorded = replace(field.metadata["option"], resume="recorded")
    monkeypatch.setattr(field, "metadata", {"option": recorded})
    shutil.copytree(mine / "r", mine / "same")
    begun = Checkpoints(mine / "r/checkpoints").look()
    assert begun is not None
    seen = begun["cursor"]["rows_seen"]
    with_copy(mine / "data", mine / "same")
    report = with_copy(mine / "data", mine / "r", learning_rate=0.01).report
    change = {"rows_seen": seen, "setting": "learning_rate", "was": None, "is": 0.01}
    assert report.as_dict()["changes"] == [change] and report.settings["learning_rate"] == 0.01
    assert json.loads((mine / "same/report.json").read_text())["changes"] == []
    weights = [(mine / name / "model.safetensors").read_bytes() for name in ("same", "r")]
    assert weights[0] != weights[1]
    more = with_copy(mine / "data", mine / "r", epochs=3).report
    assert more.as_dict()["changes"] == [change] and more.settings["learning_rate"] == 0.01


def test_another_learner(base: Path) -> None:
    refused(base / "data", base / "r", "--learner is trees, the run has linear", learner="trees")


@pytest.mark.parametrize(
    "again",
    [
        {}, ASKED, {"target": ["y"]}, {"features": ("a", "b", "k")}, {"seed": np.int64(3)}, {"holdout": 0, "l1": 0},
        {"batch_size": 16, "hash_bits": None}, {"loss": "logistic", "task": "classify"}, dict.fromkeys(ASKED),
        {"learning_rate_schedule": "sqrt", "shuffle": True, "average": np.True_, "exclude": [], "crosses": (), "roles": {}},
        {"memory": "3GB", "threads": 3, "on_overrun": "warn", "max_skipped": 0.2},
    ],
)  # fmt: skip
def test_the_same_settings_again(mine: Path, again: dict[str, Any]) -> None:
    report = with_copy(mine / "data", mine / "r", **again).report
    assert report.resumes == 1 and report.epochs == 2
    settings = report.as_dict()["settings"]
    assert settings["features"] == ["a", "b", "k"] and settings["seed"] == 3
    assert settings["threads"] == again.get("threads") and settings["max_skipped"] == again.get("max_skipped", 0.01)


def test_settings_that_are_lists_of_one(tmp_path: Path) -> None:
    """And a cross, by its parts."""
    write(tmp_path / "d.parquet", table())
    begin(tmp_path / "d.parquet", tmp_path / "r", target=["y"], features=["k"], window_rows=100)
    assert fit(tmp_path / "d.parquet", out=tmp_path / "r", resume=True, features=["k"], target="y").report.resumes == 1
    roles = {"a": "category"}
    begin(
        tmp_path / "d.parquet", tmp_path / "s", target="y", exclude=["w"], crosses=["k:a"], roles=roles, window_rows=100
    )
    report = fit(tmp_path / "d.parquet", out=tmp_path / "s", resume=True, crosses=[("k", "a")], exclude=["w"]).report
    assert report.resumes == 1 and report.settings["crosses"] == ["k:a"]


def test_settings_that_follow_from_others(tmp_path: Path) -> None:
    """What a setting given again belongs to is the run's, and need not be given."""
    write(tmp_path / "d.parquet", table())
    asked = {
        "target": "a",
        "loss": "huber",
        "delta": 2.0,
        "optimizer": "sgd",
        "learning_rate_schedule": "constant",
        "window_rows": 100,
    }
    begin(tmp_path / "d.parquet", tmp_path / "r", **asked)
    refused(tmp_path / "d.parquet", tmp_path / "r", "--delta is 3, the run has 2.0", delta=3)
    result = fit(
        tmp_path / "d.parquet", target="a", out=tmp_path / "r", resume=True, delta=2, learning_rate_schedule="constant"
    )
    assert result.report.resumes == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"epochs": 0}, "--epochs 0: must be"), ({"threads": 0}, "--threads 0: must be"),
     ({"memory": "much"}, "much"), ({"max_skipped": 7}, "--max-skipped 7")],
)  # fmt: skip
def test_settings_that_cannot_be(base: Path, wrong: dict[str, Any], says: str) -> None:
    refused(base / "data", base / "r", says, UsageError, **wrong)


def test_validation_data(mine: Path, tmp_path: Path) -> None:
    """They are found again by their path; where they are others then, that is refused; a copy is not."""
    shutil.copytree(mine / "other", tmp_path / "copy")
    begin(mine / "data", mine / "new", validate=mine / "other", patience=3, **ASKED)
    write(mine / "other/1.parquet", table(rows=ROWS + 1))
    text = refused(
        mine / "data", mine / "new", r"files changed: 1.parquet \(was .*; 600 rows then, 601 now; 12 chunks then"
    )
    assert text.startswith("--resume: the validation data are not those that the run was started with: ")
    refused(mine / "data", mine / "new", "--patience is 4, the run has 3", patience=4)
    shutil.rmtree(mine / "other")
    refused(mine / "data", mine / "new", "no such file", StreamtrainError)
    assert with_copy(mine / "data", mine / "new", validate=tmp_path / "copy").report.resumes == 1


def test_validation_data_without_a_path(tmp_path: Path) -> None:
    begin(table(), tmp_path / "r", validate=table(seed=4), **ASKED)
    refused(table(), tmp_path / "r", "--validate: the run.s validation data have no path: pass them again")
    assert fit(table(), out=tmp_path / "r", resume=True, validate=table(seed=4)).report.resumes == 1


# -- data ----------------------------------------------------------------------------------------------------------------


def added(data: Path) -> None:
    write(data / "2.parquet", table(seed=2))


def removed(data: Path) -> None:
    (data / "1.parquet").unlink()


def renamed(data: Path) -> None:
    (data / "1.parquet").rename(data / "z.parquet")


def longer(data: Path) -> None:
    write(data / "1.parquet", table(ROWS + 7, seed=1))


def other_type(data: Path) -> None:
    for path in data.iterdir():
        rows = pq.read_table(path)
        write(path, rows.set_column(1, "b", rows["b"].cast(pa.float32())))


def with_column(data: Path) -> None:
    for path in data.iterdir():
        rows = pq.read_table(path)
        write(path, rows.append_column("new", rows["w"]))


def without_column(data: Path) -> None:
    for path in data.iterdir():
        write(path, pq.read_table(path).drop_columns(["w"]))


def other_values(data: Path) -> None:
    """The same size, another content: what changes in the footer, the statistics for one, tells."""
    path, rows = data / "1.parquet", pq.read_table(data / "1.parquet")
    size = path.stat().st_size
    write(path, rows.set_column(1, "b", pa.array(-rows["b"].to_numpy())))
    assert path.stat().st_size == size


def other_groups(data: Path) -> None:
    pq.write_table(pq.read_table(data / "1.parquet"), data / "1.parquet", row_group_size=25)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (added, "files added: 2.parquet; 600 rows then, 900 now; 12 chunks then, 18 now"),
        (removed, "files removed: 1.parquet; 600 rows then, 300 now; 12 chunks then, 6 now"),
        (renamed, "files added: z.parquet; files removed: 1.parquet"),
        (
            longer,
            r"files changed: 1.parquet \(was [\d,]+ bytes, is [\d,]+\); 600 rows then, 607 now; 12 chunks then, 13 now",
        ),
        (other_type, r"columns changed: b \(was double, is float\); files changed: 0.parquet .*, 1.parquet"),
        (with_column, "columns added: new; files changed"),
        (without_column, "columns removed: w; files changed"),
        (other_values, "the names and sizes are the same, the contents are not"),
        (other_groups, "files changed: 1.parquet .*; 12 chunks then, 18 now"),
    ],
)
def test_other_data(mine: Path, change: Callable[[Path], None], says: str) -> None:
    change(mine / "data")
    text = refused(mine / "data", mine / "r", says)
    assert text.startswith("--resume: the data are not those that the run was started with: ")
    accept = ", accept the values as they are now with --data-changed accept" if change is other_values else ""
    assert text.endswith(f"give those{accept}, or learn from new data with --continue-from, in another folder")


def test_a_column_that_the_run_learns_from_is_gone(mine: Path) -> None:
    for path in (mine / "data").iterdir():
        write(path, pq.read_table(path).drop_columns(["a"]))
    refused(mine / "data", mine / "r", "a", StreamtrainError)


def test_a_copy_elsewhere(mine: Path, tmp_path: Path) -> None:
    (mine / "data").rename(tmp_path / "moved")
    assert with_copy(tmp_path / "moved", mine / "r").report.rows == 2 * ROWS


def test_other_zarr_arrays(tmp_path: Path) -> None:
    rows = table()

    def make(name: str, X: Any) -> Path:
        group = zarr.create_group(tmp_path / name)
        group.create_array("X", data=X, chunks=(50, X.shape[1]))
        group.create_array("y", data=rows["y"].to_numpy(), chunks=(50,))
        return tmp_path / name

    X = np.stack([rows["a"], rows["b"]], axis=1)
    asked = {"target": "y", "window_rows": 100}
    begin(make("z", X), tmp_path / "r", **asked)
    refused(
        make("wide", np.hstack([X, X])),
        tmp_path / "r",
        "feature 'X' has 4 numbers a row; the model knows 2",
        StreamtrainError,
    )
    refused(make("float", X.astype("f4")), tmp_path / "r", "columns changed: X", StreamtrainError)
    assert with_copy(make("copy", X), tmp_path / "r").report.resumes == 1


def test_other_data_in_memory(tmp_path: Path) -> None:
    begin(table(), tmp_path / "r", **ASKED)
    refused(table(seed=1), tmp_path / "r", "the names and sizes are the same, the contents are not")
    refused(table(rows=299), tmp_path / "r", "300 rows then, 299 now")
    assert fit(table(), out=tmp_path / "r", resume=True).report.resumes == 1


def reader(fingerprint: str | None, rows: int = 100) -> Any:
    parts = {str(i): table(rows, seed=i).to_batches()[0] for i in range(3)}
    return reader_from(
        list(parts), lambda key, columns: parts[key].select(columns), schema=table().schema, rows=[rows] * 3,
        fingerprint=fingerprint,
    )  # fmt: skip


def test_readers_that_do_not_tell(tmp_path: Path) -> None:
    report = fit(reader(None), out=tmp_path / "done", **ASKED).report
    warning = (
        "the reader has no fingerprint: --resume will refuse, because it cannot tell whether the data are the same"
    )
    assert warning in report.warnings
    assert report.fingerprint is None
    begin(reader(None), tmp_path / "r", **ASKED)
    for now in (None, "one"):
        refused(
            reader(now),
            tmp_path / "r",
            "cannot check that the data are unchanged: the reader must return a fingerprint",
            UsageError,
        )


def test_readers_that_tell(tmp_path: Path) -> None:
    begin(reader("one"), tmp_path / "r", **ASKED)
    refused(reader("two", 50), tmp_path / "r", "300 rows then, 150 now")
    refused(reader(None), tmp_path / "r", "must return a fingerprint", UsageError)
    report = fit(reader("one"), out=tmp_path / "r", resume=True).report
    assert report.fingerprint == "one" and not any("fingerprint" in text for text in report.warnings)


# -- versions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["order", "preparation", "learner"])
def test_another_version(base: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    module = {"order": "plan.order", "preparation": "prepare", "learner": "learn"}[part]
    monkeypatch.setattr(f"streamtrain.{module}.VERSION", 99)
    text = refused(base / "data", base / "r", f"started with version [0-9]+ of the {part}, and this is version 99")
    assert "go on with streamtrain 0." in text and "start a new run in another folder" in text


def rewrite(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """A checkpoint with another header."""
    path = run / "checkpoints/checkpoint-00000001.safetensors"
    found = tensors.look(path)[0]
    known = json.loads(found["streamtrain"])
    known = known.pop("run") | known
    change(known)
    tensors.save(path, tensors.load(path, sealed=True).arrays, metadata={"streamtrain": json.dumps(known)}, sealed=True)


def test_a_checkpoint_of_a_later_format(mine: Path) -> None:
    rewrite(mine / "r", lambda known: known.update(format=2))
    refused(mine / "data", mine / "r", "checkpoint format 2; this version reads 1")


def test_elsewhere_it_warns_of_the_last_bits(mine: Path, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = {"numpy": "1.0", "processor": "abacus", "blas": "none", "features": "none", "c_library": "none"}
    rewrite(mine / "r", lambda known: known["environment"].update(elsewhere))
    report = with_copy(mine / "data", mine / "r").report
    warning = next(text for text in report.warnings if text.startswith("resumed elsewhere: "))
    assert f"elsewhere: numpy 1.0 then, {np.__version__} now: results" in warning, "nothing else decides its bits"
    assert caplog.messages.count(warning) == 1
    assert "streamtrain" not in warning


class Theirs:
    """Stands for a learner of another library."""


def test_what_decides_the_bits_of_a_built_in_learner_and_of_others() -> None:
    now = environment.environment()
    assert environment.environment_changes({"environment": now}, Theirs()) == []
    for name in now:
        was = {other: value for other, value in now.items() if other != name}  # as an earlier version recorded it
        own, others = (environment.environment_changes({"environment": was}, one) for one in (Linear(1), Theirs()))
        assert (len(own), len(others)) == (name in ("numpy", "kernels", "machine"), name != "streamtrain")
        assert all(f"{name.replace('_', ' ')} not recorded then, {now[name]} now" in one for one in own + others)


def test_without_a_change_there_is_no_warning(mine: Path) -> None:
    assert not any("elsewhere" in text for text in with_copy(mine / "data", mine / "r").report.warnings)


# -- the command line ----------------------------------------------------------------------------------------------------


def test_what_is_refused_is_one_line(base: Path, cli: CommandLine) -> None:
    before = content(base / "r")
    for more, says in (
        (["--resume", "--seed", "4"], "--seed is 4, the run has 3"),
        (["--resume", "--no-shuffle"], "--no-shuffle is True, the run has False"),
        (["--resume", "--features", "a", "--no-average"], "--features is a, the run has a,b,k; --average is False"),
        (["--target", "y"], "already contains a run"),
    ):
        code, out, err = cli("fit", base / "data", "--out", base / "r", "--json", *more)
        assert (code, out) == (2, "") and says in err and err.count("\n") == 1, err
    assert content(base / "r") == before


# -- alone ---------------------------------------------------------------------------------------------------------------

names = st.text("abc:", min_size=1, max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


def in_other_clothes(value: Any) -> Any:
    """Tuples for lists, numbers of numpy for numbers."""
    if isinstance(value, list):
        return tuple(map(in_other_clothes, value))
    if isinstance(value, Mapping):
        return {key: in_other_clothes(inner) for key, inner in value.items()}
    if isinstance(value, bool):
        return np.bool_(value)
    return np.int64(value) if isinstance(value, int) else np.float64(value) if isinstance(value, float) else value


@given(values)
def test_plain_is_what_json_gives_back(value: Any) -> None:
    found = plain(in_other_clothes(value))
    assert found == value and json.loads(json.dumps(found)) == found == plain(found)


@given(values)
def test_the_same_in_other_clothes(value: Any) -> None:
    assert identity.is_same(value, in_other_clothes(value)) and identity.is_same(in_other_clothes(value), value)


def test_is_same() -> None:
    assert identity.is_same(["a"], "a") and identity.is_same([("a", "b")], ["a:b"]) and identity.is_same(1, 1.0)
    for one, other in (
        ("a", "b"),
        (["a"], ["a", "b"]),
        (["a", "b"], ["b", "a"]),
        (None, []),
        (0, None),
        ("1", 1),
        ({}, None),
    ):
        assert not identity.is_same(one, other) and not identity.is_same(other, one), (one, other)


def test_flags_are_those_of_the_command_line(cli: CommandLine) -> None:
    known = set(re.findall(r"--[a-z0-9-]+", cli("fit", "--help").out))
    assert {flag(name, option) for name, (_, option) in options_of(Settings).items()} <= known


sizes = st.dictionaries(st.sampled_from(["p", "q", "r", "s", "t", "u"]), st.integers(1, 9))


@examples(60)
@given(sizes, sizes, st.booleans())
def test_differences_name_what_differs(was: dict[str, int], now: dict[str, int], is_same: bool) -> None:
    def data(files: dict[str, int], fingerprint: str) -> dict[str, Any]:
        return {
            "fingerprint": fingerprint,
            "rows": sum(files.values()),
            "chunks": len(files),
            "schema": {},
            "files": files,
        }

    if is_same:  # whatever else, for instance names of another place
        identity.require_same_data(data(was, "same"), data(now, "same"))
        return
    with pytest.raises(RunError) as caught:
        identity.require_same_data(data(was, "one"), data(now, "other"))
    text = str(caught.value)
    for kind, found in (("added", now.keys() - was.keys()), ("removed", was.keys() - now.keys())):
        assert (f"files {kind}: " in text) == bool(found)
        assert (f" and {len(found) - 3} more" in text) or len(found) <= 3
    changed = [name for name in was.keys() & now.keys() if was[name] != now[name]]
    assert ("files changed: " in text) == bool(changed)
    assert ("contents are not" in text) == (was == now)


durations = st.lists(st.tuples(st.floats(0.001, 50), st.floats(0.0001, 3)), max_size=30)


@given(st.floats(0, 100), st.integers(0, 10**9), durations)
def test_the_pace(seconds: float, state_bytes: int, steps: list[tuple[float, float]]) -> None:
    """Between two checkpoints pass the seconds asked, and 50 times what the last one took: at most 2 % of the time."""
    pace, now, last, cost, spent = CheckpointSchedule(seconds, state_bytes), 0.0, 0.0, 0.02 + state_bytes / 200e6, 0.0
    for wait, takes in steps:
        now += wait
        affordable = now - last >= 50 * cost
        assert pace.due(now, at_end=True) == affordable
        assert pace.due(now) == (affordable and now - last >= seconds)
        if pace.due(now):
            pace.took(now, now + takes)
            now += takes
            last, cost, spent = now, now - (now - takes), spent + takes
    assert pace.spent == pytest.approx(spent) and pace.count == round(pace.count)
