"""Families of learners: one list, and nobody else who knows its entries."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from streamtrain.errors import UsageError
from streamtrain.learn import FAMILIES, Family, Learner, LearnerShape, recipe
from streamtrain.learn.family import find_family, recorded_recipe

PACKAGE = Path(__file__).resolve().parents[2] / "streamtrain"


def names_in(path: Path) -> Iterator[str]:
    """Every name, attribute and imported module of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_outside_learn_nobody_names_a_kind_of_learner() -> None:
    homes = {home.partition(":")[0] for home in FAMILIES.values()}
    private = {*homes, "Linear", "PlainLinear", "LINEAR", "streamtrain.learn.linear", "streamtrain.learn.fused"}
    others = [p for p in PACKAGE.rglob("*.py") if p.parts[len(PACKAGE.parts)] not in ("learn", "kernels")]
    assert len(others) > 100
    wrong = {str(p.relative_to(PACKAGE)): found for p in others if (found := private & set(names_in(p)))}
    assert not wrong


@pytest.mark.parametrize("name", FAMILIES)
def test_a_built_in_family_keeps_the_contract(name: str) -> None:
    family = find_family(name)
    assert isinstance(family, Family) and family.name == name and family.description
    assert is_dataclass(family.Settings) and family.Settings() == family.Settings()
    for shape in (
        LearnerShape(3),
        LearnerShape(3, slots=8, classes=2),
        LearnerShape(2, classes=5),
        LearnerShape(2, targets=3),
    ):
        made = recipe(name)
        assert isinstance(made.make(shape), Learner)
        described = made.describe()
        again = recorded_recipe(described["learner"], described["settings"])
        assert again == made and set(described["settings"]) == {field.name for field in fields(family.Settings)}


def test_settings_that_a_family_does_not_have() -> None:
    with pytest.raises(UsageError, match="depth: --learner linear has no such setting"):
        recipe("linear", depth=3)


def test_the_list_of_families_is_read_without_numpy() -> None:
    script = """import sys
from streamtrain.learn.family import FAMILIES, require_name
assert [require_name(name) for name in FAMILIES]
print(sorted({"numpy", "pyarrow", "dask"} & set(sys.modules)))"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
