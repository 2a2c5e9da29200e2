"""Every example in the README and in docs/ runs, in a fresh process, and prints what the page says (see `pages`)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", ["README.md", *(pytest.param(page, marks=pytest.mark.slow) for page in PAGES[1:])])
def test_examples_print_what_the_page_says(page: str) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "tests/pages.py"), str(ROOT / page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert not missing


def test_a_page_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "wrong.md"
    page.write_text("```python\nprint(2)\n```\n\n```text\n3\n```\n\n```sh\nexit 7\n```\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/pages.py"), str(page)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "the page says\n3" in done.stderr and "exit code 7" in done.stderr
