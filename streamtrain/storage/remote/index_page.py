"""List a folder on a web server, from the page of links that nginx, Apache and others show."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from html.parser import HTMLParser
from urllib.parse import quote, unquote, urljoin, urlsplit

from streamtrain.errors import printable
from streamtrain.storage.remote.address import Address
from streamtrain.storage.remote.failure import Failure

__all__ = ["links_of", "read_page"]

_MOST_BYTES = 32 << 20
_SILENCE_SECONDS = 15


def read_page(address: Address) -> str | None:
    """The page of a folder; None if the server shows none. Raises Failure. Made without obstore, which needs the length of an
    answer in advance."""
    query = f"?{address.secret.query}" if address.secret.query else ""
    request = urllib.request.Request(f"{address.scheme}://{address.host}/{quote(address.path)}{query}")
    if address.secret.authorization:
        request.add_unredirected_header("Authorization", address.secret.authorization)
    try:
        with urllib.request.urlopen(request, timeout=_SILENCE_SECONDS) as answer:
            if answer.headers.get_content_type() != "text/html":
                return None
            data: bytes = answer.read(_MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (403, 404, 405):
            return None
        raise Failure(f"{error.code} {error.reason}", error.code) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Failure(f"the page of the folder cannot be read ({type(error).__name__})") from None
    if len(data) > _MOST_BYTES:
        raise Failure(f"the page of the folder has more than {_MOST_BYTES >> 20} MiB", final=True)
    return data.decode(errors="replace")


def links_of(page: str, address: Address) -> list[tuple[str, bool]]:
    """The decoded path of each file and folder directly in a folder, and whether it is a folder; in order, without duplicates.
    Links to the parent folder, to other hosts and to other sort orders of the page are left out. Raises Failure for a name with
    a slash in it.

    >>> links_of('<a href="../">up</a> <a href="b/">b</a> <a href="/d/a%20c">a c</a>', Address("http", "host", "d/"))
    [('d/b', True), ('d/a c', False)]
    """
    base = f"{address.scheme}://{address.host}/{quote(address.path)}"
    parser = _Links()
    parser.feed(page)
    entries = {}
    for link in parser.links:
        try:
            parts = urlsplit(urljoin(base, link))
        except ValueError:
            continue
        inside = f"{parts.scheme}://{parts.netloc}" == f"{address.scheme}://{address.host}"
        path = unquote(parts.path, errors="surrogateescape").lstrip("/")
        name = path[len(address.path) :]
        below = path.startswith(address.path) and "/" not in name[:-1] and name.strip("/") not in ("", ".", "..")
        if inside and path.startswith(address.path) and "%2f" in parts.path.lower():
            raise Failure(f"its page lists {printable(parts.path)}, with a %2F in a name", final=True)
        if inside and below and not parts.query:
            entries[path.rstrip("/")] = name.endswith("/")
    return list(entries.items())


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]
