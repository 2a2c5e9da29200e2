"""The parameters that commands share, and the settings that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Optional

import typer

from streamtrain.cli.own_code import importable_here
from streamtrain.cli.text import split_names, split_pair, weights_of
from streamtrain.train.settings import Settings

Data = Annotated[str, typer.Argument(metavar="DATA", help="A path, glob, directory, Zarr store or registered URL.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, as written by fit --out.")]
Target = Annotated[str, typer.Option(help="The column to predict, or several: a,b.")]
RunTarget = Annotated[
    Optional[str],
    typer.Option("--target", help="The column to predict, or several: a,b. [default: required, unless a run says it]"),
]
Features = Annotated[Optional[str], typer.Option(help='Columns to learn from: a,b,"c,d". [default: all others]')]
Exclude = Annotated[Optional[str], typer.Option(help='Columns to leave out: a,b,"c,d".')]
Weight = Annotated[Optional[str], typer.Option(help="The column of sample weights.")]
Task = Annotated[Optional[str], typer.Option(help="classify or regress. [default: by the target's type]")]
Classes = Annotated[Optional[str], typer.Option(help="The target's classes, a,b,c: spares the pass over the target.")]
Learner = Annotated[
    str,
    typer.Option(
        callback=importable_here, help="The learner: linear, an installed one, or one of your own as module:name."
    ),
]
RunLearner = Annotated[
    Optional[str],
    typer.Option(
        "--learner", callback=importable_here, metavar="MODULE:NAME",
        help="The run's learner, where that is code of your own: says that you trust it, as loading runs it.",
    ),
]  # fmt: skip
As = Annotated[Optional[list[str]], typer.Option("--as", metavar="COL=ROLE",
               help="What a column becomes: number, category, text or ignore. May be repeated.")]  # fmt: skip
Cross = Annotated[Optional[list[str]], typer.Option("--cross", metavar="A:B",
                  help="A cross of categories. May be repeated.")]  # fmt: skip
HashBits = Annotated[
    Optional[int], typer.Option(help="2^N slots for values of categories and text. [default: up to 18]")
]
Infinities = Annotated[
    str, typer.Option(help="Infinite features: error, clip (10 deviations from the mean) or missing.")
]
Loss = Annotated[Optional[str], typer.Option(
    help="logistic, hinge, softmax; squared, huber, quantile, poisson. [default: by the task]")]  # fmt: skip
Delta = Annotated[
    Optional[float], typer.Option(help="Of huber: where errors count linearly, in deviations. [default: 1.345]")
]
Quantile = Annotated[Optional[float], typer.Option(help="Of quantile: which. [default: 0.5]")]
Optimizer = Annotated[str, typer.Option(help="The optimizer: normalized, sgd, momentum, adagrad, adam or ftrl.")]
Schedule = Annotated[
    str, typer.Option(help="Of the learning rate of sgd and momentum, by rows seen: constant, sqrt or inverse.")
]
ClassWeight = Annotated[Optional[str], typer.Option(help="balanced, or a weight for classes: a=2,b=0.5.")]
Patience = Annotated[Optional[int], typer.Option(
    help="Stop after so many epochs without a better loss on held-out or validation rows, and keep the best.")]  # fmt: skip
LearningRate = Annotated[
    Optional[float], typer.Option(help="The optimizer's learning rate. [default: by optimizer and loss]")
]
L1 = Annotated[float, typer.Option(help="L1 penalty.")]
L2 = Annotated[float, typer.Option(help="L2 penalty.")]
Average = Annotated[bool, typer.Option("--average/--no-average", help="Predict by averaged weights.")]
Memory = Annotated[
    Optional[str],
    typer.Option(help="Budget for the whole process: 512MB, 2GiB. [default: half of what is available]"),
]
Epochs = Annotated[int, typer.Option(help="Passes over the data.")]
BatchSize = Annotated[Optional[int], typer.Option(help="Rows a step. [default: by the number of rows, 16 to 1024]")]
WindowRows = Annotated[Optional[int], typer.Option(help="Rows shuffled together. [default: by the data and --memory]")]
NoShuffle = Annotated[bool, typer.Option("--no-shuffle", help="Keep the order of the data.")]
Seed = Annotated[int, typer.Option(help="Seed of the order.")]
Threads = Annotated[Optional[int], typer.Option(help="Reads at the same time. [default: 2]")]
Holdout = Annotated[float, typer.Option(help="Share of rows that are scored, never learned.")]
Validate = Annotated[Optional[str], typer.Option(metavar="DATA2", help="Other data, scored after each epoch.")]
MissingChunks = Annotated[str, typer.Option(help="An absent Zarr chunk: error, or fill (its fill value).")]
OnOverrun = Annotated[str, typer.Option(help="Over the budget while running: raise (exit 4), or warn.")]
OnError = Annotated[str, typer.Option(help="A chunk that cannot be read, a row without a target: raise, or skip.")]
MaxSkipped = Annotated[float, typer.Option(help="With skip: more than this share of the rows stops the run.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Out = Annotated[
    Optional[str], typer.Option(metavar="RUN", help="Folder for the run: scores, checkpoints, the model, the report.")
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on from the last checkpoint in --out, if there is one; by the run's settings."),
]
ContinueFrom = Annotated[
    Optional[str], typer.Option(metavar="RUN", help="Start with the model of another run; there may be more classes.")
]
CheckpointSeconds = Annotated[
    Optional[float],
    typer.Option(help="Between two checkpoints, which take 2 % of the time at most. [default: 30, or the run's]"),
]


def _names(text: str | None) -> list[str] | None:
    return None if text is None else split_names(text)


def chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among a command's parameters, as functions take them; what is absent stays so."""
    found = {name: options[name] for name in Settings.__dataclass_fields__ if name in options}
    for name in ("features", "exclude", "classes"):
        if name in found:
            found[name] = _names(found[name])
    found["exclude"] = found.get("exclude") or ()
    if "no_shuffle" in options:
        found["shuffle"] = not options["no_shuffle"]
    if found.get("target") is not None:
        names = split_names(found["target"])
        found["target"] = names[0] if len(names) == 1 else names
    found["roles"] = dict(split_pair(text, "--as", "COL=ROLE") for text in found.get("roles") or ())
    found["crosses"] = found.get("crosses") or ()
    if found.get("class_weight") not in (None, "balanced"):
        found["class_weight"] = weights_of(found["class_weight"])
    return found


def given(context: typer.Context, options: dict[str, Any]) -> dict[str, Any]:
    """The settings that are on the command line: what is not may come from a run."""
    typed = {
        name: v for name, v in options.items() if (s := context.get_parameter_source(name)) and s.name != "DEFAULT"
    }
    empty: tuple[Any, ...] = (None, (), {})
    return {name: value for name, value in chosen(typed).items() if value not in empty}
