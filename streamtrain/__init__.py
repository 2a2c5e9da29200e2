"""Train models on tables and arrays that do not fit in memory."""

import os

# Arrow reads this once, when it is imported: its other pools keep much of what is freed (see memory.steady_allocators).
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    from streamtrain.train.entry import fit, make_plan

del TYPE_CHECKING

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
    "train.entry": ("fit", "make_plan"),
}


def __getattr__(name: str) -> object:
    """Public names are imported when they are first used: unused ones cost no memory and no time."""
    from streamtrain.options import lazy_names

    return lazy_names(__name__, _HOMES)(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
