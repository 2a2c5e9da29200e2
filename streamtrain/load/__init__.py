"""Rows arrive as batches: what is read (`source`), how it lands in memory (`layout`, `window`), who reads it when
(`schedule`, `read`, `fill`), and batches cut from it (`cut`, `loader`)."""

from streamtrain.columns.layout import Layout
from streamtrain.load.loader import Loader
from streamtrain.load.schedulers import for_scheduler
from streamtrain.load.source import Source

__all__ = ["Layout", "Loader", "Source", "for_scheduler"]
