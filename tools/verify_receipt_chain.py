#!/usr/bin/env python3
"""Checks an export of receipts against docs/receipts.md, and against nothing else.

Owns: a second, independent reading of the public format. Refuses to know: the service, its
store and its code. Needs Python 3.8 or newer and its standard library.

    verify_receipt_chain.py [--sum] [FILE]      FILE absent or "-": standard input

Exit codes: 0 verified, 1 not verified, 2 bad usage or not an export.
"""

import argparse
import datetime
import hashlib
import json
import re
import sys

RECEIPT_BYTES = 16 * 1024
LINE_BYTES = RECEIPT_BYTES + 512
INTEGER_MAX = 2**53 - 1
GENESIS = "0" * 64
NO_RECEIPT_AT = "1970-01-01T00:00:00.000000Z"

PRESENT = "All receipts present"
UNBROKEN = "Chain is unbroken (all hashes match)"
UNIQUE = "No duplicates found"
ORDERED = "Timestamps in order"
VERDICTS = (PRESENT, UNBROKEN, UNIQUE, ORDERED)

FIELDS = {
    "action": str, "actor": str, "amount": int, "at": str, "chain_hash": str, "commitment": str,
    "currency": str, "detail": str, "effective_at": int, "entitlement_id": str,
    "expires_at": int, "hash": str, "id": str, "idem": str, "intent": str, "metadata": dict,
    "prev_hash": str, "reason": str, "rule": str, "seq": int, "state_from": str,
    "state_to": str, "status": str, "stream": str, "subject": str, "tenant_id": str,
    "timestamp": int, "type": str, "v": int,
}
REQUIRED = frozenset(
    "action at chain_hash hash id prev_hash seq stream timestamp type v".split())
TYPES = frozenset(("transition", "refusal", "action_attempt", "action_result"))

is_hash = re.compile(r"sha256:[0-9a-f]{64}").fullmatch
is_id = re.compile(r"rcpt_[0-9a-f]{32}").fullmatch
is_ledger = re.compile(r"[0-9a-f]{32}").fullmatch
is_key = re.compile(r"[A-Za-z0-9_.-]+").fullmatch
is_stream = re.compile(r"_?[A-Za-z0-9][A-Za-z0-9._:@+-]{0,255}(~[0-9a-f]{16})?").fullmatch
is_seq = re.compile(rb"0|[1-9][0-9]{0,15}").fullmatch
is_instant = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z"
).fullmatch
permitted_escapes = re.compile(r'\\["\\]')

EPOCH = datetime.datetime(1970, 1, 1)
SECOND = datetime.timedelta(seconds=1)


class Refused(ValueError):
    """These bytes are not what the format allows."""


class NotAnExport(Exception):
    """The first line is no header, so there is nothing to check."""


def refuse(*_):
    raise Refused("a float or an unknown word")


def no_twins(pairs):
    """A dict keeps the last of two equal keys without a word; the format has none."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refused("a key stands twice")
    return found


decode = json.JSONDecoder(
    object_pairs_hook=no_twins, parse_float=refuse, parse_constant=refuse).decode
encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def canonical_object(line):
    """One line as an object, if its bytes are the only ones that this object can have."""
    if len(line) > LINE_BYTES:
        raise Refused("the line is too long")
    try:
        text = line.decode("utf-8")
        found = decode(text)
        again = encode(found)
    except Refused:
        raise
    except (ValueError, RecursionError):
        raise Refused("not JSON in UTF-8") from None
    if type(found) is not dict:
        raise Refused("not an object")
    # Order is checked apart: the encoder keeps the order that it is given.
    if again != text:
        raise Refused("not written in the canonical way")
    if "\\" in text and "\\" in permitted_escapes.sub("", text):
        raise Refused("a forbidden escape")
    return found


def in_order(keys):
    keys = list(keys)
    return keys == sorted(keys)


def check_integer(value):
    if not -INTEGER_MAX <= value <= INTEGER_MAX:
        raise Refused("an integer out of range")


def check_metadata(entries):
    if not entries or not in_order(entries):
        raise Refused("metadata is empty or out of order")
    for key, value in entries.items():
        if not is_key(key):
            raise Refused("a metadata key outside the permitted set")
        if type(value) is int:
            check_integer(value)
        elif type(value) not in (str, bool):
            raise Refused("a metadata value of another type")


def unix_seconds(instant):
    """Whole seconds since 1970 of a fixed-width instant."""
    if not is_instant(instant) or instant < NO_RECEIPT_AT:
        raise Refused("at is not an instant")
    try:
        return (datetime.datetime.fromisoformat(instant[:26]) - EPOCH) // SECOND
    except ValueError:
        raise Refused("at is not an instant") from None


def receipt(line):
    """A public receipt, checked on its own: its fields, and its core bytes under "core"."""
    found = canonical_object(line)
    if not in_order(found):
        raise Refused("fields are out of order")
    for key, value in found.items():
        if type(value) is not FIELDS.get(key):
            raise Refused("an unknown field or a value of another type")
        if type(value) is int:
            check_integer(value)
    if not REQUIRED <= found.keys():
        raise Refused("a required field is missing")
    stream = found["stream"]
    if found["v"] != 1 or found["type"] not in TYPES or found["seq"] < 0:
        raise Refused("unknown version or type, or a negative seq")
    if not is_stream(stream):
        raise Refused("stream is not a stream name")
    if found.get("tenant_id") != (None if stream[0] == "_" else stream.split("~")[0]):
        raise Refused("tenant_id does not agree with stream")
    if not is_id(found["id"]) or not is_id(found.get("intent", found["id"])):
        raise Refused("a malformed id")
    if not is_hash(found["hash"]) or not is_hash(found["chain_hash"]):
        raise Refused("a malformed hash")
    if found["prev_hash"] != GENESIS and not is_hash(found["prev_hash"]):
        raise Refused("a malformed prev_hash")
    if "metadata" in found:
        check_metadata(found["metadata"])
    found["seconds"] = unix_seconds(found["at"])
    public = ("hash", "chain_hash", "seconds")
    core = encode({k: v for k, v in found.items() if k not in public}).encode("utf-8")
    if len(core) > RECEIPT_BYTES:
        raise Refused("the receipt is too large")
    found["core"] = core
    return found


def claimed_place(line):
    """Where a refused line says it belongs, to name it by; (None, None) when it cannot be read.

    Behind the receipt's own seq and stream stand no objects, so the last mention is theirs.
    """
    unknown = (None, None)
    if len(line) > LINE_BYTES:
        return unknown
    name_at, seq_at = line.rfind(b',"stream":"'), line.rfind(b',"seq":')
    if name_at < 0 or seq_at < 0:
        return unknown
    name = line[name_at + 11:].partition(b'"')[0].decode("utf-8", "replace")
    digits = re.match(rb"[0-9]*", line[seq_at + 7:]).group()
    if not is_stream(name) or not is_seq(digits) or int(digits) > INTEGER_MAX:
        return unknown
    return name, int(digits)


def sha256(data):
    return hashlib.sha256(data).digest()


class Stream:
    """Where one stream stands."""

    __slots__ = ("next_seq", "last_hash", "last_at")

    def __init__(self):
        self.next_seq, self.last_hash, self.last_at = 0, GENESIS, NO_RECEIPT_AT


class Verifier:
    """Takes the lines of an export one by one. Memory grows with streams, not with receipts."""

    def __init__(self, header):
        self.ledger, self.scope, self.only = read_header(header)
        self.streams = {}
        self.lines = 0
        self.refused_before = False
        self.root = bytes(32)
        self.last_at = NO_RECEIPT_AT
        self.head = None
        self.behind = False
        self.first = {}
        self.count = dict.fromkeys(VERDICTS, 0)
        self.sums = {}

    def find(self, verdict, place, what):
        self.count[verdict] += 1
        self.first.setdefault(verdict, place + (what,))

    def push(self, line):
        if self.head is not None:
            if not self.behind:
                self.behind = True
                self.find(UNBROKEN, self.end(), "lines behind the trailer")
            return
        if line.startswith(b'{"head":'):
            self.head = self.read_trailer(line)
            if self.head is not None:
                return
        self.lines += 1
        try:
            found = receipt(line)
        except Refused as why:
            place = (self.lines,) + claimed_place(line)
            self.find(UNBROKEN, place, "not a canonical receipt: %s" % why)
            self.refused_before = True
            return
        self.check(found)

    def check(self, found):
        name, seq, at = found["stream"], found["seq"], found["at"]
        place = (self.lines, name, seq)
        whole = self.scope == "ledger"
        if whole and self.refused_before:
            self.find(PRESENT, place, "receipts are missing before this one")
        self.refused_before = False
        if not whole and name != self.only:
            self.find(UNBROKEN, place, "belongs to another stream")
        digest = bytes.fromhex(found["hash"][7:])
        if sha256(found["core"]) != digest:
            self.find(UNBROKEN, place, "hash does not match the bytes")
        self.root = sha256(self.root + digest)
        told = sha256(self.ledger + name.encode() + b"\0" + seq.to_bytes(8, "big"))
        if found["id"][5:] != told.hex()[:32]:
            self.find(UNBROKEN, place, "id does not follow from stream and seq")
        link = sha256(bytes.fromhex(found["prev_hash"][-64:]) + digest)
        if found["chain_hash"][7:] != link.hex():
            self.find(UNBROKEN, place, "chain_hash does not match")
        if found["timestamp"] != found["seconds"]:
            self.find(ORDERED, place, "timestamp and at disagree")
        if whole and at < self.last_at:
            self.find(ORDERED, place, "earlier than the receipt committed before")
        self.last_at = max(self.last_at, at)
        self.check_stream(self.streams.setdefault(name, Stream()), place, found)
        if found.get("status") == "completed" and "amount" in found:
            total, receipts = self.sums.get(found.get("currency", "-"), (0, 0))
            self.sums[found.get("currency", "-")] = total + found["amount"], receipts + 1

    def check_stream(self, stream, place, found):
        seq = found["seq"]
        if seq > stream.next_seq:
            self.find(PRESENT, place, "receipts of the stream are missing before this")
        elif seq < stream.next_seq:
            self.find(UNIQUE, place, "a position of the stream stands twice")
        elif found["prev_hash"] != stream.last_hash:
            self.find(UNBROKEN, place, "prev_hash is not the hash of the one before")
        if found["at"] < stream.last_at:
            self.find(ORDERED, place, "earlier than the receipt before it")
        # Goes on from what is there, so that one fault is not reported for ever after.
        stream.next_seq, stream.last_hash, stream.last_at = seq + 1, found["hash"], found["at"]

    def read_trailer(self, line):
        """The trailer's content, or None when the line is none of this scope."""
        try:
            outer = canonical_object(line)
            head = outer["head"]
            if list(outer) != ["head"] or type(head) is not dict:
                return None
            if self.scope == "ledger":
                wanted, number, digest = ["at", "root", "size"], "size", "root"
            else:
                wanted, number, digest = ["hash", "seq"], "seq", "hash"
            if list(head) != wanted or type(head[number]) is not int:
                return None
            if not 0 <= head[number] <= INTEGER_MAX or type(head[digest]) is not str:
                return None
            if number == "size" and type(head["at"]) is str:
                unix_seconds(head["at"])
            elif number == "size":
                return None
            none_yet = number == "seq" and head["hash"] == GENESIS
            return head if none_yet or is_hash(head[digest]) else None
        except Refused:
            return None

    def end(self):
        """The place behind the last receipt. In one stream it has a name."""
        if self.only is None:
            return self.lines + 1, None, None
        return self.lines + 1, self.only, self.streams.get(self.only, Stream()).next_seq

    def finish(self):
        if self.head is None:
            self.find(PRESENT, self.end(), "the trailer is missing: the export was interrupted")
        elif self.scope == "ledger":
            self.finish_count(self.lines, self.head["size"])
            if self.lines == self.head["size"]:
                if self.head["root"][7:] != self.root.hex():
                    self.find(UNBROKEN, self.end(), "the head has another root")
                if self.head["at"] != self.last_at:
                    self.find(ORDERED, self.end(), "the head has another time")
        else:
            stream = self.streams.get(self.only, Stream())
            self.finish_count(stream.next_seq, self.head["seq"])
            if stream.next_seq == self.head["seq"] and stream.last_hash != self.head["hash"]:
                self.find(UNBROKEN, self.end(), "the head has another hash")

    def finish_count(self, found, promised):
        if found < promised:
            self.find(PRESENT, self.end(), "the head counts more receipts than there are")
        elif found > promised:
            self.find(UNBROKEN, self.end(), "there are more receipts than the head counts")


def read_header(line):
    """Ledger id, scope and, for a stream, its name."""
    try:
        header = canonical_object(line)
    except Refused:
        raise NotAnExport from None
    keys = ["export", "ledger", "scope"]
    scope = header.get("scope")
    if scope == "stream":
        keys.append("stream")
    if list(header) != keys or scope not in ("ledger", "stream"):
        raise NotAnExport
    if type(header["export"]) is not int or header["export"] != 1:
        raise NotAnExport
    ledger, only = header["ledger"], header.get("stream")
    if type(ledger) is not str or not is_ledger(ledger):
        raise NotAnExport
    if scope == "stream" and (type(only) is not str or not is_stream(only)):
        raise NotAnExport
    return bytes.fromhex(ledger), scope, only


def lines_of(reader):
    """Lines without their LF. Of a line beyond the limit only enough is kept to refuse it."""
    while True:
        line = reader.readline(LINE_BYTES + 2)
        if not line:
            return
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = reader.readline(LINE_BYTES)
        yield line[:-1] if line.endswith(b"\n") else line


def spoken(verdict, finding, count):
    """One verdict as a line for people; finding is its first fault, or None."""
    if finding is None:
        return "✓ " + verdict
    pos, stream, seq, what = finding
    # The header is line 1, so the receipt at position n stands on line n + 1.
    place = "line %d" % (pos + 1)
    if stream is not None:
        place = "stream %s seq %d (%s)" % (stream, seq, place)
    more = "" if count == 1 else " (and %d more)" % (count - 1)
    return "✗ %s: %s: %s%s" % (verdict, place, what, more)


def run(reader, with_sum):
    """Reads an export from a binary reader, prints the verdicts, returns the exit code."""
    lines = lines_of(reader)
    try:
        verifier = Verifier(next(lines, b""))
    except NotAnExport:
        print("not an export: the first line is no header of version 1", file=sys.stderr)
        return 2
    for line in lines:
        verifier.push(line)
    verifier.finish()
    for verdict in VERDICTS:
        print(spoken(verdict, verifier.first.get(verdict), verifier.count[verdict]))
    if with_sum and verifier.first:
        print("no sum: the export is not verified")
    elif with_sum:
        for currency, (total, receipts) in sorted(verifier.sums.items()):
            # A currency is free text to the format; ascii() keeps a terminal safe from it.
            shown = currency if is_key(currency) else ascii(currency)
            print("sum %s %d minor units in %d receipts" % (shown, total, receipts))
    return 1 if verifier.first else 0


def main():
    parser = argparse.ArgumentParser(description="Checks an export of receipts.")
    parser.add_argument("file", nargs="?", default="-", help='an export; "-" is standard input')
    parser.add_argument("--sum", action="store_true",
                        help='also add up the amounts of receipts whose status is "completed"')
    options = parser.parse_args()
    sys.stdout.reconfigure(encoding="utf-8")
    try:
        if options.file == "-":
            if sys.stdin.isatty():
                parser.error("give a file, or an export on standard input")
            return run(sys.stdin.buffer, options.sum)
        with open(options.file, "rb") as reader:
            return run(reader, options.sum)
    except OSError as error:
        print("cannot read the export: %s" % error.strerror, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
