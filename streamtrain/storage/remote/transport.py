"""One request each: through obstore, or to fsspec's files in memory. Whatever fails is a `Failure`; nothing is tried again
here (obstore's own tries are switched off: they could be neither counted nor interrupted)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from streamtrain.errors import UsageError
from streamtrain.storage.files.store import Stat
from streamtrain.storage.remote.address import Address
from streamtrain.storage.remote.failure import Failure

__all__ = ["Entry", "Part", "Transport", "connect", "is_signed"]

_CONNECT_SECONDS, _SILENCE_SECONDS, _REQUEST_SECONDS = 5, 15, 600
_PIECE_BYTES = 1 << 20  # in which an answer arrives
_MOST_LISTED = 1_000_000
_SIGNS = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
           "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH",
           "GOOGLE_SERVICE_ACCOUNT_KEY"),
    "az": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN",
           "AZURE_STORAGE_CLIENT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"),
}  # fmt: skip
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}


class Part(NamedTuple):
    """Bytes of a file, and what the file was when they were taken."""

    data: pa.Buffer
    stat: Stat


class Entry(NamedTuple):
    """A file or a folder of a listing. path: from the root of the host. nbytes: -1 where it is not told."""

    path: str
    nbytes: int
    is_folder: bool = False


class Transport(Protocol):
    """What a store can be asked; every method may raise Failure."""

    def part(self, path: str, start: int, stop: int) -> Part: ...
    def tail(self, path: str, count: int) -> Part: ...
    def whole(self, path: str) -> Part: ...
    def stat(self, path: str) -> Stat: ...
    def entries(self, path: str, *, deep: bool) -> list[Entry] | None: ...


def connect(address: Address) -> Transport:
    """Raises UsageError where the library that is needed is not installed, or settings of the environment cannot be."""
    if address.scheme == "memory":
        return Memory()
    try:
        import obstore  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"{address.shown}: {address.scheme}:// needs a library: pip install 'streamtrain[remote]'"
        ) from error
    return Web(address) if address.is_web else Store(address)


def is_signed(address: Address) -> bool:
    """Whether there are credentials for it."""
    if address.is_web:
        return bool(address.secret.authorization or address.secret.query)
    return any(os.environ.get(name) for name in _SIGNS.get(address.scheme, ()))


class Store:
    """A bucket or a container."""

    def __init__(self, address: Address) -> None:
        self._store = _open_store(address)

    def part(self, path: str, start: int, stop: int) -> Part:
        return self._get(self._store, path, {"range": (start, stop)})

    def tail(self, path: str, count: int) -> Part:
        return self._get(self._store, path, {"range": {"suffix": count}})

    def whole(self, path: str) -> Part:
        return self._get(self._store, path, {})

    def stat(self, path: str) -> Stat:
        import obstore

        with _failing():
            return _stat(obstore.head(self._store, path))

    def entries(self, path: str, *, deep: bool) -> list[Entry] | None:
        import obstore

        found: list[Entry] = []
        with _failing():
            if not deep:
                listed = obstore.list_with_delimiter(self._store, path)
                found = [Entry(prefix, -1, is_folder=True) for prefix in listed["common_prefixes"]]
                return found + [Entry(each["path"], each["size"]) for each in listed["objects"]]
            for some in obstore.list(self._store, path, chunk_size=1000):
                found += [Entry(each["path"], each["size"]) for each in some]
                if len(found) > _MOST_LISTED:
                    raise Failure(f"it has more than {_MOST_LISTED:,} files", final=True)
        return found

    def _get(self, store: Any, path: str, options: Any) -> Part:
        import obstore

        with _failing():
            answer = obstore.get(store, path, options=options)
            start, stop = answer.range
            data = pa.allocate_buffer(stop - start)
            at, view = 0, memoryview(data).cast("B")
            for piece in answer.stream(min_chunk_size=_PIECE_BYTES):
                if at + len(piece) > len(view):
                    raise Failure("the answer is too long")
                view[at : at + len(piece)] = piece
                at += len(piece)
            if at != len(view):
                raise Failure("the answer ends too soon")
            return Part(data, _stat(answer.meta))


class Web(Store):
    """A web server: nothing but files, and folders where it shows them as a page of links."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._store = _open_web(address)

    def stat(self, path: str) -> Stat:
        """From a request for its first byte: a URL that is signed for GET may not be asked otherwise, and a server that
        gives no parts of files is known at once."""
        try:
            return self.part(path, 0, 1).stat
        except Failure as failure:
            if not failure.final or failure.status not in (0, 416):
                raise
            now = super().stat(path)
            if now.nbytes:  # of nothing there is no first byte
                raise
            return now

    def entries(self, path: str, *, deep: bool) -> list[Entry] | None:
        from streamtrain.storage.remote.index_page import links_of, read_page

        folder = self._address.at(f"{path.strip('/')}/".lstrip("/"))
        page = read_page(folder)
        return None if page is None else [Entry(at, -1, is_folder) for at, is_folder in links_of(page, folder)]


class Memory:
    """fsspec's file system in memory: of this process."""

    def __init__(self) -> None:
        import fsspec

        self._files: Any = fsspec.filesystem("memory")

    def part(self, path: str, start: int, stop: int) -> Part:
        with _failing():
            return Part(pa.py_buffer(self._files.cat_file(f"/{path}", start, stop)), self.stat(path))

    def tail(self, path: str, count: int) -> Part:
        nbytes = self.stat(path).nbytes
        return self.part(path, max(0, nbytes - count), nbytes)

    def whole(self, path: str) -> Part:
        return self.part(path, 0, self.stat(path).nbytes)

    def stat(self, path: str) -> Stat:
        with _failing():
            found = self._files.info(f"/{path}")
            if found["type"] != "file":
                raise FileNotFoundError(path)
            return Stat(found["size"], str(self._files.modified(f"/{path}")))

    def entries(self, path: str, *, deep: bool) -> list[Entry] | None:
        root = f"/{path.strip('/')}"
        try:
            found = self._files.find(root, detail=True).values() if deep else self._files.ls(root, detail=True)
        except FileNotFoundError:
            return []
        return [Entry(each["name"].lstrip("/"), each["size"], each["type"] == "directory") for each in found]


def _open_store(address: Address) -> Any:
    from obstore.store import AzureStore, GCSStore, S3Store

    kind = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[address.scheme]
    endpoint = next((os.environ[name] for name in _ENDPOINTS.get(address.scheme, ()) if os.environ.get(name)), "")
    options: dict[str, Any] = {}
    if not is_signed(address):  # otherwise it would ask the machine's own network for some, and wait for that
        options["skip_signature"] = True
    if address.scheme == "s3" and endpoint:
        options["endpoint"] = endpoint
    with _settings(address):
        return kind(address.host, client_options=_limits(endpoint), retry_config=_NO_RETRIES, **options)


def _open_web(address: Address) -> Any:
    from obstore.store import HTTPStore

    query = f"?{address.secret.query}" if address.secret.query else ""
    url = f"{address.scheme}://{address.host}/{query}"
    with _settings(address):
        headers = {"authorization": address.secret.authorization} if address.secret.authorization else {}
        return HTTPStore.from_url(
            url, client_options=_limits(url) | {"default_headers": headers}, retry_config=_NO_RETRIES
        )


_NO_RETRIES: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=_REQUEST_SECONDS)}


def _limits(endpoint: str) -> Any:
    """How long things may take. Without encryption only where the URL or the endpoint says so."""
    return {
        "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=_SILENCE_SECONDS),
        "timeout": timedelta(seconds=_REQUEST_SECONDS),
        "allow_http": endpoint.startswith("http://"),
    }


def _stat(meta: Any) -> Stat:
    """An ETag, or the time of the last change, or nothing. The same in a listing and in an answer."""
    tag = (meta.get("e_tag") or "").removeprefix("W/").strip('"')
    changed = meta.get("last_modified")
    return Stat(meta["size"], tag or (changed.isoformat() if changed and changed.timestamp() else ""))


@contextmanager
def _failing() -> Iterator[None]:
    """What a library raises becomes a Failure; an error of ours stays what it is."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.startswith("obstore") or isinstance(error, FileNotFoundError):
            raise Failure.of(error) from None
        raise


@contextmanager
def _settings(address: Address) -> Iterator[None]:
    """What the library says of wrong settings may quote them."""
    try:
        yield
    except Exception as error:
        names = "AWS_*" if address.scheme == "s3" else "GOOGLE_*" if address.scheme == "gs" else "AZURE_STORAGE_*"
        what = "check the URL" if address.is_web else f"check what {names} in the environment say"
        raise UsageError(f"{address.shown}: the store cannot be opened ({type(error).__name__}): {what}") from None
