"""Rows arrive as batches: what is read (`source`, `survey`), the buffers that it is written to (`window`), who reads it
and when (`read`, `schedulers`, `prefetch`), and the batches that are cut from it (`batches`, `loader`)."""

from streamtrain.columns.layout import Layout
from streamtrain.load.loader import Loader
from streamtrain.load.schedulers import for_scheduler
from streamtrain.load.source import Source

__all__ = ["Layout", "Loader", "Source", "for_scheduler"]
