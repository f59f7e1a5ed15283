"""Events, runs and messages as JSON with named fields, and back: what `--json` prints and `export` writes.

In a store an event is an array without names, to be small. Here it has them, so that a script, a diff or a later
release can read it. Structuring is cattrs' craft; it refuses fields it does not know and values of another type, as a
history that has been put right by hand should not be read as something else.

A payload is `{"base64": …, "json": …}`: the bytes themselves, which are what is read back, and beside them their
meaning for people, as far as it can be told without the program's classes (`"unreadable"` says why not).

    {"event": "StepCompleted", "version": 1, "index": 2, "fields": {"at_us": …, "id": "2", "name": "charge", …}}
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any, Final, get_args, get_origin

import attrs
from cattrs import Converter, transform_error
from cattrs.v import format_exception

from dalsegno.core.errors import DataError, DecodeError
from dalsegno.core.events import EVENTS, Event
from dalsegno.core.store import MessageKind, RunRecord, Status, StoredMessage
from dalsegno.core.values.codec import Codec

Parent = tuple[str, int, str] | tuple[()]
PAYLOADS: Final = ("arguments", "result", "payload", "error")
"""The fields of events that are payloads made by the codec; other bytes are digests and seeds."""

BY_NAME: Final = {cls.__name__: cls for cls in EVENTS}
Data = dict[str, Any]


class DoesNotFit(DataError):
    """JSON that is no event, run or message of this release."""


def payload_form(data: bytes, codec: Codec) -> Data:
    """A payload as its bytes and, where it can be read, as JSON."""
    form: Data = {"base64": b64encode(data).decode()}
    if data:
        try:
            form["json"] = codec.to_json(data)
        except DecodeError as error:
            form["unreadable"] = str(error)
    return form


def event_form(index: int, event: Event, codec: Codec) -> Data:
    """An event with its number in the history and its fields by name."""
    return {
        "event": type(event).__name__,
        "version": type(event).version,
        "index": index,
        "fields": _with_json(_converter.unstructure(event), codec),
    }


def event_from(form: Data) -> Event:
    """The event of such a form. Raises `DoesNotFit`, which says so when it is one of a later release."""
    name, version = form.get("event"), form.get("version", 1)
    if name not in BY_NAME:
        raise DoesNotFit(f"this release knows no event {name!r}; was it written by a later one?", event=name)
    cls = BY_NAME[name]
    if version != cls.version:
        newer = isinstance(version, int) and version > cls.version
        raise DoesNotFit(
            f"{name} has version {version!r}, and this release knows version {cls.version}"
            + ("; upgrade dalsegno to read it" if newer else ""),
            event=name,
        )
    event: Event = _structured(form.get("fields"), cls)
    return event


@attrs.frozen(kw_only=True)
class RunForm:
    """A run's record as it travels: without its number, owner and epoch, which belong to one store."""

    workflow_id: str
    generation: int
    workflow: str
    status: Status
    created_at_us: int
    closed_at_us: int | None
    tags: dict[str, str]
    parent: Parent
    digest: bytes
    reason: str
    events: int


def run_form(record: RunRecord, events: int) -> RunForm:
    """What of a run's record travels."""
    values = {a.name: getattr(record, a.name) for a in attrs.fields(RunForm) if a.name != "events"}
    return RunForm(**(values | {"tags": dict(record.tags), "events": events}))


def plain(form: RunForm) -> Data:
    """A run's record as JSON."""
    data: Data = _converter.unstructure(form)
    return data


def run_from(form: object) -> RunForm:
    """The record of such a form. Raises `DoesNotFit`."""
    run: RunForm = _structured(form, RunForm)
    return run


def message_form(message: StoredMessage, codec: Codec) -> Data:
    """A message that waits in an inbox. What asks a run to end or to pause carries its reason as text, no payload."""
    form: Data = _converter.unstructure(message)
    if message.kind in ("signal", "child", "callback"):
        return dict(_with_json(form, codec))
    form["payload"]["text"] = message.payload.decode("utf-8", "backslashreplace")
    return form


def message_from(form: object) -> StoredMessage:
    """The message of such a form. Raises `DoesNotFit`."""
    message: StoredMessage = _structured(form, StoredMessage)
    return message


def bytes_from(form: object) -> bytes:
    """The bytes of a payload's form. Raises `DoesNotFit`."""
    data: bytes = _structured(form, bytes)
    return data


# --- the converter -------------------------------------------------------------------------------------------------


def _with_json(form: Any, codec: Codec) -> Any:
    """The form with the JSON of its payloads beside their bytes."""
    for name, value in form.items():
        if name in PAYLOADS:
            form[name] = payload_form(b64decode(value["base64"]), codec)
        elif name == "carried":
            form[name] = [_with_json(signal, codec) for signal in value]
    return form


def _structured(form: object, cls: Any) -> Any:
    try:
        return _converter.structure(form, cls)
    except Exception as error:  # cattrs' groups, and what the hooks raise
        reasons = "; ".join(transform_error(error, path="fields", format_exception=_reason))
        raise DoesNotFit(f"not a {cls.__name__} of this release: {reasons}") from error


def _reason(error: BaseException, kind: type | None) -> str:
    return str(error) if type(error) is ValueError else format_exception(error, kind)


def _bytes(value: Any, _: Any) -> bytes:
    if not isinstance(value, dict) or not isinstance(value.get("base64"), str):
        raise ValueError('expected {"base64": …}')
    return b64decode(value["base64"], validate=True)


def _is_tuple(cls: Any) -> bool:
    return cls is tuple or get_origin(cls) is tuple


def _strictly(cls: type) -> Any:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is not cls:
            raise ValueError(f"expected {cls.__name__}, not {type(value).__name__}")
        return value

    return structure


def _one_of(values: Sequence[str]) -> Any:
    def structure(value: Any, _: Any) -> Any:
        if value not in values:
            raise ValueError(f"{value!r} is none of {', '.join(values)}")
        return value

    return structure


def _make_converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    converter.register_unstructure_hook(bytes, lambda value: {"base64": b64encode(value).decode()})
    converter.register_unstructure_hook_func(_is_tuple, lambda value: [converter.unstructure(item) for item in value])
    converter.register_structure_hook(bytes, _bytes)
    for cls in (int, str, bool):
        converter.register_structure_hook(cls, _strictly(cls))
    converter.register_structure_hook_func(
        lambda cls: cls == Parent, lambda value, _: converter.structure(value, tuple[str, int, str]) if value else ()
    )
    converter.register_structure_hook_func(lambda cls: cls == MessageKind, _one_of(get_args(MessageKind)))
    converter.register_structure_hook(Status, lambda value, _: Status(_one_of([s.value for s in Status])(value, _)))
    return converter


_converter = _make_converter()
