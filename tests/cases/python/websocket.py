"""Attaching by WebSocket (RFC 6455), spoken by hand: what is typed reaches the program, what it prints comes back."""

import base64
import hashlib
import os
import socket
import struct
import sys

container = sys.argv[1]
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(60)
connection.connect(os.environ["DOCKER_HOST"].removeprefix("unix://"))


def request(key):
    connection.sendall(
        f"GET /v1.41/containers/{container}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1&logs=1 HTTP/1.1\r\n"
        "Host: docker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://docker\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )


def send(operation, payload):
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    connection.sendall(bytes([0x80 | operation, 0x80 | len(payload)]) + mask + masked)


buffer = b""


def take(count):
    global buffer
    while len(buffer) < count:
        piece = connection.recv(4096)
        if not piece:
            raise EOFError
        buffer += piece
    taken, buffer = buffer[:count], buffer[count:]
    return taken


def receive():
    first, second = take(2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", take(2))
    elif length == 127:
        (length,) = struct.unpack(">Q", take(8))
    return first & 0xF, take(length)


key = base64.b64encode(os.urandom(16)).decode()
request(key)
head = b""
while not head.endswith(b"\r\n\r\n"):
    head += take(1)
guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
accept = base64.b64encode(hashlib.sha1((key + guid).encode()).digest())
print("accepted", head.startswith(b"HTTP/1.1 101") and accept in head)

send(1, b"typed\n")
output = b""
while b"heard typed" not in output:
    operation, payload = receive()
    output += payload
print(operation in (1, 2), sorted(output.decode().split("\n"))[1:])
send(2, b"end\n")
try:
    while receive()[0] != 8:
        pass
except EOFError:
    pass
print("closed")
