"""Find the reader for a URL on a server."""

from __future__ import annotations

import glob

from streamtrain.errors import NotFoundError, UsageError
from streamtrain.storage.formats import ZARR_MARKS, file_reader, format_of
from streamtrain.storage.reader import Reader
from streamtrain.storage.remote.address import Address
from streamtrain.storage.remote.client import Client
from streamtrain.storage.settings import ReadSettings

__all__ = ["open_remote"]


def open_remote(target: str, settings: ReadSettings) -> Reader:
    """The reader for a URL. Raises UsageError for a Zarr zip file, and the errors of the reader that it opens."""
    address = Address.parse(target)
    path = address.path.rstrip("/")
    if path.endswith(".zarr.zip"):
        raise UsageError(
            f"{address.shown}: a Zarr zip file can only be read from this machine: download it, or unpack it on the server"
        )
    kind = settings.input_format or format_of([path])
    if kind is not None and kind != "zarr":
        return file_reader(target, settings, kind)
    client = Client(address)
    if kind == "zarr" or (not glob.has_magic(path) and (path.endswith(".zarr") or _is_zarr(client, path))):
        from streamtrain.storage.zarr import ZarrReader

        settings.require_effect(address.shown, "zarr")
        return ZarrReader(
            target, missing_chunks=settings.missing_chunks, sample_dim=settings.sample_dim, asked=settings.asked
        )
    return file_reader(target, settings)


def _is_zarr(client: Client, path: str) -> bool:
    entries = client.entries(path, deep=False)
    if entries is not None:
        return any(entry.path.rpartition("/")[2] in ZARR_MARKS for entry in entries)
    for mark in ZARR_MARKS:
        try:
            client.stat(f"{path}/{mark}")
        except NotFoundError:
            continue
        return True
    return False
