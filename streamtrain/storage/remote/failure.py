"""Failed requests: which are retried, and the messages for users. The message of a library is never shown, because it quotes
the URL with its signature, and answers of servers that contain keys."""

from __future__ import annotations

import re

from streamtrain.errors import CorruptError, DataError, NotFoundError, printable
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
    "Decode": "the answer is invalid",
    "Unknown": "the request failed",
}
_MOST_REASON = 200  # characters
_BUSY = (408, 425, 429)  # statuses of client errors that may pass
_REMEDIES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (a file with the key of a service account)",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_KEY",
}


class Failure(Exception):
    """A request failed.

    reason: a few words for the message. status: the HTTP status, 0 if there was no complete answer. final: whether a retry is
    useless.
    """

    def __init__(self, reason: str, status: int = 0, *, final: bool = False) -> None:
        super().__init__(reason, status)
        self.reason, self.status = printable(reason)[:_MOST_REASON], status  # a server may say anything
        self.final = final or not (status == 0 or status in _BUSY or status >= 500)

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Make a failure of an exception of obstore."""
        text = str(error)
        status = _STATUS.search(text)
        if status:
            code = _CODE.search(text)
            words = f"{status[1]} {status[2].strip()}".strip() + (f", {code[1]}" if code else "")
            return cls(words, int(status[1]))
        name = type(error).__name__
        if name == "NotSupportedError" or isinstance(error, NotImplementedError):
            return cls("the server does not support range requests", final=True)
        if isinstance(error, FileNotFoundError):
            return cls("404 Not Found", 404)
        if "Could not parse path" in text or "illegal character sequence" in text:
            return cls("a name there has characters that it cannot be asked for", final=True)
        kind = _KIND.search(text)
        if kind:
            return cls(_KINDS[kind[1]])
        return cls(f"the request cannot be made ({name})", final=True)


class GivenUp(DataError):
    """All retries failed."""


def error_of(failure: Failure, address: Address, *, signed: bool) -> DataError:
    """The error for a failure that is not retried. signed: whether there were credentials."""
    shown = address.shown
    if failure.status in (404, 410):
        return NotFoundError(f"{shown}: there is no such file ({failure.reason}): check the URL")
    if failure.status in (401, 403, 407):
        return DataError(f"{shown}: the server refuses access ({failure.reason}): {_remedy(address, signed=signed)}")
    if failure.status in (412, 416):  # a range beyond the end, which existed when the file was opened
        return CorruptError(
            f"{shown}: the file has changed since it was opened, so the rows read so far do not match it. Start again when "
            "nothing writes to the data"
        )
    if failure.status:
        return DataError(f"{shown}: the server answered {failure.reason}: check the URL, and the region or endpoint")
    return DataError(f"{shown}: {failure.reason}: use another server, or download the file")


def _remedy(address: Address, *, signed: bool) -> str:
    if address.is_web:
        if signed:
            return "check the name and password, or whether the signature of the URL has expired"
        return (
            f"give a name and a password ({address.scheme}://NAME:PASSWORD@{address.host}/...) or a signed URL; or it may be a "
            "folder that the server does not list"
        )
    names = _REMEDIES[address.scheme]
    if signed:
        return f"check the credentials and their permission to read: {names}"
    return f"the environment has no credentials: set {names}"


def gone_silent(failure: Failure, address: Address, tries: int, seconds: float) -> GivenUp:
    """The error after the last retry."""
    times = "one try" if tries == 1 else f"{tries} tries"
    return GivenUp(
        f"{address.shown}: given up after {times} in {seconds:.0f} s ({failure.reason}): the server is down, "
        "overloaded or cannot be reached: try again later, or set STREAMTRAIN_RETRY_SECONDS to a longer time"
    )
