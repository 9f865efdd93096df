"""docker-py: events and the lists of things."""

import sys
import threading
import time

import docker

name = sys.argv[1]
client = docker.from_env()

seen = []
events = client.events(decode=True, filters={"type": "container", "container": name})


def collect():
    for event in events:
        seen.append(event["Action"])
        if event["Action"] == "destroy":
            return


thread = threading.Thread(target=collect)
thread.start()
time.sleep(0.3)
container = client.containers.create("busybox", "true", name=name, labels={"l": name})
container.start()
container.wait()
print_listed = [c.name for c in client.containers.list(all=True, filters={"label": f"l={name}"})] == [name]
container.remove()
thread.join(10)
print("events", [action for action in seen if action != "attach"])
print("listed", print_listed)
print("images", any("busybox:latest" in image.tags for image in client.images.list()))
volume = client.volumes.create(f"{name}-v", labels={"a": "b"})
volumes = [v.name for v in client.volumes.list(filters={"label": "a=b"})]
volume.remove()
print("volumes", volumes == [f"{name}-v"])
print("networks", sorted(n.name for n in client.networks.list() if n.name in ("bridge", "host", "none")))
print("ping", client.ping())
print("version", "ApiVersion" in client.version())
print("info", client.info()["OSType"])
