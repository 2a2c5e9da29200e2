"""The readable output of commands: tables and lines on stdout, warnings on stderr."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamtrain.errors import printable
from streamtrain.memory.sizes import format_bytes, shares
from streamtrain.model.stored import shown_value
from streamtrain.runs.listing import judging_scores
from streamtrain.runs.report import memory_table

__all__ = ["evaluation", "fit", "inspection", "made", "plan", "prediction", "profile", "report", "runs", "warn"]


_SHOWN_ENTRIES = 5  # of the ledger
_WIDEST = 1000  # columns of text in a table
_SHOWN_CLASSES = 10  # classes, or targets: where there are more, only --json lists them


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _table(*columns: str, rows: list[tuple[Any, ...]], numbers: bool = True, words: tuple[str, ...] = ()) -> None:
    """Print a table. words: columns that hold text, apart from the first, which always does."""
    table = Table(box=None, pad_edge=False, show_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if numbers and i and column not in words else "left")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))  # Text, because names may look like markup
    # Lines may be longer than the terminal is wide: a cell that is cut or wrapped cannot be searched for.
    Console(highlight=False, soft_wrap=True, width=_WIDEST).print(table)


def _line(text: str) -> None:
    """Print a line. Names that people chose must have been made `printable`."""
    _console().print(Text(text))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def warn(text: str) -> None:
    with suppress(OSError):  # whoever read stderr is gone
        Console(stderr=True, highlight=False, soft_wrap=True).print(Text(f"warning: {text}"))


def inspection(result: dict[str, Any]) -> None:
    stored = result["stored_bytes"]
    sizes = f"{format_bytes(result['decoded_bytes'])} decoded" + (f", {format_bytes(stored)} stored" if stored else "")
    rows, chunks = _count(result["rows"], "row"), _count(result["chunks"], "chunk")
    table = "" if result["table"] is None else f"{result['table']}: "
    rows += "" if result["rows"] == result["all_rows"] else f" of {result['all_rows']:,} that match --where"
    _line(f"{table}{rows} in {chunks}, {_count(len(result['columns']), 'column')}, {sizes}\n")
    shown = [(c["name"], c["type"], c["becomes"] or "-", c["why"]) for c in result["columns"]]
    _table("column", "type", "becomes", "why", rows=shown, numbers=False)
    if result["target"]:
        _target(result["target"])
    for warning in result["warnings"]:
        warn(warning)


def _target(target: dict[str, Any]) -> None:
    if "targets" in target:
        for each in target["targets"]:
            _target(each)
        return
    clustering = "" if target["clustering"] is None else f"; clustering {target['clustering']:.3f} (0 mixed, 1 sorted)"
    _line(f"\ntarget {printable(target['name'])}: {target['task']}{clustering}")
    if target["classes"]:
        counts = target["counts"] or [""] * len(target["classes"])
        _table("class", "rows", rows=[(c, f"{n:,}") for c, n in zip(target["classes"], counts, strict=True)])


def _memory(memory: dict[str, Any]) -> None:
    rows = memory_table(memory)
    if memory["measured_peak_bytes"] is None:
        _table("memory", "planned", rows=[(name, planned) for name, planned, _ in rows])
    else:
        _table("memory", "planned", "measured", rows=list(rows))
    _say_half(memory)


def _say_half(memory: dict[str, Any]) -> None:
    if not memory["budget_given"]:
        _line("the budget is half of the memory that is available now; --memory sets it")


def plan(result: dict[str, Any]) -> None:
    chosen = result["plan"]
    _line(
        f"{_count(result['rows'], 'row')} in {_count(chosen['chunks'], 'chunk')}; {_count(chosen['windows'], 'window')} "
        f"of at most {_count(chosen['window_rows'], 'row')}, {chosen['windows_in_flight']} at a time; "
        f"batches of {chosen['batch_size']}; {_count(chosen['workers'], 'read')} at a time"
    )
    for sentence in _chosen(chosen):
        _line(sentence)
    _line("")
    _memory(result["memory"])
    for warning in result["warnings"]:
        warn(warning)


def _chosen(plan: dict[str, Any], *, held: bool = True) -> list[str]:
    """How many rows match --where, and, if asked for, how many of them are held out, in words."""
    chosen, rows = [], plan.get("rows")
    if plan.get("all_rows") not in (None, rows):
        chosen.append(f"{rows:,} of {plan['all_rows']:,} rows match --where")
    if held and plan.get("held_rows"):
        chosen.append(f"{plan['held_rows']:,} of {rows:,} rows are held out")
    return chosen


def _metrics(metrics: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if isinstance(value, float))


def _each_target(metrics: dict[str, Any]) -> None:
    """Print a line for each of several targets, unless there are too many."""
    targets = metrics.get("targets", {})
    if len(targets) <= _SHOWN_CLASSES:
        for name, own in targets.items():
            _line(f"  {printable(name):<10} {_metrics(own)}")


def _few(per_class: list[dict[str, Any]] | None) -> bool:
    return per_class is not None and len(per_class) <= _SHOWN_CLASSES


def _classes(per_class: list[dict[str, Any]]) -> None:
    def shown(row: dict[str, Any]) -> tuple[Any, ...]:
        shares = ("" if row[name] is None else f"{row[name]:.4f}" for name in ("precision", "recall", "f1"))
        return row["class"], f"{row['rows']:,.0f}", f"{row['predicted']:,.0f}", *shares

    _table("class", "rows", "predicted", "precision", "recall", "f1", rows=[shown(row) for row in per_class])


def _slots(preparation: dict[str, Any]) -> None:
    """Print how many slots the values of categories and text use, where there are any."""
    if preparation["categories"] or preparation["crosses"] or preparation["texts"]:
        used, slots, shared = (preparation[name] for name in ("slots_used", "slots", "shared_entries"))
        _line(f"{'slots':<12} {_count(used, 'value')} in {slots:,}; {shared:.1%} of the entries share one")


def fit(result: dict[str, Any]) -> None:
    _line(
        f"{result['rows_seen']:,} rows learned in {result['seconds']:.1f} s ({result['rows_per_second']:,.0f} rows/s): "
        f"{result['learner']}, {result['loss']} loss, batches of {result['batch_size']}, {_count(result['epochs'], 'epoch')}"
    )
    by_column = result["settings"].get("holdout_by") or result["settings"].get("holdout_after")
    for sentence in _chosen(result["plan"], held=bool(by_column)):
        _line(f"{'rows':<12} {sentence}")
    for name, metrics in result["metrics"].items():
        if metrics is not None:
            _line(f"{name:<12} {_metrics(metrics)}")
            _each_target(metrics)
    if result["best_epoch"] is not None:
        _line(f"{'kept':<12} the model of epoch {result['best_epoch'] + 1} of {result['epochs']}")
    _slots(result["preparation"])
    times = {name: seconds for name, seconds in result["time"].items() if seconds or name != "validation"}
    spent = "  ".join(f"{name} {seconds:.1f} s" for name, seconds in times.items())
    _line(f"{'time':<12} {spent}\n")
    if _few(result["per_class"]):
        judged = next(name for name in ("validation", "holdout", "progressive") if result["metrics"][name] is not None)
        _line(f"of each class ({judged}):")
        _classes(result["per_class"])
        _line("")
    _memory(result["memory"])
    _skipped(result["skipped"])
    if result["run"]:
        _line(f"\nrun {printable(result['run'])}")


def _skipped(entries: list[dict[str, Any]]) -> None:
    if entries:
        rows, chunks = sum(entry["rows"] for entry in entries), len(entries)
        _line(f"\nskipped      {_count(rows, 'row')} of {_count(chunks, 'chunk')}:")
        for entry in entries[:_SHOWN_ENTRIES]:
            _line(f"  {_count(entry['rows'], 'row')}: {printable(entry['error'])}")
        if chunks > _SHOWN_ENTRIES:
            _line(f"  and {_count(chunks - _SHOWN_ENTRIES, 'chunk')} more: --json has them all")


def profile(result: dict[str, Any]) -> None:
    memory = result["memory"]
    _line(
        f"{_count(result['rows_seen'], 'row')} learned in {result['seconds']:.1f} s ({result['rows_per_second']:,.0f} rows/s)\n"
    )
    rows = []
    for name, stage in result["stages"].items():
        measured, share = stage["measured_bytes"], stage["share"]
        took = "" if measured is None else format_bytes(measured), "" if share is None else f"{share:.1%}"
        terms = ", ".join(term for term in stage["terms"] if memory["terms"][term]["planned_bytes"])
        rows.append((name, format_bytes(stage["planned_bytes"]), *took, "" if terms == name else terms))
    peak = memory["measured_peak_bytes"]
    rows.append(
        ("peak", format_bytes(memory["planned_peak_bytes"]), "" if peak is None else format_bytes(peak), "", "")
    )
    rows.append(("budget", format_bytes(memory["budget_bytes"]), "", "", ""))
    _table("memory", "planned", "measured", "share", "terms", rows=rows, words=("terms",))
    _say_half(memory)
    spent = result["time"]
    loop = shares({name: max(0.0, seconds) for name, seconds in spent.items() if name != "read"})
    parts = "  ".join(f"{name} {spent[name]:.1f} s ({share:.1%})" for name, share in loop.items())
    _line(
        f"\ntime      {parts}; reads, beside it, {spent['read']:.1f} s over {_count(result['plan']['workers'], 'thread')}"
    )
    for sentence in result["advice"]:
        _line(f"advice    {printable(sentence)}")


def evaluation(result: dict[str, Any]) -> None:
    _line(f"{_count(result['rows'], 'row')}  {_metrics(result['metrics'])}")
    _each_target(result["metrics"])
    if _few(result["per_class"]):
        _line("")
        _classes(result["per_class"])
    _skipped(result["skipped"])


def prediction(result: dict[str, Any]) -> None:
    _line(f"{result['rows']:,} predictions in {printable(result['out'])}")
    _skipped(result["skipped"])


def report(result: dict[str, Any]) -> None:
    _line(f"page of the {result['state']} run {printable(result['run'])} in {printable(result['out'])}")


def made(result: dict[str, Any]) -> None:
    _line(
        f"{result['rows']:,} rows of {result['columns']} columns in {printable(result['path'])}: target {result['target']} "
        f"({result['task']}), best possible loss {result['best_loss']:.4f}"
    )


def rechunked(result: dict[str, Any]) -> None:
    rows, columns = _count(result["rows"], "row"), _count(result["columns"], "column")
    _line(
        f"{rows} of {columns} in {printable(result['path'])}: {_count(result['chunks'], 'chunk')} of "
        f"{_count(result['chunk_rows'], 'row')}, {result['format']}, {format_bytes(result['stored_bytes'])}\n"
    )
    _memory(result["memory"])


def runs(found: list[dict[str, Any]]) -> None:
    names = dict.fromkeys(name for run in found for name in judging_scores(run)[1])
    rows = []
    for run in found:
        epochs = "" if run["epochs_asked"] is None else f"{run['epochs']} of {run['epochs_asked']}"
        kind, scores = judging_scores(run)
        values = ("" if (v := scores.get(name)) is None else f"{v:.4f}" for name in names)
        parent = run["lineage"][-1]["run"] if run["lineage"] else ""
        rows.append((run["run"], run["state"], epochs, f"{run['rows_seen']:,}", *values, kind, parent))
    columns = ["run", "state", "epochs", "rows seen", *names, "judged by", "from"]
    used = [i for i, name in enumerate(columns) if name != "from" or any(row[i] for row in rows)]
    shown = [tuple(row[i] for i in used) for row in rows]
    _table(*(columns[i] for i in used), rows=shown, words=("state", "judged by", "from"))
    for run in found:
        for change in run["changes"]:
            was, now = ("nothing" if (v := change[name]) is None else shown_value(v) for name in ("was", "is"))
            changed = f"{change['setting']} changed from {was} to {now} after {change['rows_seen']:,} rows"
            _line(f"\n{printable(run['run'])}: {printable(changed)}")
        if run["problem"]:
            _line(f"\n{printable(run['run'])}: {printable(run['problem'])}")
