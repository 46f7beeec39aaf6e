"""The servers of HTTP, nginx and node, with wrk as their load and all bodies checked."""

import gzip
import hashlib
import http.client
import json
import os
import random
import re
from dataclasses import dataclass, field

from conversations import TEXT
from measure import Failure
from servers import HOST, INPUTS, Server, tool


@dataclass
class Exchange:
    """A request, and the body that its reply is to have."""

    path: str
    reply: bytes
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def lua(self, reply):
        """As a table of Lua, with the body as it comes over the wire."""
        pairs = ((quoted(name.encode()), quoted(value.encode())) for name, value in self.headers.items())
        headers = ", ".join(f"[{name}] = {value}" for name, value in pairs)
        body = quoted(self.body) if self.body else "nil"
        return (
            f'  {{ method = "{self.method}", path = "{self.path}", headers = {{ {headers} }},'
            f" body = {body}, reply = {quoted(reply)} }},\n"
        )


def quoted(value):
    """A string of Lua."""
    return '"' + "".join(f"\\{byte:03}" for byte in value) + '"'


class Web(Server):
    """Each exchange checked by itself, then all in turns from many connections for some seconds."""

    SECONDS = 2
    CONNECTIONS = 24
    # The time in the table is that for so many requests, from wrk's rate.
    REQUESTS = 0

    def exchanges(self):
        """What to ask, and what to be answered."""
        raise NotImplementedError

    def load(self, directory, port):
        raw = [self.check(exchange, port) for exchange in self.exchanges()]
        exchanges = directory / "exchanges.lua"
        with exchanges.open("w") as out:
            out.write("return {\n")
            out.writelines(exchange.lua(reply) for exchange, reply in zip(self.exchanges(), raw))
            out.write("}\n")
        load = ["-t", "1", "-c", str(self.CONNECTIONS), "-d", f"{self.SECONDS}s", "-s", INPUTS / "check.lua"]
        said = tool("wrk", *load, f"http://{HOST}:{port}/", exchanges, directory=directory)
        counted = re.search(r"^checked (\d+) right, (\d+) wrong, (\d+) errors, (\d+) microseconds$", said, re.MULTILINE)
        if not counted:
            raise Failure(f"wrk says: {said[-2000:]}")
        right, wrong, errors, microseconds = map(int, counted.groups())
        if wrong or errors or not right:
            raise Failure(f"of wrk's requests {right} were answered right, {wrong} wrong, {errors} had errors")
        digest = hashlib.sha256(b"".join(raw)).hexdigest()
        return microseconds / 1e6 / right * self.REQUESTS, f"{len(raw)} exchanges, {digest}\n"

    @staticmethod
    def check(exchange, port):
        """Has one exchange. The body as it came over the wire, if it is the right one."""
        connection = http.client.HTTPConnection(HOST, port, timeout=20)
        connection.request(exchange.method, exchange.path, exchange.body, exchange.headers)
        response = connection.getresponse()
        raw = response.read()
        connection.close()
        packed = response.getheader("Content-Encoding") == "gzip"
        if packed != ("Accept-Encoding" in exchange.headers):
            raise Failure(f"{exchange.path}: Content-Encoding is {response.getheader('Content-Encoding')}")
        body = gzip.decompress(raw) if packed else raw
        if response.status != 200 or body != exchange.reply:
            raise Failure(
                f"wrong reply to {exchange.method} {exchange.path}: status {response.status}, {len(body)} bytes "
                f"that begin {body[:60]!r} instead of {len(exchange.reply)} that begin {exchange.reply[:60]!r}"
            )
        return raw


class Nginx(Web):
    """Files as they are, compressed, through a proxy, and put together from parts."""

    name = "nginx"
    REQUESTS = 20_000
    what = f"files: plain, gzip, proxy, SSI; time for {REQUESTS} requests of wrk's"
    version = "-v"
    SIZES = (1, 300, 1500, 4000, 4096, 9000, 17000, 33000, 66000)

    CONFIGURATION = """
daemon off;
worker_processes 2;
user {user};
pid {directory}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    default_type text/plain;
    keepalive_requests 1000;
    upstream self {{ server 127.0.0.1:{port}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        root {directory}/files;
        location /plain/ {{ alias {directory}/files/; }}
        location /packed/ {{
            alias {directory}/files/;
            gzip on;
            gzip_types text/plain;
            gzip_min_length 1;
            gzip_comp_level 1;
        }}
        location /through/ {{
            proxy_pass http://self/plain/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
        location /parts/ {{ alias {directory}/parts/; ssi on; ssi_types text/plain; }}
    }}
}}
"""

    def prepare(self, session):
        self.files = {f"{size}.txt": (b"%d " % size + TEXT[size : 2 * size])[:size] for size in self.SIZES}

    def program(self):
        return "/usr/sbin/nginx"

    def options(self, directory, port):
        (directory / "files").mkdir()
        (directory / "parts").mkdir()
        for name, content in self.files.items():
            (directory / "files" / name).write_bytes(content)
        parts = "".join(f'<!--#include virtual="/plain/{name}" -->\n' for name in self.files)
        (directory / "parts/all.txt").write_text(parts)
        configuration = directory / "nginx.conf"
        user = "root" if os.geteuid() == 0 else "nobody"
        configuration.write_text(self.CONFIGURATION.format(directory=directory, port=port, user=user))
        return ["-c", configuration, "-e", "stderr", "-p", directory]

    def exchanges(self):
        every = [Exchange("/parts/all.txt", b"".join(content + b"\n" for content in self.files.values()))]
        for name, content in self.files.items():
            every.append(Exchange(f"/plain/{name}", content))
            every.append(Exchange(f"/through/{name}", content))
            if content:
                every.append(Exchange(f"/packed/{name}", content, headers={"Accept-Encoding": "gzip"}))
        return every


class Node(Web):
    """Texts and numbers sent to it as JSON."""

    name = "node"
    REQUESTS = 2_000
    what = f"HTTP, JSON, buffers, zlib; time for {REQUESTS} requests of wrk's"

    def prepare(self, session):
        choice = random.Random(3)
        self.made = [self.exchange(choice, number) for number in range(40)]

    def program(self):
        return "/usr/bin/node"

    def options(self, directory, port):
        return [INPUTS / "server.js", port]

    def exchanges(self):
        return self.made

    @staticmethod
    def exchange(choice, number):
        """One request, and what a right server says to it."""
        places = choice.sample(range(5000), 20 + 50 * number)
        words = [TEXT[at : at + choice.randrange(1, 12)].decode() for at in places]
        numbers = [choice.randrange(-1000000, 1000000) for _ in range(10 + 20 * number)]
        text = " ".join(words)
        reply = {
            "name": f"exchange {number}",
            "smallest": min(numbers),
            "largest": max(numbers),
            "words": len(words),
            "different": len(set(words)),
            "bytes": sum(map(len, words)),
            "hash": hashlib.sha256(text.encode()).hexdigest(),
            "text": " ".join(reversed(words)),
        }
        body = json.dumps({"name": reply["name"], "numbers": numbers, "text": text}).encode()
        headers = {"Content-Type": "application/json"}
        return Exchange("/", json.dumps(reply, separators=(",", ":")).encode(), "POST", headers, body)
