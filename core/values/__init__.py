"""Values: what a workflow passes and gets back, as bytes and back again, equal in value and in type.

`codec.Codec` is the front door. Behind it, from the outside in:

* `plain` answers quickly whether msgpack alone carries a value faithfully; most values stop here;
* `lowering` walks any other value and turns what msgpack would lose into extension records;
* `carriers` is the table of those extensions: how each type is lowered, restored and shown;
* `classes` and `models` know data classes, enums and pydantic models; `exceptions` knows errors;
* `reading` is the way back; `rendering` the way to JSON for tools; `loose` makes JSON from outside into typed values;
* `layers` and `zstd` are what may be put around every payload.

All of it is pure: no clock, no file, no thread, no import of anything a payload names.
"""
