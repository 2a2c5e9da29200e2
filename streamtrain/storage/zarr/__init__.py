"""Zarr v2 and v3 stores, read and written. Nothing else imports zarr, which takes 9 MB: import this lazily."""

from __future__ import annotations

from streamtrain.storage.zarr.reader import ZarrReader
from streamtrain.storage.zarr.writer import ZarrWriter

__all__ = ["ZarrReader", "ZarrWriter"]
