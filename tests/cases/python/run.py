"""docker-py: containers.run in its forms."""

import sys

import docker

name = sys.argv[1]
client = docker.from_env()
print(client.containers.run("busybox", "echo hello", remove=True))
print(client.containers.run("busybox", ["sh", "-c", "echo out; sleep 0.1; echo err >&2"], stderr=True, remove=True))
try:
    client.containers.run("busybox", ["sh", "-c", "exit 3"], remove=True)
except docker.errors.ContainerError as error:
    print("ContainerError", error.exit_status)
try:
    client.api.create_container("nosuchimage")
except docker.errors.ImageNotFound:
    print("ImageNotFound")
container = client.containers.run("busybox", "true", name=name, detach=True)
status = container.wait()
container.reload()
print("detached", container.status, status["StatusCode"])
container.remove()
