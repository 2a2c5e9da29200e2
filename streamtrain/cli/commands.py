"""The commands. Each parses, calls the function of the same name, and shows what it returned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

import streamtrain
from streamtrain.cli import show
from streamtrain.cli.check import check_reader
from streamtrain.cli.options import (
    L1,
    L2,
    As,
    Average,
    BatchSize,
    CheckpointSeconds,
    Classes,
    ClassWeight,
    ContinueFrom,
    Cross,
    Data,
    Delta,
    Epochs,
    Exclude,
    Features,
    HashBits,
    Holdout,
    Infinities,
    Json,
    Learner,
    LearningRate,
    Loss,
    MaxSkipped,
    Memory,
    MissingChunks,
    NoShuffle,
    OnError,
    OnOverrun,
    Optimizer,
    Out,
    Patience,
    Quantile,
    Resume,
    Run,
    RunLearner,
    RunTarget,
    Schedule,
    Seed,
    Target,
    Task,
    Threads,
    Validate,
    Weight,
    WindowRows,
    chosen,
    given,
)  # fmt: skip
from streamtrain.cli.progress import FitLine, RowsLine
from streamtrain.cli.runs import runs
from streamtrain.cli.text import split_names, split_pair
from streamtrain.errors import UsageError
from streamtrain.runs.report import memory_dict
from streamtrain.state import to_json
from streamtrain.tools.inspect import inspect as inspect_data
from streamtrain.train.job import Job
from streamtrain.train.settings import Settings

app = typer.Typer(
    name="streamtrain",
    help="Train models on tables and arrays that do not fit in memory.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print(result: dict[str, Any], as_json: bool, people: Any) -> None:
    if as_json:
        print(to_json(result))
    else:
        people(result)


def _version(asked: bool) -> None:
    if asked:
        print(streamtrain.__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def no_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Train models on tables and arrays that do not fit in memory."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def inspect(data: Data, target: Annotated[Optional[str], typer.Option(help="The column to look at, or several: a,b.")] = None,
            roles: As = None, missing_chunks: MissingChunks = "error", json: Json = False) -> None:  # fmt: skip
    """Schema, rows, chunks and sizes, and what each column would become; with a target: its classes, how clustered they are."""
    asked = dict(split_pair(text, "--as", "COL=ROLE") for text in roles or ())
    named = split_names(target) if target is not None else None
    _print(inspect_data(data, target=named, roles=asked, missing_chunks=missing_chunks), json, show.inspection)


@app.command()
def plan(
    data: Data, target: Target, features: Features = None, exclude: Exclude = None, roles: As = None, crosses: Cross = None,
    hash_bits: HashBits = None, infinities: Infinities = "error", weight: Weight = None, task: Task = None,
    classes: Classes = None, class_weight: ClassWeight = None, learner: Learner = "linear", loss: Loss = None,
    delta: Delta = None, quantile: Quantile = None,
    optimizer: Optimizer = "normalized",
    learning_rate: LearningRate = None, learning_rate_schedule: Schedule = "sqrt",
    l1: L1 = 0.0, l2: L2 = 0.0, average: Average = True, patience: Patience = None, memory: Memory = None, epochs: Epochs = 1,
    batch_size: BatchSize = None, window_rows: WindowRows = None, no_shuffle: NoShuffle = False, seed: Seed = 0,
    threads: Threads = None, holdout: Holdout = 0.0, missing_chunks: MissingChunks = "error",
    on_error: OnError = "raise", max_skipped: MaxSkipped = 0.01, json: Json = False,
) -> int:  # fmt: skip
    """What a fit would do and take. Reads metadata and the target only. Exits 3 if it does not fit."""
    made = Job.open(data, Settings(**chosen(dict(locals())))).plan
    result = {
        "rows": made.rows,
        "memory": memory_dict(made, {}, None),
        "plan": made.as_dict(),
        "fits": made.fits,
        "warnings": made.warnings,
    }
    if made.fits or json:  # otherwise the refusal lists the same terms
        _print(result, json, show.plan)
    made.require_fits()
    return 0


@app.command()
def fit(
    context: typer.Context, data: Data, target: RunTarget = None, features: Features = None, exclude: Exclude = None,
    roles: As = None, crosses: Cross = None, hash_bits: HashBits = None, infinities: Infinities = "error",
    weight: Weight = None, task: Task = None, classes: Classes = None, class_weight: ClassWeight = None,
    learner: Learner = "linear", loss: Loss = None, delta: Delta = None, quantile: Quantile = None,
    optimizer: Optimizer = "normalized",
    learning_rate: LearningRate = None, learning_rate_schedule: Schedule = "sqrt",
    l1: L1 = 0.0, l2: L2 = 0.0, average: Average = True,
    patience: Patience = None, memory: Memory = None, epochs: Epochs = 1, batch_size: BatchSize = None,
    window_rows: WindowRows = None, no_shuffle: NoShuffle = False, seed: Seed = 0, threads: Threads = None,
    holdout: Holdout = 0.0, missing_chunks: MissingChunks = "error", on_error: OnError = "raise",
    max_skipped: MaxSkipped = 0.01, on_overrun: OnOverrun = "raise", validate: Validate = None, out: Out = None,
    resume: Resume = False, continue_from: ContinueFrom = None, checkpoint_seconds: CheckpointSeconds = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Train."""
    typed = given(context, dict(locals()))
    with FitLine() as line:
        result = streamtrain.fit(
            data, validate=validate, out=out, resume=resume, continue_from=continue_from,
            checkpoint_seconds=checkpoint_seconds, progress=line, **typed,
        )  # fmt: skip
    for warning in result.as_dict()["warnings"]:
        show.warn(warning)
    _print(result.as_dict(), json, show.fit)


@app.command()
def profile(
    data: Data, target: Target, features: Features = None, exclude: Exclude = None, roles: As = None, crosses: Cross = None,
    hash_bits: HashBits = None, infinities: Infinities = "error", weight: Weight = None, task: Task = None,
    classes: Classes = None, class_weight: ClassWeight = None, learner: Learner = "linear", loss: Loss = None,
    delta: Delta = None, quantile: Quantile = None,
    optimizer: Optimizer = "normalized",
    learning_rate: LearningRate = None, learning_rate_schedule: Schedule = "sqrt",
    l1: L1 = 0.0, l2: L2 = 0.0, average: Average = True, patience: Patience = None, memory: Memory = None, epochs: Epochs = 1,
    batch_size: BatchSize = None, window_rows: WindowRows = None, no_shuffle: NoShuffle = False, seed: Seed = 0,
    threads: Threads = None, holdout: Holdout = 0.0, missing_chunks: MissingChunks = "error",
    on_error: OnError = "raise", max_skipped: MaxSkipped = 0.01, on_overrun: OnOverrun = "raise",
    seconds: Annotated[float, typer.Option(help="Train for so long, or to the end.")] = 10.0,
    rows: Annotated[Optional[int], typer.Option(help="Train for so many rows (or a bit more), if they come first.")] = None,
    plot: Annotated[Optional[str], typer.Option(metavar="F.png", help="Draw it: .png, .svg or .pdf.")] = None,
    html: Annotated[Optional[str], typer.Option(metavar="F.html", help="Write it as one page.")] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Train for a while and show memory by stage and over time, planned against measured, and what to change."""
    from streamtrain.tools.pages.place import PAGE_ENDINGS, require_file
    from streamtrain.tools.profile.plot import require_plot

    asked = chosen(dict(locals()))
    Settings(**asked)
    if html is not None:
        require_file(html, PAGE_ENDINGS, data)
    if plot is not None:
        require_plot(plot, data)
    with FitLine() as line:
        found = streamtrain.profile(data, seconds=seconds, rows=rows, progress=line, **asked)
    if plot is not None:
        found.plot(plot)
    if html is not None:
        found.html(html)
    for warning in found.report.as_dict()["warnings"]:
        show.warn(warning)
    _print(found.as_dict(), json, show.profile)


@app.command()
def evaluate(run: Run, data: Data, learner: RunLearner = None, memory: Memory = None, threads: Threads = None,
             missing_chunks: MissingChunks = "error", json: Json = False) -> None:  # fmt: skip
    """Metrics of a run on other data."""
    result = streamtrain.evaluate(
        run, data, learner=learner, memory=memory, threads=threads, missing_chunks=missing_chunks
    )
    _print(result, json, show.evaluation)


@app.command()
def predict(run: Run, data: Data, out: Annotated[str, typer.Option(help="The Parquet file to write.")],
            learner: RunLearner = None, memory: Memory = None, threads: Threads = None,
            missing_chunks: MissingChunks = "error", json: Json = False) -> None:  # fmt: skip
    """Predictions for each row of the data, in its order, streamed in constant memory."""
    result = streamtrain.predict(
        run, data, out=out, learner=learner, memory=memory, threads=threads, missing_chunks=missing_chunks
    )
    _print(result, json, show.prediction)


@app.command()
def make(
    name: Annotated[str, typer.Argument(metavar="NAME", help="clicks, clusters or regression.")],
    rows: Annotated[int, typer.Option(help="Rows to make.")],
    out: Annotated[str, typer.Option(help="The folder to write.")],
    format: Annotated[str, typer.Option(help="parquet or zarr.")] = "parquet",
    columns: Annotated[Optional[int], typer.Option(help="Features. [default: 40]")] = None,
    sorted: Annotated[bool, typer.Option("--sorted", help="Group the rows by target.")] = False,
    files: Annotated[Optional[int], typer.Option(help="Parquet files.")] = None,
    chunk_rows: Annotated[Optional[int], typer.Option(help="Rows a chunk. [default: about 10 MB]")] = None,
    compression: Annotated[str, typer.Option(help="zstd, snappy, none, ...")] = "zstd",
    seed: Annotated[int, typer.Option(help="Seed of the data.")] = 0, json: Json = False,
) -> None:  # fmt: skip
    """Write data with a known truth, to try things out: as many rows as the disk holds."""
    from streamtrain.tools.make import make as make_data

    if not Path(out).absolute().parent.exists():
        raise UsageError(f"--out {out}: {Path(out).absolute().parent} does not exist")
    with RowsLine("rows made", rows) as line:
        result = make_data(
            name, rows=rows, out=out, format=format, columns=columns, sorted=sorted, files=files,
            chunk_rows=chunk_rows, compression=compression, seed=seed, progress=line,
        )  # fmt: skip
    _print(result, json, show.made)


@app.command()
def rechunk(
    data: Data, out: Annotated[str, typer.Option(help="The folder to write.")],
    chunk_rows: Annotated[int, typer.Option(help="Rows a chunk.")],
    format: Annotated[Optional[str], typer.Option(help="parquet or zarr. [default: that of the data]")] = None,
    memory: Memory = None, compression: Annotated[str, typer.Option(help="zstd, lz4, none, ...")] = "zstd",
    missing_chunks: MissingChunks = "error", json: Json = False,
) -> None:  # fmt: skip
    """A copy with better chunks, streamed: the same rows, in the same order, of the same types."""
    with RowsLine("rows copied") as line:
        result = streamtrain.rechunk(
            data, out=out, chunk_rows=chunk_rows, format=format, memory=memory, compression=compression,
            missing_chunks=missing_chunks, progress=line,
        )  # fmt: skip
    _print(result, json, show.rechunked)


def report(run: Run, out: Annotated[str, typer.Option(metavar="F.html", help="The page to write.")],
           json: Json = False) -> None:  # fmt: skip
    """One page about a run, finished or not: scores, memory, time, columns, settings, warnings."""
    from streamtrain.tools.report import report as write_report

    _print(write_report(run, out), json, show.report)


app.command("check-reader")(check_reader)
app.command("runs")(runs)
app.command("report")(report)
