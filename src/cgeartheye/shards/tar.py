"""Walk the headers of a tar without unpacking it: ustar, GNU long names and PAX names, nothing else.

Written out rather than taken from ``tarfile``, which keeps every member in memory and believes the sizes of extended headers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cgeartheye.shards.format import BLOCK, padded

EXTENDED_LIMIT: Final = 2**20
"""Bytes a long name or PAX header may have [ours]; those of honest writers stay below a kilobyte."""
_REGULAR: Final = frozenset({b"0", b"\0", b"7"})
_LONG_NAME: Final = b"L"
_PAX: Final = b"x"
_DESCRIBING: Final = frozenset({_PAX, _LONG_NAME, b"g", b"K"})
"""Headers that describe others; records for all members and names of links say nothing that a chip needs."""
_SPARSE: Final = ("GNU.sparse.major", "GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.realsize")


class TarFaultError(ValueError):
    """The file is no tar, is cut short, or has a header that only a broken or hostile writer makes."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file, a folder, or something a shard may not hold.

    Args:
        name: as written, decoded as UTF-8.
        kind: ``file``, ``folder`` or ``other`` (a link, a device, a sparse file).
        offset, size: bytes of its content in the tar.
    """

    name: str
    kind: str
    offset: int
    size: int


def walk(descriptor: int, end: int) -> Iterator[Member]:
    """Yield the members of a tar in order; memory is that of one header.

    Args:
        descriptor: an open file, read by ``pread``.
        end: its size in bytes.

    Raises:
        TarFaultError: for a header whose checksum is wrong, a size that is no number, a member that reaches beyond ``end``, an
            extended header above :data:`EXTENDED_LIMIT`, a name that is not UTF-8, or no end mark.
    """
    at, extended = 0, dict[str, str]()
    while True:
        block = os.pread(descriptor, BLOCK, at)
        if len(block) < BLOCK:
            raise TarFaultError(f"ends at byte {end} without an end mark: it was cut short")
        if not any(block):
            return
        kind, size = _checked(block, at), _number(block[124:136], at)
        content, described = at + BLOCK, kind in _DESCRIBING
        size = size if described else _size_of(extended, size, at)
        if content + size > end:
            raise TarFaultError(f"has a member at byte {at} that ends at byte {content + size}, beyond the file's end at {end}")
        if kind in {_PAX, _LONG_NAME}:
            extended |= _extended(descriptor, kind, content, size)
        elif not described:
            yield _member(block, extended, at, size)
            extended = {}
        at += padded(size)


def _member(block: bytes, extended: Mapping[str, str], at: int, size: int) -> Member:
    name, kind = extended.get("path") or _name(block, at), _kind_of(block, extended)
    if kind == "folder" and size:  # some readers skip as many bytes, others do not, so that they see different members
        raise TarFaultError(f"has a folder at byte {at} with content")
    return Member(name, kind, at + BLOCK, size)


def _checked(block: bytes, at: int) -> bytes:
    """Return the type flag of a header whose checksum is right (the field itself counts as blanks)."""
    told = _number(block[148:156], at)
    if told != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
        raise TarFaultError(f"is no tar, or is damaged: the header at byte {at} does not match its checksum")
    return block[156:157]


def _number(field: bytes, at: int) -> int:
    """Read an octal number, or a binary one that begins with 0x80."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0", 1)[0].strip(b" ")
    if not all(48 <= digit <= 55 for digit in text):
        raise TarFaultError(f"is no tar, or is damaged: the header at byte {at} has a number that is none")
    return int(text or b"0", 8)


def _extended(descriptor: int, kind: bytes, content: int, size: int) -> dict[str, str]:
    if size > EXTENDED_LIMIT:
        raise TarFaultError(f"has an extended header of {size} bytes at byte {content - BLOCK}, more than any name needs")
    data = os.pread(descriptor, size, content)
    if len(data) < size:
        raise TarFaultError(f"ends inside the extended header at byte {content - BLOCK}: it was cut short")
    if kind == _LONG_NAME:
        return {"path": _text(data.split(b"\0", 1)[0], content)}
    return _pax_records(data, content)


def _pax_records(data: bytes, at: int) -> dict[str, str]:
    r"""Read ``LENGTH KEY=VALUE\n`` records; the length counts itself."""
    records: dict[str, str] = {}
    while data:
        digits, _, rest = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        key, equals, value = rest[: length - len(digits) - 1].partition(b"=")
        if not equals or length > len(data) or not value.endswith(b"\n"):
            raise TarFaultError(f"has an extended header at byte {at - BLOCK} that cannot be read")
        name = _text(key, at)
        if name in {"path", "size", *_SPARSE}:
            records[name] = _text(value[:-1], at)
        data = data[length:]
    return records


def _size_of(extended: Mapping[str, str], size: int, at: int) -> int:
    told = extended.get("size")
    if told is None:
        return size
    if not (told.isascii() and told.isdigit() and len(told) < 20):
        raise TarFaultError(f"has a member at byte {at} whose size is {told!r}")
    return int(told)


def _name(block: bytes, at: int) -> str:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name, at)


def _kind_of(block: bytes, extended: Mapping[str, str]) -> str:
    flag = block[156:157]
    if flag == b"5" or (flag == b"\0" and block[:100].split(b"\0", 1)[0].endswith(b"/")):
        return "folder"
    return "file" if flag in _REGULAR and not any(key in extended for key in _SPARSE) else "other"


def _text(data: bytes, at: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise TarFaultError(f"has a name at byte {at} that is not UTF-8") from error
