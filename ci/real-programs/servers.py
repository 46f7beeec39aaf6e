"""What all servers have in common: starting, watching, loading and ending them."""

import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

from measure import LIMIT, Failure, Run, Statistics
from measure import check_bindings, code_complaints, environment, has_ended, own_complaints

INPUTS = pathlib.Path(__file__).parent / "inputs"
HOST = "127.0.0.1"
# Below the ports that the kernel gives to outgoing connections, so that nobody takes one between here and the server.
FIRST_PORT, LAST_PORT = 20000, 30000


class Server:
    """A server. A subclass says how to start it, how to load it and what its replies are to be."""

    name = ""
    what = ""
    variables: dict[str, str] = {}
    version = "--version"
    stop_signal = signal.SIGTERM
    # Whether its processes may write statistics as they end: what `Watch` sees of them is enough.
    has_statistics = True

    def program(self):
        """The path of the server."""
        raise NotImplementedError

    def options(self, directory, port):
        """The rest of its command line; writes in `directory` what it reads."""
        raise NotImplementedError

    def prefix(self):
        """What to start it with, to be another user."""
        return ()

    def load(self, directory, port):
        """Works it. Returns the seconds that the work took and text that is to be the same on both sides."""
        raise NotImplementedError

    def prepare(self, session):
        """Makes what all runs need."""

    def check_loaded(self, session):
        """What speaks against its malloc being the library's. `Watch` looks at the processes of each run as well."""
        return check_bindings(session, [self.program(), self.version], self.variables, session.fresh_directory())

    def run(self, session, side):
        """One run: start, load, end."""
        directory = session.fresh_directory()
        port = free_port()
        command = [self.program(), *self.options(directory, port)]
        statistics = Statistics(session, side, directory)
        if not self.has_statistics:
            statistics.expected, statistics.variables = False, {}
        variables = {**self.variables, **statistics.variables}
        log = session.root / "log"
        with log.open("wb") as out:
            process = session.start(
                command, side, directory, variables, prefix=self.prefix(), stdout=out, stderr=subprocess.STDOUT
            )
        try:
            wait_until_open(process, port)
            with Watch(process.pid, side.library) as watch:
                seconds, output = self.load(directory, port)
            code = self.stop(session, process)
        except (Failure, OSError, subprocess.SubprocessError) as error:
            if process in session.started:
                session.kill(process)
            raise Failure(f"on {side.name}: {error}\n  its log ends in:\n{end_of(log)}") from error
        errors = log.read_text(errors="replace")
        complaints = code_complaints(code) + own_complaints(errors) + watch.complaints + statistics.complaints()
        return Run(output, seconds, watch.peak_kib, complaints, errors)

    def stop(self, session, process):
        """Asks the server to end, and waits for it."""
        main = children(process.pid)
        if not main:
            raise Failure("it ended under load")
        os.kill(main[0], self.stop_signal)
        return session.finish(process, seconds=20)


class Watch:
    """Looks at the processes below `pid` all the time: their peaks of resident memory, and what is mapped to them."""

    INTERVAL = 0.05

    def __init__(self, pid, library):
        self.pid = pid
        self.library = library
        self.peak_kib = 0
        self.complaints = []
        self.seen = set()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def __enter__(self):
        self.look()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        self.look()

    def watch(self):
        """Until the load is over."""
        while not self.done.wait(self.INTERVAL):
            self.look()

    def look(self):
        """Once at every process."""
        total = 0
        for pid in descendants(self.pid):
            try:
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
                mapped = None if pid in self.seen else pathlib.Path(f"/proc/{pid}/maps").read_text()
            except OSError:
                continue
            total += next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)
            # A process that is just ending has no mappings any more.
            if mapped:
                self.seen.add(pid)
                if self.library and self.library not in mapped:
                    self.complaints.append(f"process {pid} of it does not have the library")
        self.peak_kib = max(self.peak_kib, total)


def children(pid):
    """Its child processes."""
    found = []
    try:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except OSError:
        pass
    return found


def descendants(pid):
    """Its children, theirs, and so on."""
    found = children(pid)
    for child in found:
        found += children(child)
    return found


def free_port():
    """A port that nobody listens on."""
    span = LAST_PORT - FIRST_PORT
    for offset in range(span):
        port = FIRST_PORT + (os.getpid() * 37 + offset) % span
        with socket.socket() as attempt:
            try:
                attempt.bind((HOST, port))
                return port
            except OSError:
                continue
    raise Failure("no free port")


def wait_until_open(process, port):
    """Until the server accepts a connection."""
    for _ in range(400):
        if has_ended(process):
            raise Failure("it did not start")
        try:
            socket.create_connection((HOST, port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)
    raise Failure("it does not accept connections")


def end_of(log):
    """The last lines of `log`, indented."""
    return "\n".join(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-15:])


def tool(*command, directory, prefix=()):
    """Runs a client on the system's allocator. Its output, when it ends well."""
    done = subprocess.run(
        [*prefix, *map(str, command)],
        cwd=directory,
        env=environment(directory),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode != 0:
        raise Failure(f"{command[0]} exited with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
