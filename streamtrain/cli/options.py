"""The command line's options, made from the declarations of the settings."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import MISSING, Field
from typing import Annotated, Any, Optional, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperOption

from streamtrain.cli.own_code import importable_here
from streamtrain.cli.stdout import kept_for_result
from streamtrain.errors import UsageError
from streamtrain.options import GROUPS, Option, flag, kinds_of, one_or_all, options_of, switches_off

__all__ = ["Data", "GroupedCommand", "Json", "Run", "RunLearner", "settings_of", "takes"]

_METAVARS: dict[type, str] = {int: "N", float: "X", str: "NAME"}

Data = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA", help="A path, glob, directory, table, Zarr store or URL; or several, read one after the other."
    ),
]  # fmt: skip
RunLearner = Annotated[
    Optional[str],
    typer.Option(
        "--learner", callback=importable_here, metavar="MODULE:NAME",
        help="The run's own learner as module:name. Loading a run executes this module.",
    ),
]  # fmt: skip
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, as written by fit --out.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel="output")]


class GroupedCommand(TyperCommand):
    """A command whose ``--help`` shows its options in groups."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and refuse an option that is given twice: of two values the first would have no effect."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        options = [parameter for parameter in order if isinstance(parameter, TyperOption)]
        for position, option in enumerate(options):
            if option in options[:position] and not option.is_flag and not option.multiple:
                several = ", several names with commas: a,b" if "a,b" in (option.help or "") else ""
                raise UsageError(f"{option.opts[0]}: given twice: give it once{several}")
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run it. With ``--json`` nothing but its result is on stdout, whatever a learner or a reader of the user prints."""
        with kept_for_result() if ctx.params.get("json") else nullcontext():
            return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        parameters: list[Any] = list(self.get_params(ctx))
        for parameter in parameters:
            is_option = parameter.param_type_name == "option"
            record = parameter.get_help_record(ctx) if is_option else (_argument(parameter), parameter.help)
            if record is not None:
                group = (getattr(parameter, "rich_help_panel", None) or "options") if is_option else "arguments"
                groups.setdefault(group, []).append(record)
        for group in sorted(groups, key=["arguments", *GROUPS, "options", "output"].index):
            with formatter.section(group[0].upper() + group[1:]):
                formatter.write_dl(groups[group])

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", *(_argument(p) for p in self.get_params(ctx) if p.param_type_name == "argument")]


def _argument(parameter: Any) -> str:
    """An argument as the help shows it: ``DATA``, or ``DIR...`` where there may be several."""
    return f"{parameter.metavar}{'...' if parameter.nargs == -1 else ''}"


def takes(
    *kinds: type, only: Sequence[str] | None = None, optional: Mapping[str, str] | None = None, grouped: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replace the ``**settings`` of a command by the settings that dataclasses declare. The command is called only with those
    that are on the command line.

    only: their names; by default all. optional: those that this command does not require, with their help here.
    grouped: whether ``--help`` shows the groups.
    """
    declared = {name: (*about, kind) for kind in kinds for name, about in options_of(kind).items()}
    chosen = {name: declared[name] for name in (declared if only is None else only)}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[:-1]
        made = {
            _parameter_name(name, option): (
                name,
                _parameter(name, field, option, kind, (optional or {}).get(name), grouped),
            )
            for name, (field, option, kind) in chosen.items()
        }
        first = [parameter for parameter in own if parameter.default is parameter.empty]
        parameters = [*first, *(parameter for _, parameter in made.values()), *own[len(first) :]]

        @functools.wraps(command)
        def called(context: typer.Context, **values: Any) -> Any:
            settings: dict[str, Any] = {
                name: (not values[key] if name != key else values[key])
                for key, (name, _) in made.items()
                if _is_given(context, key) and values[key] is not None
            }
            importable_here(settings.get("learner"))
            return command(**{parameter.name: one_or_all(values[parameter.name]) for parameter in own}, **settings)

        keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        called.__signature__ = inspect.Signature([context, *keyword])  # type: ignore[attr-defined]
        called.__annotations__ = {p.name: p.annotation for p in (context, *keyword)}
        return called

    return decorate


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def settings_of(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given settings that a dataclass declares."""
    names = options_of(kind)
    return {name: value for name, value in given.items() if name in names}


def _parameter_name(name: str, option: Option) -> str:
    """A flag that switches something off is a parameter of its own: ``no_shuffle`` for ``shuffle``."""
    return f"no_{name}" if switches_off(name, option) else name


def _parameter(
    name: str, field: Field[Any], option: Option, kind: type, optional: str | None, grouped: bool
) -> inspect.Parameter:
    is_off, repeated = _parameter_name(name, option) != name, option.repeated
    value = list[str] if repeated else bool if is_off else _type_of(kinds_of(kind)[name])
    text = optional or option.flag_help or option.help
    if repeated:
        text += " May be repeated."
    if option.otherwise is not None:
        text += f"  [default: {option.otherwise}]"
    metavar = option.metavar or (f"[{'|'.join(option.choices)}]" if option.choices else _METAVARS.get(value))
    about = typer.Option(
        *((option.flag,) if option.flag is not None else (flag(name),)),
        help=text,
        metavar=metavar,
        autocompletion=_completing(option.choices) if option.choices and not repeated else None,
        rich_help_panel=option.group if grouped else None,
        show_default=option.otherwise is None
        and _is_plain(field.default)
        and field.default is not False
        and not is_off,
    )
    required = field.default is MISSING and optional is None
    none = False if value is bool and (is_off or field.default is False) else None
    return inspect.Parameter(
        _parameter_name(name, option),
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty
        if required
        else field.default
        if _is_plain(field.default) and not is_off
        else none,
        annotation=Annotated[value if required or value is bool else Optional[value], about],
    )


def _is_plain(default: Any) -> bool:
    return isinstance(default, (bool, int, float, str))


def _type_of(hint: Any) -> type:
    """The type for typer: a number, a switch, or text that the setting parses."""
    kinds = {kind for kind in (get_args(hint) or (hint,)) if kind is not type(None) and get_origin(kind) is None}
    return next((kind for kind in (bool, int, float) if kinds == {kind}), str)


def _completing(choices: Sequence[str]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete
