"""Read and write Zarr stores of versions 2 and 3. Import this package lazily: it imports zarr, which takes 9 MB."""

from __future__ import annotations

from streamtrain.storage.zarr.reader import ZarrReader
from streamtrain.storage.zarr.writer import ZarrWriter

__all__ = ["ZarrReader", "ZarrWriter"]
