"""What the URL of a store on PostgreSQL says.

The URL is that of libpq, with several hosts where there are standbys and all of libpq's parameters. The parameters
below are the store's own and are taken out of it before it goes on to libpq.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dalsegno.core.errors import BadOption

SCHEMA = "dalsegno"
NAME_BYTES_MAX = 63  # PostgreSQL cuts longer names off, and two stores would be one


@attrs.frozen(slots=True, kw_only=True)
class Options:
    """How a store is opened. Seconds are seconds; 0 for `statement_timeout` means no limit."""

    conninfo: str
    schema: str = SCHEMA
    durability: str = "full"
    read_only: bool = False
    statement_timeout: float = 60.0
    reconnect: float = 5.0
    readers: int = 8
    transactions: int = 16

    @classmethod
    def of(cls, location: str, given: dict[str, Any]) -> Options:
        """The options in what stands after `postgresql:`, and in the call. Raises `BadOption`."""
        address, _, query = location.partition("?")
        if address and not address.startswith("//"):
            raise BadOption("write 'postgresql://user@host/database', or 'postgresql://' for what PGHOST and so on say")
        own = {attribute.name for attribute in attrs.fields(cls)} - {"conninfo"}
        asked = parse_qsl(query, keep_blank_values=True)
        values: dict[str, Any] = {name: value for name, value in asked if name in own}
        for name in given:
            if name not in own:
                raise BadOption(f"a PostgreSQL store has no option {name!r}; it has {', '.join(sorted(own))}")
        values |= {name: value for name, value in given.items() if value is not None}
        rest = urlencode([pair for pair in asked if pair[0] not in own], quote_via=quote)
        url = f"postgresql:{address or '//'}" + (f"?{rest}" if rest else "")
        read: dict[str, Any] = {name: _READ[name](name, value) for name, value in values.items()}
        return cls(conninfo=_conninfo(url), **read)

    @property
    def place(self) -> str:
        """Where the store is, for messages: no password in it."""
        said = conninfo_to_dict(self.conninfo)
        host = said.get("host") or said.get("hostaddr") or "the local server"
        database = said.get("dbname") or said.get("user") or ""
        return f"PostgreSQL at {host}, database {database!s}, schema {self.schema}"


def _conninfo(url: str) -> str:
    """libpq's own form of a URL, with what a store wants where the URL says nothing of it."""
    try:
        said = conninfo_to_dict(url)
    except UnicodeError:
        raise BadOption("this is no PostgreSQL URL: it is not UTF-8") from None
    except psycopg.ProgrammingError as error:
        # libpq may quote the whole URL here, and a password stands in it.
        raise BadOption(f"this is no PostgreSQL URL: {str(error).replace(url, 'it')}") from None
    defaults: dict[str, Any] = {
        "application_name": "dalsegno",
        "connect_timeout": "5",
        # A peer that is gone without a word is noticed after some twenty seconds instead of two hours.
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "2",
        "tcp_user_timeout": "20000",
    }
    return make_conninfo(**{**defaults, **{name: value for name, value in said.items() if value is not None}})


# --- reading one option --------------------------------------------------------------------------------------------


def _schema(name: str, value: object) -> str:
    text = str(value)
    if not text or "\0" in text or len(text.encode("utf-8", "replace")) > NAME_BYTES_MAX:
        raise BadOption(f"{name} is a name of 1 to {NAME_BYTES_MAX} bytes, not {text[:80]!r}")
    if re.match("pg_|information_schema$", text):
        raise BadOption(f"{name} {text!r} is PostgreSQL's own; choose another name")
    return text


def _durability(name: str, value: object) -> str:
    if value not in ("full", "relaxed"):
        raise BadOption(f"{name} is 'full' or 'relaxed', not {value!r}")
    return str(value)


def _flag(name: str, value: object) -> bool:
    flags = {"true": True, "1": True, "yes": True, "": True, "false": False, "0": False, "no": False}
    text = str(value).lower()
    if text not in flags:
        raise BadOption(f"{name} is true or false, not {value!r}")
    return flags[text]


def _seconds(name: str, value: object) -> float:
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1_000_000:
        raise BadOption(f"{name} is a number of seconds, not {value!r}")
    return seconds


def _count(name: str, value: object) -> int:
    text = str(value)
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1000:
        raise BadOption(f"{name} is a number of connections from 1 to 1000, not {value!r}")
    return int(text)


_READ = {
    "schema": _schema,
    "durability": _durability,
    "read_only": _flag,
    "statement_timeout": _seconds,
    "reconnect": _seconds,
    "readers": _count,
    "transactions": _count,
}
