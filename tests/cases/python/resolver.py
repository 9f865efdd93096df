"""A name server, by UDP and TCP: resolver.py ADDRESS. Any name has the address 192.0.2.77, `large.test` two hundred of
them (which only TCP carries), `edns.test` sixty (which UDP carries for who says that it takes them), `nowhere.test` and
names without a dot do not exist, `broken.test` fails, and 192.0.2.77 is `some.name.test`."""

import socket
import struct
import sys
import threading


def answer(query, limit):
    end = query.index(0, 12) + 5
    name = b".".join(read_labels(query[12 : end - 5])).decode().lower()
    is_address = query[end - 4 : end - 2] == b"\0\1"
    code = {"nowhere.test": 3, "broken.test": 2}.get(name, 0 if "." in name else 3)
    count = {"large.test": 200, "edns.test": 60}.get(name, 1) if is_address and not code else 0
    fits = min(count, (limit - end) // 16)
    if query[end - 4 : end - 2] == b"\0\x0c" and name == "77.2.0.192.in-addr.arpa":
        pointer = b"\4some\4name\4test\0"
        return query[:2] + struct.pack(">5H", 0x8180, 1, 1, 0, 0) + query[12:end] + b"\xc0\x0c" + struct.pack(
            ">HHIH", 12, 1, 60, len(pointer)
        ) + pointer
    record = lambda last: b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([192, 0, 2, last % 256])
    flags = 0x8180 | code | (0x200 if fits < count else 0)
    return query[:2] + struct.pack(">5H", flags, 1, fits, 0, 0) + query[12:end] + b"".join(
        record(77 + number) for number in range(fits)
    )


def read_labels(text):
    while text:
        yield text[1 : 1 + text[0]]
        text = text[1 + text[0] :]


def by_datagrams(server):
    while True:
        query, client = server.recvfrom(4096)
        end = query.index(0, 12) + 5
        limit = struct.unpack_from(">H", query, end + 3)[0] if query[10:12] == b"\0\1" else 512
        server.sendto(answer(query, limit), client)


def by_streams(server):
    while True:
        client, _ = server.accept()
        with client:
            head = client.recv(2, socket.MSG_WAITALL)
            if len(head) < 2:
                continue
            length = struct.unpack(">H", head)[0]
            found = answer(client.recv(length, socket.MSG_WAITALL), 65535)
            client.sendall(struct.pack(">H", len(found)) + found)


datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind((sys.argv[1], 53))
streams = socket.create_server((sys.argv[1], 53))
threading.Thread(target=by_datagrams, args=[datagrams], daemon=True).start()
by_streams(streams)
