"""The page as a file: data, style and script in one document that fetches nothing and runs nothing else.

Data stands in blocks of type `application/json`, which no browser runs. Whatever could end such a block or mean
something to an HTML parser (`<`, `>`, `&`), to a terminal or to an eye (control characters, turned directions) is
written as JSON's `\\uXXXX`. Payloads stand in blocks of their own, so that a browser reads them only when one is asked
for.

The policy in the head names the one script and the one style by their SHA-256, forbids every other source of anything,
and forbids the script itself to turn text into markup (trusted types).
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from itertools import islice
from typing import Final

from dalsegno.tools.page.contents import Contents

SCRIPTS: Final = (
    "data.js",
    "times.js",
    "rows.js",
    "chart.js",
    "overview.js",
    "details.js",
    "head.js",
    "pointer.js",
    "paper.js",
    "main.js",
)
"""The parts of the script, in the order they are joined: later ones use earlier ones."""

BLOCK: Final = 256
"""Payloads in one block: what a browser reads when the first of them is asked for."""

_NOT_IN_BLOCK: Final = re.compile(
    "[<>&\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]"
)


def document(contents: Contents) -> Iterator[str]:
    """The page, a piece at a time: payloads may be more than one wants to hold twice."""
    style, script = _style(), _script()
    filled = {
        "title": html.escape(contents.title),
        "policy": policy(script, style),
        "style": style,
        "data": block(contents.data),
        "script": script,
    }
    for piece in re.split(r"(\{\{\w+\}\})", _file("page.html")):
        if piece == "{{payloads}}":
            yield from _payload_blocks(contents)
        elif piece.startswith("{{"):
            yield filled[piece[2:-2]]
        else:
            yield piece


def policy(script: str, style: str) -> str:
    """The content security policy of a page with this script and this style."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def block(data: object) -> str:
    r"""Data as JSON that can stand between script tags.

    >>> block(["</script>", "a & b"])
    '["\\u003c/script\\u003e","a \\u0026 b"]'
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return _NOT_IN_BLOCK.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _payload_blocks(contents: Contents) -> Iterator[str]:
    payloads, number = contents.payloads(), 0
    while texts := list(islice(payloads, BLOCK)):
        yield f'<script type="application/json" id="payloads-{number}">{block(texts)}</script>\n'
        number += 1


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _file(name: str) -> str:
    return files("dalsegno.tools.page").joinpath(name).read_text("utf-8")


def _style() -> str:
    return f"\n{_file('page.css')}"


def _script() -> str:
    parts = "\n".join(_file(name) for name in SCRIPTS)
    return f'\n"use strict";\n(() => {{\n{parts}\n}})();\n'
