"""UDP from one side or the other: `udp.py serve PORT` tells each caller the address that it is seen with,
`udp.py ask ADDRESS PORT` asks once and prints that."""

import socket
import sys


def serve(port):
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    while True:
        _, caller = server.recvfrom(65536)
        server.sendto(caller[0].removeprefix("::ffff:").encode(), caller)


def ask(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.connect((address, port))
        client.send(b"who am I?")
        print(client.recv(65536).decode())


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    try:
        ask(sys.argv[2], int(sys.argv[3]))
    except OSError as error:
        sys.exit(f"no answer: {error}")
