"""AnnData stores are read as plain Zarr stores: compared with what anndata wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zarr

import streamtrain
from streamtrain.errors import ColumnError, CorruptError
from streamtrain.storage.settings import Asked
from streamtrain.storage.sparse import SparseRows
from streamtrain.storage.zarr import ZarrReader
from streamtrain.tools.inspect import inspect

ad = pytest.importorskip("anndata")
pd = pytest.importorskip("pandas")
sparse = pytest.importorskip("scipy.sparse")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("small_runs"),
]

ROWS, GENES = 400, 30


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks, and several units of sparse rows in each."""
    monkeypatch.setattr("streamtrain.storage.zarr.grid.RUN_ROWS", 130)
    monkeypatch.setattr("streamtrain.storage.zarr.csr._UNIT_ROWS", 32)


def annotated() -> Any:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, ROWS)
    X = rng.poisson(0.3 + 2 * (np.arange(GENES) % 3 == label[:, None])).astype("f4")
    X[5], X[ROWS - 1] = 0, 0
    names = [f"c{i}" for i in range(ROWS)]
    obs = pd.DataFrame(
        {
            "type": pd.Categorical(np.array(["B", "NK", "T"])[label]).set_categories(["B", "NK", "T", "unseen"]),
            "some": pd.Categorical(np.where(np.arange(ROWS) % 5, "a", None)),
            "level": pd.Categorical(label * 10, ordered=True),
            "n": np.arange(ROWS) + 1,
            "flag": label == 1,
            "whole": pd.array([None if i % 7 == 0 else i for i in range(ROWS)], dtype="Int64"),
            "maybe": pd.array([None if i % 3 == 0 else bool(i % 2) for i in range(ROWS)], dtype="boolean"),
            "text": [f"t{i % 4}" for i in range(ROWS)],
        },
        index=names,
    )
    return ad.AnnData(
        X=sparse.csr_matrix(X), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)]),
        layers={"dense": X, "wide": sparse.csr_matrix(X.astype("f8") * 2)},
        obsm={"pca": X[:, :4] + 1, "frame": pd.DataFrame({"u": np.arange(ROWS) + 1.0}, index=names)},
        obsp={"near": sparse.eye(ROWS, format="csr")}, uns={"k": 1},
    )  # fmt: skip


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("anndata")
    paths = {}
    with zarr.config.set({"array.write_empty_chunks": True}):
        for version in (2, 3):
            ad.settings.zarr_write_format = version
            paths[version] = folder / f"{version}.zarr"
            annotated().write_zarr(paths[version], chunks=(50, GENES))
    return paths


def whole(reader: ZarrReader, name: str, how: str = "read") -> list[Any]:
    batches = []
    for chunk in reader.chunks():
        found = [reader.read(chunk, [name])] if how == "read" else list(reader.stream(chunk, [name], 40))
        assert sum(batch.num_rows for batch in found) == chunk.rows
        batches += found
    for batch in batches:
        batch.validate(full=True)
        assert batch.schema.field(0).type == reader.schema.field(name).type
    return [value for batch in batches for value in batch.column(0).to_pylist()]


def dense(rows: list[Any]) -> Any:
    values = np.zeros((len(rows), GENES), np.float32)
    for i, row in enumerate(rows):
        for entry in row:
            values[i, entry["index"]] += entry["value"]
    return values


@pytest.mark.parametrize("version", [2, 3])
def test_columns_of_obs_obsm_and_layers(stores: dict[int, Path], version: int) -> None:
    reader, wanted = ZarrReader(stores[version]), annotated()
    assert reader.schema.names == [
        "X", "layers/dense", "layers/wide", "obs/_index", "obs/flag", "obs/level", "obs/maybe", "obs/n", "obs/some", "obs/text",
        "obs/type", "obs/whole", "obsm/frame/_index", "obsm/frame/u", "obsm/pca",
    ]  # fmt: skip
    assert reader.schema.field("X").type == SparseRows(GENES)
    assert reader.schema.field("obs/type").type == pa.dictionary(pa.int8(), pa.string())
    for name in ("type", "some", "level", "n", "flag", "whole", "maybe", "text"):
        own = wanted.obs[name].astype(object)
        assert whole(reader, f"obs/{name}") == own.where(own.notna(), None).tolist(), name
    for how in ("read", "stream"):
        np.testing.assert_array_equal(dense(whole(reader, "X", how)), wanted.X.toarray())
    np.testing.assert_array_equal(dense(whole(reader, "layers/wide")), wanted.layers["wide"].toarray())
    np.testing.assert_array_equal(np.reshape(whole(reader, "obsm/pca"), (ROWS, 4)), wanted.obsm["pca"])
    assert whole(reader, "obsm/frame/u") == wanted.obsm["frame"]["u"].tolist()


def test_only_the_matrix_is_a_feature_unless_others_are_named(stores: dict[int, Path]) -> None:
    described = {c["name"]: c for c in inspect(stores[3], target="obs/type")["columns"]}
    assert [name for name, c in described.items() if c["becomes"]] == ["X", "obs/type"]
    assert "may tell the target" in described["obs/n"]["why"] and "index" in described["obs/_index"]["why"]
    result = streamtrain.fit(stores[3], target="obs/type", exclude=["var/_index"], epochs=3)
    assert result.model.target.classes == ("B", "NK", "T")
    assert result.report.metrics["progressive"]["accuracy"] > 0.8
    assert result.model.layout.features == ("X",)
    named = streamtrain.fit(stores[3], target="obs/flag", features=["obsm/pca", "obs/text"], missing_chunks="fill")
    assert named.model.layout.features == ("obsm/pca", "obs/text")
    scores = streamtrain.evaluate(result.model, stores[2], missing_chunks="fill")
    assert scores["rows"] == ROWS and scores["metrics"]["accuracy"] > 0.9


def test_sizes_of_sparse_rows_are_known_before_they_are_read(stores: dict[int, Path]) -> None:
    reader = ZarrReader(stores[3], asked=Asked(("obs/flag",), "features"))
    assert [c.name for c in reader.opened.grid.columns] == ["X", "obs/flag"]
    for chunk in reader.chunks():
        batch = reader.read(chunk, ["X", "obs/flag"])
        storage = batch.column(0).storage
        entries = len(storage.flatten())
        assert chunk.decoded_bytes == 4 * (chunk.rows + 1) + 8 * entries + -(-chunk.rows // 8)
    everything = ZarrReader(stores[3])
    assert [c.key for c in reader.chunks()] == [c.key for c in everything.chunks()]
    assert reader.chunks()[0].read_peak_bytes < everything.chunks()[0].read_peak_bytes


@pytest.mark.parametrize("damage", ["falls", "column", "short", "shape"])
def test_arrays_that_are_no_matrix(stores: dict[int, Path], tmp_path: Path, damage: str) -> None:
    path = Path(shutil.copytree(stores[3], tmp_path / "s.zarr"))
    group = zarr.open_group(path / "X", mode="r+")
    if damage == "falls":
        group["indptr"][3] = 0
    elif damage == "column":
        group["indices"][7] = GENES
    elif damage == "short":
        group["indices"].resize(100)
    else:
        group.attrs["shape"] = [ROWS + 1, GENES]
    says = {
        "falls": "do not ascend",
        "column": f"has the column {GENES}",
        "short": "has 100 entries",
        "shape": "offsets",
    }
    with pytest.raises(ColumnError if damage == "shape" else CorruptError, match=says[damage]):
        whole(ZarrReader(path), "X")


def test_a_matrix_by_columns_is_refused_with_the_way_on(stores: dict[int, Path], tmp_path: Path) -> None:
    path = Path(shutil.copytree(stores[2], tmp_path / "s.zarr"))
    attributes = path / "X" / ".zattrs"
    attributes.write_text(json.dumps(json.loads(attributes.read_text()) | {"encoding-type": "csc_matrix"}))
    with pytest.raises(ColumnError, match=r"adata.X = adata.X.tocsr\(\)"):
        streamtrain.fit(path, target="obs/type", features=["X"])
    assert streamtrain.fit(path, target="obs/type", features=["obsm/pca"]).model.layout.features == ("obsm/pca",)
    described = {c["name"]: c["why"] for c in inspect(path)["columns"]}
    assert "adata.X = adata.X.tocsr()" in described["X"]


def test_categories_beside_the_columns_as_early_anndata_wrote_them(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "s.zarr", zarr_format=2)
    group.create_array("X", data=np.ones((4, 2)))
    obs = group.create_group("obs", attributes={"encoding-type": "dataframe", "_index": "name"})
    obs.create_array("name", data=np.array(["p", "q", "r", "s"]))
    obs.create_array("kind", data=np.array([1, 0, -1, 1], "i1")).attrs["categories"] = "__categories/kind"
    obs.create_group("__categories").create_array("kind", data=np.array(["u", "v"]))
    group.create_group("var")
    reader = ZarrReader(tmp_path / "s.zarr")
    assert reader.schema.names == ["X", "obs/kind", "obs/name"]
    assert whole(reader, "obs/kind") == ["v", "u", None, "v"]


def test_a_resumed_run_cuts_the_rows_as_before(stores: dict[int, Path], tmp_path: Path) -> None:
    how = {"target": "obs/type", "missing_chunks": "fill", "seed": 1}
    complete = streamtrain.fit(stores[2], epochs=4, **how)
    streamtrain.fit(stores[2], epochs=2, out=tmp_path / "r", **how)
    resumed = streamtrain.fit(stores[2], out=tmp_path / "r", resume=True, epochs=4)
    first, second = (r.model.learner.state_dict() for r in (complete, resumed))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)
