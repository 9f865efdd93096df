"""A web server of a directory that knows ETags and git: web.py PORT DIRECTORY. Prints each request's line and status.

Repositories (*.git below the directory) are served by git's own http-backend."""

import hashlib
import http.server
import os
import subprocess
import sys
from urllib.parse import urlsplit

ROOT = os.path.abspath(sys.argv[2])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, _, *args):
        print(args[0], args[1], flush=True)

    def git(self, body=b""):
        parts = urlsplit(self.path)
        environment = dict(
            os.environ,
            GIT_PROJECT_ROOT=ROOT,
            GIT_HTTP_EXPORT_ALL="1",
            GIT_CONFIG_COUNT="1",
            GIT_CONFIG_KEY_0="safe.directory",
            GIT_CONFIG_VALUE_0="*",
            PATH_INFO=parts.path,
            QUERY_STRING=parts.query,
            REQUEST_METHOD=self.command,
            CONTENT_TYPE=self.headers.get("Content-Type", ""),
            CONTENT_LENGTH=str(len(body)),
            GIT_PROTOCOL=self.headers.get("Git-Protocol", ""),
        )
        result = subprocess.run(["git", "http-backend"], env=environment, input=body, stdout=subprocess.PIPE, check=False)
        head, _, content = result.stdout.partition(b"\r\n\r\n")
        headers = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n") if line]
        status = next((int(value.split()[0]) for name, value in headers if name == "Status"), 200)
        self.answer(status, [header for header in headers if header[0] not in ("Status", "Content-Length")], content)

    def do_GET(self):
        if ".git/" in self.path:
            return self.git()
        path = os.path.join(ROOT, urlsplit(self.path).path.lstrip("/"))
        if not os.path.isfile(path):
            return self.answer(404, [], b"no such file\n")
        with open(path, "rb") as file:
            content = file.read()
        tag = '"' + hashlib.md5(content).hexdigest() + '"'
        modified = self.date_time_string(os.stat(path).st_mtime)
        if self.headers.get("If-None-Match") == tag:
            return self.answer(304, [("ETag", tag)], b"")
        return self.answer(200, [("ETag", tag), ("Last-Modified", modified)], content)

    def do_HEAD(self):
        self.answer(404, [], b"")

    def do_POST(self):
        self.git(self.rfile.read(int(self.headers["Content-Length"])))


http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
