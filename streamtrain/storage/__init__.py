"""Storage: `open_reader` finds the reader for a target. The module of a format is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamtrain.options import lazy_names

if TYPE_CHECKING:
    from streamtrain.storage.functions import reader_from
    from streamtrain.storage.opening import open_data, open_reader
    from streamtrain.storage.reader import Chunk, ChunkTable, Reader, Streams
    from streamtrain.storage.schemes import register_scheme

__all__ = ["Chunk", "ChunkTable", "Reader", "Streams", "open_data", "open_reader", "reader_from", "register_scheme"]

__getattr__ = lazy_names(
    __name__,
    {
        "functions": ("reader_from",),
        "opening": ("open_data", "open_reader"),
        "reader": ("Chunk", "ChunkTable", "Reader", "Streams"),
        "schemes": ("register_scheme",),
    },
)
