"""What rows take in passing while they are prepared, predicted and learned, beside the arrays that they stand in.

Counted from the arrays that `prepare` and `learn` make on the way; the matrix in tests/memory measures it again. Who knows
how many numbers are missing? Where an entry takes a few bytes all of them are taken to be, else a quarter.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamtrain.columns.layout import Layout

__all__ = ["Scratch"]

_AT_ONCE_ROWS, _AT_ONCE_BYTES = 16_384, 4 * 10**6
_MASK_BYTES = 5  # of a number: whether it is finite, missing, infinite
_COPY_BYTES = 12  # of a number, where statistics are taken or a learner of somebody else's takes copies
_FOUND_BYTES = 12  # of an entry: signature, slot, and its place in what a kernel touches
_NGRAM_BYTES = 32  # of an n-gram beside that: as it is found, its value, and places while rows are put together
_ENTRY_BYTES = 40  # of an entry that is learned or predicted in numpy: its row, its place among slots, sorted and not
_ENTRY_OUTPUT_BYTES = 8  # and for each output: weight and slope
_SLOT_FIELDS, _FIELDS = (
    8,
    5,
)  # of a slot that is touched: copies of what the table has, gradient, optimizer; what it has
_OUTPUT_BYTES = 24  # of an output: margin, prediction, gradient, and what scores make of them
_MISSING_SHARE = 0.25


@dataclass(frozen=True)
class Scratch:
    """Of a layout's rows. numbers, entries: of a row, but for the entries of numbers that are missing. ngrams: how many of the
    entries are n-grams. text_bytes: of a row. outputs: of a prediction.

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
    def _found(self) -> float:
        """A row that is prepared: masks and entries."""
        every = self.entries + self.numbers
        return (
            _MASK_BYTES * self.numbers + _FOUND_BYTES * every + _NGRAM_BYTES * self.ngrams + 2 * self.text_bytes + 16.0
        )

    @property
    def _learned(self) -> float:
        """Entries of a row that numpy takes part in."""
        return self.entries + _MISSING_SHARE * self.numbers

    @property
    def rows_at_once(self) -> int:
        """How many rows can be learned in one call that takes them batch by batch: a few milliseconds, a few MB."""
        return max(1, min(_AT_ONCE_ROWS, int(_AT_ONCE_BYTES / (self._found + (_OUTPUT_BYTES + 8) * self.outputs))))

    def learning(self, rows: int, learner_bytes: int, *, fused: bool = False) -> int:
        """A batch of so many rows that is learned. fused: a kernel learns the entries where they stand; several batches are
        learned at once then. learner_bytes: of the table among other things, of which a batch cannot touch more than there
        is."""
        row = self._found + _COPY_BYTES * self.numbers + _OUTPUT_BYTES * self.outputs
        if fused:
            return int(max(rows * row, min(self.rows_at_once * self._found, _AT_ONCE_BYTES)))
        row += (_ENTRY_BYTES + _ENTRY_OUTPUT_BYTES * self.outputs) * self._learned
        slots = (rows * self.entries + self.numbers) * 4 * _SLOT_FIELDS * self.outputs
        return int(rows * row + min(slots, learner_bytes * _SLOT_FIELDS / _FIELDS))

    def predicting(self, rows: int) -> int:
        """Rows that are predicted."""
        entry = _ENTRY_BYTES + _ENTRY_OUTPUT_BYTES * self.outputs
        return int(rows * (self._found + entry * self._learned + _OUTPUT_BYTES * self.outputs))
