"""A reader from spec/format-1.md, 16, alone: `read(path)` returns [[number, value], ...] or raises Refused with a code."""

import re
import struct
from pathlib import Path

import msgpack
from blake3 import blake3

NAME = re.compile(r"segment-([0-9]{8,19})-([0-9a-f]{8})\.journal")


class Refused(Exception): ...


def demand(condition, rule):
    if not condition:
        raise Refused(rule)


def unpacked(data):  # 7
    try:
        value = msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException):
        raise Refused("E024") from None
    demand(msgpack.packb(value) == data, "E024")
    return value


def linked(data, end, size):
    link = data[end : end + 16]
    return link if size <= 2**24 and len(link) == 16 and blake3(data[:end]).digest(16) == link else None


class Segment:
    def __init__(self, file):
        demand(file.is_file() and not file.is_symlink(), "E013")
        number, mark = NAME.fullmatch(file.name).groups()
        self.name, self.data, self.number, self.mark, self.is_usable = file.name, file.read_bytes(), int(number), bytes.fromhex(mark), False
        self.seen, self.records, self.said, self.end = [], [], 0, 0
        magic, major, _, size = struct.unpack_from("<8sHHI", self.data.ljust(16, b"\0"))  # 16.2
        if magic != b"ckptjrnl" or not (previous := linked(self.data, 16 + size, size)):
            return
        demand(major == 1, "E052")
        header, self.link, self.end = unpacked(self.data[16 : 16 + size]), previous, 32 + size
        demand(header["name"] == self.name, "E051")
        self.kind, (self.base, self.base_link), self.seen, through = (header[name] for name in ("kind", "base", "seen", "through"))
        bases = {"first": self.base == 0, "next": self.base > 0, "snapshot": True}
        demand(bases.get(self.kind) and through >= self.base and (self.kind == "next" or not any(self.base_link)), "E050")
        number, payload, self.said = self.base, b"header", through if self.kind == "snapshot" else self.base
        while payload and (found := self.record(self.end)) and (found[0], found[2]) == (number + 1, previous):  # 16.3
            number, said, _, payload, previous, self.end = found
            self.records += [(number, (previous, payload))] if payload else []
            self.said = max(self.said, said)
        self.is_usable = self.kind == "snapshot" or len(self.records) >= through - self.base  # 16.4

    def record(self, at):
        mark, number, pending, previous, size = struct.unpack_from("<4sQI16sI", self.data[at:].ljust(36, b"\0"))
        own = linked(self.data[at:], 36 + size, size) if mark == self.mark else None
        return own and (number, number - 1 - pending, previous, self.data[at + 36 : at + 36 + size], own, at + 52 + size)


def read(path):
    segments = [Segment(file) for file in Path(path).iterdir() if NAME.fullmatch(file.name)]
    segments.sort(key=lambda segment: (segment.number, segment.mark))
    root = max((segment.number for segment in segments if segment.is_usable and segment.kind != "next"), default=0)
    usable = [segment for segment in segments if segment.is_usable and segment.number >= root]
    chain, seen = {}, {name: size for segment in segments for name, size in segment.seen}
    for segment in usable:
        demand(segment.kind != "next" or segment.base in chain, "E054")
        demand(segment.kind != "next" or chain[segment.base][0] == segment.base_link, "E055")
        chain = {n: chain[n] for n in chain if n <= segment.base} if segment.kind == "next" else {segment.base: (segment.link, b"")}
        chain.update(segment.records)
        demand(segment.record(segment.end) is None, "E055")
    suspects = usable[-1:] + [one for one in segments if not one.is_usable and one.number >= root and one.name not in seen]
    said = [one.record(at)[1] for one in suspects for at in range(one.end * one.is_usable, len(one.data)) if one.record(at)]
    demand(max([0, *said, *(segment.said for segment in usable)]) <= max(chain, default=0), "E054")
    demand(all(len(segment.data) <= seen.get(segment.name, len(segment.data)) for segment in segments), "E056")
    demand(sum(segment.name not in seen for segment in usable) <= 1 and len({one.number for one in usable}) == len(usable), "E056")
    return [[number, unpacked(payload)] for number, (_, payload) in sorted(chain.items()) if payload]
