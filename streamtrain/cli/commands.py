"""The commands. Each parses, calls the function of the same name, and shows what it returned.

What a command needs is imported when it runs, so that ``--help`` is quick. Their flags are made from the settings: see
`streamtrain.cli.options.takes`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
import typer.main

import streamtrain
from streamtrain.cli.options import Data, GroupedCommand, Json, Run, RunLearner, settings_of, takes
from streamtrain.cli.stdout import result_on_stdout
from streamtrain.errors import UsageError
from streamtrain.load.settings import SkipSettings
from streamtrain.options import options_of
from streamtrain.storage.settings import ReadSettings
from streamtrain.tools.settings import MakeSettings, PredictSettings, ProfileSettings, RechunkSettings
from streamtrain.train.settings import RunSettings, Settings

_CONTEXT = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="streamtrain",
    help="Train models on tables and arrays that do not fit in memory.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=_CONTEXT,
)

_READING = tuple(options_of(ReadSettings))
_SKIPPING = tuple(options_of(SkipSettings))
_SCORING = ("memory", "threads", *_READING, *_SKIPPING)
_PROFILE = (*options_of(Settings), "cluster", *options_of(ProfileSettings))
_FIT_EXAMPLE = """\b
Examples:
  streamtrain fit trips.parquet --target fare --exclude id --memory 512MB --out run
  streamtrain fit trips.parquet --out run --resume"""


@functools.cache
def _program() -> Any:
    """All commands with their flags. Making them takes 20 ms, which is most of a call in a process that makes many."""
    return typer.main.get_command(app)


def run(arguments: Sequence[str]) -> Any:
    """Parse and run; what the command returns.

    For its help a command is asked directly: on the way through the group typer may import pydantic, which takes 70 ms.
    """
    program = _program()
    name, *rest = arguments or [""]
    if name in program.commands and {"-h", "--help"}.intersection(rest):
        return program.commands[name].main(rest, prog_name=f"streamtrain {name}", standalone_mode=False)
    return program.main(list(arguments), prog_name="streamtrain", standalone_mode=False)


def command(name: str | None = None, **about: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A command whose ``--help`` shows its options in groups."""
    return app.command(name, cls=GroupedCommand, context_settings=_CONTEXT, **about)


def _print(result: dict[str, Any], as_json: bool, how: str) -> None:
    """how: the function of `streamtrain.cli.show` that shows the result to people."""
    with result_on_stdout():
        if as_json:
            from streamtrain.state import to_json

            print(to_json(result))
        else:
            from streamtrain.cli import show

            getattr(show, how)(result)


def _warn(warnings: list[str]) -> None:
    if warnings:
        from streamtrain.cli import show

        for warning in warnings:
            show.warn(warning)


def _version(wanted: bool) -> None:
    if wanted:
        print(streamtrain.__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def no_command(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Train models on tables and arrays that do not fit in memory."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@command(short_help="Columns, chunks and sizes of data, and their target.")
@takes(
    Settings, only=("target", "roles", "task", *_READING, *_SKIPPING),
    optional={"target": "The column to look at, or several: a,b."}, grouped=False,
)  # fmt: skip
def inspect(data: Data, json: Json = False, **settings: Any) -> None:
    """Schema, rows, chunks and sizes, and what each column would become; with a target: its classes, how clustered they are."""
    from streamtrain.tools.inspect import inspect as inspect_data

    _print(inspect_data(data, **settings), json, "inspection")


@command()
@takes(Settings)
def plan(data: Data, json: Json = False, **settings: Any) -> int:
    """What a fit would do and take. Reads metadata and the target only. Exits 3 if it does not fit."""
    from streamtrain.runs.report import memory_dict

    made = streamtrain.make_plan(data, **settings)
    result = {
        "rows": made.rows,
        "memory": memory_dict(made, {}, None),
        "plan": made.as_dict(),
        "fits": made.fits,
        "warnings": made.warnings,
    }
    if made.fits or json:  # otherwise the refusal lists the same terms
        _print(result, json, "plan")
    made.require_fits()
    return 0


@command(epilog=_FIT_EXAMPLE, short_help="Train a model.")
@takes(
    Settings, RunSettings,
    optional={"target": "The column to predict, or several: a,b.  [default: required, unless a run says it]"},
)  # fmt: skip
def fit(data: Data, json: Json = False, **settings: Any) -> None:
    """Train a model on data that need not fit in memory, and score it on the way."""
    from streamtrain.cli.progress import FitLine

    with FitLine() as line:
        result = streamtrain.fit(data, progress=line, **settings)
    _print(result.as_dict(), json, "fit")


@command(short_help="Train for a while, and show the memory by stage.")
@takes(Settings, RunSettings, ProfileSettings, only=_PROFILE)
def profile(
    data: Data,
    plot: Annotated[
        Optional[str],
        typer.Option(metavar="F.png", help="Draw it: .png, .svg or .pdf.", rich_help_panel="output"),
    ] = None,
    html: Annotated[
        Optional[str], typer.Option(metavar="F.html", help="Write it as one page.", rich_help_panel="output")
    ] = None,
    json: Json = False,
    **settings: Any,
) -> None:
    """Train for a while and show memory by stage and over time, planned against measured, and what to change."""
    from streamtrain.cli.progress import FitLine
    from streamtrain.tools.pages.output_file import PAGE_ENDINGS, require_file
    from streamtrain.tools.profile.plot import require_plot

    Settings.of(settings_of(Settings, settings))
    if html is not None:
        require_file(html, PAGE_ENDINGS, data)
    if plot is not None:
        require_plot(plot, data)
    with FitLine() as line:
        result = streamtrain.profile(data, progress=line, **settings)
    if plot is not None:
        result.plot(plot)
    if html is not None:
        result.html(html)
    _warn(result.report.as_dict()["warnings"])
    _print(result.as_dict(), json, "profile")


@command()
@takes(Settings, only=_SCORING, grouped=False)
def evaluate(run: Run, data: Data, learner: RunLearner = None, json: Json = False, **settings: Any) -> None:
    """Metrics of a run on other data."""
    from streamtrain.cli.progress import RowsLine

    with RowsLine("rows scored") as line:
        result = streamtrain.evaluate(run, data, learner=learner, progress=line, **settings)
    _warn(result["warnings"])
    _print(result, json, "evaluation")


@command(short_help="Predictions for each row of other data.")
@takes(PredictSettings, Settings, only=(*options_of(PredictSettings), *_SCORING), grouped=False)
def predict(
    run: Run,
    data: Data,
    out: Annotated[str, typer.Option(metavar="F.parquet", help="The file to write: .parquet, .csv, .jsonl, .arrow.")],
    learner: RunLearner = None,
    json: Json = False,
    **settings: Any,
) -> None:
    """Predictions for each row of the data, in its order, streamed in constant memory."""
    from streamtrain.cli.progress import RowsLine

    with RowsLine("rows predicted") as line:
        result = streamtrain.predict(run, data, out=out, learner=learner, progress=line, **settings)
    _warn(result["warnings"])
    _print(result, json, "prediction")


@command(short_help="Write data with a known truth, to try things out.")
@takes(MakeSettings, grouped=False)
def make(
    name: Annotated[str, typer.Argument(metavar="NAME", help="clicks, clusters or regression.")],
    json: Json = False,
    **settings: Any,
) -> None:
    """Write data with a known truth, to try things out: as many rows as the disk holds."""
    from streamtrain.cli.progress import RowsLine
    from streamtrain.memory.monitor import within
    from streamtrain.tools.make import make as make_data

    if not Path(settings["out"]).absolute().parent.exists():
        raise UsageError(f"--out {settings['out']}: {Path(settings['out']).absolute().parent} does not exist")
    with within(is_setting=False), RowsLine("rows made", settings["rows"]) as line:
        result = make_data(name, progress=line, **settings)
    _print(result, json, "made")


@command(short_help="A copy of data with better chunks.")
@takes(Settings, RechunkSettings, only=(*options_of(RechunkSettings), "memory", *_READING), grouped=False)
def rechunk(data: Data, json: Json = False, **settings: Any) -> None:
    """A copy with better chunks, streamed: the same rows, in the same order, of the same types."""
    from streamtrain.cli.progress import RowsLine

    with RowsLine("rows copied") as line:
        result = streamtrain.rechunk(data, progress=line, **settings)
    _print(result, json, "rechunked")


@command("check-reader", short_help="Whether a reader keeps the contract.")
def check_reader(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="As DATA; or module:name of what makes a reader.")],
    chunks: Annotated[int, typer.Option(metavar="N", help="Chunks that a check reads, spread over the data.")] = 16,
    all: Annotated[bool, typer.Option("--all", help="Every check reads all chunks.")] = False,
    json: Json = False,
) -> int:
    """Whether a reader keeps the contract, checked with the data that it reads. Exits 2 if it does not."""
    from streamtrain.cli.check import check_reader as check
    from streamtrain.memory.monitor import within

    with within(is_setting=False):
        return check(target, chunks, all, json)


@command(short_help="The runs in folders, with their scores.")
def runs(
    folders: Annotated[list[str], typer.Argument(metavar="DIR", help="A run's folder, or one that holds runs.")],
    sort: Annotated[
        Optional[str],
        typer.Option(
            metavar="SCORE", help="The best first, by a score of the table: loss, or holdout.loss for those alone."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """The runs in folders: the progress of each, its scores, and the run that it continues."""
    from streamtrain.memory.monitor import within
    from streamtrain.runs.listing import list_runs

    with within(is_setting=False):
        runs_listed = list_runs(*folders, sort=sort)
    if json:
        _print({"runs": runs_listed}, json, "runs")
    else:
        from streamtrain.cli import show

        with result_on_stdout():
            show.runs(runs_listed)


@command(short_help="One page about a run, finished or not.")
def report(
    run: Run,
    out: Annotated[str, typer.Option(metavar="F.html", help="The page to write.")],
    json: Json = False,
) -> None:
    """One page about a run, finished or not: scores, memory, time, columns, settings, warnings."""
    from streamtrain.tools.report import report as write_report

    _print(write_report(run, out), json, "report")
