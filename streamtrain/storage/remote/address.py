"""URLs, split into the part that may be shown and the secrets."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from streamtrain.errors import UsageError, without_secrets

__all__ = ["SCHEMES", "Address", "Secret", "problem_of_path"]

SCHEMES = ("s3", "gs", "az", "http", "https", "memory")
_kept: dict[
    str, Secret
] = {}  # the secrets of this process; a pickled address finds its secret here, and in no other process


def problem_of_path(path: str) -> str | None:
    """Why no server can be asked for a decoded path; None if one can.

    >>> problem_of_path("a\\nb"), problem_of_path("a b")
    ('control characters', None)
    """
    if any(c < " " or c == "\x7f" for c in path):
        return "control characters"
    return "bytes that are not UTF-8" if any("\ud800" <= c <= "\udfff" for c in path) else None


class Secret:
    """The secret parts of a URL: the password, as a header, and the query, which may be a signature. They are never shown. A
    pickle has only a number, which has a meaning in this process alone."""

    def __init__(self, authorization: str = "", query: str = "") -> None:
        self.authorization, self.query = authorization, query
        self._number = os.urandom(8).hex()
        if authorization or query:
            _kept[self._number] = self

    def __repr__(self) -> str:
        return "Secret()"

    def __reduce__(self) -> tuple[Any, ...]:
        return _secret_of, (self._number,)


def _secret_of(number: str) -> Secret:
    return _kept.get(number) or Secret()


@dataclass(frozen=True)
class Address:
    """A URL that is safe to show.

    scheme: one of `SCHEMES`. host: the server and port, the bucket or the container; "" for memory. path: the decoded path
    without a leading slash; it ends with a slash if the URL does.

    >>> Address.parse("http://user:word@host:8000/data/a%20b.parquet?signature=x").shown
    'http://host:8000/data/a b.parquet'
    >>> Address.parse("s3://bucket/year=2025/*.parquet")
    Address(scheme='s3', host='bucket', path='year=2025/*.parquet')
    """

    scheme: str
    host: str
    path: str
    secret: Secret = field(default_factory=Secret, repr=False, compare=False)

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse a URL. Raises UsageError if it has no bucket or host, ``..`` or ``//`` in its path, or a path that no server
        can be asked for."""
        scheme, _, rest = url.partition("://")
        if without_secrets(url) == f"{scheme}://***":
            raise UsageError(f"{scheme}://: the characters / # ? @ in a password must be written as %2F %23 %3F %40")
        if scheme not in SCHEMES:
            raise UsageError(f"{scheme}://: must be one of {', '.join(SCHEMES)}")
        if problem_of_path(url) == "control characters":  # `urlsplit` would drop some of them
            raise UsageError(
                f"{without_secrets(url)}: the URL has control characters: write the name as the server has it"
            )
        if scheme == "memory":
            return cls(scheme, "", rest.lstrip("/"))
        if scheme not in ("http", "https"):
            host, _, path = rest.partition("/")
            address = cls(scheme, host, path.lstrip("/"))
        else:
            address = cls._of_web(url)
        if not address.host or "@" in address.host:
            raise UsageError(
                f"{scheme}://: give a {'server' if address.is_web else 'bucket'}, as in {scheme}://name/path; credentials for "
                "a store are read from the environment"
            )
        if any(part in ("", ".", "..") for part in address.path.rstrip("/").split("/")) and address.path:
            raise UsageError(f"{address.shown}: no part of the path may be empty, . or ..: write the path out")
        if (problem := problem_of_path(address.path)) is not None:
            raise UsageError(f"{address.shown}: the path has {problem}: rename the file on the server, or download it")
        return address

    @classmethod
    def _of_web(cls, url: str) -> Address:
        try:
            parts = urlsplit(url)
            assert parts.port is None or parts.port >= 0
        except ValueError as error:
            raise UsageError(f"{without_secrets(url)}: is not a valid URL: {error}") from None
        if "%2f" in parts.path.lower():
            raise UsageError(
                f"{without_secrets(url)}: the path has a %2F, which is no part of a name here: write it as / or rename the file"
            )
        login, at, host = parts.netloc.rpartition("@")
        header = ""
        if at:
            header = "Basic " + base64.b64encode(unquote(login).encode()).decode()
        return cls(
            parts.scheme, host, unquote(parts.path, errors="surrogateescape").lstrip("/"), Secret(header, parts.query)
        )

    @property
    def is_web(self) -> bool:
        """Whether it is a web server, which serves files but cannot list them as a store can."""
        return self.scheme in ("http", "https")

    @property
    def shown(self) -> str:
        """The URL without password and query."""
        return f"{self.scheme}://{'/'.join(part for part in (self.host, self.path) if part)}"

    def at(self, path: str) -> Address:
        """The address of another path on the same host."""
        return replace(self, path=path)

    def __truediv__(self, name: str) -> Address:
        return self.at("/".join(part for part in (self.path.rstrip("/"), name) if part))

    def __str__(self) -> str:
        return self.shown
