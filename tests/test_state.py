"""Files and folders that are whole or not there."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from streamtrain.state import remove_unfinished, staging, write_beside


def test_a_file_replaces_a_file_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with write_beside(path) as hidden:
        hidden.write_text("new")
        assert path.read_text() == "old" and hidden.name == "a.txt" and hidden.parent.name.startswith(".writing-")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


def test_it_has_the_mode_that_the_process_gives_new_files(tmp_path: Path) -> None:
    (tmp_path / "as usual").touch()
    with write_beside(tmp_path / "a.txt") as hidden:
        hidden.touch()
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(os.readlink(f"/proc/self/fd/{file}")), sync(file))[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (done.append(f"{a.name} -> {b}"), replace(a, b))[1])
    with write_beside(tmp_path / "a") as hidden:
        hidden.touch()
    assert done == [str(hidden), f"a -> {tmp_path / 'a'}", str(tmp_path)]


def test_a_folder_replaces_an_empty_folder_only(tmp_path: Path) -> None:
    for _ in range(2):
        with write_beside(tmp_path / "d") as hidden:
            hidden.mkdir()
            (hidden / "x").touch()
        (tmp_path / "d/x").unlink()
    (tmp_path / "d/y").touch()
    with pytest.raises(OSError, match="not empty"), write_beside(tmp_path / "d") as hidden:
        hidden.mkdir()
    assert os.listdir(tmp_path) == ["d"] and os.listdir(tmp_path / "d") == ["y"]


def _write_half(path: Path, error: BaseException) -> None:
    with write_beside(path) as hidden:
        hidden.write_text("half")
        raise error


@pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt(), ValueError()])
def test_after_an_error_nothing_is_left(error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamtrain.state._REMOVAL_SECONDS", 0.0)  # no thread writes
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(type(error)):
        _write_half(path, error)
    with pytest.raises(FileNotFoundError), write_beside(path):
        pass  # nothing was written
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_a_thread_that_still_writes_leaves_nothing(tmp_path: Path) -> None:
    """As zarr's do after Ctrl-C: they finish their chunk, and make the folder for it again."""
    threads = []

    def chunk(folder: Path) -> None:
        time.sleep(0.1)
        (folder / "X").mkdir(parents=True, exist_ok=True)
        (folder / "X/0").write_text("a chunk")

    def write() -> None:
        with write_beside(tmp_path / "d") as hidden:
            threads.append(threading.Thread(target=chunk, args=[hidden]))
            threads[0].start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    threads[0].join()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    with staging(tmp_path) as hidden:
        kept = hidden.rename(tmp_path / (hidden.name + "-of-a-killed-process"))
        (kept / "half").touch()
    (tmp_path / "a").touch()
    (tmp_path / ".hidden").touch()
    remove_unfinished(tmp_path)
    remove_unfinished(tmp_path / "nowhere")
    assert sorted(os.listdir(tmp_path)) == [".hidden", "a"]
