"""Schemes: ``name://...`` is opened by what was registered for ``name``, in this process or by an installed package.

Packages of others may be broken or worse. Nothing of them is imported before somebody asks for their scheme, then only
the one that was asked for, and whatever goes wrong in it is an error that names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions
from typing import Any, NamedTuple

from streamtrain.errors import DataError, NotFoundError, StreamtrainError, UsageError, without_secrets
from streamtrain.storage.reader import Reader

__all__ = ["is_registered", "open_url", "register_scheme"]

_GROUP = "streamtrain.readers"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_MEMBERS = ("schema", "chunks", "read", "fingerprint")

Opener = Callable[[str], Reader]
_registered: dict[str, Opener] = {}


class _Offer(NamedTuple):
    """An entry point, and the name of the package that has it."""

    package: str
    point: EntryPoint

    def __str__(self) -> str:
        return f"{self.package} ({self.point.value})"


def register_scheme(scheme: str, opener: Opener) -> None:
    """Let `open_reader` open ``scheme://...`` with ``opener(url)``, in this process. A package does the same for everybody
    who installs it with an entry point of that name in the group ``streamtrain.readers``; what is registered here goes first.

    Raises UsageError for what cannot be a scheme, or cannot be called.

    >>> register_scheme("no scheme", open)
    Traceback (most recent call last):
    streamtrain.errors.UsageError: 'no scheme' cannot be a scheme: write a letter, then letters, digits, '+', '.' or '-'
    """
    if not _SCHEME.fullmatch(scheme):
        raise UsageError(f"{scheme!r} cannot be a scheme: write a letter, then letters, digits, '+', '.' or '-'")
    if not callable(opener):
        raise UsageError(
            f"{scheme}://: the opener is a {type(opener).__name__}: give a function from a URL to a reader"
        )
    _registered[scheme] = opener


def is_registered(scheme: str) -> bool:
    """Whether it was registered in this process: that goes before a scheme that is built in."""
    return scheme in _registered


def open_url(scheme: str, url: str) -> Reader:
    """The reader of a URL. Raises NotFoundError where nobody provides the scheme; DataError, with the package's name, where
    it cannot be loaded, fails, or gives something else than a reader, or where two packages claim the scheme."""
    shown = without_secrets(url)
    if scheme in _registered:
        return _opened(_registered[scheme], f"the opener that is registered for {scheme}://", url, shown)
    offers = [offer for offer in _offers() if offer.point.name == scheme]
    if not offers:
        known = ", ".join(sorted({*_registered, *(offer.point.name for offer in _offers())})) or "none are"
        raise NotFoundError(
            f"{shown}: no reader for {scheme}:// is installed ({known}): install a package that provides one (entry point "
            f"{_GROUP}), or register it with streamtrain.register_scheme"
        )
    if len(offers) > 1:
        raise DataError(
            f"{shown}: {len(offers)} packages provide {scheme}://: {' and '.join(map(str, offers))}; uninstall all but one, "
            "or choose with streamtrain.register_scheme"
        )
    (offer,) = offers
    try:
        opener = offer.point.load()
    except BaseException as error:  # of somebody else's code: it may even end the process with SystemExit
        raise _named(error, f"{shown}: the reader of {offer} cannot be loaded") from error
    if not callable(opener):
        raise DataError(f"{shown}: the reader of {offer} is a {type(opener).__name__}, not a function of a URL")
    return _opened(opener, str(offer), url, shown)


def _opened(opener: Callable[[str], Any], whose: str, url: str, shown: str) -> Reader:
    try:
        reader = opener(url)
        missing = [name for name in _MEMBERS if not hasattr(reader, name)]
    except StreamtrainError:
        raise
    except BaseException as error:
        raise _named(error, f"{shown}: {whose} cannot open it") from error
    if missing:
        raise DataError(f"{shown}: {whose} gave a {type(reader).__name__}, which is no reader: it has no {missing[0]}")
    return reader  # type: ignore[no-any-return]


def _named(error: BaseException, what: str) -> BaseException:
    """The error to raise instead. Ctrl-C is the user's, and memory the budget's: they stay what they are."""
    if isinstance(error, (KeyboardInterrupt, MemoryError)):
        return error
    lines = str(error).strip().splitlines()
    return DataError(f"{what}: {type(error).__name__}{f': {lines[0]}' if lines else ''}")


def _offers() -> Iterator[_Offer]:
    """All entry points of the group, of each package once: of two copies on the path the first is the one that counts."""
    seen = set()
    for distribution in distributions():
        try:
            name = distribution.metadata["Name"]
            points = [] if name in seen else [p for p in distribution.entry_points if p.group == _GROUP]
        except Exception:  # broken metadata of a package that nobody asked for
            continue
        seen.add(name)
        yield from (_Offer(str(name), point) for point in points)
