"""A small HTTP proxy: proxy.py PORT [--stall BYTES]. Prints each request's target and credential, a line each.

With --stall, an answer to a plain request that is longer than BYTES stops there until a file `go` appears."""

import os
import socket
import sys
import threading
import time
from urllib.parse import urlsplit

STALL = int(sys.argv[3]) if len(sys.argv) > 3 else None


def head_of(stream):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        if not byte:
            return None
        head += byte
    return head.decode()


def pass_on(source, target, stall=None):
    passed = 0
    try:
        while piece := source.recv(65536):
            passed += len(piece)
            while stall is not None and passed > stall and not os.path.exists("go"):
                time.sleep(0.05)
            target.sendall(piece)
    except OSError:
        pass
    for stream in (source, target):
        try:
            stream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(client):
    head = head_of(client)
    if head is None:
        return
    method, target, _ = head.split("\r\n", 1)[0].split(" ")
    lines = [line for line in head.split("\r\n")[1:] if line]
    credential = next((line.split(": ", 1)[1] for line in lines if line.lower().startswith("proxy-authorization:")), "none")
    if method == "CONNECT":
        print(method, target, credential, flush=True)
        host, port = target.rsplit(":", 1)
        server = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    else:
        place = urlsplit(target)
        print(method, place.path, credential, flush=True)
        server = socket.create_connection((place.hostname, place.port or 80))
        path = place.path + ("?" + place.query if place.query else "")
        kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
        server.sendall("\r\n".join([f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]).encode())
    threading.Thread(target=pass_on, args=(client, server), daemon=True).start()
    pass_on(server, client, STALL)


def main():
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()


main()
