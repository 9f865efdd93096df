"""A test with a container, a network and a volume that is killed before it can clean up. Arguments: a name, an image in
Ryuk's place, the engine's socket."""

import os
import signal
import sys

NAME, IMAGE, SOCKET = sys.argv[1:]
os.environ["RYUK_CONTAINER_IMAGE"] = IMAGE
os.environ["TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE"] = SOCKET

from testcontainers.core.container import DockerContainer  # noqa: E402
from testcontainers.core.labels import LABEL_SESSION_ID, SESSION_ID  # noqa: E402
from testcontainers.core.network import Network  # noqa: E402

network = Network().create()
container = DockerContainer("busybox").with_command("sleep 1000").with_network(network).with_name(f"{NAME}-left").start()
client = container.get_docker_client().client
client.volumes.create(f"{NAME}-left", labels={LABEL_SESSION_ID: SESSION_ID})
wanted = {"label": f"{LABEL_SESSION_ID}={SESSION_ID}"}
found = client.containers.list(filters=wanted), client.networks.list(filters=wanted), client.volumes.list(filters=wanted)
print("labelled", *map(len, found))
print("reaped by", container.get_docker_client().client.containers.get(f"testcontainers-ryuk-{SESSION_ID}").status)
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
