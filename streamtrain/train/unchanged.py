"""Whether the data of a resumed run are still those that it was started with.

The fingerprint is compared first (`identity.require_same_data`), but of large data it is a sample. Chunks that were read
before are compared when they are read again, by their digests. For the others there is only what the file system tells: a
file that was written, replaced or copied since may have other values.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamtrain.errors import ChangedError, RunError
from streamtrain.load import Source
from streamtrain.load.ledger import Ledger
from streamtrain.load.verify import reread
from streamtrain.memory.monitor import Monitor
from streamtrain.notebook import count
from streamtrain.plan import Plan
from streamtrain.storage.files.stamps import Stamped
from streamtrain.train import identity
from streamtrain.train.trainer import Trainer

__all__ = ["Recheck", "note_stamps", "require_unchanged"]


_log = logging.getLogger("streamtrain")
_DATA, _VALIDATION = "the data", "the validation data"
_KEYS = 16  # more than messages show


def note_stamps(trainer: Trainer) -> None:
    """Note the stamps of the files as they are now, for a run that begins or goes on with them."""
    for source in _sources(trainer).values():
        if source.digests is not None and isinstance(source.reader, Stamped):
            source.digests.stamps = source.reader.stamps().values


def require_unchanged(
    trainer: Trainer, *, has_digests: bool, contents_differ: bool, verify: bool, accepts: bool = False
) -> tuple[list[str], list[str]]:
    """Compare the data of a trainer with its checkpoint, which it has loaded. Return warnings, and the names of the files whose
    change is accepted.

    accepts: whether changed values are accepted; what was read of these files is forgotten, whether or not the fingerprint
    shows a change.

    has_digests: whether the checkpoint has digests. contents_differ: whether the fingerprint is another: then this raises an
    error, which says what has changed. verify: read again all that was read before, and compare it.

    Raises ChangedError and RunError if the data are others, or if nothing shows that they are the same.
    """
    if not has_digests and not contents_differ:
        warning = _without_digests(verify=verify)
        note_stamps(trainer)
        return [warning], []
    warnings: list[str] = []
    ledgers = {
        _DATA: trainer.job.ledger,
        _VALIDATION: None if trainer.validation is None else trainer.validation.ledger,
    }
    checks = {what: Recheck(source, what, ledgers[what]) for what, source in _sources(trainer).items()}
    accepted: list[str] = []
    if accepts:
        is_other = contents_differ or not checks[_DATA].is_stamped  # the fingerprint may be that of a sample
        for what, check in checks.items():
            accepted += check.forget() if check.touched or (is_other and what == _DATA) else []
        contents_differ = False
    for what, check in checks.items():
        if verify and has_digests:
            plan = trainer.plan
            if what != _DATA and trainer.validation is not None:
                plan = trainer.validation.least(check.source, trainer.model)
            warnings += check.verify(plan, trainer.job.monitor())
        elif not contents_differ:
            check.require_known()
    if contents_differ:
        raise identity.other_contents([file for check in checks.values() for file in check.touched])
    note_stamps(trainer)
    return warnings, accepted


def _without_digests(*, verify: bool) -> str:
    """The warning for a checkpoint of a version that kept no digests. Raises RunError if they are needed."""
    if verify:
        raise RunError(
            "--verify full: an earlier version of streamtrain wrote the checkpoint, and kept nothing to compare the data with: "
            "leave --verify out"
        )
    return (
        "an earlier version of streamtrain wrote the checkpoint, and kept no digests of what it had read: only the fingerprint "
        "shows whether the data have changed since"
    )


def _sources(trainer: Trainer) -> dict[str, Source]:
    """The data and the validation data, by their names in messages."""
    validation = trainer.validation
    other = {} if validation is None else {_VALIDATION: validation.open(trainer.model)}
    return {_DATA: trainer.job.source, **other}


class Recheck:
    """The comparison of a source with the digests and stamps of a checkpoint, which its digests have loaded.

    what: the data, for messages. ledger: of the chunks that are skipped, or were.

    touched: the files that were written, replaced or copied since. is_stamped: whether that is known. unknown: the numbers of
    the chunks of these that nothing can be compared with, because they were not read to their end; shape (chunks,).
    """

    def __init__(self, source: Source, what: str, ledger: Ledger | None = None) -> None:
        assert source.digests is not None
        self.source, self._what, self._digests, self._ledger = source, what, source.digests, ledger
        self.touched, self.is_stamped = list[str](), False
        self.unknown = np.zeros(0, np.int64)
        before = source.digests.stamps
        if not isinstance(source.reader, Stamped) or not len(before):
            return
        self.is_stamped, stamps = True, source.reader.stamps()
        same = np.zeros(len(stamps.values), np.bool_)
        if len(before) == len(same):
            np.equal(stamps.values, before, out=same)
        self.touched = [stamps.name(file) for file in np.flatnonzero(~same).tolist()]
        unread = ~same[stamps.file_of] & ~source.digests.known & (source.table.rows > 0)
        self.unknown = np.flatnonzero(unread)
        if ledger is not None and ledger.is_used:
            skipped = np.fromiter((ledger.is_lost(int(n)) for n in self.unknown), np.bool_, len(self.unknown))
            self.unknown = self.unknown[~skipped]

    def forget(self) -> list[str]:
        """Forget what was read of the files that were written since, and that some of their chunks could not be read; of all
        data, where nothing shows which these are. Return the names of the files."""
        reader, before, chunks = self.source.reader, self._digests.stamps, np.ones(len(self.source.table), np.bool_)
        if self.touched and isinstance(reader, Stamped):
            stamps = reader.stamps()
            if len(before) == len(stamps.values):
                chunks = (stamps.values != before)[stamps.file_of]
        self._digests.forget(chunks)
        if self._ledger is not None:
            self._ledger.try_again(np.flatnonzero(chunks).tolist())
        self.unknown = np.zeros(0, np.int64)
        return self.touched or [self._what]

    def require_known(self) -> None:
        """Raise RunError if there are chunks that nothing can be compared with."""
        if not len(self.unknown):
            return
        raise RunError(
            f"--resume: {self._what} have files that were written, replaced or copied since the run was started "
            f"({identity.few(self.touched)}), and {count(len(self.unknown), 'chunk')} in them that the run has not read yet "
            f"({self._keys(self.unknown)}), so nothing shows whether these are the same: restore the files; or, if it is only "
            "a copy, add --verify full, which reads again what was read before, compares it, and then goes on; or, "
            + (
                "to learn them as they are now, --data-changed accept"
                if self._what == _DATA
                else "name others with --validate"
            )
        )

    def verify(self, plan: Plan, monitor: Monitor) -> list[str]:
        """Read again all that was read before. Return a warning if there are chunks that nothing can be compared with. Raises
        ChangedError if anything differs."""
        with monitor:
            errors = reread(self.source, plan, monitor)
        known = self._digests.known
        begun = sum(not known[number] for number in self._digests.begun)
        compared = count(int(np.count_nonzero(known)) + begun, "chunk")
        if errors:
            raise ChangedError(
                f"--verify full: {len(errors):,} of {compared} of {self._what} that were read before are not the same now "
                f"({self._keys(list(errors))}): restore the data as they were, or start a new run. The first error: "
                f"{next(iter(errors.values()))}"
            )
        _log.info(f"--verify full: {compared} of {self._what} were read before, and are the same")
        if not len(self.unknown):
            return []
        unknown = count(len(self.unknown), "chunk")
        return [
            f"--verify full: nobody can vouch for {unknown} of {self._what} ({self._keys(self.unknown)}): the run had not read "
            f"them, and their files were written, replaced or copied since; {compared} that it had read are the same"
        ]

    def _keys(self, numbers: Sequence[int] | NDArray[np.int64]) -> str:
        return identity.few([self.source.table[int(number)].key for number in numbers[:_KEYS]], len(numbers))
