from __future__ import annotations

from collections import Counter

from streamtrain.storage.formats import COMPRESSIONS, format_of, reader_for, suffixes_of
from streamtrain.tools.settings import FORMATS

KINDS = ("ipc", "csv", "jsonl", "parquet")


def test_a_suffix_belongs_to_one_format_whose_reader_can_be_imported() -> None:
    suffixes = [suffix for kind in KINDS for suffix in suffixes_of(kind)]
    assert max(Counter(suffixes).values()) == 1
    for kind in KINDS:
        assert {format_of([f"data{suffix}"]) for suffix in suffixes_of(kind)} == {kind}
        assert {"chunks", "read", "fingerprint"} <= set(dir(reader_for(kind)))


def test_the_commands_write_the_formats_that_have_compressions() -> None:
    assert tuple(COMPRESSIONS) == FORMATS  # settings import no pyarrow, and so not the table
