from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers

DATA = Path(__file__).resolve().parents[3] / "data"
BUCKET = "bucket"


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both servers serve."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(DATA / "digits.parquet", folder)
    shutil.copytree(DATA / "digits.zarr", folder / "digits.zarr")
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def web(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of nginx."""
    if not servers.has_nginx():
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    with servers.nginx(root, tmp_path_factory.mktemp("nginx")) as port:
        yield port


@pytest.fixture(scope="session")
def store(root: Path) -> Iterator[int]:
    """The port of moto's S3, with the same files in a bucket."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto is not installed (pip install 'moto[server]')")
    with servers.moto() as port:
        servers.upload(port, BUCKET, root)
        yield port


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials but those that a test gives, no proxy but ours, and no wait for longer than a test has."""
    import os

    for name in os.environ:
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("STREAMTRAIN_RETRY_SECONDS", "20")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> str:
    """Credentials in the environment; gives the secret."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return "wJalrXUtnFEMI"
