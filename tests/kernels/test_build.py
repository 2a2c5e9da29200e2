"""Compilers: each that is there compiles the kernels without a warning, and their libraries give the same bits."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamtrain import kernels
from streamtrain.batch import Sparse, Texts
from streamtrain.kernels import build, compiled, functions, hashing, products
from streamtrain.kernels.fused_linear import LinearStep
from streamtrain.kernels.ngrams import ngrams

ROOT = Path(__file__).parents[2]
STRICT = ("-Wall", "-Wextra", "-Wmissing-prototypes", "-Wstrict-prototypes", "-Werror")

compiled_only = pytest.mark.skipif(
    not kernels.COMPILED, reason="the kernels were not compiled: there was no C compiler"
)
compiler_only = pytest.mark.skipif(build.find_compiler() is None, reason="there is no C compiler")


def command_of(compiler: str) -> tuple[str, ...]:
    """The command, or a skip."""
    if compiler == "zig":
        if importlib.util.find_spec("ziglang") is None:
            pytest.skip("zig is not here: pip install ziglang")
        return build.ZIG
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not here")
    return (compiler,)


# -- the same bits -----------------------------------------------------------------------------------------------------


def permutation(rng: np.random.Generator) -> list[Any]:
    keys = rng.integers(0, 2**32, 8, np.uint32)
    return [kernels.permuted(first, first + 700, rows, keys) for first, rows in ((0, 1000), (10**9, 2**33 + 1))]


def moves(rng: np.random.Generator) -> list[Any]:
    window, other = np.zeros((200, 40), np.float32), np.zeros((200, 9), np.uint8)
    positions = rng.permutation(200)[:150]
    columns = list(rng.normal(size=(30, 150)).astype(np.float32))
    kernels.scatter_columns(columns, np.sort(rng.permutation(40)[:30]), window, positions)
    kernels.scatter_columns(columns[:19], np.arange(19), window[:150], np.arange(150))
    kernels.scatter_rows(rng.integers(0, 256, (150, 5), np.uint8), other, 2, positions)
    return [window, other]


def sums(rng: np.random.Generator) -> list[Any]:
    results: list[Any] = []
    for width in (1, 7, 8, 29, 45):
        rows = rng.normal(3, 10, (333, width)).astype(np.float32)
        centre, scale = rng.normal(size=(2, width)).astype(np.float32)
        results.append(kernels.sums(rows, centre))
        kernels.affine(rows, centre, scale)
        results.append(rows)
    return results


def scores(rng: np.random.Generator) -> list[Any]:
    counts = np.zeros((2, 640), np.int64)
    targets, predictions = rng.integers(0, 2, 1000).astype(np.float32), rng.random(1000).astype(np.float32)
    likelihood = kernels.binary_scores(targets, predictions, counts, least=1.2e-7, shift=20, first_bin=700)
    return [np.array(likelihood), counts]


def fused_linear(rng: np.random.Generator) -> list[Any]:
    results: list[Any] = []
    for width, logistic in ((5, True), (37, False), (37, True), (1030, True)):
        rows = rng.normal(3, 10, (330, width)).astype(np.float32)
        targets = rng.integers(0, 2, 330).astype(np.float32)
        maps = np.stack([np.full(width, 3), np.full(width, 3), rng.random(width)]).astype(np.float32)
        scoring, learning = rng.normal(size=(2, width + 1)).astype(np.float32)
        step = LinearStep(maps, scoring, learning, logistic=logistic)
        indptr = np.arange(0, 331 * 3, 3)
        indices = rng.integers(0, 50, 990, np.int32)
        for values in (None, rng.normal(size=990).astype(np.float32)):
            stream, totals, table = np.zeros(5), np.zeros((2, width)), np.zeros((50, 4), np.float32)
            stream[3], squares = 1, np.zeros(width + 1, np.float32)
            options = {"learning_rate": 0.3, "l2": 0.01, "forget": 4.0, "prior": (0.1, 0.2)}
            sparse = Sparse(indptr, indices, values, 50)
            run = step.run(
                rows.copy(), 16, targets, squares, stream, totals, sparse=sparse, sparse_weights=table, **options
            )
            assert run[0] == 21, "all batches are learned"
            results += [*(array.copy() for array in run[1:]), np.array(step.squared)]
            results += [stream, totals, table, squares, scoring.copy(), learning.copy()]
    return results


def product_sums(rng: np.random.Generator) -> list[Any]:
    results: list[Any] = []
    for width, outputs in ((5, 1), (37, 1), (37, 23), (16, 10), (600, 7)):
        rows = rng.normal(size=(131, width)).astype(np.float32)
        shape = (width + 1, outputs)[: 1 + (outputs > 1)]
        weights, gradient = rng.normal(size=shape).astype(np.float32), np.empty(shape, np.float32)
        found = products.margins(rows, weights)
        products.gradients(rows, found, gradient)
        results += [found, gradient, np.array(products.squares(rows))]
        results += [products.reach(rows, rates) for rates in (None, np.ones(width + 1, np.float32))]
    return results


def values_of_functions(rng: np.random.Generator) -> list[Any]:
    x, positive = rng.normal(0, 100, 999), 10 ** rng.uniform(-300, 300, 999)
    margins = rng.normal(0, 9, (99, 11)).astype(np.float32)
    likely, slopes = margins.copy(), margins.copy()
    functions.sigmoid(likely)
    functions.softmax(slopes, rng.integers(0, 11, 99, np.int32))
    logarithms = [functions.log(positive), functions.log1p(positive)]
    return [functions.exp(x), functions.expm1(x), *logarithms, *functions.circle(rng.random(999)), likely, slopes]


def hashes(rng: np.random.Generator) -> list[Any]:
    data, offsets = rng.integers(0, 256, 500, np.uint8), np.sort(rng.integers(0, 500, 41))
    values = hashing.hash_bytes(data, offsets, 7)
    bits = rng.integers(0, 256, 30, np.uint8)
    results = [values, hashing.take(values, rng.integers(0, 40, 200, np.int32), (bits, 3), 9)]
    for kind in ("i4", "i8", "f4", "f8"):
        results.append(np.nan_to_num(hashing.floats((rng.normal(size=200) * 1e4).astype(kind), bits, 3), nan=-1))
    features = np.where(rng.random((60, 4)) < 0.3, np.nan, rng.normal(size=(60, 4))).astype(np.float32)
    codes = rng.integers(1, 99, (60, 3), np.uint32)
    seeds, crosses = np.array([3, 4], np.uint32), [(0, 2), (2, 1, 0)]
    fill, missing = np.zeros(4, np.float32), np.arange(4, dtype=np.uint32) + 1
    results += [*hashing.entries(features, fill, missing, codes, 2, crosses, seeds, None, 60 * 8), features]
    cells, used = np.zeros((64, 2), np.uint32), np.zeros(2, np.int64)
    words = rng.integers(1, 2**32, 120, np.uint32)[rng.integers(0, 120, 900)]
    slots = hashing.find_slots(words, cells, used, most=48, sharing=16, claim=True)
    table, values = np.zeros((65, 2)), rng.normal(0, 10 ** rng.uniform(-30, 30, 900)).astype(np.float32)
    hashing.scale_entries(slots, values, table, rng.random(900) < 0.8, learn=True)
    return [*results, slots, cells, used, table, values]


def texts(rng: np.random.Generator) -> list[Any]:
    rows = ["".join(rng.choice(list("ab cÄé,_ Σς日😀"), size)).encode() for size in (0, 3, 60, 900)]
    sizes = np.array([len(row) for row in rows], np.int32)
    starts = np.cumsum(sizes, dtype=np.int64) - sizes
    return list(ngrams(Texts(np.frombuffer(b"".join(rows), np.uint8), starts[:, None], sizes[:, None]), 0, 5))


KERNELS: list[Callable[[np.random.Generator], list[Any]]] = [
    permutation, moves, sums, scores, fused_linear, product_sums, values_of_functions, hashes, texts,
]  # fmt: skip


def digests() -> dict[str, str]:
    """A digest of the results of each kernel."""
    made = {}
    for kernel in KERNELS:
        digest = hashlib.sha256()
        for array in kernel(np.random.default_rng(1)):
            assert array.dtype.kind != "f" or np.isfinite(array).all(), "the bits of NaN may differ"
            digest.update(str(array.dtype).encode() + np.ascontiguousarray(array).tobytes())
        made[kernel.__name__] = digest.hexdigest()
    return made


@compiled_only
@pytest.mark.parametrize("compiler", ["gcc", "clang", pytest.param("zig", marks=pytest.mark.slow)])
def test_compilers_give_the_same_bits_without_a_warning(compiler: str, tmp_path: Path) -> None:
    wanted, installed = digests(), compiled.library()
    for path in build.compile_kernels(command_of(compiler), tmp_path, extra=STRICT):
        library, _ = compiled.open_library(path)
        assert installed is not None and library.st_has_avx2() == installed.st_has_avx2()
        if path.name == "_kernels.so" or library.st_has_avx2():
            with kernels.using(library):
                assert digests() == wanted, path.name


@pytest.mark.slow
@pytest.mark.parametrize("target", ["aarch64-linux-gnu", "aarch64-macos", "x86_64-linux-musl"])
def test_other_machines_compile_too(target: str, tmp_path: Path) -> None:
    command = (*command_of("zig"), "-target", target)
    sources = sorted(map(str, build.FOLDER.glob("*.c")))
    flags = [flag for flag in build.FLAGS if flag != "-fPIC"]
    result = subprocess.run(
        [*command, *flags, *STRICT, "-o", str(tmp_path / "out.so"), *sources],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, "")


# -- a library that does not fit ---------------------------------------------------------------------------------------


@compiler_only
@pytest.mark.parametrize(
    "source",
    ["int st_nothing;", 'struct { const char *name; long value; } st_numbers[] = {{"BUCKET", 4}, {0, 0}};'],
)
def test_a_library_of_other_sources_is_not_used(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.c").write_text(source)
    command = build.find_compiler()
    assert command is not None
    subprocess.run([*command, "-shared", "-fPIC", "-o", "_kernels.so", "old.c"], cwd=tmp_path, check=True, timeout=60)
    with pytest.raises(ValueError, match="compiled from other sources"):
        compiled.open_library(tmp_path / "_kernels.so")
    monkeypatch.setattr(compiled, "FOLDER", tmp_path)
    assert compiled._load() == (None, {}, "_kernels.so was compiled from other sources")
    (tmp_path / "_kernels.so").unlink()  # a library that is open must not be written to
    (tmp_path / "_kernels.so").write_bytes(b"no library")
    assert "_kernels.so" in compiled._load()[2]
    (tmp_path / "_kernels.so").unlink()
    assert "no C compiler" in compiled._load()[2]


# -- which compiler ----------------------------------------------------------------------------------------------------


def script(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@compiler_only
def test_the_first_compiler_that_works_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = next((shutil.which(name) for name in ("gcc", "clang", "cc") if shutil.which(name)), None)
    if real is None:
        pytest.skip("there is only zig")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.find_compiler() is None, "there is none"
    script(tmp_path, "cc", "exit 1")
    assert build.find_compiler() is None, "it does not work"
    script(tmp_path, "gcc", f'PATH={path}\nexec {real} "$@"')
    assert build.find_compiler() == ("gcc",)
    monkeypatch.setenv("CC", f"{tmp_path}/gcc -g0")
    assert build.find_compiler() == (f"{tmp_path}/gcc", "-g0"), "CC says which, and may have options"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("CC", "cc")
    assert build.find_compiler() == build.ZIG


@compiler_only
def test_what_a_compiler_says_is_passed_on_and_nothing_is_replaced(tmp_path: Path) -> None:
    command = build.find_compiler()
    assert command is not None
    (tmp_path / "_kernels.so").write_bytes(b"before")
    with pytest.raises(build.CompilerError, match=r"could not compile _kernels.so: [^\0]*-no-such-flag"):
        build.compile_kernels(command, tmp_path, extra=("-no-such-flag",))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("_kernels.so", b"before")]


# -- without one -------------------------------------------------------------------------------------------------------

TRAIN = """
import streamtrain
from streamtrain.kernels import COMPILED
assert not COMPILED
for _ in range(2):
    report = streamtrain.fit("DATA", target="digit", seed=1).as_dict()
print(report["rows_seen"])
"""


def test_without_kernels_the_first_fit_says_what_that_costs(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "streamtrain", tmp_path / "streamtrain", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    code = TRAIN.replace("DATA", str(ROOT / "data/digits.parquet"))
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (0, "1797\n"), result.stderr
    assert result.stderr == (
        "the compiled kernels are missing (there was no C compiler at installation), so numpy replaces them: training "
        "takes up to 3 times as long, and n-grams of texts 100 times; to have the kernels, install a C compiler (or "
        "`pip install ziglang`), then run: python -m streamtrain.kernels.build\n"
    )


# -- the package -------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a build of the package reads."""
    pytest.importorskip("hatchling", reason="hatchling is not here: pip install hatchling")
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "streamtrain", folder / "streamtrain", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    return folder


@compiler_only
@pytest.mark.skipif(sys.platform != "linux", reason="the tag of Linux")
def test_a_wheel_has_the_kernels_and_the_tag_of_its_machine(checkout: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    subprocess.run(command, cwd=checkout, capture_output=True, timeout=120, check=True)
    (wheel,) = (checkout / "dist").iterdir()
    assert wheel.name.endswith(f"-py3-none-{sysconfig.get_platform().replace('-', '_')}.whl")
    libraries = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")}
    assert libraries == {f"streamtrain/kernels/{name}" for name in build.LIBRARIES}


def test_a_build_without_a_compiler_asks_for_zig_and_goes_on_without(checkout: Path, tmp_path: Path) -> None:
    """In a process that finds no compiler, and of all packages only the builder's."""
    (tmp_path / "site").mkdir()
    for package in ("hatchling", "packaging", "pathspec", "pluggy", "trove_classifiers"):
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        (tmp_path / "site" / package).symlink_to(Path(spec.origin).parent)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path / "site")!r})
import hatchling.build as builder
print(builder.get_requires_for_build_wheel())
print(builder.build_wheel("dist"))
"""
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=checkout, env=environment, capture_output=True, text=True, timeout=60
    )
    requires, wheel = result.stdout.splitlines()
    assert requires == str(["ziglang>=0.17"] if build.zig_has_wheels() else [])
    assert wheel.endswith("-py3-none-any.whl")
    assert "the kernels were not compiled, numpy replaces them: there is no C compiler" in result.stderr
    assert not [name for name in zipfile.ZipFile(checkout / "dist" / wheel).namelist() if name.endswith(".so")]
