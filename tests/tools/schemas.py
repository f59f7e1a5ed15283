"""The documented forms of everything that is printed with --json, and holding an output against its form."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "schemas"


@cache
def schemas() -> dict[str, Any]:
    """Every schema by the name of its file."""
    return {file.name: json.loads(file.read_text("utf-8")) for file in sorted(FOLDER.glob("*.json"))}


@cache
def validator(name: str) -> Draft202012Validator:
    """What checks data against the schema of a file; the files name each other as they lie side by side."""
    files: list[tuple[str, Resource[Any]]] = [
        (file, Resource.from_contents(schema)) for file, schema in schemas().items()
    ]
    registry: Registry[Any] = Registry().with_resources(files)
    here = {"$id": name, **schemas()[name]}
    return Draft202012Validator(here, registry=registry, format_checker=FormatChecker())


def hold(program: str, command: str, data: object) -> None:
    """Assert that what a command printed has the form that is documented."""
    wrong = sorted(validator(f"{program}-{command}.json").iter_errors(data), key=lambda error: error.json_path)
    assert not wrong, f"{program} {command} --json: " + "; ".join(f"{e.json_path}: {e.message}" for e in wrong[:5])


def hold_output(program: str, args: tuple[str, ...], stdout: str) -> None:
    """The same of what a call printed: one document, or, of commands that print lines, each of them."""
    if "--json" not in args or not stdout.strip():
        return
    lines = "--count" in args or "--interval" in args
    for text in stdout.splitlines() if lines else [stdout]:
        hold(program, args[0], json.loads(text))
