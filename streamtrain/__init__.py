"""Train models on tables and arrays that do not fit in memory."""

import os

# Arrow reads this once, when it is imported: its other pools keep much of what is freed (see memory.steady_allocators).
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

from streamtrain.batch import Batch
from streamtrain.errors import BudgetExceeded, BudgetRefused, DataError, StreamtrainError, UsageError
from streamtrain.inference import evaluate, predict
from streamtrain.job import make_plan
from streamtrain.load import Loader, Source
from streamtrain.model import Model, load_model
from streamtrain.plan import Plan
from streamtrain.storage import Chunk, ChunkTable, Reader, open_reader, register_scheme
from streamtrain.trainer import fit

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
    "register_scheme",
]

__version__ = "0.1.0"
