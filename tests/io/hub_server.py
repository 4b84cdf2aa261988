"""A small model hub for the tests: one repository, with everything that can go wrong on request.

    python hub_server.py FOLDER      serves FOLDER as the repository "org/model"; prints its port

The first part of the path picks the fault: "/ok", "/cut" (every answer of a file ends after 1000 bytes),
"/norange" (ranges are ignored), "/corrupt" (one byte is wrong), "/401", "/403", "/404", "/500", "/renamed"
(redirects on the same host), "/token" (needs "Bearer good"). "GET /log" gives the requests so far.
"""

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOG = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.path == "/log":
            return self.answer(200, "\n".join(LOG).encode())
        LOG.append(f"{self.command} {self.path} {self.headers.get('Range', '-')}")
        _, fault, rest = self.path.split("/", 2)
        if fault == "token" and self.headers.get("Authorization") != "Bearer good":
            return self.answer(401)
        if fault in ("401", "403", "404", "500"):
            return self.answer(int(fault))
        if fault == "renamed" and not rest.startswith(("new/", "api/")):
            return self.answer(307, headers={"Location": f"/new/{rest}"})
        if rest.startswith("api/models/org/model/revision/"):
            names = sorted(p.name for p in ROOT.iterdir())
            body = {"sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            return self.answer(200, json.dumps(body).encode())
        prefix = f"org/model/resolve/{COMMIT}/"
        path = ROOT / rest.removeprefix(prefix)
        if not rest.startswith(prefix) or not path.is_file():
            return self.answer(404)
        self.send_file(fault, path)

    def send_file(self, fault, path):
        data = path.read_bytes()
        # Large files go by SHA-256 and small ones by git's blob hash, as on the real hub.
        git = path.suffix == ".json"
        etag = (hashlib.sha1(b"blob %d\0" % len(data) + data) if git else hashlib.sha256(data)).hexdigest()
        if fault == "corrupt" and not git:
            data = bytes([data[0] ^ 1]) + data[1:]
        headers = {"ETag": f'"{etag}"'}
        requested = self.headers.get("Range")
        if requested and fault != "norange":
            begin = int(requested.removeprefix("bytes=").split("-")[0])
            if begin >= len(data):
                return self.answer(416)
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            status, data = 206, data[begin:]
        else:
            status = 200
        if fault == "cut" and self.command == "GET" and len(data) > 1000:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:1000])
            self.close_connection = True
            return None
        return self.answer(status, data, headers)


ROOT = Path(sys.argv[1])
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
