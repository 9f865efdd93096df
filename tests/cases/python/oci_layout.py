"""Turns a docker-archive with one layer into an OCI image layout, the layer compressed."""

import gzip
import hashlib
import io
import json
import sys
import tarfile

source, target, name = sys.argv[1:]
with tarfile.open(source) as archive:
    files = {member.name: archive.extractfile(member).read() for member in archive}
entry = json.loads(files["manifest.json"])[0]
blobs = {}


def blob(content, media_type):
    digest = hashlib.sha256(content).hexdigest()
    blobs[f"blobs/sha256/{digest}"] = content
    return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(content)}


manifest = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": blob(files[entry["Config"]], "config.v1+json"),
    "layers": [blob(gzip.compress(files[layer]), "layer.v1.tar+gzip") for layer in entry["Layers"]],
}
described = blob(json.dumps(manifest).encode(), "manifest.v1+json")
described["annotations"] = {"io.containerd.image.name": f"docker.io/library/{name}", "org.opencontainers.image.ref.name": name.split(":")[1]}
blobs["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [described]}).encode()
with tarfile.open(target, "w") as out:
    for path, content in blobs.items():
        member = tarfile.TarInfo(path)
        member.size = len(content)
        out.addfile(member, io.BytesIO(content))
