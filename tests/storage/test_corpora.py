"""Files of other writers through the command line; all of them: `python bench/corpora.py ../shared/corpora`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORPORA = ROOT / ".." / "shared" / "corpora"

#: 4 kB that decode to 4.2 GB; columns that abort pyarrow where their metadata is touched; counts that are not true;
#: a dictionary and pages that are not what they say; a footer that cannot be; types of old writers
NASTY = [
    "large_string_map.brotli.parquet",
    "encrypt_columns_plaintext_footer.parquet.encrypted",
    "repeated_no_annotation.parquet",
    "ARROW-GH-41317.parquet",
    "ARROW-GH-41321.parquet",
    "nation.dict-malformed.parquet",
    "PARQUET-1481.parquet",
    "int96_from_spark.parquet",
]


@pytest.mark.slow
@pytest.mark.skipif(not CORPORA.exists(), reason=f"{CORPORA} is not there: files by other writers are not tested")
def test_nasty_files_on_the_command_line() -> None:
    command = [sys.executable, str(ROOT / "bench" / "corpora.py"), str(CORPORA), "--only", ",".join(NASTY)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.endswith(", 0 steps wrong\n") and int(found.stdout.split()[0]) >= len(NASTY)
