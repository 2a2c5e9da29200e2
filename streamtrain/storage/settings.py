"""Settings of the reading: what the files and stores do not say about themselves. Every command that reads data takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, date, datetime
from typing import Any, Literal

from streamtrain.errors import UsageError
from streamtrain.options import check, flag, option, options_of, split_names
from streamtrain.storage.where.grammar import read_where

__all__ = ["INPUT_FORMATS", "Asked", "ReadSettings"]

INPUT_FORMATS = ("parquet", "csv", "jsonl", "arrow", "npy", "zarr")
_TABS = ("tab", "\\t")
#: the formats on which a setting has an effect
_EFFECTS = {
    "delimiter": ("csv",), "header": ("csv",), "na": ("csv",), "decimal": ("csv",), "encoding": ("csv", "jsonl"),
    "sample_dim": ("zarr",),
}  # fmt: skip


def read_delimiter(text: Any) -> Any:
    r"""A delimiter as one character. Raises UsageError for what cannot be between fields.

    >>> read_delimiter(";"), read_delimiter("tab"), read_delimiter("\\t")
    (';', '\t', '\t')
    """
    character = "\t" if text in _TABS else text
    if isinstance(character, str) and (len(character) != 1 or not character.isascii() or character in '"\r\n\0'):
        raise UsageError(f"--delimiter {text!r}: must be one ASCII character that is no quote and no line end, or tab")
    return character


def read_encoding(text: Any) -> Any:
    """The name of an encoding as Python has it. Raises UsageError for one that Python does not know.

    >>> read_encoding("Latin1"), read_encoding("utf-8-sig")
    ('iso8859-1', 'utf-8')
    """
    if not isinstance(text, str):
        return text
    import codecs

    try:
        name = codecs.lookup(text).name
        bytes(range(256)).decode(name, "replace")  # refuses what is not an encoding of text, such as base64 and idna
        if codecs.getincrementaldecoder(name)().decode("a,1".encode(name), True) != "a,1":
            raise LookupError
    except (LookupError, ValueError):
        raise UsageError(
            f"--encoding {text!r}: is not an encoding that Python knows, such as utf-8, latin-1, cp1252 or utf-16"
        ) from None
    return "utf-8" if name in ("utf-8-sig", "ascii") else name


def read_time(value: Any) -> Any:
    """A time in one form, from text or an object; without a zone it is in UTC. Raises UsageError for other text.

    >>> read_time("2026-01-15"), read_time("2026-01-15T12:00:00+01:00")
    ('2026-01-15T00:00:00+00:00', '2026-01-15T11:00:00+00:00')
    """
    if isinstance(value, date) and not isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise UsageError(f"--as-of {value}: must be a time, 2026-01-15 or 2026-01-15T12:00:00+01:00") from None
    if not isinstance(value, datetime):
        return value
    return (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)).isoformat()


@dataclass(frozen=True)
class Asked:
    """The columns that somebody wants of data that may have more than one table of rows, such as a Zarr store.

    columns: those that are named, the target first. others: whether all others are wanted too; or those that are features
    unless told otherwise; or only shown; or none. without: others that are not wanted.
    """

    columns: tuple[str, ...] = ()
    others: Literal["all", "features", "shown", "none"] = "all"
    without: tuple[str, ...] = ()

    @classmethod
    def of(cls, targets: Sequence[str], weight: str | None, settings: Mapping[str, Any]) -> Asked:
        """What a model is fitted to. settings: of columns, as they were given: features, exclude, roles."""
        features, roles = settings.get("features"), dict(settings.get("roles") or ())
        used = [name for name, role in roles.items() if role != "ignore"]
        named = [*targets, *([] if weight is None else [weight]), *(features or ()), *used]
        return cls(tuple(dict.fromkeys(named)), "features" if features is None else "none", tuple(settings["exclude"]))


@dataclass(frozen=True)
class ReadSettings:
    """How data are read. Raises UsageError for an invalid setting."""

    missing_chunks: str = option(
        "error",
        "An absent Zarr chunk: an error, or filled with its fill value.",
        group="data",
        choices=("error", "fill"),
    )
    sample_dim: str | None = option(
        None, "The dimension of a Zarr store along which the rows are.", group="data", metavar="NAME",
        otherwise="that of the target",
    )  # fmt: skip
    input_format: str | None = option(
        None, "The format of the files.", group="data", choices=INPUT_FORMATS,
        otherwise="by their names, or their first bytes",
    )  # fmt: skip
    delimiter: str | None = option(
        None, "CSV: the character between fields, or tab.", group="data", metavar="C", read=read_delimiter,
        otherwise="a tab in .tsv and .tab, otherwise a comma",
    )  # fmt: skip
    header: bool = option(
        True, "CSV: the first line names the columns.", group="data", flag="--no-header",
        flag_help="CSV: there is no line of names; the columns are f0, f1, ...",
        python_help="CSV: whether the first line names the columns; otherwise they are f0, f1, ...",
    )  # fmt: skip
    na: Sequence[str] | None = option(
        None, "CSV: what means missing, in all columns: a,b. Blanks do in columns of numbers.", group="data",
        metavar="WORDS", read=split_names, wanted="give a list of words",
        otherwise="NA, NaN, null, None, ?, -, . and the like, in columns of numbers",
    )  # fmt: skip
    decimal: str = option(".", "CSV: the decimal point.", group="data", choices=(".", ","))
    encoding: str | None = option(
        None, "CSV and JSON: the encoding of the text, such as latin-1.", group="data", metavar="NAME",
        read=read_encoding, wanted="must be the name of an encoding", otherwise="utf-8",
    )  # fmt: skip
    where: str | None = option(
        None, "Only the rows for which this is true: \"age >= 18 and city in ('Rome', 'Oslo')\".", group="data",
        metavar="EXPR", read=read_where, wanted="must be an expression, as text",
        python_help="Only the rows for which this is true: ``age >= 18 and city in ('Rome', 'Oslo')``.",
    )  # fmt: skip

    table_version: int | None = option(
        None, "Of a Delta table the version, of an Iceberg table the snapshot; also DATA@N.",
        group="data", metavar="N", least=0, otherwise="the current one",
    )  # fmt: skip
    as_of: str | None = option(
        None, "A table as it was at this time, 2026-01-15T12:00:00+01:00; in UTC without a zone.", group="data", metavar="TIME",
        read=read_time, wanted="must be a time, 2026-01-15 or 2026-01-15T12:00:00+01:00",
    )  # fmt: skip
    #: the snapshots of tables that a run has read, by the id of the table: they are meant where no version is given
    snapshots: Mapping[str, str] = field(default_factory=dict)
    #: whether they were given for other data too, so that one without an effect on these is no mistake
    are_of_others: bool = False
    #: settings that have an effect on another of several sources
    elsewhere: frozenset[str] = frozenset()
    #: the columns that somebody wants
    asked: Asked = field(default_factory=Asked)

    def __post_init__(self) -> None:
        check(self)
        if self.table_version is not None and self.as_of is not None:
            raise UsageError(f"--table-version {self.table_version} --as-of {self.as_of}: give one of them")
        if self.delimiter == self.decimal == ",":
            raise UsageError("--decimal ,: the comma cannot be between fields too: give another --delimiter")

    def for_validation(self, snapshots: Mapping[str, str]) -> ReadSettings:
        """How other data are read: a version is of the data that it was given for. snapshots: that a run has read of them."""
        return replace(self, table_version=None, as_of=None, snapshots=snapshots, are_of_others=True)

    def for_several(self, kinds: Set[str]) -> ReadSettings:
        """How each of several sources is read: a setting must have an effect on one of them. kinds: their formats, as far as
        they are known."""
        return replace(self, elsewhere=frozenset(n for n, some in _EFFECTS.items() if not kinds.isdisjoint(some)))

    def require_no_version(self, shown: str) -> None:
        """Raise UsageError if a version was given for data that are no table."""
        for name in ("table_version", "as_of"):
            if (value := getattr(self, name)) is not None:
                raise UsageError(
                    f"{flag(name)} {value}: {shown} is no folder of a Delta or Iceberg table, so it has no versions: "
                    "leave it out"
                )

    def given_for_text(self, kind: str) -> dict[str, Any]:
        """The settings of text files that have an effect on a format, as the arguments of its reader."""
        return {name: getattr(self, name) for name, kinds in _EFFECTS.items() if kind in kinds}

    def require_effect(self, shown: str, kind: str) -> None:
        """Raise UsageError for a setting that was given, but has no effect on a format. shown: the data, for the message."""
        if self.are_of_others:
            return
        declared, options = {f.name: f for f in fields(ReadSettings)}, options_of(ReadSettings)
        if self.input_format is not None and kind not in INPUT_FORMATS:
            raise UsageError(f"--input-format {self.input_format}: has no effect on {kind}: leave it out")
        for name, kinds in _EFFECTS.items():
            if kind in kinds or name in self.elsewhere:
                continue
            if getattr(self, name) != declared[name].default:
                raise UsageError(
                    f"{flag(name, options[name][1])}: has an effect on {' and '.join(kinds)} alone, but {shown} is read as "
                    f"{kind}: leave it out" + (f", or say --input-format {kinds[0]}" if kind in INPUT_FORMATS else "")
                )
