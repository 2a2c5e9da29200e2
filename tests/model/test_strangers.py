"""Model folders and checkpoints from strangers, with right checksums: refused in one line, before anything of them is used."""

from __future__ import annotations

import copy
import json
import shutil
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make import CommandLine

import streamtrain
from streamtrain import load_model
from streamtrain.errors import BudgetRefused, RunError
from streamtrain.model import tensors
from streamtrain.model.room import Room, parsed_bytes
from streamtrain.model.stored import parse_json
from streamtrain.runs.checkpoint import Checkpoints
from streamtrain.train.last_checkpoint import open_model
from streamtrain.train.stored import checked_checkpoint

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from strangers_cases import Good, craft, make, seal_checkpoint, seal_model

KINDS = ("softmax", "regression")
CASES = 80


@pytest.fixture(scope="module")
def goods(tmp_path_factory: pytest.TempPathFactory) -> list[Good]:
    return make(tmp_path_factory.mktemp("strangers"), KINDS)


@pytest.fixture
def good(goods: list[Good]) -> Good:
    """A regression by adam with penalties."""
    return goods[1]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The files whose arrays were loaded."""
    loaded, load = [], tensors.load

    def counted(path: Any, **how: Any) -> Any:
        loaded.append(path)
        return load(path, **how)

    monkeypatch.setattr(tensors, "load", counted)
    return loaded


def opened(file: str, folder: Path) -> None:
    """Open it as commands do, up to the point where an array would be loaded; a model is loaded."""
    if file == "model":
        load_model(folder, memory="2GB")
        return
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.newest(lambda *found: checked_checkpoint(*found, None, Room()))


def test_crafted_models_and_checkpoints_are_refused_before_an_array_is_loaded(
    goods: list[Good], tmp_path: Path, loads: list[Any]
) -> None:
    believed = 0
    for number in range(CASES):
        rng = np.random.default_rng([7, number])
        case = craft(rng, goods[number % len(goods)], tmp_path / str(number))
        try:
            opened(case.file, case.folder)
        except (RunError, BudgetRefused) as error:
            text = str(error)
            names_it = str(case.folder) in text or "version None" in text
            assert names_it and "\n" not in text and len(text) < 1000, (case.what, text)
        else:
            believed += 1
            assert case.may_pass or (case.file == "checkpoint" and case.is_value), (
                case.good.kind,
                case.file,
                case.what,
            )
        assert not loads or case.is_value or case.may_pass, case.what
        loads.clear()
    assert believed < CASES / 4


def put(document: dict[str, Any], where: str, value: Any) -> None:
    """Set a field. where: its names and positions, joined by dots."""
    *before, last = [int(name) if name.isdigit() else name for name in where.split(".")]
    holder: Any = document
    for name in before:
        holder = holder[name]
    holder[last] = value


MODELS: list[tuple[str, Any, str]] = [
    ("targets.0.classes", ["a", "b", "a"], "its targets[0].classes[2] is 'a': it is there twice"),
    ("targets.0.classes", [1, 1.0, 2], "is there twice"),
    ("targets.0.classes", [float("nan"), 1.0, 2.0], "cannot be read: NaN"),
    ("targets.0.classes", ["a", 1, "b"], "its targets[0].classes[1] is 1: classes must be all text"),
    ("targets.0.classes", ["a", "b", "\ud800"], "its targets[0].classes[2] is"),
    (
        "targets.0",
        {"name": "m", "task": "classify", "classes": [*"abcd"], "offset": 0},
        "its array 'learner.weights' is <f4 of shape",
    ),
    ("targets.0.counts", [1, 2], "its targets[0].counts is [1, 2]: it must have"),
    ("features.0.shape", [10**8], "its array 'preparation.numbers.mean' is <f8 of shape"),
    ("features.0.shape", [2**62, 4], "its features[0].shape is [4611686018427387904, 4]: a value has less than"),
    ("features.0.type", "timestamp[ns, tz=../../etc/passwd]", "the time zone '../../etc/passwd' is unknown"),
    ("features.0.type", [0] * 9, "its features[0].type is a list of 9: it must be text"),
    ("features.0.type", "text", "its features[0].role is 'number': a column of type text cannot have it"),
    ("features.0.offset", "1E999999999", "its features[0].offset is '1E999999999': it must be a finite number"),
    ("features.0.offset", "1E+9999", "its features[0].offset is '1E+9999'"),
    ("features.0.offset", [1, 2], "its features[0].offset is [1, 2]: it must be one number, or 1"),
    ("features.1.name", "a", "its features[1].name is 'a': there is one of this name already"),
    ("features.0.role", "sound", "its features[0].role is 'sound': it must be one of number"),
    ("features.0.evil", 1, "its features[0] has 'evil'"),
    ("settings.evil", 1, "its settings are wrong: --learner linear has no setting 'evil'"),
    ("settings.loss", "squared", "its settings are wrong: --loss squared is for regression"),
    ("settings.optimizer", "__class__", "its settings are wrong: --optimizer __class__"),
    ("settings.learning_rate", 10**4000, "its settings are wrong: --learning-rate 1000"),
    (
        "preparation.class_weights",
        [1.0],
        "its preparation.class_weights is [1.0]: it must have one for each of 3 classes",
    ),
    ("preparation.hash_bits", 62, "its preparation.hash_bits is 62: it must be from 4 to 28"),
    ("crosses", [["k"] * 50_000], "its targets or crosses are wrong: --cross"),
    ("format", 10**4000, "its format is a number of 13,288 bits"),
    ("weight", 5, "its weight is 5: it must be text"),
]


@pytest.mark.parametrize(
    ("where", "value", "message"), MODELS, ids=[f"{where}-{i}" for i, (where, *_) in enumerate(MODELS)]
)
def test_a_description_that_is_impossible(
    where: str, value: Any, message: str, goods: list[Good], tmp_path: Path, loads: list[Any]
) -> None:
    folder = Path(shutil.copytree(goods[0].finished, tmp_path / "m"))
    description = copy.deepcopy(goods[0].description)
    put(description, where, value)
    seal_model(folder, description)
    with pytest.raises(RunError) as caught:
        load_model(folder)
    text = str(caught.value)
    assert message in text and str(folder) in text and len(text) < 1000 and not loads, text


def of(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays.update({name: np.full_like(arrays[name], value)})


ARRAYS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "NaN weights": (of("learner.weights", np.nan), "the state's weights has nan: it must be finite"),
    "infinite averages": (of("learner.average", np.inf), "the state's average has inf"),
    "NaN in slots": (of("learner.sparse", np.nan), r"the state's sparse \(weights\) has nan"),
    "squares below 0": (of("learner.squares", -1), "the state's squares has -1.0: it must be at least 0"),
    "rows below 0": (of("learner.rows", -1), "the state's rows has -1"),
    "more batches than rows": (of("learner.batches", 1 << 40), "rows and batches contradict"),
    "deviations below 0": (of("preparation.numbers.m2", -1), "the state's m2 has -1.0"),
    "more values than rows": (of("preparation.numbers.counts", 1e9), "more values than rows"),
    "low above high": (of("preparation.numbers.low", 1e30), "low or wide is impossible"),
    "a target without a scale": (of("target.m2", np.nan), "the state's m2 has nan"),
    "the same hash": (of("preparation.vocabulary.hashes", 5), "some are equal"),
    "float64 weights": (lambda a: a.update({"learner.weights": a["learner.weights"].astype(float)}), "is <f8 .* needs <f4"),
    "an array more": (lambda a: a.update(evil=np.zeros(3)), "its array 'evil' belongs to nothing that is described"),
    "an array less": (lambda a: a.pop("target.mean"), "it has no array 'target.mean'"),
    "a narrow table": (lambda a: a.update({"learner.sparse": a["learner.sparse"][:, 1:]}), "its array 'learner.sparse'"),
    "a byte that is no truth": (
        lambda a: a.update({"preparation.numbers.seen": np.full(2, 7, np.uint8).view(np.bool_)}), "neither true nor false",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_are_impossible(name: str, good: Good, tmp_path: Path) -> None:
    change, message = ARRAYS[name]
    folder, arrays = Path(shutil.copytree(good.finished, tmp_path / "m")), dict(good.arrays)
    change(arrays)
    seal_model(folder, good.description, arrays)
    with pytest.raises(RunError, match=message) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)


ENTRY = {"source": "d", "chunk": "c", "rows": 1, "why": ["e"]}
CHECKPOINTS: list[tuple[str, Any, str]] = [
    ("cursor.epoch", 9, "its cursor.epoch is 9: it must be from"),
    ("cursor.row", 10**6, "its cursor.row is 1000000"),
    ("cursor.rows_seen", 10**9, "its cursor.rows_seen is 1000000000"),
    ("history.ends", [7], "its history.ends is [7]"),
    ("history.lines.0.progressive.loss", "x", "its history.lines[0].progressive.loss is 'x'"),
    ("ledger", {"entries": {"99": ENTRY}, "lost": [], "read": 1}, "its ledger.entries is '99'"),
    ("ledger", {"entries": {}, "lost": [1], "read": 1}, "its ledger.lost is 1"),
    ("seconds.loop", -1.0, "its seconds.loop is -1.0"),
    ("resolved.hash_bits", 9, "its resolved.hash_bits is 9"),
    ("resolved.batch_size", 0, "its settings are wrong: --batch-size 0"),
    ("model.targets.0.offset", "x", "its model.targets[0].offset is 'x'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "value", "message"), CHECKPOINTS, ids=[f"{where}-{i}" for i, (where, *_) in enumerate(CHECKPOINTS)]
)
def test_a_checkpoint_that_is_impossible(
    where: str, value: Any, message: str, good: Good, tmp_path: Path, loads: list[Any]
) -> None:
    folder, header = Path(shutil.copytree(good.stopped, tmp_path / "r")), copy.deepcopy(good.header)
    put(header, where, value)
    seal_checkpoint(folder, header, good.checkpoint)
    with pytest.raises(RunError) as caught:
        opened("checkpoint", folder)
    assert message in str(caught.value) and not loads, str(caught.value)
    with pytest.raises(RunError) as caught:  # where only the model of it is wanted
        open_model(folder)
    assert message in str(caught.value) and not loads, str(caught.value)


def test_code_is_not_imported_because_a_stranger_says_so(
    good: Good, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the model nor by the settings of a checkpoint, which name the learner too."""
    (tmp_path / "stranger.py").write_text("raise SystemExit('code of a stranger ran')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = Path(shutil.copytree(good.finished, tmp_path / "m"))
    seal_model(folder, good.description | {"learner": "stranger:Learner"})
    with pytest.raises(RunError, match="loading it runs the code of module 'stranger'"):
        load_model(folder)
    run, header = Path(shutil.copytree(good.stopped, tmp_path / "r")), copy.deepcopy(good.header)
    header["settings"]["learner"] = "stranger:Learner"
    seal_checkpoint(run, header, good.checkpoint)
    with pytest.raises(RunError, match=r"its settings\.learner is 'stranger:Learner': the model's learner is linear"):
        streamtrain.fit(good.finished.parent / "data.parquet", out=run, resume=True)
    header["model"]["learner"] = "stranger:Learner"
    seal_checkpoint(run, header, good.checkpoint)
    with pytest.raises(RunError, match="loading it runs the code of module 'stranger'"):
        open_model(run)
    assert "stranger" not in sys.modules


def test_what_is_too_large_is_refused_from_its_size(good: Good, tmp_path: Path, cli: CommandLine) -> None:
    folder = Path(shutil.copytree(good.finished, tmp_path / "m"))
    data, weights = good.finished.parent / "data.parquet", folder / "model.safetensors"
    whole = weights.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    size = 10**12
    entry = header["learner.sparse"]
    entry["data_offsets"][1] = size + entry["data_offsets"][0]
    for claims, says in (
        (
            {"learner.sparse": entry | {"shape": [size // 28, 7], "data_offsets": [0, size // 28 * 28]}},
            "no array 'preparation",
        ),
        ({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}, "it has no array"),
    ):
        text = json.dumps(claims).encode()
        with open(weights, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + max(each["data_offsets"][1] for each in claims.values()))
        code, out, err = cli("predict", folder, data, "--out", tmp_path / "p.parquet")
        assert (code, out) == (2, "") and says in err and err.count("\n") == 1, err
    weights.write_bytes(whole)
    with pytest.raises(
        BudgetRefused, match=r"model\.safetensors: opening it takes about .*give a larger --memory: it needs \d+MB"
    ):
        Room(1).require_arrays(weights, 1 << 22)
    with pytest.raises(
        RunError, match=r"model\.json: reading its text would take about .* if you trust it, give --memory"
    ):
        Room.of("50MB").require_text(folder / "model.json", 10**9)


TEXTS: dict[str, Any] = {
    "features": [{"name": f"f{i}", "role": "number", "offset": i / 3, "shape": None} for i in range(3000)],
    "classes": [f"class {i}" for i in range(20_000)],
    "lists": [[]] * 20_000,
    "objects": [{}] * 20_000,
    "fields": {f"k{i}": i * 10**6 for i in range(20_000)},
    "numbers": [1.5] * 20_000,
    "other letters": ["\u00e9\U0001f600" * 20] * 2000,
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_a_text_takes_is_not_underestimated(name: str) -> None:
    text = json.dumps(TEXTS[name], ensure_ascii=False).encode()
    tracemalloc.start()
    value = parse_json(text.decode())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert value and peak <= parsed_bytes(text) <= 6 * peak
