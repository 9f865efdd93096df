"""Puts the image of an archive, as `docker save` writes it, into a registry: push.py ARCHIVE HOST:PORT NAME:TAG.

The registry answers by plain HTTP and asks for no credentials."""

import gzip
import hashlib
import http.client
import json
import sys
import tarfile

CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def request(host, method, path, body=None, kind="application/octet-stream"):
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request(method, path, body=body, headers={"Content-Type": kind})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 300:
        sys.exit(f"{method} {path}: {answer.status} {text!r}")
    return answer


def upload(host, name, content, kind):
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    place = request(host, "POST", f"/v2/{name}/blobs/uploads/").getheader("Location")
    path = place.split(host, 1)[1] if place.startswith("http") else place
    request(host, "PUT", f"{path}{'&' if '?' in path else '?'}digest={digest}", content)
    return {"mediaType": kind, "size": len(content), "digest": digest}


def main(archive, host, reference):
    name, tag = reference.rsplit(":", 1)
    with tarfile.open(archive) as members:
        read = lambda member: members.extractfile(member).read()
        image = json.loads(read("manifest.json"))[0]
        layers = [upload(host, name, gzip.compress(read(layer), mtime=0), LAYER) for layer in image["Layers"]]
        config = upload(host, name, read(image["Config"]), CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    request(host, "PUT", f"/v2/{name}/manifests/{tag}", json.dumps(manifest), MANIFEST)


main(*sys.argv[1:])
