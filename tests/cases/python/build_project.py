"""The project of build_project.case by docker-py and testcontainers. Arguments: folder, Dockerfile, proxy, a name."""

import sys

import docker
from testcontainers.core.config import testcontainers_config

# Ryuk wants the engine's socket; the context managers below remove what is left over themselves.
testcontainers_config.ryuk_disabled = True

from testcontainers.core.container import DockerContainer  # noqa: E402
from testcontainers.core.image import DockerImage  # noqa: E402
from testcontainers.core.waiting_utils import wait_container_is_ready  # noqa: E402,F401

FOLDER, DOCKERFILE, PROXY, NAME = sys.argv[1:]

client = docker.from_env(timeout=600)
image, lines = client.images.build(
    path=FOLDER,
    dockerfile=DOCKERFILE,
    tag=NAME,
    buildargs={"http_proxy": PROXY, "GREETING": "salut"},
    labels={"by": "docker-py"},
    rm=True,
)
said = "".join(line.get("stream", "") for line in lines)
print("steps", said.startswith("Step 1/"), f"Successfully tagged {NAME}:latest" in said)
print("image", f"{NAME}:latest" in image.tags, image.labels["by"], image.attrs["Config"]["User"])
print("runs", client.containers.run(NAME, "py", remove=True))
client.images.remove(NAME)

try:
    client.images.build(path=FOLDER, dockerfile=DOCKERFILE, target="nowhere")
except docker.errors.APIError as error:
    print("refused", "nowhere" in str(error))
except docker.errors.BuildError as error:
    print("refused", "nowhere" in str(error))

with DockerImage(
    path=FOLDER, dockerfile_path=DOCKERFILE, tag=f"{NAME}-tests:latest", buildargs={"http_proxy": PROXY}, docker_client_kw={"timeout": 600}
) as image:
    with DockerContainer(str(image)).with_command("tests") as container:
        print("ended", container.get_wrapped_container().wait()["StatusCode"])
        print("logs", container.get_logs()[0])
