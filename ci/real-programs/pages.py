"""php-fpm: pages through FastCGI, with the extensions that the package has."""

import os
import pathlib
import socket
import struct
import time

from measure import Failure
from servers import HOST, INPUTS, Server

# Of "FastCGI Specification", 1996: version, kinds of records, and the role of one who answers.
VERSION = 1
BEGIN, END, PARAMETERS, INPUT, OUTPUT, ERRORS = 1, 3, 4, 5, 6, 7
RESPONDER = 1


def record(kind, content=b""):
    """One record of request 1."""
    return struct.pack(">BBHHBx", VERSION, kind, 1, len(content), 0) + content


def parameter(name, value):
    """A name and its value, each with a length of four bytes."""
    name, value = name.encode(), value.encode()
    return struct.pack(">II", len(name) | 1 << 31, len(value) | 1 << 31) + name + value


def ask(port, script):
    """The page that the script makes, and what is told of errors."""
    parameters = {"SCRIPT_FILENAME": str(script), "REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1"}
    request = record(BEGIN, struct.pack(">HB5x", RESPONDER, 0))
    request += record(PARAMETERS, b"".join(parameter(*pair) for pair in parameters.items())) + record(PARAMETERS)
    request += record(INPUT)
    said = {OUTPUT: b"", ERRORS: b"", END: b""}
    with socket.create_connection((HOST, port), timeout=30) as connection:
        connection.sendall(request)
        stream = connection.makefile("rb")
        while not said[END]:
            head = stream.read(8)
            if len(head) < 8:
                raise Failure("php-fpm ended the connection amid its reply")
            _, kind, _, length, padding = struct.unpack(">BBHHBx", head)
            said[kind] += stream.read(length)
            stream.read(padding)
    return said[OUTPUT], said[ERRORS]


class PhpFpm(Server):
    """The same page many times, from processes that serve some requests each and are then made anew."""

    name = "php-fpm"
    what = "pages of texts, XML, databases, pictures"
    version = "-v"
    PAGES = 12

    CONFIGURATION = """
[global]
daemonize = no
error_log = /proc/self/fd/2
[pages]
listen = {host}:{port}
pm = static
pm.max_children = 2
pm.max_requests = 4
catch_workers_output = yes
"""

    def program(self):
        return sorted(pathlib.Path("/usr/sbin").glob("php-fpm*"))[-1]

    def options(self, directory, port):
        configuration = directory / "fpm.conf"
        configuration.write_text(self.CONFIGURATION.format(host=HOST, port=port))
        user = ["--allow-to-run-as-root"] if os.geteuid() == 0 else []
        if user:
            with configuration.open("a") as out:
                out.write("user = root\ngroup = root\n")
        return ["--nodaemonize", "--fpm-config", configuration, *user]

    def load(self, directory, port):
        begin = time.perf_counter()
        pages = set()
        for _ in range(self.PAGES):
            page, errors = ask(port, INPUTS / "work.php")
            if errors:
                raise Failure(f"a page had errors: {errors[:500]!r}")
            pages.add(page.partition(b"\r\n\r\n")[2])
        if len(pages) != 1:
            raise Failure(f"one script gave {len(pages)} different pages")
        return time.perf_counter() - begin, pages.pop().decode()
