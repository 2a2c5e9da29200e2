"""What people see: tables and lines on stdout, warnings on stderr."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamtrain.memory import format_bytes
from streamtrain.report import memory_table

__all__ = ["evaluation", "fit", "inspection", "made", "plan", "prediction", "warn"]


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _table(*columns: str, rows: list[tuple[Any, ...]]) -> None:
    table = Table(box=None, pad_edge=False, show_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # Text: names of columns may look like markup
    _console().print(table)


def _line(text: str) -> None:
    _console().print(Text(text))


def warn(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(f"warning: {text}"))


def inspection(result: dict[str, Any]) -> None:
    stored = result["stored_bytes"]
    sizes = f"{format_bytes(result['decoded_bytes'])} decoded" + (f", {format_bytes(stored)} stored" if stored else "")
    _line(f"{result['rows']:,} rows in {result['chunks']:,} chunks, {len(result['columns'])} columns, {sizes}\n")
    _table("column", "type", rows=[(c["name"], c["type"]) for c in result["columns"]])
    if result["target"]:
        _target(result["target"])


def _target(target: dict[str, Any]) -> None:
    clustering = "" if target["clustering"] is None else f"; clustering {target['clustering']:.3f} (0 mixed, 1 sorted)"
    _line(f"\ntarget {target['name']}: {target['task']}{clustering}")
    if target["classes"]:
        counts = target["counts"] or [""] * len(target["classes"])
        _table("class", "rows", rows=[(c, f"{n:,}") for c, n in zip(target["classes"], counts, strict=True)])


def _memory(memory: dict[str, Any]) -> None:
    _table("memory", "planned", "measured", rows=list(memory_table(memory)))
    if not memory["budget_given"]:
        _line("the budget is half of the memory that is available now; --memory sets it")


def plan(result: dict[str, Any]) -> None:
    chosen = result["plan"]
    _line(
        f"{result['rows']:,} rows in {chosen['chunks']:,} chunks; {chosen['windows']} windows of at most "
        f"{chosen['window_rows']:,} rows, {chosen['windows_in_flight']} at a time; batches of {chosen['batch_size']}; "
        f"{chosen['workers']} reads at a time\n"
    )
    _memory(result["memory"])
    for warning in result["warnings"]:
        warn(warning)


def _metrics(metrics: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if value is not None)


def fit(result: dict[str, Any]) -> None:
    _line(
        f"{result['rows_seen']:,} rows learned in {result['seconds']:.1f} s ({result['rows_per_second']:,.0f} rows/s): "
        f"{result['learner']}, {result['loss']} loss, batches of {result['batch_size']}, {result['epochs']} epoch(s)"
    )
    for name, metrics in result["metrics"].items():
        if metrics is not None:
            _line(f"{name:<12} {_metrics(metrics)}")
    spent = "  ".join(f"{name} {seconds:.1f} s" for name, seconds in result["time"].items())
    _line(f"{'time':<12} {spent}\n")
    _memory(result["memory"])
    if result["run"]:
        _line(f"\nrun {result['run']}")


def evaluation(result: dict[str, Any]) -> None:
    _line(f"{result['rows']:,} rows  {_metrics(result['metrics'])}")


def prediction(result: dict[str, Any]) -> None:
    _line(f"{result['rows']:,} predictions in {result['out']}")


def made(result: dict[str, Any]) -> None:
    _line(
        f"{result['rows']:,} rows of {result['columns']} columns in {result['path']}: target {result['target']} "
        f"({result['task']}), best possible loss {result['best_loss']:.4f}"
    )
