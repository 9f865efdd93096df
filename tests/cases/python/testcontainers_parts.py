"""What tests do with testcontainers: publish, wait, run commands, share a network, throw away. Argument: a name."""

import sys
import time
import urllib.request

from testcontainers.core.config import testcontainers_config

# Ryuk, which removes what is left over, wants the engine's socket; the context managers below remove it themselves.
testcontainers_config.ryuk_disabled = True

from testcontainers.core.container import DockerContainer  # noqa: E402
from testcontainers.core.network import Network  # noqa: E402
from testcontainers.core.waiting_utils import wait_for_logs  # noqa: E402

NAME = sys.argv[1]
SERVER = "sh -c 'mkdir /www; echo page >/www/index.html; echo serving as $ROLE; exec httpd -f -p 8080 -h /www'"


def fetch(url):
    """The page at a URL, as soon as it is there."""
    for _ in range(100):
        try:
            return urllib.request.urlopen(url, timeout=5).read()
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(url)


def server():
    """A container that serves a page at port 8080."""
    return DockerContainer("busybox").with_command(SERVER).with_exposed_ports(8080).with_env("ROLE", "server")


with server().with_name(f"{NAME}-server") as container:
    wait_for_logs(container, "serving as server", timeout=30)
    url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(8080)}/"
    print("published", fetch(url))
    print("exec", *container.exec(["sh", "-c", "echo inside; exit 4"]))
    print("logs", container.get_logs())
    wrapped = container.get_wrapped_container()
    wrapped.reload()
    print("status", wrapped.status)
    labels = sorted(label for label in wrapped.labels if label.startswith("org.testcontainers"))
    print("labels", labels)

with Network() as network:
    alias = server().with_network(network).with_network_aliases("page")
    with alias as provider:
        wait_for_logs(provider, "serving", timeout=30)
        with DockerContainer("busybox").with_network(network).with_command("sleep 1000") as consumer:
            # Debian's static busybox resolves names in nslookup only.
            address = consumer.exec(["sh", "-c", "nslookup page | sed -n 's/^Address: //p' | head -n 1"]).output
            url = f"http://{address.decode().strip()}:8080/"
            print("by name", *consumer.exec(["wget", "-q", "-O", "-", url]))

with DockerContainer("busybox", user="nobody", working_dir="/tmp", mem_limit="64m").with_tmpfs_mount(
    "/scratch", "size=1m"
).with_volume_mapping("/etc/hostname", "/given", "ro").with_command(
    "sh -c 'id -un; pwd; mount | grep -c /scratch; test -s /given && echo given; echo ready; sleep 1000'"
) as container:
    wait_for_logs(container, "ready", timeout=30)
    print("options", container.get_logs()[0])

client = container.get_docker_client().client
print("left over", len(client.containers.list(all=True, filters={"name": NAME})))
