"""Train models on tables and arrays that do not fit in memory."""

import importlib
import os
import typing

# Arrow reads this once, when it is imported: its other pools keep much of what is freed (see memory.steady_allocators).
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

if typing.TYPE_CHECKING:
    from streamtrain.batch import Batch
    from streamtrain.errors import BudgetExceeded, BudgetRefused, DataError, StreamtrainError, UsageError
    from streamtrain.load import Loader, Source
    from streamtrain.model import Model, load_model
    from streamtrain.plan import Plan
    from streamtrain.storage import Chunk, ChunkTable, Reader, open_reader, reader_from, register_scheme
    from streamtrain.tools.evaluate import evaluate
    from streamtrain.tools.predict import predict
    from streamtrain.tools.profile import profile
    from streamtrain.tools.rechunk import rechunk
    from streamtrain.train.fit import fit
    from streamtrain.train.job import make_plan

__all__ = [
    "Batch",
    "BudgetExceeded",
    "BudgetRefused",
    "Chunk",
    "ChunkTable",
    "DataError",
    "Loader",
    "Model",
    "Plan",
    "Reader",
    "Source",
    "StreamtrainError",
    "UsageError",
    "evaluate",
    "fit",
    "load_model",
    "make_plan",
    "open_reader",
    "predict",
    "profile",
    "reader_from",
    "rechunk",
    "register_scheme",
]

__version__ = "0.1.0"

_HOMES = {
    "batch": ("Batch",),
    "errors": ("BudgetExceeded", "BudgetRefused", "DataError", "StreamtrainError", "UsageError"),
    "load": ("Loader", "Source"),
    "model": ("Model", "load_model"),
    "plan": ("Plan",),
    "storage": ("Chunk", "ChunkTable", "Reader", "open_reader", "reader_from", "register_scheme"),
    "tools.evaluate": ("evaluate",),
    "tools.predict": ("predict",),
    "tools.profile": ("profile",),
    "tools.rechunk": ("rechunk",),
    "train.fit": ("fit",),
    "train.job": ("make_plan",),
}


def __getattr__(name: str) -> typing.Any:
    """Public names are imported when they are first used: what is not used costs no memory and no time."""
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"streamtrain.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'streamtrain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
