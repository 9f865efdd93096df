"""Sends the first half of a create request, and hangs up."""

import socket
import sys

path, name = sys.argv[1:]
body = b'{"Image": "busybox", "Cmd": ["true"]'
head = (
    f"POST /containers/create?name={name} HTTP/1.1\r\nHost: docker\r\n"
    f"Content-Type: application/json\r\nContent-Length: {len(body) + 100}\r\n\r\n"
)
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
connection.sendall(head.encode() + body)
connection.shutdown(socket.SHUT_WR)
connection.settimeout(10)
while connection.recv(4096):
    pass
print("connection closed")
