"""What URLs name, and how much is asked for: folders, globs, listings; parts of files, never whole ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numcodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import servers
import zarr
from conftest import BUCKET, DATA
from proxy import Faults, Proxy

import streamtrain
from streamtrain.errors import CorruptError, DataError, NotFoundError, UsageError
from streamtrain.storage.checked import open_stream
from streamtrain.storage.files.table_roots import LOGS
from streamtrain.storage.remote.address import Address
from streamtrain.storage.remote.client import Client
from streamtrain.storage.remote.failure import Failure
from streamtrain.storage.remote.index_page import links_of

ROWS = 20_000


@pytest.fixture(scope="module")
def folder(root: Path, store: int) -> Path:
    """Folders of two years, whose order differs by whether names or paths are sorted; and things that are no data."""
    for i, name in enumerate(
        ("year=2024/a b.parquet", "year=2024/c.parquet", "year=2024-/x.parquet", "year=2025/a.parquet")
    ):
        path = root / "years" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"x": np.arange(100 * i, 100 * i + 10), "y": np.arange(10) % 2}), path)
    (root / "years/_SUCCESS").touch()
    (root / "years/.hidden").write_text("no data")
    servers.upload(store, "years", root / "years")
    return root / "years"


@pytest.fixture
def wide(root: Path) -> Path:
    """40 columns of noise in one row group."""
    path = root / "wide.parquet"
    random = np.random.default_rng(0)
    columns = {f"c{i}": random.random(ROWS) for i in range(40)}
    pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False)
    return path


def values(data: str) -> list[dict[str, Any]]:
    reader = streamtrain.open_reader(data)
    names = reader.schema.names
    return [
        row for chunk in reader.chunks() for batch in open_stream(reader, chunk, names, 7) for row in batch.to_pylist()
    ]


def test_a_folder_of_a_server_is_that_of_this_machine(folder: Path, web: int) -> None:
    local, remote = streamtrain.open_reader(str(folder)), streamtrain.open_reader(f"http://127.0.0.1:{web}/years")
    assert values(f"http://127.0.0.1:{web}/years/") == values(str(folder))
    assert remote.stored_files[1] == local.stored_files[1]  # type: ignore[attr-defined]
    assert remote.fingerprint() == local.fingerprint()
    assert remote.stored_bytes == local.stored_bytes  # type: ignore[attr-defined]


def test_a_prefix_of_a_bucket_is_a_folder(folder: Path, store: int, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store}")
    assert values("s3://years") == values(str(folder))
    assert values("s3://years/year=2024") == [
        {**row, "year": 2024} for row in values("s3://years") if row["year"] in (2024, "2024")
    ]


@pytest.mark.parametrize(
    "pattern", ["year=2024/*.parquet", "*/a*.parquet", "**/*.parquet", "year=202[45]", "year=2025/a.parque?"]
)
def test_globs_match_what_they_match_here(
    folder: Path, store: int, web: int, s3: str, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store}")
    local = values(str(folder / pattern))
    assert local
    assert values(f"s3://years/{pattern}") == local
    if "?" not in pattern:
        assert values(f"http://127.0.0.1:{web}/years/{pattern}") == local


def test_a_folder_that_a_server_does_not_show(folder: Path, web: int) -> None:
    with pytest.raises(
        DataError,
        match=r"/unlisted/years/: .*give the URL of one file, or let the server list them \(nginx: autoindex on\)",
    ):
        streamtrain.open_reader(f"http://127.0.0.1:{web}/unlisted/years/")
    with pytest.raises(DataError, match="or it may be a folder that the server does not list"):
        streamtrain.open_reader(f"http://127.0.0.1:{web}/unlisted/years")
    reader = streamtrain.open_reader(f"http://127.0.0.1:{web}/unlisted/years/year=2024/a%20b.parquet")
    assert reader.chunks()[0].rows == 10


def test_nothing_there(store: int, web: int, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store}")
    for data in (
        f"s3://{BUCKET}/nope.parquet",
        f"s3://{BUCKET}/nope/",
        f"s3://{BUCKET}/nope*",
        f"http://127.0.0.1:{web}/no.csv",
    ):
        with pytest.raises(NotFoundError, match=r"there is no such file|no data files"):
            streamtrain.open_reader(data)


def test_a_server_without_ranges(web: int) -> None:
    with pytest.raises(DataError, match="does not support range requests"):
        streamtrain.open_reader(f"http://127.0.0.1:{web}/whole/digits.parquet")


def test_what_is_inside_of_a_table_is_refused(
    root: Path, store: int, web: int, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store}")
    for name, log in (("delta", "_delta_log/0.json"), ("iceberg/data", "../metadata/v1.metadata.json")):
        inner = root / "lakes" / name / "k=1"
        inner.mkdir(parents=True)
        pq.write_table(pa.table({"x": [1, 2]}), inner / "a.parquet")
        path = root / "lakes" / name / log
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    servers.upload(store, "lakes", root / "lakes")
    for server in ("s3://lakes", f"http://127.0.0.1:{web}/lakes"):
        for folder in ("delta", "iceberg/data"):
            for inside in ("k=1/a.parquet", "k=1/", "k=1/*.parquet", "*/a.parquet"):
                with pytest.raises(DataError, match=r"(is inside|holds) the (Delta|Iceberg) table"):
                    streamtrain.open_reader(f"{server}/{folder}/{inside}")


def test_urls_that_cannot_be() -> None:
    for url in ("s3://", "http:///x.parquet", "s3://key:secret@bucket/x", "http://host/a/../b.parquet", "s3://b/a//b"):
        with pytest.raises(UsageError) as caught:
            streamtrain.open_reader(url)
        assert "secret" not in str(caught.value)
    with pytest.raises(UsageError, match="zip"):
        streamtrain.open_reader("s3://bucket/x.zarr.zip")


def test_names_that_no_server_can_be_asked_for() -> None:
    for url, problem in {
        "http://host/x%0ay.parquet": "the path has control characters",
        "https://host/a%00b/c.parquet": "the path has control characters",
        "http://host/x%1b[2J.parquet": "the path has control characters",
        "http://host/x\ny.parquet": "the URL has control characters",  # `urlsplit` drops it
        "s3://bucket/x\x1b[2J.parquet": "the URL has control characters",
        "http://host/%ff.parquet": "the path has bytes that are not UTF-8",
        "http://host/a%2Fb.parquet": "the path has a %2F",
        "http://host/..%2f..%2fetc.parquet": "the path has a %2F",
    }.items():
        with pytest.raises(UsageError, match=problem):
            streamtrain.open_reader(url)
    folder = Address("http", "host", "d/")
    for link, name in {"a%0ab.parquet": "d/a\nb.parquet", "%ff.csv": "d/\udcff.csv"}.items():
        ((at, is_folder),) = links_of(f'<a href="{link}">', folder)
        assert (at, is_folder) == (name, False)
        with pytest.raises(DataError, match="so that no server can be asked for it"):
            Client(folder).stat(at)  # before a connection
    with pytest.raises(Failure) as caught:
        links_of('<a href="a%2fb.parquet">', folder)
    assert caught.value.final and "/d/a%2fb.parquet" in caught.value.reason
    said = Failure("\x1b[2J" + "x" * 1000, 400)
    assert said.reason.isprintable() and len(said.reason) == 200
    assert "cannot be asked for" in Failure.of(ValueError('Could not parse path: Error parsing Path "a"')).reason


def test_only_the_columns_that_are_needed_are_asked_for(wide: Path, web: int) -> None:
    with Proxy(web) as proxy:
        reader = streamtrain.open_reader(f"{proxy.url}/wide.parquet")
        opened = len(proxy.log)
        found: list[Any] = []
        in_thread(lambda: found.append(reader.read(reader.chunks()[0], ["c3", "c30"])))
        asked = proxy.log[opened:]
    assert found[0].column("c3").equals(pq.read_table(wide, columns=["c3"]).column(0).chunk(0))
    assert all(request.range for request in proxy.log if "wide" in request.path)
    assert sum(request.nbytes for request in asked) < 1.1 * 2 * ROWS * 8 < wide.stat().st_size / 10
    assert opened <= 4 + len(LOGS)  # the folder is asked for the logs of tables


def test_a_row_group_is_one_request(wide: Path, web: int) -> None:
    with Proxy(web) as proxy:
        reader = streamtrain.open_reader(f"{proxy.url}/wide.parquet")
        opened = len(proxy.log)
        in_thread(lambda: reader.read(reader.chunks()[0], reader.schema.names))
        assert len(proxy.log) - opened == 1
        opened = len(proxy.log)
        in_thread(lambda: list(reader.stream(reader.chunks()[0], reader.schema.names, 1000)))  # type: ignore[attr-defined]
        assert len(proxy.log) - opened == 40  # 160 kB a column: a buffer each


def in_thread(work: Any) -> None:
    """As the loader reads: what is ahead is read on other threads only there."""
    import threading

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)


def test_memory_urls_are_files_of_fsspec(folder: Path) -> None:
    files = fsspec.filesystem("memory")
    files.put(str(folder), "/memory-test", recursive=True)
    try:
        assert values("memory://memory-test/") == values(str(folder))
        reader = streamtrain.open_reader("memory://memory-test/year=2025/a.parquet")
        files.pipe("/memory-test/year=2025/a.parquet", b"PAR1")
        with pytest.raises(CorruptError, match="has changed"):
            reader.read(reader.chunks()[0], ["x"])
    finally:
        files.rm("/memory-test", recursive=True)


def test_google_and_azure_ask_their_own_way(web: int, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """One file, of a server that answers as they do."""
    (root / BUCKET).mkdir(exist_ok=True)
    shutil.copy(DATA / "digits.parquet", root / BUCKET)
    here = f"http://127.0.0.1:{web}"
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", here)
    assert len(values(f"az://{BUCKET}/digits.parquet")) == 1797
    monkeypatch.setenv("GOOGLE_BASE_URL", here)
    assert len(values(f"gs://{BUCKET}/digits.parquet")) == 1797


@pytest.fixture
def group(root: Path) -> Iterator[Path]:
    path = root / "group.zarr"
    made = zarr.create_group(path)
    random = np.random.default_rng(0)
    options: Any = {"config": {"write_empty_chunks": True}}
    made.create_array("X", data=random.random((4000, 3)), chunks=(500, 3), shards=(2000, 3), **options)
    made.create_array("sub/y", data=np.repeat([0, 1], 2000), chunks=(1000,), **options)
    yield path
    shutil.rmtree(path)


def test_zarr_groups_are_those_of_this_machine(group: Path, web: int) -> None:
    local, remote = streamtrain.open_reader(str(group)), streamtrain.open_reader(f"http://127.0.0.1:{web}/group.zarr")
    assert remote.schema == local.schema
    assert values(f"http://127.0.0.1:{web}/group.zarr/") == values(str(group))
    assert remote.fingerprint() == local.fingerprint()


def test_zarr_without_pages_of_folders_needs_consolidated_metadata(group: Path, web: int) -> None:
    data = f"http://127.0.0.1:{web}/unlisted/group.zarr"
    with pytest.raises(CorruptError, match=r"has no consolidated metadata.*zarr\.consolidate_metadata"):
        streamtrain.open_reader(data)
    with pytest.warns(UserWarning, match="not part in the Zarr format"):
        zarr.consolidate_metadata(group)
    assert values(data) == values(str(group))


@pytest.mark.parametrize("lost", ["X/c/1/0", "sub/y/c/2"])
def test_a_chunk_that_is_not_there_is_an_error_and_a_busy_server_is_not(group: Path, web: int, lost: str) -> None:
    with Proxy(web, Faults(share=0.15, kinds=(503, 429), seed=5)) as proxy:
        assert values(f"{proxy.url}/group.zarr") == values(str(group))
        reader = streamtrain.open_reader(f"{proxy.url}/group.zarr")
        (group / lost).unlink()
        with pytest.raises(CorruptError, match=f"has no chunk file {lost}"):
            [reader.read(chunk, reader.schema.names) for chunk in reader.chunks()]
        filled = streamtrain.open_reader(f"{proxy.url}/group.zarr", missing_chunks="fill")
        assert filled.read(filled.chunks()[0], ["sub/y"]).num_rows == 4000


def test_a_blosc_chunk_that_is_cut_is_not_decoded(root: Path, web: int) -> None:
    path = root / "blosc.zarr"
    array = zarr.create_array(
        path, shape=(1000,), chunks=(1000,), dtype="f8", zarr_format=2, compressors=numcodecs.Blosc()
    )
    array[:] = np.arange(1000.0)
    reader = streamtrain.open_reader(f"http://127.0.0.1:{web}/blosc.zarr")
    assert reader.read(reader.chunks()[0], ["X"]).num_rows == 1000
    (path / "0").write_bytes((path / "0").read_bytes()[:-1])
    with pytest.raises(
        CorruptError, match=r"chunk file 0 cannot be decoded \(it has \d+ bytes, but its header declares \d+\)"
    ):
        reader.read(reader.chunks()[0], ["X"])
