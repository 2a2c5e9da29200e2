"""Real servers on loopback: nginx for HTTP, moto's for S3. Each as a context that gives its port."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_START_SECONDS = 30

_NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off; types {{ text/html html; }} default_type application/octet-stream; sendfile on; tcp_nodelay on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port}; root {root};
    location / {{ autoindex on; }}
    location /unlisted/ {{ alias {root}/; }}
    location /private/ {{ alias {root}/; auth_basic "data"; auth_basic_user_file {folder}/users; }}
    location /whole/ {{ alias {root}/; max_ranges 0; }}
  }}
}}
"""


def has_nginx() -> bool:
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") is not None


@contextmanager
def nginx(root: Path, folder: Path) -> Iterator[int]:
    """Serves ``root``: with pages of folders, under ``/unlisted/`` without, under ``/private/`` for user:word, under
    ``/whole/`` without ranges."""
    port = free_port()
    (folder / "users").write_text("user:{PLAIN}word\n")
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, root=root, port=port))
    binary = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    command = [str(binary), "-c", str(folder / "nginx.conf"), "-p", str(folder), "-g", "user root;"]
    with running(command if _is_root() else command[:-2], port):
        yield port


def _is_root() -> bool:
    import os

    return os.getuid() == 0


@contextmanager
def moto() -> Iterator[int]:
    port = free_port()
    with running([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port):
        yield port


def put(port: int, path: str, data: bytes | None = None) -> None:
    """PUT to a server that asks for no signature: makes a bucket, or an object."""
    kind = {"Content-Type": "application/octet-stream"}  # of others it takes the body for a form
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{urllib.parse.quote(path)}", data, kind, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()


def upload(port: int, bucket: str, folder: Path) -> None:
    """Every file of a folder."""
    put(port, bucket)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            put(port, f"{bucket}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        _await(process, port)
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args} does not listen")
