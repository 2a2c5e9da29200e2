"""Requests that fail: which of them are worth another try, and what people are told. What a library says of a failure is
never shown: it quotes the URL with its signature, and answers of servers that name keys."""

from __future__ import annotations

import re

from streamtrain.errors import CorruptError, DataError, NotFoundError
from streamtrain.storage.remote.address import Address

__all__ = ["Failure", "GivenUp", "error_of", "gone_silent"]

_STATUS = re.compile(r"status code: (\d{3}) ?([A-Za-z -]*)")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_KIND = re.compile(r"\bkind: (Connect|Timeout|Request|Interrupted|Decode|Unknown)\b")
_KINDS = {
    "Connect": "no connection",
    "Timeout": "no answer in time",
    "Request": "the connection broke",
    "Interrupted": "the connection broke",
    "Decode": "the answer cannot be understood",
    "Unknown": "the request failed",
}
_BUSY = (408, 425, 429)  # statuses of the client's errors that are none
_REMEDIES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (a file with the key of a service account)",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_KEY",
}


class Failure(Exception):
    """status: what the server answered, 0 where it gave no whole answer. reason: a few words."""

    def __init__(self, reason: str, status: int = 0, *, final: bool = False) -> None:
        super().__init__(reason, status)
        self.reason, self.status = reason, status
        self.final = final or not (status == 0 or status in _BUSY or status >= 500)

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """What obstore raised, in words of ours."""
        text = str(error)
        found = _STATUS.search(text)
        if found:
            code = _CODE.search(text)
            words = f"{found[1]} {found[2].strip()}".strip() + (f", {code[1]}" if code else "")
            return cls(words, int(found[1]))
        name = type(error).__name__
        if name == "NotSupportedError" or isinstance(error, NotImplementedError):
            return cls("it does not give parts of files (no range requests)", final=True)
        if isinstance(error, FileNotFoundError):
            return cls("404 Not Found", 404)
        kind = _KIND.search(text)
        if kind:
            return cls(_KINDS[kind[1]])
        return cls(f"the request cannot be made ({name})", final=True)


class GivenUp(DataError):
    """It was tried often enough."""


def error_of(failure: Failure, address: Address, *, signed: bool) -> DataError:
    """What to raise for a failure that no further try will change. signed: whether there were credentials."""
    shown = address.shown
    if failure.status in (404, 410):
        return NotFoundError(f"{shown}: there is no such file ({failure.reason}): check the URL")
    if failure.status in (401, 403, 407):
        return DataError(f"{shown}: the server refuses it ({failure.reason}): {_remedy(address, signed=signed)}")
    if failure.status in (412, 416):  # a range beyond the end: there was one
        return CorruptError(
            f"{shown}: the file has changed since it was opened: what was read of it does not belong to what is there now. "
            "Start again, with data that nobody writes to meanwhile"
        )
    if failure.status:
        return DataError(f"{shown}: the server answers {failure.reason}: check the URL, and the region or endpoint")
    return DataError(f"{shown}: {failure.reason}: take another server, or download the file")


def _remedy(address: Address, *, signed: bool) -> str:
    if address.is_web:
        if signed:
            return "check name and password, or whether the signature of the URL has expired"
        return (
            f"it wants a name and a password ({address.scheme}://NAME:PASSWORD@{address.host}/...), or a signed URL; or it is "
            "a folder that the server does not show"
        )
    names = _REMEDIES[address.scheme]
    if signed:
        return f"check the credentials and what they may read: {names}"
    return f"there are no credentials in the environment: set {names}"


def gone_silent(failure: Failure, address: Address, tries: int, seconds: float) -> GivenUp:
    times = "one try" if tries == 1 else f"{tries} tries"
    return GivenUp(
        f"{address.shown}: given up after {times} in {seconds:.0f} s ({failure.reason}): the server is down, "
        "overloaded or cannot be reached; try again later, or give it longer with STREAMTRAIN_RETRY_SECONDS"
    )
