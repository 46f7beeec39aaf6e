"""Runs one process tree on one side, with the system's allocator or with the library, and measures it."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field

# Seconds after which a program is killed. None takes more than a few.
LIMIT = 90

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
BINDING = re.compile(r"binding file \S+ \[\d+\] to (\S+) \[\d+\]: normal symbol `malloc'")


class Failure(Exception):
    """What was run did not do what it should."""


@dataclass(frozen=True)
class Side:
    """One of the two allocators: its name and what the environment of a program on it has more."""

    name: str
    variables: dict[str, str]
    library: str | None = None


@dataclass
class Run:
    """What one run of a program gave."""

    output: str
    seconds: float
    peak_kib: int
    complaints: list[str] = field(default_factory=list)
    errors: str = ""


class Session:
    """The temporary directory, the two sides, and every process that is still to be ended."""

    def __init__(self, library, extra):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="real-programs."))
        # Servers drop to users who may not read the place that the library was built in, nor a private directory.
        self.root.chmod(0o755)
        copy = shutil.copy(library, self.root)
        os.chmod(copy, 0o755)
        # Another library than this repository's own may be looked at as well, and has no statistics.
        self.has_stats = b"magalloc-stats" in pathlib.Path(copy).read_bytes()
        variables = {"LD_PRELOAD": copy, **extra}
        name = pathlib.Path(copy).name.removeprefix("lib").split(".")[0]
        self.system = Side("system", {})
        self.preloaded = Side(name, variables, copy)
        self.started = []

    def close(self):
        """Kills what still runs and removes the directory."""
        for process in list(self.started):
            self.kill(process)
        shutil.rmtree(self.root, ignore_errors=True)

    def fresh_directory(self):
        """An empty directory to run in: of the same name each time, so that outputs with paths can be compared."""
        directory = self.root / "work"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o755)
        return directory

    def start(self, command, side, directory, variables, prefix=(), **options):
        """Starts `command` on `side` under a limit. Neither `timeout` nor `prefix` is on the library, only `command`.

        The process leads a group of its own, to be ended by `finish` or `kill`, and by nothing else.
        """
        chosen = {**variables, **side.variables}
        wrapped = ["timeout", "-s", "KILL", str(LIMIT), *prefix, "env"]
        wrapped += [f"{name}={value}" for name, value in chosen.items()]
        process = subprocess.Popen(
            [*options.pop("measured_by", ()), *wrapped, *map(str, command)],
            cwd=directory,
            env=environment(directory),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **options,
        )
        self.started.append(process)
        return process

    def finish(self, process, seconds=None):
        """Waits for its end, ends what it left running, and returns its exit code."""
        if seconds is None:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        else:
            until = time.monotonic() + seconds
            while not has_ended(process):
                if time.monotonic() > until:
                    raise Failure("it does not end when it is asked to")
                time.sleep(0.01)
        return self.kill(process)

    def kill(self, process):
        """Ends its group. Before it is reaped, as its number may be anybody's after that."""
        os.killpg(process.pid, signal.SIGKILL)
        self.started.remove(process)
        return process.wait()


def environment(directory):
    """The same small environment for every program, whoever runs the script."""
    return {"PATH": PATH, "HOME": str(directory), "TMPDIR": str(directory), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def has_ended(process):
    """Without reaping it."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def code_complaints(code):
    """All programs here end well. More than 128 is a signal."""
    return [f"exit code {code}"] if code else []


def own_complaints(text):
    """The lines in which the library says that something is wrong."""
    return [line for line in text.splitlines() if line.startswith("magalloc:")]


def binding_complaints(directory, library):
    """Looks through the records of LD_DEBUG=bindings, one for each process: all are to have `library`'s malloc."""
    complaints = []
    records = sorted(directory.glob("bindings.*"))
    if not records:
        complaints.append("the dynamic linker recorded nothing")
    for record in records:
        text = record.read_text(errors="replace")
        program = re.search(r"initialize program: (.*)", text)
        name = program[1] if program else record.name
        # A program that is not position independent lends its own entry to others, which jumps to the library's.
        bound = set(BINDING.findall(text)) - {name}
        if bound != {library}:
            complaints.append(f"malloc of {name} is from: {', '.join(sorted(bound)) or 'nowhere'}")
    return list(dict.fromkeys(complaints))


def check_bindings(session, command, variables, directory):
    """Runs `command` once, untimed, with the dynamic linker recording whose malloc each of its processes has."""
    traced = {**variables, "LD_DEBUG": "bindings,files", "LD_DEBUG_OUTPUT": str(directory / "bindings")}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    session.finish(session.start(command, session.preloaded, directory, traced, **quiet))
    return binding_complaints(directory, session.preloaded.library)


class Statistics:
    """The file to which the library appends a record at the end of each process that allocated."""

    def __init__(self, session, side, directory):
        self.path = directory / "statistics"
        self.expected = session.has_stats and side.library is not None
        self.variables = {"MAGALLOC_STATS_FILE": str(self.path)} if self.expected else {}
        self.path.touch()
        # Some servers are other users by then.
        self.path.chmod(0o666)

    def complaints(self):
        """Without a record the library was not used."""
        if not self.expected or self.path.read_bytes().startswith(b"magalloc-stats"):
            return []
        return ["the library wrote no statistics: was it used?"]
