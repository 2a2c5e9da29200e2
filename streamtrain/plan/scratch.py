"""The temporary memory of rows while they are prepared, predicted and learned, beyond the arrays that hold them.

The bytes are counted from the temporary arrays of `prepare` and `learn`; the cases in tests/memory measure them. The number of
missing numbers is not known in advance: if an entry takes a few bytes, every number is assumed to be missing, otherwise a
quarter.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamtrain.columns.layout import Layout

__all__ = ["Scratch"]

_AT_ONCE_ROWS, _AT_ONCE_BYTES = 16_384, 4 * 10**6
_MASK_BYTES = 5  # a number: whether it is finite, missing, infinite
_COPY_BYTES = 12  # a number: copies for statistics, or by the user's learner
_FOUND_BYTES = 12  # an entry: hash, slot, and its index among the slots that a kernel touches
_NGRAM_BYTES = 32  # an n-gram, in addition: as it was made, its value, and indices while rows are put together
_ENTRY_BYTES = 40  # an entry that numpy learns or predicts: its row, and its index among slots, sorted and not
_ENTRY_OUTPUT_BYTES = 8  # and for each output: weight and slope
_SLOT_FIELDS = 8  # float32 of a touched slot and output: copies of its state, gradient, update
_FIELDS = 5  # float32 that the learner keeps of a slot and output
_OUTPUT_BYTES = 24  # an output: margin, prediction, gradient, and temporary arrays of the scores
_MISSING_SHARE = 0.25


@dataclass(frozen=True)
class Scratch:
    """What a row of a layout consists of.

    numbers: of a row. entries: of a row, without those for missing numbers. ngrams: how many of the entries are
    n-grams or in bags. text_bytes: of a row. outputs: numbers of a prediction.

    >>> scratch = Scratch(numbers=13, entries=26, outputs=1)
    >>> scratch.rows_at_once, scratch.learning(1000, 20 << 20), scratch.learning(1000, 20 << 20, fused=True)
    (6884, 2965416, 3779316)
    """

    numbers: int
    entries: float = 0.0
    ngrams: float = 0.0
    text_bytes: float = 0.0
    outputs: int = 1

    @classmethod
    def of(cls, layout: Layout) -> Scratch:
        entries = layout.categories + len(layout.crosses) + layout.ngrams
        return cls(layout.width, entries, layout.ngrams, layout.text_bytes, layout.outputs)

    @property
    def _prepared(self) -> float:
        """Bytes of a row while it is prepared: masks and entries."""
        every = self.entries + self.numbers
        return (
            _MASK_BYTES * self.numbers + _FOUND_BYTES * every + _NGRAM_BYTES * self.ngrams + 2 * self.text_bytes + 16.0
        )

    @property
    def _learned(self) -> float:
        """Entries of a row that numpy learns from."""
        return self.entries + _MISSING_SHARE * self.numbers

    @property
    def rows_at_once(self) -> int:
        """How many rows one call of a kernel learns, batch by batch: a few milliseconds, a few MB."""
        return max(1, min(_AT_ONCE_ROWS, int(_AT_ONCE_BYTES / (self._prepared + (_OUTPUT_BYTES + 8) * self.outputs))))

    def learning(self, rows: int, learner_bytes: int, *, fused: bool = False) -> int:
        """Bytes while a batch of this many rows is learned. fused: a kernel learns the entries without copies, several batches
        in one call. learner_bytes: of all slots; a batch touches at most these."""
        row = self._prepared + _COPY_BYTES * self.numbers + _OUTPUT_BYTES * self.outputs
        if fused:
            return int(max(rows * row, min(self.rows_at_once * self._prepared, _AT_ONCE_BYTES)))
        row += (_ENTRY_BYTES + _ENTRY_OUTPUT_BYTES * self.outputs) * self._learned
        slots = (rows * self.entries + self.numbers) * 4 * _SLOT_FIELDS * self.outputs
        return int(rows * row + min(slots, learner_bytes * _SLOT_FIELDS / _FIELDS))

    def predicting(self, rows: int) -> int:
        """Bytes while this many rows are predicted."""
        entry = _ENTRY_BYTES + _ENTRY_OUTPUT_BYTES * self.outputs
        return int(rows * (self._prepared + entry * self._learned + _OUTPUT_BYTES * self.outputs))
