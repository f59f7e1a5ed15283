"""`dalsegno compact`: a small copy of a store whose file has grown, beside whoever works on it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import click

from dalsegno.core.errors import BadOption
from dalsegno.tools.failures import say
from dalsegno.tools.options import busy, command_help, json_option, show_json, store_option
from dalsegno.tools.stores import open_for_reading, store_url
from dalsegno.tools.text import clean, size, without_password


@runtime_checkable
class Compactable(Protocol):
    """A store whose file does not shrink by itself."""

    def compact(self, target: Path) -> int:
        """Write a copy without free pages into a new or empty folder; answers its size."""

    def sizes(self) -> dict[str, int]:
        """Its sizes, `file_bytes` among them."""


@click.command(
    "compact",
    help=command_help(
        "Write a copy of a store without its free pages into a new folder.",
        "dalsegno compact ./orders-small --store lmdb:./orders",
        "What was deleted leaves free pages, which are filled again, but the file never shrinks. The copy holds what "
        "was committed when it began; others may go on meanwhile, and what they do is not in it. To put it in the "
        "place of the store, stop everybody who uses that first, compact, and then swap the folders. With --json: "
        '{"store", "copy", "before": bytes of the file, "after"}.',
    ),
)
@click.argument("folder", type=click.Path(path_type=Path))
@store_option
@json_option
def compact_store(folder: Path, store: str | None, json_wanted: bool) -> None:
    """Copy a store without free pages."""
    url = store_url(store)
    with open_for_reading(url) as opened:
        if not isinstance(opened, Compactable):
            raise BadOption(
                f"{clean(without_password(url))} is a kind of store that needs no compacting, or that does it by itself"
            )
        before = opened.sizes()["file_bytes"]
        with busy("copying"):
            after = opened.compact(folder)
    if json_wanted:
        show_json({"store": without_password(url), "copy": str(folder), "before": before, "after": after})
        return
    share = f"{1 - after / before:.0%} less" if before else "nothing less"
    say(f"{size(before)} → {size(after)} in {clean(folder)}, {share}", mark="")
    say("To use it: stop everybody who uses the store, compact once more, and swap the folders.", mark="")
