"""Asks 127.0.0.11 and prints what comes: ask.py NAME [TYPE] [tcp] [edns].

One line: the code, `truncated` where the answer is cut off, then the records, sorted; more than four are counted."""

import random
import socket
import struct
import sys

TYPES = {"A": 1, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28}
CODES = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}


def question(name, kind, edns):
    head = struct.pack(">6H", random.randrange(65536), 0x0100, 1, 0, 0, int(edns))
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    extra = b"\0" + struct.pack(">HHIH", 41, 4096, 0, 0) if edns else b""
    return head + labels + b"\0" + struct.pack(">HH", TYPES[kind], 1) + extra


def read_name(message, at):
    labels, end = [], None
    while message[at]:
        if message[at] >= 0xC0:
            end = end or at + 2
            at = struct.unpack_from(">H", message, at)[0] & 0x3FFF
        else:
            labels.append(message[at + 1 : at + 1 + message[at]].decode())
            at += 1 + message[at]
    return ".".join(labels), end or at + 1


def records(message):
    at = read_name(message, 12)[1] + 4
    for _ in range(struct.unpack_from(">H", message, 6)[0]):
        at = read_name(message, at)[1]
        kind, _, _, length = struct.unpack_from(">HHIH", message, at)
        at += 10
        data = message[at : at + length]
        if kind in (1, 28):
            yield socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, data)
        elif kind == 12:
            yield read_name(message, at)[0]
        at += length


def ask(message, stream):
    if not stream:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            client.connect(("127.0.0.11", 53))
            client.send(message)
            return client.recv(65536)
    with socket.create_connection(("127.0.0.11", 53), timeout=10) as client:
        client.sendall(struct.pack(">H", len(message)) + message)
        answer = b""
        while len(answer) < 2 or len(answer) < 2 + struct.unpack_from(">H", answer)[0]:
            answer += client.recv(65536) or sys.exit("the connection ended early")
        return answer[2:]


def main(name, *words):
    kind = next((word for word in words if word in TYPES), "A")
    answer = ask(question(name, kind, "edns" in words), "tcp" in words)
    flags = struct.unpack_from(">H", answer, 2)[0]
    found = sorted(records(answer))
    said = [CODES.get(flags & 15, flags & 15)] + ["truncated"] * bool(flags & 0x200)
    print(*said, *(found if len(found) <= 4 else [len(found), "records"]))


main(*sys.argv[1:])
