"""Tables of the fields of a specification, and what a function takes, from their own definitions."""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
import re
from typing import Any

from pydantic import BaseModel

from .text import cell, prose, section, summary

WIDTH = 80
"""Columns of a signature."""


def find(path: str) -> Any:
    """What ``package.module.name`` or ``package.module.Class.name`` names."""
    return pkgutil.resolve_name(path)


def table(path: str) -> str:
    """The fields of a specification or dataclass: name, type, meaning."""
    kind = find(path)
    meanings = {
        name: re.sub(r"\bNone\b", "null", text) if issubclass(kind, BaseModel) else text
        for name, text in _attributes(kind).items()
    }
    types = _schema_types(kind) if issubclass(kind, BaseModel) else _annotations(kind)
    rows = ["| field | type | meaning |", "| --- | --- | --- |"]
    for name, written in types.items():
        rows.append(f"| `{name}` | {written} | {cell(meanings.get(name, ''))} |")
    return "\n".join([prose(summary(kind)), "", *rows])


def undocumented(path: str) -> list[str]:
    """Fields that the class's docstring says nothing of."""
    kind = find(path)
    names = kind.model_fields if issubclass(kind, BaseModel) else _annotations(kind)
    return sorted(set(names) - set(_attributes(kind)))


def _attributes(kind: type) -> dict[str, str]:
    """What the docstrings of a class and of those that it derives from say of its fields."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        found |= section(base, "Attributes") if base.__doc__ else {}
    return found


def call(path: str) -> str:
    """Signature, arguments and errors of a function."""
    function = find(path)
    name = path.rpartition(".")[2]
    lines = ["```python", _signature(name, function), "```", "", prose(summary(function)), ""]
    return "\n".join([*lines, *_entries(function, "Args"), *_entries(function, "Raises")])


class _Written(str):
    """An annotation as the source has it, which a signature shows without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _signature(name: str, function: Any) -> str:
    """As it would be written: one line, or a line an argument."""
    signature = inspect.signature(function)
    given = [
        part.replace(annotation=_Written(part.annotation))
        for part in signature.parameters.values()
        if part.name != "self"
    ]
    returned = _Written(signature.return_annotation)
    text = str(signature.replace(parameters=given, return_annotation=returned))
    if len(name + text) <= WIDTH:
        return name + text
    inside, _, returned = text[1:].rpartition(") -> ")
    # Commas inside brackets belong to a type.
    arguments = re.split(r", (?![^\[]*\])", inside)
    return "\n".join([f"{name}(", *(f"    {part}," for part in arguments), f") -> {returned}"])


def members(path: str) -> str:
    """What a class is, its attributes and its public methods."""
    kind = find(path)
    lines = [prose(summary(kind)), "", *_entries(kind, "Attributes")]
    methods = {
        name: value
        for name, value in vars(kind).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    if methods:
        lines += ["| method | |", "| --- | --- |"]
        lines += [f"| `{name}()` | {cell(summary(m))} |" for name, m in methods.items()] + [""]
    return "\n".join(lines)


def _entries(documented: object, title: str) -> list[str]:
    """A section of a docstring as a table; nothing where there is none."""
    entries = section(documented, title)
    heads = {"Args": "argument", "Attributes": "attribute", "Raises": "raises"}
    rows = [f"| `{name}` | {cell(text)} |" for name, text in entries.items()]
    return [f"| {heads[title]} | |", "| --- | --- |", *rows, ""] if rows else []


def _annotations(kind: Any) -> dict[str, str]:
    written = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    plain = {
        name: re.sub(r"NDArray\[np\.(\w+?)_?\]", r"\1 array", text)
        for name, text in written.items()
    }
    return {name: f"`{text.replace(' | ', ' or ')}`" for name, text in plain.items()}


def _schema_types(kind: type[BaseModel]) -> dict[str, str]:
    schema = kind.model_json_schema(mode="serialization")
    definitions = schema.get("$defs", {})
    return {
        name: _written(part, definitions) for name, part in schema.get("properties", {}).items()
    }


def _written(part: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        target = definitions[name]
        return _written(target, definitions) if "enum" in target else f"[{name}](#{name.lower()})"
    if "anyOf" in part:
        return " or ".join(_written(option, definitions) for option in part["anyOf"])
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if "const" in part:
        return f"`{part['const']}`"
    if part.get("pattern") == "^[0-9a-f]{64}$":
        return "sha256"
    kind = part.get("type", "any")
    if kind == "array":
        return _array(part, definitions)
    if kind == "object" and isinstance(part.get("additionalProperties"), dict):
        return f"name to {_written(part['additionalProperties'], definitions)}"
    return kind + _bounds(part)


def _array(part: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "prefixItems" in part:
        items = [_written(item, definitions) for item in part["prefixItems"]]
        same = len(set(items)) == 1
        return f"{len(items)} of {items[0]}" if same else f"({', '.join(items)})"
    return f"list of {_written(part['items'], definitions)}"


def _bounds(part: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {part[key]}" for key, sign in signs.items() if key in part]
    return f" {', '.join(found)}" if found else ""
