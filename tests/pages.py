"""Runs the examples of Markdown pages and compares what they print: ``python tests/pages.py README.md docs/*.md``.
With ``--write`` what they print is written into the page where it differs.

``python`` and ``sh`` blocks run in the order of the page, in a temporary folder that holds ``data/``: Python in one
process with one namespace a page, shell in a process each. A ``text`` block that follows one is its output (of a shell
block: stdout and stderr). Words must agree exactly and in order, numbers with a decimal point within two per cent (other
processors round otherwise). A ``text about`` block is output that depends on the machine: lines in any order, any number.

A shell block that makes a virtual environment is run without doing so: only what it starts in the end, and only if that
is streamtrain. What it does before is checked by ``.ci/run``.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
_SIZED = re.compile(_NUMBER.pattern + r"(?:\s?(?:[kMGT]?B)\b)?")


@dataclass(frozen=True)
class Block:
    """A fenced block: its info string, its text, the line of the page that it starts at."""

    kind: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page.

    >>> blocks("words\\n```python\\nprint(1)\\n```\\n")
    [Block(kind='python', text='print(1)\\n', line=3)]
    """
    return [Block(m[1].strip(), m[2], page.count("\n", 0, m.start(2)) + 1) for m in _BLOCK.finditer(page)]


def agrees(kind: str, wanted: str, found: str) -> bool:
    """Whether output is what a block of the kind says.

    >>> agrees("text", "loss 0.500 of 3 rows", "loss 0.501 of 3 rows"), agrees("text", "3 rows", "4 rows")
    (True, False)
    >>> agrees("text about", "windows 1.2 MB\\npeak 9 MB", "peak  812 kB\\nwindows 3 B"), agrees("text about", "peak", "top")
    (True, False)
    """
    if kind == "text about":
        return sorted(_shape(wanted, _SIZED)) == sorted(_shape(found, _SIZED))
    pairs = zip(_NUMBER.findall(wanted), _NUMBER.findall(found), strict=False)
    return _shape(wanted, _NUMBER) == _shape(found, _NUMBER) and all(_close(a, b) for a, b in pairs)


def _shape(text: str, numbers: re.Pattern[str]) -> list[str]:
    return [" ".join(numbers.sub(" # ", line).split()) for line in text.strip().splitlines()]


def _close(wanted: str, found: str) -> bool:
    if not {".", "e"} & {*wanted, *found}:
        return wanted == found
    a, b = (float(n.replace(",", "")) for n in (wanted, found))
    return abs(a - b) <= 0.02 * max(abs(a), abs(b))


def _python(block: Block, page: str, names: dict[str, object]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), names)
    return out.getvalue()


def _shell(block: Block) -> str | None:
    command = block.text
    if "-m venv" in command:
        command = command.rpartition(".venv/bin/")[2]
        if not command.startswith("streamtrain"):
            return None
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        ["bash", "-c", command], env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}:\n{done.stdout}")
    return done.stdout


def run(page: Path, text: str) -> Iterator[tuple[Block, Block | None, str | Exception | None]]:
    """Run the examples of a page in the current folder: each with the block of its output, and what it printed."""
    names: dict[str, object] = {"__name__": "__main__"}
    found = blocks(text)
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.kind in ("python", "sh"):
            wanted = after if after and after.kind in ("text", "text about") else None
            try:
                yield block, wanted, _python(block, str(page), names) if block.kind == "python" else _shell(block)
            except Exception as error:
                yield block, wanted, error


def check(page: Path, *, write: bool = False) -> Iterator[str]:
    """A message for each example that does not print what the page says; or write what it prints into the page."""
    text = page.read_text(encoding="utf-8")
    lines = text.split("\n")
    for block, wanted, printed in reversed(list(run(page, text))):
        if isinstance(printed, Exception):
            yield f"{page}:{block.line}: {type(printed).__name__}: {printed}"
        elif wanted and printed is not None and not agrees(wanted.kind, wanted.text, printed):
            yield f"{page}:{block.line}: the page says\n{wanted.text}\nbut this was printed\n{printed}"
            last = wanted.line - 1 + wanted.text.count("\n")
            lines[wanted.line - 1 : last] = [line.rstrip() for line in printed.rstrip("\n").split("\n")]
    if write:
        page.write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    write = "--write" in sys.argv
    failures: list[str] = []
    path = list(sys.path)
    for page in [Path(name).resolve() for name in sys.argv[1:] if name != "--write"]:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            shutil.copytree(ROOT / "data", "data")
            failures += check(page, write=write)
            sys.path[:] = path
            sys.path_importer_cache.pop(".", None)  # it is another folder for the next page
    sys.exit("\n\n".join(failures) or 0)


if __name__ == "__main__":
    main()
