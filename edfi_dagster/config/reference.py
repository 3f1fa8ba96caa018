"""The configuration reference: every key with its type, default and meaning, from the models.

``edfi-dagster config reference [KEY]`` prints it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edfi_dagster.config.load import json_schema

# Definitions that are values rather than blocks, and what they are called.
_VALUES = {"Secret": "secret", "EndpointSelection": "`all`, `none` or block"}
_TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true, false",
    "object": "keys and values",
}
# What stands for a key of a mapping in the path of what it holds.
_KEYS = {
    "tenants": "<code>",
    "years": "<year>",
    "resources": "<endpoint>",
    "descriptors": "<endpoint>",
    "bundles": "<name>",
    "inputs": "<variable>",
}

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Block:
    """A block of the file, such as ``extract.endpoint_defaults``: its meaning and its keys."""

    path: str
    kind: str | None
    meaning: str
    required: frozenset[str]
    properties: Mapping[str, Schema]

    @property
    def title(self) -> str:
        named = self.path or "the file"
        return f"{named}, kind: {self.kind}" if self.kind else named


def blocks() -> Iterator[Block]:
    """Every block of the configuration once, at its first place, outer ones first."""
    schema = json_schema()
    seen: set[str] = {"Secret"}
    waiting: list[tuple[str, Schema]] = [("", schema)]
    while waiting:
        path, node = waiting.pop(0)
        properties: Mapping[str, Schema] = node["properties"]
        kind = properties.get("kind", {}).get("const")
        meaning = " ".join(str(node.get("description", "")).split())
        yield Block(path, kind, meaning, frozenset(node.get("required", ())), properties)
        below = []
        for name, value in properties.items():
            for suffix, reference in _references(value, name):
                if reference not in seen:
                    seen.add(reference)
                    below.append((".".join(filter(None, (path, name + suffix))), schema["$defs"][reference]))
        # A block's own come before its neighbours'.
        waiting[:0] = [
            (where, found) for where, node in below for where, found in _opened(schema, where, node)
        ]


def markdown(key: str | None = None) -> str | None:
    """The reference as Markdown tables: all of it, or the part that ``key`` names.

    ``key`` is a block (``extract.endpoint_defaults``: with the blocks below it) or a key (``page_size``, also as
    ``extract.endpoint_defaults.page_size``: its rows). Returns None if there is no such key.
    """
    lines = [
        "A secret is `{env: NAME}`, an environment variable, or `{file: PATH}`. It is read when it is used. A relative",
        "path starts from the folder of the file.",
    ]
    chosen = [(block, names) for block in blocks() if (names := _chosen(block, key))]
    for block, names in chosen:
        lines += ["", f"**`{block.title}`**: {_cell(block.meaning)}", ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        lines += [_row(block, name, block.properties[name]) for name in names]
    return "\n".join(lines) + "\n" if chosen else None


def _chosen(block: Block, key: str | None) -> list[str]:
    """The keys of a block that ``key`` asks for."""
    if key is None or f"{block.path}.".startswith(f"{key}."):
        return list(block.properties)
    above, _, name = key.rpartition(".")
    return [name] if name in block.properties and above in {"", block.path} else []


def _opened(schema: Schema, path: str, node: Schema) -> Iterator[tuple[str, Schema]]:
    """A definition if it is a block; of one that only maps names to others, those."""
    if "properties" in node:
        yield path, node
        return
    for suffix, reference in _references(node, path.rpartition(".")[2]):
        yield path + suffix, schema["$defs"][reference]


def _references(node: Schema, name: str) -> Iterator[tuple[str, str]]:
    """(what comes behind the path, definition) of everything that a value may hold."""
    if "$ref" in node:
        yield "", str(node["$ref"]).rpartition("/")[2]
    for option in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from _references(option, name)
    values = node.get("additionalProperties")
    if isinstance(values, Mapping):
        for suffix, reference in _references(values, name):
            yield f".{_KEYS.get(name, '<name>')}{suffix}", reference


def _row(block: Block, name: str, value: Schema) -> str:
    default = "required" if name in block.required else _default(value)
    return f"| `{name}` | {_type(value)} | {default} | {_cell(str(value.get('description', '')))} |"


def _type(node: Schema) -> str:
    if "$ref" in node:
        return _VALUES.get(str(node["$ref"]).rpartition("/")[2], "block")
    if "const" in node or "enum" in node:
        return ", ".join(f"`{choice}`" for choice in node.get("enum", [node.get("const")]))
    options = [
        option for key in ("anyOf", "oneOf") for option in node.get(key, ()) if option.get("type") != "null"
    ]
    if options:
        return " or ".join(dict.fromkeys(map(_type, options)))
    if isinstance(node.get("type"), list):
        return " or ".join(_TYPES[one] for one in node["type"])
    if node.get("type") == "array":
        return f"list of {_type(node['items'])}"
    if node.get("type") == "object":
        return _mapping(node)
    words = "path" if node.get("format") == "path" else _TYPES.get(str(node.get("type")), "text")
    return words + _limits(node)


def _mapping(node: Schema) -> str:
    values = node.get("additionalProperties")
    if not isinstance(values, Mapping):
        return _TYPES["object"]
    of = _type(values)
    return "block for each name" if of == "block" else f"{of} for each name"


def _limits(node: Schema) -> str:
    low, above, high = (node.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if low is not None and high is not None:
        return f" {low}–{high}"
    if above is not None:
        return f" above {above}"
    return "" if low is None else f" from {low}"


def _default(node: Schema) -> str:
    default = node.get("default")
    if isinstance(default, Mapping) and list(default) == ["*"]:
        return "`all`"
    if default in (None, "", {}, []) or ("$ref" in node and isinstance(default, Mapping)):
        return ""
    if isinstance(default, str):
        return f"`{default}`"
    if isinstance(default, list):
        return ", ".join(f"`{one}`" for one in default)
    if isinstance(default, Mapping):
        return "`{" + ", ".join(f"{key}: {value}" for key, value in default.items()) + "}`"
    return f"`{json.dumps(default)}`"


def _cell(text: str) -> str:
    """Text that a table takes: names in braces and stars as they are, on one line."""
    return (
        " ".join(text.replace("``", "`").split()).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
    )
