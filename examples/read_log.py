#!/usr/bin/env python3
"""Prints the log of a kvstore database, and checks every byte of it.

An independent reader: it shares no code with the library, knows only the format that README.md describes, and
needs nothing but Python 3. It reads segments alone, not MANIFEST and hints, so it also shows segments that the
database no longer uses or has not yet listed. It never writes, and takes no lock.

One line is printed for each record: file, offset, timestamp, key, and the length of the value or "tombstone".
The exit code is 0 if all is well, 1 if something is damaged or torn, 2 if the path cannot be read.
"""

import argparse
import mmap
import os
import re
import struct
import sys
from collections import namedtuple

MAGIC = b"kvstore\n"
HEADER = struct.Struct("<8sIIQQQQIQI")  # ends with the CRC of all before it; 64 bytes
COMPACTION_OUTPUT = 1  # the one flag of a header
BATCH, SYNC_MARK = 1 << 63, 1 << 62  # flags of the prefix of a frame
LENGTH = (1 << 48) - 1  # the bits of the prefix that are a length

Header = namedtuple("Header", "magic version flags id identity before before_length before_crc reserved crc")
Record = namedtuple("Record", "offset timestamp key value batch")  # value: None is a tombstone; batch: in a frame?
Mark = namedtuple("Mark", "offset synced")  # everything before the offset `synced` has been synced
Segment = namedtuple("Segment", "header end last_crc first last damaged")  # what the chain needs of a segment


def crc_table():
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        yield crc


def crc32c(data, table=tuple(crc_table())):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


class Damage(Exception):
    """What is wrong with the bytes at hand."""


def read_header(data):
    if len(data) < HEADER.size:
        raise Damage("too short for a segment header")
    header = Header(*HEADER.unpack_from(data))
    if header.magic != MAGIC:
        raise Damage("no segment header")
    if crc32c(data[:60]) != header.crc:
        raise Damage("the checksum of the segment header is wrong")
    if header.version != 1 or header.flags & ~COMPACTION_OUTPUT or header.reserved != 0:
        raise Damage("a segment header of a version that this program does not know")
    return header


def read_record(data, offset, batch):
    """The record in `data`, a whole frame without its CRC."""
    try:
        timestamp, key_len = struct.unpack_from("<qQ", data, 8)
        key = data[24 : 24 + key_len]
        (tag,) = struct.unpack_from("<B", data, 24 + key_len)
        (value_len,) = struct.unpack_from("<Q", data, 25 + key_len) if tag == 1 else (None,)
    except (struct.error, OverflowError):
        raise Damage("an entry that is longer than its record") from None
    size = 25 + key_len + (0 if tag == 0 else 8 + value_len if tag == 1 else 1 << 64)
    if size != len(data):
        raise Damage("an entry that does not fill its record")
    if timestamp == (1 << 63) - 1:
        raise Damage("a timestamp after which there is none")
    return Record(offset, timestamp, key, data[size - value_len :] if tag == 1 else None, batch)


def read_frame(data, offset, end, batch=False):
    """What is in the frame at `offset`, as a list, and where the next frame is."""
    if end - offset < 12:
        raise Damage("too few bytes for a record")
    (prefix,) = struct.unpack_from("<Q", data, offset)
    after = offset + 8 + (prefix & LENGTH) + 4
    if after > end:
        raise Damage("a record that is longer than the file")
    body = data[offset : after - 4]
    if crc32c(body) != struct.unpack_from("<I", data, after - 4)[0]:
        raise Damage("a checksum is wrong")
    flags = prefix & ~LENGTH
    if flags == 0:
        return [read_record(body, offset, batch)], after
    if flags == BATCH and not batch:
        found, inner = [], offset + 8
        while inner < after - 4:
            records, inner = read_frame(data, inner, after - 4, batch=True)
            found += records
        return found, after
    if flags == SYNC_MARK and not batch and len(body) == 16:
        synced = struct.unpack_from("<Q", body, 8)[0]
        if not HEADER.size <= synced <= offset:
            raise Damage("a sync mark for what is not before it")
        return [Mark(offset, synced)], after
    raise Damage("a record of a kind that this program does not know")


def skip(data, offset):
    """Where to go on behind a frame that cannot be read: behind it, if its length leads to a good one or the end."""
    after = offset + 12 + (struct.unpack_from("<Q", data, offset)[0] & LENGTH) if len(data) - offset >= 8 else 0
    if after == len(data) or 0 < after <= len(data) - 8 and data[after : after + 8] == bytes(8):
        return after
    try:
        read_frame(data, after, len(data))
        return after if after else None
    except Damage:
        return None


def read_segment(data, show, complain):
    """Reads a segment, hands each record and sync mark to `show` and each fault, with its offset, to `complain`."""
    try:
        header = read_header(data)
    except Damage as damage:
        complain(0, str(damage))
        return None
    is_log = not header.flags & COMPACTION_OUTPUT
    offset, last_crc, first, last, damaged = HEADER.size, 0, None, None, False
    while offset < len(data) and data[offset : offset + 8] != bytes(min(8, len(data) - offset)):
        try:
            found, after = read_frame(data, offset, len(data))
        except Damage as damage:
            damaged = True
            complain(offset, str(damage))
            found, after = [], skip(data, offset)
            if after is None:
                complain(offset, f"{len(data) - offset} bytes from here on are not read")
                return Segment(header, None, None, first, last, damaged)
        for item in found:
            show(item)
            if isinstance(item, Record) and is_log:
                if last is not None and item.timestamp <= last:
                    complain(item.offset, "a timestamp that is not above the one before it")
                first, last = item.timestamp if first is None else first, item.timestamp
        (last_crc,) = struct.unpack_from("<I", data, after - 4)
        offset = after
    if data[offset:].count(0) != len(data) - offset:
        damaged = True
        complain(offset, "something other than zeros follows the last record")
    return Segment(header, offset, last_crc, first, last, damaged)


def check_chain(segments, complain):
    """Compares what each log segment says of the one before it with that one. Returns how many could be compared."""
    compared = 0
    for name, segment in segments.items():
        header = segment.header
        before = f"{header.before:010}.log"
        if header.flags & COMPACTION_OUTPUT or before not in segments:
            continue  # outputs are outside the chain; the segment before may have been compacted away
        other = segments[before]
        if other.header.flags & COMPACTION_OUTPUT:
            complain(name, 0, f"{before}, named as the one before, is a compaction output")
        elif (other.end, other.last_crc) != (header.before_length, header.before_crc):
            complain(name, 0, f"{before} ends at {other.end} with CRC {other.last_crc or 0:08x}, not as said here, "
                              f"at {header.before_length} with CRC {header.before_crc:08x}")
        if segment.first is not None and other.last is not None and segment.first <= other.last:
            complain(name, 0, f"timestamps are not above those of {before}")
        compared += 1
    return compared


def segment_paths(path):
    if not os.path.isdir(path):
        return [path]
    return [os.path.join(path, name) for name in sorted(os.listdir(path)) if re.fullmatch(r"\d{10,}\.log", name)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="a database directory, or one segment of it")
    parser.add_argument("--check", action="store_true", help="print counts only")
    options = parser.parse_args()
    counts = dict.fromkeys(("segments", "records", "tombstones", "sync marks", "bytes", "faults"), 0)

    def complain(name, offset, what):
        counts["faults"] += 1
        print(f"{name}: offset {offset}: {what}", file=sys.stderr)

    def show(name, item):
        if isinstance(item, Mark):
            counts["sync marks"] += 1
            text = f"sync mark: everything before offset {item.synced} has been synced"
        else:
            counts["records"] += 1
            counts["tombstones"] += item.value is None
            value = "tombstone" if item.value is None else f"{len(item.value)} bytes"
            text = f"{item.timestamp} {repr(item.key)[1:]} {value}{' (batch)' if item.batch else ''}"
        if not options.check:
            print(f"{name} {item.offset:>10} {text}")

    segments = {}
    for path in segment_paths(options.path):
        name = os.path.basename(path)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        segment = read_segment(data, lambda item: show(name, item), lambda *fault: complain(name, *fault))
        counts["segments"] += 1
        if segment:
            segments[name] = segment
            counts["bytes"] += segment.end or 0
            if os.path.isdir(options.path) and name != f"{segment.header.id:010}.log":
                complain(name, 0, f"this is segment {segment.header.id}, under a false name")
    compared = check_chain(segments, complain)
    print(", ".join(f"{count} {what}" for what, count in counts.items()) + f", {compared} links of the chain checked")
    return 1 if counts["faults"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        sys.exit((print(error, file=sys.stderr), 2)[1])
