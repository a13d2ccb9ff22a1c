"""Turns a typed function into a command: its signature is the options, its docstring the help."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import yaml
from jsonargparse import (
    ActionYesNo,
    ArgumentParser,
    Namespace,
    get_loader,
    set_loader,
    set_parsing_settings,
)

T = TypeVar("T")
set_parsing_settings(docstring_parse_attribute_docstrings=True)
_MOST_VALUES = 100_000
_load_yaml = get_loader("yaml")


def _load(text: str) -> Any:
    """YAML, unless its aliases, each a whole copy, make a few lines more than a config can be."""
    value = _load_yaml(text)
    if _count(value, {}) > _MOST_VALUES:
        raise yaml.YAMLError(f"its aliases stand for more than {_MOST_VALUES} values")
    return value


def _count(value: Any, known: dict[int, float]) -> float:
    """How many values there are inside, aliases written out; infinite if one holds itself."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(one, known) for one in inner)
    return known[id(value)]


set_loader("yaml", _load, (yaml.YAMLError,))


class Parser(ArgumentParser):
    """Raises errors, each as one line, instead of printing the usage and leaving the program."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        lines = (line.strip(" -") for line in str(message).splitlines())
        text = "; ".join(line for line in lines if line and not line.startswith("tip:"))
        text = text.replace(":; ", ": ").replace("Parser key ", "option ")
        raise ValueError(text + self._suggestion(text)) from ex

    def parse_args(self, *args: Any, **options: Any) -> Any:
        try:
            return super().parse_args(*args, **options)
        except RecursionError as error:  # YAML can name a list inside of itself
            raise ValueError("a config file is nested too deeply") from error
        except OverflowError as error:
            raise ValueError(f"a number is too large: {error}") from error

    def instantiate(self, namespace: Namespace, *args: Any, **options: Any) -> Namespace:
        for name, group in (self.groups or {}).items():
            if name in namespace and not isinstance(namespace[name], Namespace):
                fields = ", ".join(f.name for f in dataclasses.fields(group.group_class))  # type: ignore[attr-defined]
                raise ValueError(f"{name}: expected fields ({fields}), got {namespace[name]!r}")
        for action in self._actions:
            hint = getattr(action, "_typehint", None)
            given = namespace.get(action.dest, action.default)
            if given is None and action.default is not None and _without_none(hint) == hint:
                raise ValueError(f"{action.dest}: expected a value, got none (null)")
        return super().instantiate(namespace, *args, **options)

    def _suggestion(self, text: str) -> str:
        """The nearest option to the unknown one, or unknown config key, in the message."""
        unknown = re.search(r"unrecognized arguments: (-[\w.\-]+)|[Oo]ption '([\w.\-]+)'", text)
        if not unknown:
            return ""
        known = [name for action in self._actions for name in action.option_strings]
        if unknown.group(2):
            known = [name.lstrip("-").split(".")[-1] for name in known]
        near = difflib.get_close_matches(unknown.group(1) or unknown.group(2), known, n=1)
        return f"; did you mean {near[0]!r}?" if near else ""


def build(name: str, function: Callable[..., Any]) -> Parser:
    """The parser of a command.

    A keyword-only parameter is an option, any other is positional; a bool is a switch (``--x``,
    ``--no-x``), one that is None by default takes ``true`` or ``false``; a list takes several
    values, numbers also with commas between them; the fields of a dataclass named ``config`` are
    options themselves, those of another one ``--name.field``.
    """
    doc = inspect.getdoc(function) or ""
    about, help_texts = doc.split("\nArgs:")[0].strip(), _argument_help(doc)
    parser = Parser(prog=f"vpd {name}", description=about, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with options")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output"
    )
    hints = typing.get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        hint, text = hints[parameter.name], help_texts.get(parameter.name, "")
        if dataclasses.is_dataclass(hint):
            nested = None if parameter.name == "config" else parameter.name
            parser.add_class_arguments(hint, nested, sub_configs=True)
        else:
            _add(parser, parameter, hint, text)
    return parser


def parse(name: str, function: Callable[..., Any], argv: list[str]) -> tuple[dict[str, Any], bool]:
    """Reads a command line.

    Returns:
        The keyword arguments for ``function``, and whether ``--json`` was given.

    Raises:
        ValueError: A command line or config file that the signature does not allow.
        SystemExit: After ``--help`` or ``--print_config``.
    """
    parser = build(name, function)
    values = dict(vars(parser.instantiate(parser.parse_args(_uncommaed(function, argv)))))
    as_json = bool(values.pop("json"))
    values.pop("config")
    hints = typing.get_type_hints(function)
    config = hints.get("config")
    if dataclasses.is_dataclass(config):
        fields = {f.name for f in dataclasses.fields(config) if f.init}
        own = {key: values.pop(key) for key in fields & set(values)}
        values["config"] = config(**own)  # type: ignore[operator]
    return values, as_json


def read(cls: type[T], fields: dict[str, Any]) -> T:
    """A config from nested plain values, by the rules of the command line.

    Raises:
        ValueError: An unknown field (with the nearest one as a suggestion), or a value of the wrong
            type.
    """
    parser = Parser(allow_abbrev=False)
    parser.add_class_arguments(cls, None, sub_configs=True)
    return cls(**vars(parser.instantiate(parser.parse_object(fields))))


def _add(parser: Parser, parameter: inspect.Parameter, hint: Any, text: str) -> None:
    required = parameter.default is inspect.Parameter.empty
    named = parameter.kind is inspect.Parameter.KEYWORD_ONLY
    name = "--" + parameter.name.replace("_", "-") if named else parameter.name
    options: dict[str, Any] = {"help": text}
    if not required:
        options |= {"default": parameter.default} | ({} if named else {"nargs": "?"})
    elif named:
        options["required"] = True
    inner = _without_none(hint)
    if inner is bool and parameter.default is not None:
        options["action"] = ActionYesNo(no_prefix="no-")
    elif typing.get_origin(inner) in (list, tuple):
        options |= {"type": typing.get_args(inner)[0], "nargs": "+"}
    else:
        options["type"] = hint
    parser.add_argument(name, **options)


def _uncommaed(function: Callable[..., Any], argv: list[str]) -> list[str]:
    """Lists of numbers may be written with commas too: ``--steps 0,100`` is ``--steps 0 100``."""
    hints = typing.get_type_hints(function)
    numbers = [n for n, hint in hints.items() if _without_none(hint) in (list[int], list[float])]
    lists = {"--" + name.replace("_", "-") for name in numbers}
    words: list[str] = []
    inside = False
    for word in argv:
        option, equals, value = word.partition("=")
        if word.startswith("--"):
            inside = option in lists
            if inside and equals:
                words += [option, *value.split(",")]
                continue
        words += word.split(",") if inside else [word]
    return words


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [option for option in typing.get_args(hint) if option is not type(None)]
        return rest[0] if len(rest) == 1 else hint
    return hint


def _argument_help(doc: str) -> dict[str, str]:
    """Parameter -> text of a Google docstring's ``Args`` section."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", doc, re.MULTILINE)
    found: dict[str, str] = {}
    name = None
    for line in section.group(1).splitlines() if section else ():
        start = re.match(r" {4}(\w+): (.*)", line)
        if start:
            name, found[start.group(1)] = start.group(1), start.group(2)
        elif name and line.strip():
            found[name] += " " + line.strip()
    return {key: text.replace("``", "") for key, text in found.items()}
