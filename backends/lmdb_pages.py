"""Whether an LMDB data file is all there, found out by plain reading.

LMDB maps its file into memory, and touching a page beyond the file's end kills the process with SIGBUS. A file may end
early after a copy that was cut short or a file system check. So before the file is mapped, its header is compared
with its size. A sound file can be shorter than its header says (the last pages may have been given back in the very
transaction that took them), so then the pages in use are walked through, and only one that is really missing counts.

The structures are those of LMDB 0.9, 64 bits, little-endian; of anything else nothing is said here, and LMDB judges.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from typing import BinaryIO

_PAGE_HEADER = 16
_META = struct.Struct("<IIQQ")  # magic, version, address, map size
_DATABASE = struct.Struct("<IHHQQQQQ")  # page size (in the first), flags, depth, branch, leaf, overflow, entries, root
_META_END = struct.Struct("<QQ")  # last page, transaction id
_META_SIZE = _META.size + 2 * _DATABASE.size + _META_END.size
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_NO_PAGE = 2**64 - 1
_BRANCH, _LEAF, _BIG_DATA = 0x01, 0x02, 0x01


def missing_page(path: Path) -> str:
    """What of an LMDB 0.9 data file is missing, in words; an empty text for a file that is all there, or another's."""
    if sys.byteorder != "little" or struct.calcsize("P") != 8:
        return ""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return ""  # LMDB makes a new environment of it
        metas = _read_metas(file)
        if not metas:
            return ""
        page_size, _, last_page, roots = max(metas, key=lambda meta: meta[1])
        if (last_page + 1) * page_size <= size:
            return ""
        pages = size // page_size
        for root in roots:
            missing = _first_missing(file, root, page_size, pages)
            if missing is not None:
                return f"the file ends after {pages} pages, and page {missing} of it is in use"
    return ""


def _read_metas(file: BinaryIO) -> list[tuple[int, int, int, tuple[int, int]]]:
    """Page size, transaction id, last page and the two roots, of each header page that is one."""
    found = []
    at = 0
    for _ in range(2):
        file.seek(at + _PAGE_HEADER)
        data = file.read(_META_SIZE)
        if len(data) < _META_SIZE:
            break
        magic, version, _, _ = _META.unpack_from(data)
        if (magic, version) != (_MAGIC, _VERSION):
            break
        free = _DATABASE.unpack_from(data, _META.size)
        main = _DATABASE.unpack_from(data, _META.size + _DATABASE.size)
        last_page, transaction = _META_END.unpack_from(data, _META.size + 2 * _DATABASE.size)
        page_size = free[0]
        if page_size < 512 or page_size & (page_size - 1):
            break
        found.append((page_size, transaction, last_page, (free[-1], main[-1])))
        at = page_size
    return found


def _first_missing(file: BinaryIO, root: int, page_size: int, pages: int) -> int | None:
    """The first page of a tree that lies beyond the file's end."""
    todo = [] if root == _NO_PAGE else [root]
    while todo:
        page = todo.pop()
        if page >= pages:
            return page
        file.seek(page * page_size)
        data = file.read(page_size)
        flags, lower = struct.unpack_from("<HH", data, 10)
        for position in range(_PAGE_HEADER, min(lower, page_size), 2):
            (node,) = struct.unpack_from("<H", data, position)
            if node + 8 > page_size:
                continue  # a damaged page: LMDB and the checksums judge that
            low, high, node_flags, key_size = struct.unpack_from("<HHHH", data, node)
            if flags & _BRANCH:
                todo.append(low | high << 16 | node_flags << 32)
            elif flags & _LEAF and node_flags & _BIG_DATA and node + 16 + key_size <= page_size:
                (first,) = struct.unpack_from("<Q", data, node + 8 + key_size)
                beyond = first + _overflow_pages(low | high << 16, page_size) - 1
                if beyond >= pages:
                    return int(beyond)
    return None


def _overflow_pages(value_size: int, page_size: int) -> int:
    return (_PAGE_HEADER - 1 + value_size) // page_size + 1
