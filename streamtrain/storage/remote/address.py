"""URLs: what is shown and recorded of them, and what is a secret."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from streamtrain.errors import UsageError, without_secrets

__all__ = ["SCHEMES", "Address", "Secret"]

SCHEMES = ("s3", "gs", "az", "http", "https", "memory")
_kept: dict[str, Secret] = {}  # of this process, so that a copy of an address has its secret here and nowhere else


class Secret:
    """What a URL has beside a place: a password as a header, and a query, which may be a signature. It is never shown, and a
    pickle of it holds a number that means something in this process alone."""

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
    """scheme: one of `SCHEMES`. host: of a server with its port, or a bucket or container; "" for memory. path: below it,
    decoded, without a slash at its beginning; with one at its end if the URL has it.

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
        """Raises UsageError for a URL without a bucket or host, or with ``..`` or ``//`` in its path."""
        scheme, _, rest = url.partition("://")
        if without_secrets(url) == f"{scheme}://***":
            raise UsageError(f"{scheme}://: a / # ? or @ in a password must be written %2F %23 %3F %40")
        if scheme not in SCHEMES:
            raise UsageError(f"{scheme}://: there are {', '.join(SCHEMES)}")
        if scheme == "memory":
            return cls(scheme, "", rest.lstrip("/"))
        if scheme not in ("http", "https"):
            host, _, path = rest.partition("/")
            found = cls(scheme, host, path.lstrip("/"))
        else:
            found = cls._of_web(url)
        if not found.host or "@" in found.host:
            raise UsageError(
                f"{scheme}://: name a {'server' if found.is_web else 'bucket'}, as in {scheme}://name/path; credentials of "
                "a store come from the environment"
            )
        if any(part in ("", ".", "..") for part in found.path.rstrip("/").split("/")) and found.path:
            raise UsageError(f"{found.shown}: no part of a path may be empty, . or ..: write it out")
        return found

    @classmethod
    def _of_web(cls, url: str) -> Address:
        try:
            parts = urlsplit(url)
            assert parts.port is None or parts.port >= 0
        except ValueError as error:
            raise UsageError(f"{without_secrets(url)}: is no URL: {error}") from None
        login, at, host = parts.netloc.rpartition("@")
        header = ""
        if at:
            header = "Basic " + base64.b64encode(unquote(login).encode()).decode()
        return cls(parts.scheme, host, unquote(parts.path).lstrip("/"), Secret(header, parts.query))

    @property
    def is_web(self) -> bool:
        """Whether there is a server that knows files alone, not a store that can list them."""
        return self.scheme in ("http", "https")

    @property
    def shown(self) -> str:
        """The URL for people: no password, no query."""
        return f"{self.scheme}://{'/'.join(part for part in (self.host, self.path) if part)}"

    def at(self, path: str) -> Address:
        """Another path of the same host."""
        return replace(self, path=path)

    def __truediv__(self, name: str) -> Address:
        return self.at("/".join(part for part in (self.path.rstrip("/"), name) if part))

    def __str__(self) -> str:
        return self.shown
