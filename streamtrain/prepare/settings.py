"""Settings of the preparation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from streamtrain.options import option

__all__ = ["FEWEST_BITS", "INFINITIES", "MOST_BITS", "FeatureSettings", "PreparationSettings", "feature_settings"]

INFINITIES = ("error", "clip", "missing")
FEWEST_BITS, MOST_BITS = 4, 28  # of slots


@dataclass(frozen=True)
class FeatureSettings:
    """How features are prepared."""

    hash_bits: int | None = option(
        None, "2^N slots for values of categories and text.", group="columns", least=FEWEST_BITS, most=MOST_BITS,
        otherwise="up to 18", resume="resolved", continues="same",
    )  # fmt: skip
    infinities: str = option(
        "error", "Infinite features: an error, clipped to 10 deviations from the mean, or missing.", group="columns",
        choices=INFINITIES, continues="same", resume="recorded",
    )  # fmt: skip


def feature_settings(settings: FeatureSettings) -> dict[str, Any]:
    """The settings of the preparation, by name, of an object that has others too.

    >>> feature_settings(PreparationSettings(class_weights=(1.0, 2.0)))
    {'hash_bits': None, 'infinities': 'error'}
    """
    return {f.name: getattr(settings, f.name) for f in fields(FeatureSettings)}


@dataclass(frozen=True)
class PreparationSettings(FeatureSettings):
    """How a model prepares rows. class_weights: the weight of each class, in their order; empty for none."""

    class_weights: tuple[float, ...] = ()
