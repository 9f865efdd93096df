"""Writes an image archive whose layer tries to reach outside of its folder, by the kind named first."""

import hashlib
import io
import json
import sys
import tarfile

kind, source, target, name, *victim = sys.argv[1:]
victim = victim[0] if victim else "/tmp"
with tarfile.open(source) as archive:
    files = {member.name: archive.extractfile(member).read() for member in archive}
entry = json.loads(files["manifest.json"])[0]
base = files[entry["Layers"][0]]


def member(path, content=b"evil\n", **fields):
    info = tarfile.TarInfo(path)
    for field, value in fields.items():
        setattr(info, field, value)
    info.size = len(content) if info.isreg() else 0
    return info, io.BytesIO(content)


up = "../" * 40
kinds = {
    "wrong-digest": [],
    "dotdot": [member(f"{up}{victim[1:]}/victim"), member(f"x/{up}{victim[1:]}/new")],
    "absolute": [member(f"{victim}/victim"), member(f"{victim}/new")],
    "symlink": [
        member("trap", type=tarfile.SYMTYPE, linkname=victim),
        member("trap/victim"),
        member("far", type=tarfile.SYMTYPE, linkname=f"{up}{victim[1:]}"),
        member("far/new"),
    ],
    "hardlink": [
        member("link", type=tarfile.LNKTYPE, linkname=f"{victim}/victim"),
        member("link"),
        member("other", type=tarfile.LNKTYPE, linkname=f"{up}{victim[1:]}/victim"),
        member("other"),
    ],
    "whiteout": [
        member("trap", type=tarfile.SYMTYPE, linkname=victim),
        member("trap/.wh.victim", b""),
        member("trap/.wh..wh..opq", b""),
        member(f"{up}{victim[1:]}/.wh.victim", b""),
    ],
    "device": [member("disk", type=tarfile.BLKTYPE, devmajor=8, devminor=0, mode=0o666)],
}
layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w") as out:
    with tarfile.open(fileobj=io.BytesIO(base)) as inner:
        for info in inner:
            out.addfile(info, inner.extractfile(info) if info.isreg() else None)
    for info, content in kinds[kind]:
        out.addfile(info, content if info.isreg() else None)
layer = layer.getvalue()
config = json.loads(files[entry["Config"]])
digest = hashlib.sha256(layer if kind != "wrong-digest" else b"something else").hexdigest()
config["rootfs"]["diff_ids"] = [f"sha256:{digest}"]
config = json.dumps(config).encode()
config_name = hashlib.sha256(config).hexdigest() + ".json"
manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
with tarfile.open(target, "w") as out:
    for path, content in [(config_name, config), ("layer.tar", layer), ("manifest.json", manifest)]:
        info, stream = member(path, content)
        out.addfile(info, stream)
