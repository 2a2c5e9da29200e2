"""URL schemes: ``name://...`` is opened by the function registered for ``name``, in this process or by an installed package.

A third-party package may be broken. It is imported only when its scheme is used, and any error in it becomes a DataError that
names the package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions
from typing import Any, NamedTuple

from streamtrain.errors import DataError, NotFoundError, StreamtrainError, UsageError, without_secrets
from streamtrain.kernels.crash import reading
from streamtrain.storage.reader import Reader

__all__ = ["is_registered", "open_url", "register_scheme"]

_GROUP = "streamtrain.readers"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_MEMBERS = ("schema", "chunks", "read", "fingerprint")

Opener = Callable[[str], Reader]
_registered: dict[str, Opener] = {}


class _Offer(NamedTuple):
    """An entry point for a scheme, and the name of its package."""

    package: str
    point: EntryPoint

    def __str__(self) -> str:
        return f"{self.package} ({self.point.value})"


def register_scheme(scheme: str, opener: Opener) -> None:
    """Let `open_reader` open ``scheme://...`` with ``opener(url)``, in this process.

    A package does the same for all its users with an entry point named after the scheme, in the group
    ``streamtrain.readers``. A scheme registered here takes precedence.

    Parameters
    ----------
    scheme : str
        The part of the URL before ``://``: a letter, then letters, digits, ``+``, ``.`` or ``-``.
    opener : Callable[[str], Reader]
        A function that is given the whole URL and returns a reader.

    Raises
    ------
    UsageError
        If ``scheme`` has other characters, or ``opener`` is not callable.

    Examples
    --------
    >>> register_scheme("no scheme", open)
    Traceback (most recent call last):
    streamtrain.errors.UsageError: 'no scheme' is not a valid scheme: use a letter, then letters, digits, '+', '.' or '-'
    """
    if not _SCHEME.fullmatch(scheme):
        raise UsageError(f"{scheme!r} is not a valid scheme: use a letter, then letters, digits, '+', '.' or '-'")
    if not callable(opener):
        raise UsageError(
            f"{scheme}://: the opener is of type {type(opener).__name__}: give a function that takes a URL and returns a reader"
        )
    _registered[scheme] = opener


def is_registered(scheme: str) -> bool:
    """Whether a scheme was registered in this process. Such a scheme takes precedence over a built-in one."""
    return scheme in _registered


def open_url(scheme: str, url: str) -> Reader:
    """The reader for a URL. Raises NotFoundError if no package provides the scheme, and DataError, which names the package,
    if the package cannot be loaded, fails or returns no reader, or if two packages provide the scheme."""
    shown = without_secrets(url)
    if scheme in _registered:
        return _opened(_registered[scheme], f"the opener registered for {scheme}://", url, shown)
    offers = [offer for offer in _offers() if offer.point.name == scheme]
    if not offers:
        names = ", ".join(sorted({*_registered, *(offer.point.name for offer in _offers())})) or "none"
        raise NotFoundError(
            f"{shown}: there is no reader for {scheme}:// (installed: {names}): install a package that provides one (entry "
            f"point {_GROUP}), or register one with streamtrain.register_scheme"
        )
    if len(offers) > 1:
        raise DataError(
            f"{shown}: {len(offers)} packages provide {scheme}://: {' and '.join(map(str, offers))}: uninstall all but one, "
            "or choose one with streamtrain.register_scheme"
        )
    (offer,) = offers
    try:
        opener = offer.point.load()
    except BaseException as error:  # third-party code may even raise SystemExit
        raise _named(error, f"{shown}: the reader of {offer} cannot be loaded") from error
    if not callable(opener):
        raise DataError(
            f"{shown}: the reader of {offer} is of type {type(opener).__name__}, but must be a function of a URL"
        )
    return _opened(opener, str(offer), url, shown)


def _opened(opener: Callable[[str], Any], whose: str, url: str, shown: str) -> Reader:
    try:
        with reading(shown, own=whose):
            reader = opener(url)
        missing = [name for name in _MEMBERS if not hasattr(reader, name)]
    except StreamtrainError:
        raise
    except BaseException as error:
        raise _named(error, f"{shown}: {whose} cannot open it") from error
    if missing:
        raise DataError(
            f"{shown}: {whose} returned a {type(reader).__name__}, which is not a reader: it has no {missing[0]}"
        )
    return reader  # type: ignore[no-any-return]


def _named(error: BaseException, what: str) -> BaseException:
    """The DataError to raise instead. KeyboardInterrupt and MemoryError are returned unchanged."""
    if isinstance(error, (KeyboardInterrupt, MemoryError)):
        return error
    lines = str(error).strip().splitlines()
    return DataError(f"{what}: {type(error).__name__}{f': {lines[0]}' if lines else ''}")


def _offers() -> Iterator[_Offer]:
    """All entry points of the group. Of two copies of a package on the path, the first counts."""
    seen = set()
    for distribution in distributions():
        try:
            name = distribution.metadata["Name"]
            points = [] if name in seen else [p for p in distribution.entry_points if p.group == _GROUP]
        except Exception:  # broken metadata of an unrelated package
            continue
        seen.add(name)
        yield from (_Offer(str(name), point) for point in points)
