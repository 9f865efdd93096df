"""docker-py: everything that stays open."""

import sys
import time

import docker

name = sys.argv[1]
client = docker.from_env()
count = ["sh", "-c", "for i in 0 1 2; do echo $i; sleep 0.3; done"]

container = client.containers.run("busybox", count, name=f"{name}-logs", detach=True)
print("logs", b"".join(container.logs(stream=True, follow=True)).decode().split())
container.remove(force=True)

container = client.containers.create("busybox", count, name=f"{name}-attach")
stream = container.attach(stream=True, stdout=True, stderr=True, logs=True)
container.start()
print("attach", b"".join(stream))
container.remove(force=True)


def read_frames(connection, wanted):
    """Takes frames apart (8 bytes of head, then the payload) until `wanted` bytes of payload are there."""
    raw, payload = b"", b""
    while len(payload) < wanted:
        chunk = connection._sock.recv(4096)
        if not chunk:
            break
        raw += chunk
        while len(raw) >= 8 and len(raw) >= 8 + int.from_bytes(raw[4:8], "big"):
            size = int.from_bytes(raw[4:8], "big")
            payload, raw = payload + raw[8 : 8 + size], raw[8 + size :]
    return payload


container = client.containers.create(
    "busybox", ["sh", "-c", 'read line; echo "heard $line"'], name=f"{name}-socket", stdin_open=True
)
connection = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
container.start()
connection._sock.sendall(b"hello\n")
print("socket", read_frames(connection, len("heard hello\n")))
connection.close()
container.remove(force=True)

container = client.containers.create("busybox", "sh", name=f"{name}-terminal", stdin_open=True, tty=True)
connection = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
container.start()
connection._sock.sendall(b"echo typed\n")
seen = b""
while b"echo typed" not in seen:
    seen += connection._sock.recv(4096)
print("terminal", b"echo typed")
connection.close()
container.remove(force=True)

container = client.containers.run("busybox", "sleep 1000", name=f"{name}-exec", detach=True)
_, connection = container.exec_run(["tr", "a-z", "A-Z"], stdin=True, socket=True)
connection._sock.sendall(b"hello")
time.sleep(0.2)
connection._sock.shutdown(1)
print("exec socket", read_frames(connection, 5))
connection.close()
container.remove(force=True)
