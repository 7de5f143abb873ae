"""How commands take and show their options: in groups, flags with or without a value, summaries in full."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from pspc_rs.ranks import num_ranks

Function = TypeVar("Function", bound=Callable[..., Any])

VERBOSE = "pspc_rs.verbose"
"""The entry of a context's ``meta`` that says whether tracebacks are wanted."""

NO_CACHE = "pspc_rs.no_cache"
"""The entry that says whether the cache folder is left alone."""

_OWN, _GENERAL = "Options", "General"
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
# As a word of its own, "1" would more likely be a forgotten option's value.
_WORDS = {"true", "false", "yes", "no"}


class GroupedOption(click.Option):
    """An option that the help shows under a title.

    Args:
        group: the title.
    """

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class DecidingOption(GroupedOption):
    """An option that decides the values of others, which are refused beside it.

    Args:
        decide: the values of the others, by the names of their parameters, for a value of this one.
    """

    def __init__(self, *args: Any, decide: Callable[[Any], Mapping[str, Any]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._decide = decide

    def settle(self, context: click.Context) -> None:
        """Gives those of the others that the command has their values.

        Raises:
            click.UsageError: one of them was given, too.
        """
        value = context.params.get(str(self.name))
        for name, decided in {} if value is None else self._decide(value).items():
            if name in context.params:
                if is_given(context, name):
                    raise click.UsageError(
                        f"--{name.replace('_', '-')} is decided by {self.opts[0]} {value}; give one of them"
                    )
                context.params[name] = decided


def is_given(context: click.Context, name: str) -> bool:
    """Whether a parameter does not have its value by default."""
    return context.get_parameter_source(name) is not ParameterSource.DEFAULT


def option_group(title: str) -> Callable[..., Callable[[Function], Function]]:
    """``click.option`` for the options of one group."""

    def option(*names: str, **settings: Any) -> Callable[[Function], Function]:
        return click.option(*names, **{"cls": GroupedOption, "group": title, **settings})

    return option


def ignored_options(*names: str, reason: str) -> Callable[[Function], Function]:
    """Options of earlier versions: not shown, and a line on stderr says why they have no effect."""

    def tell(context: click.Context, option: click.Parameter, value: object) -> None:
        if value is not None and value is not False:
            click.echo(f"{option.opts[0]} is deprecated: {reason}", err=True)

    def decorate(command: Function) -> Function:
        for name in names:
            is_flag = name in ("--resume", "--raw")
            command = click.option(name, hidden=True, expose_value=False, is_flag=is_flag, callback=tell)(command)
        return command

    return decorate


def set_meta(entry: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    """The callback of a flag that sets an entry of the context's ``meta``, for what is far from the command."""

    def note(context: click.Context, option: click.Parameter, value: bool) -> None:
        if value:
            context.meta[entry] = True

    return note


def uses_cache() -> bool:
    """Whether the command that runs, if any, was not given --no-cache."""
    context = click.get_current_context(silent=True)
    return context is None or not context.meta.get(NO_CACHE, False)


def verbose_option() -> click.Option:
    """The option that asks for the traceback of an error."""
    return GroupedOption(
        ["--verbose"],
        group=_GENERAL,
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=set_meta(VERBOSE),
        show_default=False,
        help="Show the traceback of an error.",
    )


class Command(click.Command):
    """A command whose options are shown in groups, and whose flags also take a value: --xflip=False is --no-xflip.

    Args:
        ranks: whether it may run on several ranks of ``torchrun``.
    """

    def __init__(self, *args: Any, ranks: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ranks = ranks
        self.params.append(verbose_option())

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command.

        Raises:
            click.UsageError: it has several ranks, and is for one process.
        """
        if num_ranks() > 1 and not self._ranks:
            raise click.UsageError(f"{ctx.command_path} runs in one process; run it without torchrun")
        return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments."""
        rest = super().parse_args(ctx, self._plain_flags(ctx, args))
        for one in self.params:
            if isinstance(one, DecidingOption):
                one.settle(ctx)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options, those of the command itself first."""
        sections: dict[str, list[tuple[str, str]]] = {_OWN: []}
        help_option = self.get_help_option(ctx)
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                title = _GENERAL if parameter is help_option else getattr(parameter, "group", _OWN)
                sections.setdefault(title, []).append(record)
        sections[_GENERAL] = sections.pop(_GENERAL, [])
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def _plain_flags(self, ctx: click.Context, args: Sequence[str]) -> list[str]:
        """The arguments with flags that have a value written as flags without."""
        normalize = ctx.token_normalize_func or (lambda name: name)
        options = [one for one in self.params if getattr(one, "is_bool_flag", False)]
        flags = {normalize(name): one for one in options for name in (*one.opts, *one.secondary_opts)}
        plain: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            if word == "--":
                return [*plain, word, *rest]
            name, equals, value = word.partition("=")
            flag = flags.get(normalize(name)) if name.startswith("--") else None
            if flag is None:
                plain.append(word)
            elif equals:
                plain += _as_flag(flag, normalize(name), value)
            elif rest and rest[0].lower() in _WORDS:
                plain += _as_flag(flag, normalize(name), rest.pop(0))
            else:
                plain.append(word)
        return plain


def _as_flag(flag: click.Parameter, name: str, value: str) -> list[str]:
    """A flag that says the same without a value; none where false is what it says by being absent."""
    if value.lower() in _TRUE:
        return [name]
    if value.lower() in _FALSE:
        other = flag.opts if name in flag.secondary_opts else flag.secondary_opts
        return list(other[:1])
    raise click.BadParameter(f"{value!r}; allowed are True and False", param=flag)


class Group(click.Group):
    """A group of commands whose summaries are shown in full."""

    command_class = Command
    group_class = type

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands with the first sentence of their help."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(limit=1000)) for name, one in commands if one and not one.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
