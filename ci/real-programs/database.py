"""postgresql: pgbench's transactions, transactions that check themselves, and queries with their rows compared."""

import os
import pathlib
import re
import shutil
import signal
import time

from measure import Failure
from servers import HOST, INPUTS, Server, tool


class Postgresql(Server):
    """A cluster in the temporary directory, made once and copied for each run."""

    name = "postgresql"
    what = "pgbench, transactions that check themselves, large queries"
    # Ends it at once and in order, without waiting for clients.
    stop_signal = signal.SIGINT
    USER = "bench"
    CLIENTS = 4
    TRANSACTIONS = 300

    def __init__(self):
        found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        self.binaries = found[-1].parent if found else pathlib.Path("/usr/lib/postgresql")

    def prefix(self):
        """It refuses to be root."""
        if os.geteuid() != 0:
            return ()
        return ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")

    def prepare(self, session):
        self.template = session.root / "cluster"
        self.template.mkdir()
        if os.geteuid() == 0:
            shutil.chown(self.template, "postgres", "postgres")
        made = [self.binaries / "initdb", "-D", self.template / "data", "-A", "trust", "-N", "-U", self.USER]
        tool(*made, "--no-locale", "-E", "UTF8", directory=self.template, prefix=self.prefix())

    def program(self):
        return self.binaries / "postgres"

    def options(self, directory, port):
        tool("cp", "-a", self.template / "data", directory, directory=directory)
        settings = {
            "listen_addresses": HOST,
            "port": port,
            "unix_socket_directories": "",
            # The disk is not what is measured.
            "fsync": "off",
            "synchronous_commit": "off",
            "autovacuum": "off",
            # Each process that uses a page has it in its resident memory.
            "shared_buffers": "16MB",
            "work_mem": "32MB",
        }
        pairs = [("-c", f"{name}={value}") for name, value in settings.items()]
        return ["-D", directory / "data", *(part for pair in pairs for part in pair)]

    def load(self, directory, port):
        def client(name, *arguments):
            place = ["-h", HOST, "-p", port, "-U", self.USER]
            return tool(self.binaries / name, *place, *arguments, "postgres", directory=directory)

        self.wait_until_ready(client)
        begin = time.perf_counter()
        client("pgbench", "-i", "-q", "-s", "1")
        at_once = ["-n", "-c", self.CLIENTS, "-j", "2", "--random-seed=5", "-t", self.TRANSACTIONS]
        self.check_transactions(client("pgbench", *at_once, "-M", "prepared"))
        self.check_transactions(client("pgbench", *at_once, "-f", INPUTS / "checked.sql"))
        output = client("psql", "-X", "-q", "-A", "-t", "-f", INPUTS / "queries.sql")
        seconds = time.perf_counter() - begin
        accounts, branches, tellers, history, count = output.split("\n", 1)[0].split("|")
        if not accounts == branches == tellers == history or int(count) != self.CLIENTS * self.TRANSACTIONS:
            raise Failure(f"balances do not agree: {output.splitlines()[0]}")
        return seconds, output

    def wait_until_ready(self, client):
        """It accepts connections before it lets anybody in."""
        for _ in range(100):
            try:
                return client("psql", "-X", "-q", "-c", "select 1")
            except Failure:
                time.sleep(0.1)
        raise Failure("it lets nobody in")

    def check_transactions(self, said):
        """All of them are to have been done."""
        wanted = self.CLIENTS * self.TRANSACTIONS
        failed = re.search(r"number of failed transactions: (\d+)", said)
        if f"actually processed: {wanted}/{wanted}" not in said or (failed and failed[1] != "0"):
            raise Failure(f"pgbench says: {said[-2000:]}")
