"""Tables of the fields of a specification, and what a function takes, from their own definitions."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from typing import Any

from pydantic import BaseModel

from .text import cell, prose, section, summary


def find(path: str) -> Any:
    """What ``package.module.name`` names."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def table(path: str) -> str:
    """The fields of a specification or dataclass: name, type, meaning."""
    kind = find(path)
    meanings = section(kind, "Attributes")
    types = _schema_types(kind) if issubclass(kind, BaseModel) else _annotations(kind)
    rows = ["| field | type | meaning |", "| --- | --- | --- |"]
    for name, written in types.items():
        rows.append(f"| `{name}` | {written} | {cell(meanings.get(name, ''))} |")
    return "\n".join([prose(summary(kind)), "", *rows])


def undocumented(path: str) -> list[str]:
    """Fields that the class's docstring says nothing of."""
    kind = find(path)
    names = kind.model_fields if issubclass(kind, BaseModel) else _annotations(kind)
    return sorted(set(names) - set(section(kind, "Attributes")))


def call(path: str) -> str:
    """Signature, arguments and errors of a function."""
    function = find(path)
    name = path.rpartition(".")[2]
    signature = str(inspect.signature(function)).replace("'", "")
    lines = ["```python", f"{name}{signature}", "```", "", prose(summary(function)), ""]
    for title, head in (("Args", "argument"), ("Raises", "raises")):
        entries = section(function, title)
        if entries:
            lines += [f"| {head} | |", "| --- | --- |"]
            lines += [f"| `{key}` | {cell(text)} |" for key, text in entries.items()] + [""]
    return "\n".join(lines)


def _annotations(kind: Any) -> dict[str, str]:
    written = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    plain = re.compile(r"NDArray\[np\.(\w+?)_?\]")
    return {name: f"`{plain.sub(r'\1 array', text)}`" for name, text in written.items()}


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
        return _written(target, definitions) if "enum" in target else name
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
