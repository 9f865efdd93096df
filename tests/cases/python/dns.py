"""A name server on 127.0.0.11 that knows one answer: 192.0.2.77 for every name."""

import socket

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.11", 53))
while True:
    query, client = server.recvfrom(512)
    end = query.index(0, 12) + 5
    question = query[12:end]
    is_address = question[-4:-2] == b"\x00\x01"
    answer = b"\xc0\x0c" + question[-4:] + (60).to_bytes(4, "big") + b"\x00\x04" + bytes([192, 0, 2, 77])
    head = query[:2] + b"\x81\x80\x00\x01" + (b"\x00\x01" if is_address else b"\x00\x00") + b"\x00\x00\x00\x00"
    server.sendto(head + question + (answer if is_address else b""), client)
