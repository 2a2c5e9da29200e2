"""A run that goes on with the model of another, on other data."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import CommandLine, Done, content, examples, state

from streamtrain import Model, evaluate, fit, load_model, predict
from streamtrain.errors import StreamtrainError, UsageError
from streamtrain.load import Loader, Source
from streamtrain.options import options_of
from streamtrain.train.history import Scores
from streamtrain.train.resume import ParentRun
from streamtrain.train.settings import Settings

ASKED: dict[str, Any] = {"target": "y", "exclude": ["z"], "window_rows": 150, "seed": 2}
CENTRES = np.random.default_rng(5).normal(size=(4, 3)) * 3


def table(kinds: str = "abc", rows: int = 500, seed: int = 0) -> pa.Table:
    """Rows of some classes, whose numbers lie about a point for each, and whose cities are their own; z is a number."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice([ord(kind) - ord("a") for kind in kinds], rows)
    x = CENTRES[drawn] + rng.normal(size=(rows, 3))
    cities = [f"{v}" for v in drawn * 3 + rng.integers(0, 8, rows)]
    y = np.array(list("abcd"))[drawn]
    return pa.table({f"x{j}": x[:, j] for j in range(3)} | {"city": cities, "y": y, "z": 1e6 + x @ [1.0, 2.0, 3.0]})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``first`` and ``second``, data of the same classes, and ``more`` with one more; ``parent``, a run over the first."""
    root = tmp_path_factory.mktemp("world")
    for name, kinds in (("first", "abc"), ("second", "abc"), ("more", "abcd")):
        pq.write_table(table(kinds, seed=len(name)), root / f"{name}.parquet", row_group_size=50)
    fit(root / "first.parquet", out=root / "parent", epochs=2, **ASKED)
    return root


def outcome(run: Path) -> dict[str, Any]:
    report = json.loads((run / "report.json").read_text())
    names = ("metrics", "per_class", "rows", "rows_seen", "batches", "preparation", "classes", "lineage", "fingerprint")
    lines = [json.loads(line) | {"seconds": 0} for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {name: report[name] for name in names} | {"lines": lines, "model": (run / "model.safetensors").read_bytes()}


def stopped(data: Any, out: Path, at: int, **asked: Any) -> bool:
    """Fit until the step of this number; whether it got there."""
    steps, on_the_way = [0], Scores.on_the_way

    def counted(*found: Any) -> Any:
        steps[0] += 1
        if steps[0] == at:
            signal.raise_signal(signal.SIGINT)
        return on_the_way(*found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scores, "on_the_way", counted)
        try:
            fit(data, out=out, **asked)
        except KeyboardInterrupt:
            return True
    return False


def by_hand(model: Model, data: Path, epochs: int, **asked: Any) -> Model:
    """The model, once it has learned from other data of the same classes."""
    source = Source.open(data, target=list(model.target.names) if model.target.parts else model.target.name)
    source = source.surveyed(earlier=model.target).with_layout(
        replace(model.layout_for(source.reader.schema, with_target=False), target=model.target)
    )
    plan = source.plan(window_rows=150, batch_size=16)
    with Loader(source, plan, seed=asked.get("seed", 0), epochs=epochs) as loader:
        for _ in range(epochs):
            for batch in loader:
                model.train(batch)
    return model


# -- the same classes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "own",
    [{}, {"optimizer": "adam", "average": False, "l1": 1e-4}, {"target": "z", "exclude": ["y"]}, {"roles": {"city": "text"}},
     {"target": ["x0", "z"], "exclude": ["y"]}],
    ids=["softmax", "adam", "regression", "text", "several"],
)  # fmt: skip
def test_the_model_of_the_old_run_learns_the_new_rows(world: Path, tmp_path: Path, own: dict[str, Any]) -> None:
    """Bit for bit what it becomes when they are handed to it."""
    asked = ASKED | own
    fit(world / "first.parquet", out=tmp_path / "old", **asked)
    was = content(tmp_path / "old")
    new = fit(
        world / "second.parquet",
        out=tmp_path / "new",
        continue_from=tmp_path / "old",
        seed=7,
        epochs=2,
        window_rows=150,
    )
    old = load_model(tmp_path / "old")
    start = state(old)
    assert state(by_hand(old, world / "second.parquet", 2, seed=7)) == state(new.model) != start
    fresh = fit(world / "second.parquet", epochs=2, **(asked | {"seed": 7}))
    assert state(fresh.model) != state(new.model)
    assert content(tmp_path / "old") == was
    assert state(load_model(tmp_path / "new")) == state(new.model)
    assert new.model.target.names == old.target.names and new.report.loss == fresh.report.loss


def test_it_begins_with_what_the_old_model_predicts(world: Path, tmp_path: Path) -> None:
    """Progressive scores, where hardly anything is learned, are those of the old model."""
    data = world / "second.parquet"
    before = evaluate(load_model(world / "parent"), data)["metrics"]
    report = fit(data, continue_from=world / "parent", batch_size=500).report
    for name in ("loss", "accuracy"):
        assert report.metrics["progressive"][name] == pytest.approx(before[name], rel=0.02)  # ranges grow first
    assert report.metrics["progressive"]["accuracy"] > fit(data, **ASKED).report.metrics["progressive"]["accuracy"]


def test_settings_of_the_run_not_of_the_model_are_free(world: Path, tmp_path: Path) -> None:
    report = fit(
        world / "second.parquet", out=tmp_path / "r", continue_from=world / "parent", target="y", batch_size=32,
        holdout=0.2, validate=world / "first.parquet", patience=3, epochs=2, shuffle=False, threads=1, learning_rate=0.01,
        loss="softmax", optimizer="normalized", features=["x0", "x1", "x2", "city"],
    ).report  # fmt: skip
    asked = report.as_dict()["settings"]
    assert (asked["learning_rate"], asked["batch_size"], asked["holdout"]) == (0.01, 32, 0.2)
    assert report.metrics["validation"]["accuracy"] > 0.9
    assert json.loads((tmp_path / "r/model.json").read_text())["settings"]["learning_rate"] == 0.01


# -- new classes ------------------------------------------------------------------------------------------------------------


def test_more_classes(world: Path, tmp_path: Path) -> None:
    result = fit(world / "more.parquet", out=tmp_path / "r", continue_from=world / "parent")
    assert result.report.classes == ["a", "b", "c", "d"]
    assert evaluate(result.model, table("d", seed=50))["metrics"]["accuracy"] > 0.8
    old = evaluate(load_model(world / "parent"), table("abc", seed=51))["metrics"]["accuracy"]
    assert evaluate(result.model, table("abc", seed=51))["metrics"]["accuracy"] > old - 0.05
    predict(tmp_path / "r", world / "more.parquet", out=tmp_path / "p.parquet")
    assert "probability_d" in pq.read_table(tmp_path / "p.parquet").column_names


def test_fewer_and_other_classes(world: Path, tmp_path: Path) -> None:
    """Those that do not come are kept."""
    result = fit(table("ad", seed=3), continue_from=world / "parent")
    assert result.report.classes == ["a", "b", "c", "d"]
    only = fit(table("b", seed=3), continue_from=world / "parent")
    assert only.report.classes == ["a", "b", "c"] and evaluate(only.model, table("c"))["metrics"]["accuracy"] > 0.8


@pytest.mark.parametrize("again", [{}, {"loss": "softmax"}, {"loss": "logistic"}])
def test_a_third_class(tmp_path: Path, again: dict[str, Any]) -> None:
    """Where there were two the loss was logistic; now it is softmax."""
    fit(table("ab"), out=tmp_path / "old", **ASKED)
    if again == {"loss": "logistic"}:
        with pytest.raises(UsageError, match=r"logistic.*softmax|logistic.*two classes"):
            fit(table("abc"), continue_from=tmp_path / "old", **again)
        return
    report = fit(table("abc"), continue_from=tmp_path / "old", **again).report
    assert report.loss == "softmax" and report.classes == ["a", "b", "c"]


# -- lineage ----------------------------------------------------------------------------------------------------------------


def test_two_generations(world: Path, tmp_path: Path) -> None:
    parent = json.loads((world / "parent/report.json").read_text())
    assert parent["lineage"] == []
    fit(world / "second.parquet", out=tmp_path / "child", continue_from=world / "parent")
    report = fit(world / "more.parquet", out=tmp_path / "grandchild", continue_from=tmp_path / "child").report
    assert report.lineage == [
        {"run": str(world / "parent"), "rows_seen": 1000, "fingerprint": parent["fingerprint"]},
        {"run": str(tmp_path / "child"), "rows_seen": 500, "fingerprint": report.lineage[1]["fingerprint"]},
    ]
    child = json.loads((tmp_path / "child/report.json").read_text())
    assert child["lineage"] == report.lineage[:1] and child["fingerprint"] == report.lineage[1]["fingerprint"]
    assert len({parent["fingerprint"], child["fingerprint"], report.fingerprint}) == 3
    assert json.loads((tmp_path / "grandchild/report.json").read_text())["lineage"] == report.lineage


# -- stopped ----------------------------------------------------------------------------------------------------------------


@examples(4)
@given(steps=st.lists(st.integers(1, 8), min_size=1, max_size=3), data=st.sampled_from(["second", "more"]))
def test_stopped_and_resumed(world: Path, steps: Sequence[int], data: str) -> None:
    path, out, whole = world / f"{data}.parquet", world / "run", world / f"whole {data}"
    asked: dict[str, Any] = {
        "continue_from": world / "parent",
        "epochs": 2,
        "holdout": 0.1,
        "seed": 4,
        "window_rows": 150,
    }
    if not whole.exists():
        fit(path, out=whole, **asked)
    shutil.rmtree(out, ignore_errors=True)
    assert stopped(path, out, steps[0], **asked)
    for at in steps[1:]:
        stopped(path, out, at, resume=True, **(asked if at % 2 else {}))
    fit(path, out=out, resume=True)
    assert outcome(out) == outcome(whole)


def test_the_old_run_is_needed_no_more(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "parent", tmp_path / "parent")
    assert stopped(world / "more.parquet", tmp_path / "r", 3, continue_from=tmp_path / "parent", window_rows=150)
    was = content(tmp_path / "r")
    for other in (world / "parent", tmp_path / "r"):
        with pytest.raises(
            StreamtrainError, match=r"--continue-from .*: the run continued from .*parent: leave it out"
        ):
            fit(world / "more.parquet", out=tmp_path / "r", resume=True, continue_from=other)
    assert content(tmp_path / "r") == was
    shutil.rmtree(tmp_path / "parent")
    report = fit(world / "more.parquet", out=tmp_path / "r", resume=True, continue_from=tmp_path / "parent").report
    assert [entry["run"] for entry in report.lineage] == [str(tmp_path / "parent")]


def test_a_run_of_its_own_does_not_become_a_continued_one(world: Path, tmp_path: Path) -> None:
    stopped(world / "second.parquet", tmp_path / "r", 2, **ASKED)
    with pytest.raises(
        StreamtrainError, match="the run did not continue another: leave it out, or name another folder"
    ):
        fit(world / "second.parquet", out=tmp_path / "r", resume=True, continue_from=world / "parent")


def test_more_epochs_of_a_continued_run(world: Path, tmp_path: Path) -> None:
    data, asked = world / "more.parquet", {"continue_from": world / "parent", "window_rows": 150}
    fit(data, out=tmp_path / "r", **asked)
    fit(data, out=tmp_path / "r", resume=True, epochs=3)
    fit(data, out=tmp_path / "at once", epochs=3, **asked)
    assert outcome(tmp_path / "r") == outcome(tmp_path / "at once")


# -- what cannot be ---------------------------------------------------------------------------------------------------------


def refused(says: str, data: Any, out: Path, **asked: Any) -> None:
    """Nothing is made, and the old run stays as it is."""
    parent = Path(asked["continue_from"])
    was = content(parent) if parent.is_dir() else None
    with pytest.raises(StreamtrainError) as caught:
        fit(data, out=out, **asked)
    text = str(caught.value)
    assert re.search(says, text) and "\n" not in text, text
    assert not out.exists() or out == parent
    assert was is None or content(parent) == was


def test_what_is_no_finished_run(world: Path, tmp_path: Path) -> None:
    data, out = world / "second.parquet", tmp_path / "new"
    refused("nope: not a run .no such folder", data, out, continue_from=tmp_path / "nope")
    (tmp_path / "empty").mkdir()
    refused("empty: not a run .has no model.json", data, out, continue_from=tmp_path / "empty")
    refused("first.parquet", data, out, continue_from=world / "first.parquet")
    assert stopped(data, tmp_path / "stopped", 2, **ASKED)
    shutil.rmtree(tmp_path / "stopped/checkpoints")
    (tmp_path / "stopped/checkpoints").mkdir()
    refused("stopped: the model is not written yet", data, out, continue_from=tmp_path / "stopped")
    shutil.copytree(world / "parent", tmp_path / "old", ignore=shutil.ignore_patterns("checkpoints"))
    (tmp_path / "old/report.json").unlink()
    refused(
        "has no report.json: not the folder of a run, or the run did not finish",
        data,
        out,
        continue_from=tmp_path / "old",
    )


@pytest.mark.parametrize(
    ("name", "damage"),
    [("model.safetensors", "flipped"), ("model.safetensors", "cut"), ("model.json", "flipped"), ("model.json", "empty"),
     ("report.json", "cut")],
)  # fmt: skip
def test_a_damaged_run(world: Path, tmp_path: Path, name: str, damage: str) -> None:
    shutil.copytree(world / "parent", tmp_path / "old")
    found = bytearray((tmp_path / "old" / name).read_bytes())
    found[len(found) // 2] ^= 1
    (tmp_path / "old" / name).write_bytes({"flipped": found, "cut": found[:-9], "empty": b""}[damage])
    says = (
        r"(is damaged|was changed|is cut off|cannot be read|it has no|is expected|its )"
        if "model" in name
        else "cannot be read"
    )
    refused(f"old/{name}: .*{says}", world / "second.parquet", tmp_path / "new", continue_from=tmp_path / "old")


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"target": "z"}, "--target is z, the model has y"),
        ({"features": ["x0", "x1"]}, "--features is .*x0.*x1.*, the model has .*x0.*x1.*x2.*city"),
        ({"exclude": ["x0"]}, "--exclude is x0, the model has none"),
        ({"roles": {"city": "text"}}, "--as is .*text.*, the model has .*category"),
        ({"crosses": ["city:x0"]}, "--cross is .*city:x0.*, the model has"),
        ({"hash_bits": 9}, "--hash-bits is 9, the model has [0-9]+"),
        ({"infinities": "clip"}, "--infinities is clip, the model has error"),
        ({"weight": "z"}, "--weight is z, the model has"),
        ({"task": "regress"}, "--task is regress, the model has classify"),
        ({"optimizer": "sgd"}, "--optimizer is sgd, the model has normalized"),
        ({"optimizer": "sgd", "seed": 1, "average": False}, "--optimizer is sgd, the model has normalized; --average is False"),
        ({"l2": 0.1}, "the old run has --l2 0; this fit has above 0: give the same"),
        ({"loss": "hinge"}, "--loss hinge is for two classes"),
        ({"learner": "trees"}, "trees"),
    ],
    ids=str,
)  # fmt: skip
def test_other_settings(world: Path, tmp_path: Path, other: dict[str, Any], says: str) -> None:
    refused(says, world / "second.parquet", tmp_path / "new", continue_from=world / "parent", **other)


def test_each_setting_of_the_model_is_compared(world: Path) -> None:
    options = {name: option for name, (_, option) in options_of(Settings).items()}
    assert set(ParentRun.load(world / "parent")._own) == {
        n for n, option in options.items() if option.continues != "new"
    }


@pytest.mark.parametrize("name", ["x1", "city", "y"])
def test_a_column_is_missing(world: Path, tmp_path: Path, name: str) -> None:
    refused(name, table().drop_columns([name]), tmp_path / "new", continue_from=world / "parent")


def test_a_column_became_another_kind(world: Path, tmp_path: Path) -> None:
    rows = table()
    words = rows.set_column(0, "x0", pa.array(["?"] * len(rows)))
    refused("x0", words, tmp_path / "new", continue_from=world / "parent")
    numbers = rows.set_column(4, "y", pa.array(np.arange(len(rows)) % 2))
    refused(
        "'y' is '0', but the classes of the old run are text", numbers, tmp_path / "new", continue_from=world / "parent"
    )


@pytest.mark.parametrize("resume", [False, True])
def test_into_the_old_run_itself(world: Path, resume: bool) -> None:
    parent = world / "parent"
    says = "already contains a run" if not resume else "the run did not continue another"
    refused(says, world / "second.parquet", parent, continue_from=parent, resume=resume)


def test_on_the_command_line(world: Path, tmp_path: Path, cli: CommandLine) -> None:
    def run(*arguments: Any) -> Done:
        return cli("fit", *arguments, "--json")

    parent, data = world / "parent", world / "more.parquet"
    code, out, err = run(data, "--continue-from", parent, "--out", tmp_path / "r", "--learning-rate", 0.1)
    assert not code and not err
    found = json.loads(out)
    assert [entry["run"] for entry in found["lineage"]] == [str(parent)] and found["classes"] == ["a", "b", "c", "d"]
    code, out, err = run(data, "--continue-from", parent, "--out", tmp_path / "s", "--optimizer", "sgd")
    assert (code, out) == (2, "") and err.startswith("error: --continue-from") and err.count("\n") == 1
    code, out, err = run(data, "--continue-from", tmp_path / "s", "--out", tmp_path / "t")
    assert (code, out) == (2, "") and "not a run" in err and not (tmp_path / "t").exists()
