"""Turns columns into numbers that a learner can use, by statistics that are learned from the stream and saved.

`Preparation` does all of it for the rows of a table. The other classes are its parts; `TargetScale` scales the target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamtrain.options import lazy_names

if TYPE_CHECKING:
    from streamtrain.prepare.preparation import Preparation
    from streamtrain.prepare.settings import INFINITIES
    from streamtrain.prepare.shape import Shape, default_hash_bits
    from streamtrain.prepare.standardize import Standardize
    from streamtrain.prepare.target_scale import TargetScale
    from streamtrain.prepare.vocabulary import Vocabulary

__all__ = [
    "INFINITIES",
    "VERSION",
    "Preparation",
    "Shape",
    "Standardize",
    "TargetScale",
    "Vocabulary",
    "default_hash_bits",
]

VERSION = 3  # of the preparation, `streamtrain.columns` included: a run cannot be resumed with another version

__getattr__ = lazy_names(
    __name__,
    {
        "preparation": ("Preparation",),
        "shape": ("Shape", "default_hash_bits"),
        "settings": ("INFINITIES",),
        "standardize": ("Standardize",),
        "target_scale": ("TargetScale",),
        "vocabulary": ("Vocabulary",),
    },
)
