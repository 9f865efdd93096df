"""docker-py: a container from its making to its end."""

import sys

import docker

name = sys.argv[1]
client = docker.from_env()
container = client.containers.create("busybox", ["sh", "-c", "echo started; exec sleep 1000"], name=name)


def status():
    container.reload()
    return container.status


print(status())
container.start()
print(status())
container.pause()
print(status())
container.unpause()
print(status())
print("exec", container.exec_run(["sh", "-c", "echo out; sleep 0.1; echo err >&2; exit 5"]))
print("exec apart", container.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True).output)
print("exec stream", list(container.exec_run(["sh", "-c", "echo 1; sleep 0.2; echo 2"], stream=True).output))
result = container.exec_run(["sh", "-c", "echo $A $PWD $(id -un)"], environment={"A": "v"}, workdir="/tmp", user="nobody")
print("exec environment", result.output)
print("top", len(container.top()["Processes"]))
print("logs", container.logs())
before = container.attrs["State"]["StartedAt"]
container.restart(timeout=0)
container.reload()
print("restarted", container.attrs["State"]["StartedAt"] > before)
container.stop(timeout=0)
print(status(), container.attrs["State"]["ExitCode"])
container.remove()
try:
    client.containers.get(name)
except docker.errors.NotFound:
    print("gone")
