"""Training from servers: the same weights as from local files, also where requests fail; and clear ends where it cannot be."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from conftest import BUCKET, DATA
from make import PROMPT, WAIT, run_streamtrain
from proxy import Faults, Proxy

import streamtrain
from streamtrain.errors import CorruptError, DataError, NotFoundError

FORMATS = ("digits.parquet", "digits.zarr")


def weights(data: str | Path, **settings: Any) -> str:
    """SHA-256 of everything that was learned."""
    return state_of(streamtrain.fit(str(data), target="digit", **settings))


def state_of(result: streamtrain.FitResult) -> str:
    state = result.model.learner.state_dict()
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        digest.update(name.encode() + (value.tobytes() if hasattr(value, "tobytes") else repr(value).encode()))
    return digest.hexdigest()


@pytest.fixture(scope="module")
def local() -> dict[str, str]:
    return {name: weights(DATA / name) for name in FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_http_gives_the_weights_of_local_files(web: int, local: dict[str, str], name: str) -> None:
    assert weights(f"http://127.0.0.1:{web}/{name}") == local[name]


@pytest.mark.parametrize("name", FORMATS)
def test_s3_gives_the_weights_of_local_files(
    store: int, local: dict[str, str], s3: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store}")
    assert weights(f"s3://{BUCKET}/{name}") == local[name]


@pytest.mark.parametrize("name", FORMATS)
def test_failing_requests_are_made_again(web: int, local: dict[str, str], name: str) -> None:
    with Proxy(web, Faults(share=0.1, seed=7)) as proxy:
        result = streamtrain.fit(f"{proxy.url}/{name}", target="digit", epochs=2)
    assert state_of(result) == weights(DATA / name, epochs=2)
    traffic = result.as_dict()["remote"]
    failed = [request for request in proxy.log if request.status not in (200, 206, 404)]
    assert traffic["retries"] == len(failed) > 0
    assert traffic["requests"] == len(proxy.log)


def test_s3_that_slows_down_is_asked_again(
    store: int, local: dict[str, str], s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(store, Faults(share=0.25, seed=3)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        result = streamtrain.fit(f"s3://{BUCKET}/digits.zarr", target="digit")
    assert state_of(result) == local["digits.zarr"]
    assert result.as_dict()["remote"]["retries"] > 0


def test_a_server_that_comes_back_is_waited_for(web: int) -> None:
    with Proxy(web) as proxy:
        data = f"{proxy.url}/digits.parquet"
        reader = streamtrain.open_reader(data)
        proxy.go_down(2.0)
        assert state_of(streamtrain.fit(reader, target="digit")) == weights(DATA / "digits.parquet")
    assert reader.stored_files[0].traffic.retries > 1  # type: ignore[attr-defined]


def test_a_server_that_stays_down_is_an_error(tmp_path: Path) -> None:
    began = time.monotonic()
    url = "http://127.0.0.1:9/digits.parquet"
    done = run_streamtrain("fit", url, "--target", "digit", "--json", STREAMTRAIN_RETRY_SECONDS="1")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {url}: given up after ")
    assert len(done.err.splitlines()) == 1
    assert time.monotonic() - began < 45  # a minute would be the default


def test_a_server_that_dies_in_mid_run_is_an_error(web: int) -> None:
    with Proxy(web) as proxy:
        reader = streamtrain.open_reader(f"{proxy.url}/digits.parquet")
        client = reader.stored_files[0]._client  # type: ignore[attr-defined]
        client._seconds = 0.5
        proxy.stop()
        with pytest.raises(DataError, match=r"digits.parquet: given up after \d+ tries"):
            streamtrain.fit(reader, target="digit")
        proxy.start()


def test_ctrl_c_ends_a_wait_for_a_server() -> None:
    """Of one that takes a request and never answers: alone, that would be noticed after 15 seconds, and tried again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/digits.parquet"
        process = subprocess.Popen(
            [sys.executable, "-m", "streamtrain", "fit", url, "--target", "digit"], stderr=subprocess.PIPE, text=True
        )
        try:
            with server.accept()[0] as connection:
                connection.settimeout(WAIT)
                assert connection.recv(1)  # its request
                process.send_signal(signal.SIGINT)
                began = time.monotonic()
                _, printed = process.communicate(timeout=WAIT)
        finally:
            process.kill()
    assert time.monotonic() - began < PROMPT - 2
    assert process.returncode == 130
    assert "interrupted" in printed and "Traceback" not in printed


def test_no_thread_of_a_pool_keeps_the_process() -> None:
    """The request would be tried again for a minute."""
    code = (
        "import concurrent.futures as c, sys\n"
        "from streamtrain.storage.remote.client import Client\n"
        "from streamtrain.storage.remote.address import Address\n"
        "pool = c.ThreadPoolExecutor(1)\n"
        "pool.submit(Client(Address.parse('http://127.0.0.1:9/x')).stat, 'x')\n"
        "print('asked', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "asked\n"
        began = time.monotonic()
        assert process.wait(timeout=WAIT) == 0
    assert time.monotonic() - began < PROMPT


@pytest.mark.parametrize("status", [401, 403, 404, 400, 412])
def test_final_answers_are_errors_at_once(web: int, status: int) -> None:
    with Proxy(web, Faults(status_of={"digits": status})) as proxy:
        with pytest.raises(DataError, match=f"^{proxy.url}/digits.parquet: ") as caught:
            streamtrain.open_reader(f"{proxy.url}/digits.parquet")
        assert [request.path for request in proxy.log if request.path.endswith(".parquet")] == ["/digits.parquet"]
    assert isinstance(caught.value, NotFoundError) == (status == 404)
    assert {401: "name and a password", 403: "name and a password", 404: "check the URL", 400: "check the URL",
            412: "has changed"}[status] in str(caught.value)  # fmt: skip


def test_without_credentials_s3_says_which_to_set(store: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(store, Faults(status_of={"digits": 403})) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        began = time.monotonic()
        with pytest.raises(DataError, match="the environment has no credentials: set AWS_ACCESS_KEY_ID"):
            streamtrain.open_reader(f"s3://{BUCKET}/digits.parquet")
        assert time.monotonic() - began < PROMPT  # it is not tried again for a minute


def test_credentials_are_nowhere(
    web: int, store: int, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://user:word@127.0.0.1:{web}/private/digits.parquet?signature=sesame"
    out = str(tmp_path / "run")
    done = run_streamtrain("fit", url, "--target", "digit", "--json", "--out", out)
    assert done.code == 0, done.err
    shown = [done.out, done.err]
    shown += [file.read_bytes().decode(errors="replace") for file in Path(out).rglob("*") if file.is_file()]
    profile = streamtrain.profile(url, target="digit").as_dict()
    assert profile["data"] == f"http://127.0.0.1:{web}/private/digits.parquet"
    shown.append(json.dumps(profile))
    for data, settings in (
        (url, {"target": "nope"}), (url.replace("digits", "nope"), {"target": "digit"}),
        (url.replace("user:", "user:x"), {"target": "digit"}), (url, {"target": "digit", "memory": "20MB"}),
    ):  # fmt: skip
        with pytest.raises(streamtrain.StreamtrainError) as caught:
            streamtrain.fit(data, **settings)  # type: ignore[arg-type]
        shown += traceback.format_exception(caught.value)
    reader = streamtrain.open_reader(url)
    assert pickle.loads(pickle.dumps(reader)).read(reader.chunks()[0], ["digit"]).num_rows == 300  # in this process
    shown += [repr(vars(reader)), repr(reader.stored_files[0].__getstate__()), repr(pickle.dumps(reader))]  # type: ignore[attr-defined]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store}")
    for name in ("digits.parquet", "nope.parquet"):
        try:
            shown.append(json.dumps(streamtrain.fit(f"s3://{BUCKET}/{name}", target="digit").as_dict()))
        except NotFoundError as error:
            shown += traceback.format_exception(error)
    for secret in ("user:word", "user:xword", "sesame", "dXNlcjp3b3Jk", s3, "AKIDEXAMPLE"):
        assert not [text for text in shown if secret in text]


def test_a_file_that_changes_is_an_error(web: int, root: Path) -> None:
    changing = root / "changing.parquet"
    changing.write_bytes((DATA / "digits.parquet").read_bytes())
    reader = streamtrain.open_reader(f"http://127.0.0.1:{web}/changing.parquet")
    os.utime(changing, (1, 1))  # nginx makes the tag from size and time
    with pytest.raises(CorruptError, match="has changed since it was opened"):
        streamtrain.fit(reader, target="digit")
    changing.write_bytes(b"PAR1")
    with pytest.raises(CorruptError, match="has changed since it was opened"):
        reader.read(reader.chunks()[0], ["digit"])
    changing.unlink()


def test_reads_from_many_threads(web: int) -> None:
    reader = streamtrain.open_reader(f"http://127.0.0.1:{web}/digits.parquet")
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(reader.read(reader.chunks()[0], ["p0_2", "digit"])))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 8 and all(each.equals(found[0]) for each in found)
