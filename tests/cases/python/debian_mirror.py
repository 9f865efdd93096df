"""A proxy for apt in containers: debian_mirror.py NETNS ADDRESS PORT.

It listens in the network NETNS, which has no way out, and asks for http://deb.debian.org/debian in the network that it was
started in: at the mirror that this machine has, by the proxy that this machine has."""

import ctypes
import http.server
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

DEBIAN = "http://deb.debian.org/debian/"
PASSED_ON = ["Content-Type", "Content-Length", "Content-Range", "Last-Modified", "ETag", "Accept-Ranges"]


def output(*words):
    return subprocess.run(words, capture_output=True, text=True).stdout.split()


def machine():
    """The mirror, and the proxies, where the environment does not name them."""
    mirrors = output("apt-get", "indextargets", "--format", "$(REPO_URI)", "Label: Debian", "Component: main")
    proxies = output("apt-config", "--format", "%v", "dump", "Acquire::http::Proxy")
    if proxies and not urllib.request.getproxies():
        os.environ["http_proxy"] = proxies[0]
    return mirrors[0] if mirrors else DEBIAN


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if not self.path.startswith(DEBIAN):
            return self.send_error(403)
        asked = {name: self.headers[name] for name in ["Range", "If-Range", "If-Modified-Since"] if name in self.headers}
        try:
            request = urllib.request.Request(MIRROR + self.path.removeprefix(DEBIAN), headers=asked)
            answer = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        self.send_response(answer.status)
        for name in PASSED_ON:
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        self.end_headers()
        shutil.copyfileobj(answer, self.wfile)


def listen(netns, address, port):
    """A server whose socket is in another network than this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as here, open(netns) as there:
        for namespace in (there, here):
            if libc.setns(namespace.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), f"cannot enter {namespace.name}")
            if namespace is there:
                server = http.server.ThreadingHTTPServer((address, port), Handler)
    return server


MIRROR = machine()
listen(sys.argv[1], sys.argv[2], int(sys.argv[3])).serve_forever()
