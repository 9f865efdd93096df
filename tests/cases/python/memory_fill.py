"""Makes containers with four megabytes of labels until the engine is gone; prints the ids that it acknowledged. Arguments:
a socket, a name."""

import http.client
import json
import socket
import sys

SOCKET, NAME = sys.argv[1:]
BODY = json.dumps({"Image": "busybox", "Labels": {"large": "x" * 4_000_000}})

for number in range(200):
    connection = http.client.HTTPConnection("docker", timeout=120)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(SOCKET)
        connection.request(
            "POST", f"/containers/create?name={NAME}-fill-{number}", BODY, {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        if answer.status == 201:
            print(json.loads(answer.read())["Id"], flush=True)
    except (OSError, http.client.HTTPException):
        break
