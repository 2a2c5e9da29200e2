"""Rows arrive as batches: what is read (`source`, `survey`), the buffers that it is written to (`window`), who reads it
and when (`read`, `schedulers`, `prefetch`), and the batches that are cut from it (`batches`, `loader`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamtrain.options import lazy_names

if TYPE_CHECKING:
    from streamtrain.load.loader import Loader
    from streamtrain.load.schedulers import connected, threads_of
    from streamtrain.load.source import Source

__all__ = ["Loader", "Source", "connected", "threads_of"]

__getattr__ = lazy_names(
    __name__,
    {
        "loader": ("Loader",),
        "schedulers": ("connected", "threads_of"),
        "source": ("Source",),
    },
)
