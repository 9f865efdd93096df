"""Much at once for an engine: long bodies, archives, and streams that nobody reads. Arguments: a socket, a name."""

import http.client
import io
import json
import socket
import sys
import tarfile
import threading

SOCKET, NAME = sys.argv[1:]
BUSY = f"{NAME}-1"


class Connection(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def __init__(self):
        super().__init__("docker", timeout=120)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(SOCKET)


def ask(method, path, body=None):
    """The status and the body of an answer."""
    connection = Connection()
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def open_stream(method, path, body=None):
    """A connection whose answer nobody reads."""
    connection = Connection()
    headers = {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp"} if body else {}
    connection.request(method, path, body, headers)
    return connection


def many(count, work):
    """What `work` gives, done at the same time so many times."""
    results, threads = [], []
    for number in range(count):
        threads.append(threading.Thread(target=lambda number=number: results.append(work(number))))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return sorted(set(results))


def long_body(_):
    """A create of nearly eight megabytes that is wrong in its last word."""
    body = '{"Image": "busybox", "Labels": {"long": "%s"}, "Cmd": 5}' % ("x" * 7_900_000)
    return ask("POST", "/containers/create", body)[0]


def archive(number):
    """A file of 40 megabytes into a container."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        entry = tarfile.TarInfo(f"file-{number}")
        entry.size = 40 << 20
        tar.addfile(entry, io.BytesIO(bytes(range(256)) * (40 << 12)))
    return ask("PUT", f"/containers/{BUSY}/archive?path=/tmp", content.getvalue())[0]


def unread_exec():
    """An exec that prints 40 megabytes to nobody."""
    command = {"AttachStdout": True, "Cmd": ["sh", "-c", "head -c 40000000 /dev/zero; touch /printed"]}
    identifier = json.loads(ask("POST", f"/containers/{BUSY}/exec", json.dumps(command))[1])["Id"]
    return open_stream("POST", f"/exec/{identifier}/start", "{}")


def events(_):
    """A container with labels of 200 kB, whose name changes again and again: each event has them."""
    body = json.dumps({"Image": "busybox", "Labels": {"large": "x" * 200_000}})
    _, answer = ask("POST", f"/containers/create?name={NAME}-labels", body)
    identifier = json.loads(answer)["Id"]
    for number in range(300):
        ask("POST", f"/containers/{identifier}/rename?name={NAME}-labels-{number}")
    return ask("DELETE", f"/containers/{identifier}")[0]


unread = [open_stream("GET", "/events?since=0") for _ in range(20)]
unread += [open_stream("GET", f"/containers/{NAME}-line/logs?stdout=1&follow=1") for _ in range(20)]
unread += [open_stream("GET", f"/containers/{BUSY}/export") for _ in range(10)]
unread += [unread_exec() for _ in range(5)]
print("long bodies", many(40, long_body))
print("archives", many(4, archive))
print("events", many(1, events))
print("containers", ask("GET", "/containers/json")[0])
