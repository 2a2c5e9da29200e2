"""Single requests, through obstore or to the in-memory files of fsspec. A failed request raises `Failure`.

`Client` makes the retries, not obstore (its ``retry_config``): obstore does not report those that succeed, and Ctrl-C has no
effect until the last one has failed (measured). Pages of web servers and files in memory need retries without obstore anyway.
"""

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
_PIECE_BYTES = 1 << 20  # the pieces in which an answer is read
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
    """Bytes of a file, and the size and version that the file had when they were read."""

    data: pa.Buffer
    stat: Stat


class Entry(NamedTuple):
    """A file or folder in a listing. path: from the root of the host. nbytes: -1 if unknown."""

    path: str
    nbytes: int
    is_folder: bool = False


class Transport(Protocol):
    """The requests to a server; see `Client`. Every method may raise Failure."""

    def part(self, path: str, start: int, stop: int) -> Part: ...
    def tail(self, path: str, count: int) -> Part: ...
    def whole(self, path: str) -> Part: ...
    def stat(self, path: str) -> Stat: ...
    def entries(self, path: str, *, deep: bool) -> list[Entry] | None: ...


def connect(address: Address) -> Transport:
    """The transport for an address. Raises UsageError if a library is not installed, or the environment has wrong settings."""
    if address.scheme == "memory":
        return Memory()
    try:
        import obstore  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"{address.shown}: {address.scheme}:// needs a library that is not installed: pip install 'streamtrain[remote]'"
        ) from error
    return Web(address) if address.is_web else Store(address)


def is_signed(address: Address) -> bool:
    """Whether there are credentials for an address."""
    if address.is_web:
        return bool(address.secret.authorization or address.secret.query)
    return any(os.environ.get(name) for name in _SIGNS.get(address.scheme, ()))


class Store:
    """A bucket or container."""

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

        entries: list[Entry] = []
        with _failing():
            if not deep:
                listed = obstore.list_with_delimiter(self._store, path)
                entries = [Entry(prefix, -1, is_folder=True) for prefix in listed["common_prefixes"]]
                return entries + [Entry(each["path"], each["size"]) for each in listed["objects"]]
            for page in obstore.list(self._store, path, chunk_size=1000):
                entries += [Entry(each["path"], each["size"]) for each in page]
                if len(entries) > _MOST_LISTED:
                    raise Failure(f"the folder has more than {_MOST_LISTED:,} files", final=True)
        return entries

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
    """A web server. It has files; a folder can be listed if the server shows a page of links for it."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._store = _open_web(address)

    def stat(self, path: str) -> Stat:
        """The size and version of a file, from a request for its first byte. A HEAD request would be refused by a URL that is
        signed for GET, and would not show whether the server supports range requests."""
        try:
            return self.part(path, 0, 1).stat
        except Failure as failure:
            if not failure.final or failure.status not in (0, 416):
                raise
            now = super().stat(path)
            if now.nbytes:  # an empty file has no first byte
                raise
            return now

    def entries(self, path: str, *, deep: bool) -> list[Entry] | None:
        from streamtrain.storage.remote.index_page import links_of, read_page

        folder = self._address.at(f"{path.strip('/')}/".lstrip("/"))
        page = read_page(folder)
        return None if page is None else [Entry(at, -1, is_folder) for at, is_folder in links_of(page, folder)]


class Memory:
    """The in-memory file system of fsspec, in this process."""

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
            info = self._files.info(f"/{path}")
            if info["type"] != "file":
                raise FileNotFoundError(path)
            return Stat(info["size"], str(self._files.modified(f"/{path}")))

    def entries(self, path: str, *, deep: bool) -> list[Entry] | None:
        root = f"/{path.strip('/')}"
        try:
            files = self._files.find(root, detail=True).values() if deep else self._files.ls(root, detail=True)
        except FileNotFoundError:
            return []
        return [Entry(each["name"].lstrip("/"), each["size"], each["type"] == "directory") for each in files]


def _open_store(address: Address) -> Any:
    from obstore.store import AzureStore, GCSStore, S3Store

    kind = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[address.scheme]
    endpoint = next((os.environ[name] for name in _ENDPOINTS.get(address.scheme, ()) if os.environ.get(name)), "")
    options: dict[str, Any] = {}
    if not is_signed(address):  # otherwise obstore would look for credentials in the local network, and wait
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
    """Timeouts, and whether http:// without encryption is allowed: only if the URL or endpoint says so."""
    return {
        "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=_SILENCE_SECONDS),
        "timeout": timedelta(seconds=_REQUEST_SECONDS),
        "allow_http": endpoint.startswith("http://"),
    }


def _stat(meta: Any) -> Stat:
    """The size of a file and its ETag, or the time of its last change, or "". Listings and answers give the same."""
    tag = (meta.get("e_tag") or "").removeprefix("W/").strip('"')
    changed = meta.get("last_modified")
    return Stat(meta["size"], tag or (changed.isoformat() if changed and changed.timestamp() else ""))


@contextmanager
def _failing() -> Iterator[None]:
    """Turn an exception of a library into a Failure; pass on others."""
    try:
        yield
    except Exception as error:
        own = type(error).__module__.startswith("obstore") or str(error).startswith("Could not parse path")
        if own or isinstance(error, FileNotFoundError):
            raise Failure.of(error) from None
        raise


@contextmanager
def _settings(address: Address) -> Iterator[None]:
    """Turn an exception about settings into a UsageError that does not quote them, because they may be secret."""
    try:
        yield
    except Exception as error:
        names = "AWS_*" if address.scheme == "s3" else "GOOGLE_*" if address.scheme == "gs" else "AZURE_STORAGE_*"
        what = "check the URL" if address.is_web else f"check the settings {names} in the environment"
        raise UsageError(f"{address.shown}: the server cannot be used ({type(error).__name__}): {what}") from None
