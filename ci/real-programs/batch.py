"""Programs that run, print and end."""

import hashlib
import pathlib
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from typing import Callable

from measure import Failure, Run, Statistics, check_bindings, code_complaints, environment, own_complaints

INPUTS = pathlib.Path(__file__).parent / "inputs"


@dataclass
class Batch:
    """A program with its arguments, what it needs in its directory, and what of its doing is compared."""

    name: str
    what: str
    command: list
    variables: dict[str, str] = field(default_factory=dict)
    # Makes, once and on the system's allocator, what is copied to the directory of each run.
    make: Callable[[pathlib.Path], None] | None = None
    # Files that it writes.
    files: tuple[str, ...] = ()
    # What varies from run to run on any allocator, and what stands for it.
    varying: tuple[tuple[str, str], ...] = ()
    # The most that it may have resident, in MiB; 0: it is only measured.
    peak_mib_max: int = 0

    def prepare(self, session):
        """Makes what the runs need."""
        self.template = session.root / f"template-{self.name}"
        self.template.mkdir()
        if self.make:
            self.make(self.template)

    def check_loaded(self, session):
        """What speaks against the library being used in every process of the program. Warms the file cache as well."""
        directory = self.directory(session)
        statistics = Statistics(session, session.preloaded, directory)
        complaints = check_bindings(session, self.command, {**self.variables, **statistics.variables}, directory)
        return complaints + statistics.complaints()

    def directory(self, session):
        """A fresh directory with a copy of the template."""
        directory = session.fresh_directory()
        shutil.copytree(self.template, directory, symlinks=True, dirs_exist_ok=True)
        return directory

    def run(self, session, side):
        """One timed run."""
        directory = self.directory(session)
        report, stdout, stderr = (session.root / name for name in ("report", "stdout", "stderr"))
        # GNU time reports the largest process below it. Its own size is where theirs begins to count, since that
        # survives fork and exec, and it is much smaller than this interpreter.
        measured_by = ["time", "--quiet", "--format=%M", f"--output={report}"]
        with stdout.open("wb") as out, stderr.open("wb") as err:
            begin = time.perf_counter()
            process = session.start(
                self.command, side, directory, self.variables, measured_by=measured_by, stdout=out, stderr=err
            )
            code = session.finish(process)
            seconds = time.perf_counter() - begin
        lines = [self.without_varying(stdout.read_text(errors="backslashreplace"))]
        for name in self.files:
            path = directory / name
            lines.append(f"{name}: {hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else 'missing'}\n")
        errors = stderr.read_text(errors="replace")
        peak = report.read_text().split()
        if not peak:
            raise Failure(f"on {side.name}: it could not be measured")
        complaints = code_complaints(code) + own_complaints(errors)
        if self.peak_mib_max and int(peak[-1]) > self.peak_mib_max * 1024:
            complaints.append(f"{int(peak[-1]) // 1024} MiB resident, more than {self.peak_mib_max}")
        return Run("".join(lines), seconds, int(peak[-1]), complaints, errors)

    def without_varying(self, text):
        """The output with what varies replaced."""
        for pattern, replacement in self.varying:
            text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
        return text


def make_repository(directory):
    """The history, as loose objects, so that gc has all of them to pack."""
    git = ["git", "-c", "init.defaultBranch=main"]
    options = {"check": True, "cwd": directory, "env": environment(directory)}
    subprocess.run([*git, "init", "-q", "repository"], **options)
    stream = subprocess.run(["/usr/bin/python3", INPUTS / "history.py"], capture_output=True, **options).stdout
    limit = ["-c", "fastimport.unpackLimit=1000000"]
    subprocess.run([*git, "-C", "repository", *limit, "fast-import", "--quiet", "--done"], input=stream, **options)
    with (directory / "repository/.git/config").open("a") as config:
        config.write("[pack]\n\tthreads = 2\n[gc]\n\tauto = 0\n")


def make_puzzle(directory):
    """The problems for the solver."""
    with (directory / "puzzle.smt2").open("wb") as out:
        subprocess.run(["/usr/bin/python3", INPUTS / "puzzle.py"], check=True, stdout=out)


def make_filtered(directory):
    """What sets the filters, and a program to run behind them."""
    compiler = ["/usr/bin/gcc", "-O1", "-Wall", "-Werror", "-pthread"]
    for name, libraries in ("filtered", ["-lseccomp"]), ("service", []):
        command = [*compiler, "-o", name, INPUTS / f"{name}.c", *libraries]
        subprocess.run(command, check=True, cwd=directory, env=environment(directory))


# What a filter of systemd's allows a service, and what many take out again.
SERVICE, RESOURCES = INPUTS / "system-service.list", INPUTS / "resources.list"

# Every object of the interpreter from malloc, instead of only those above 512 bytes.
PYTHON = {"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0"}
PYTHON_VARYING = (
    (r"^0:\d\d:\d\d load avg: [\d.]+", "TIME"),
    (r" in \d+\.\d+s$", " in TIME"),
    (r"^Total duration: .*", "Total duration: TIME"),
    (r"test_python_\w+", "test_python_PID"),
)
# What threads say about themselves, in whatever order they run.
THREADS_VARYING = ((r"(task )?<thread \d+> .*\n|\d+ tasks are running\n", ""),)
# They wait for half a second or more, and nothing else.
PYTHON_WAITING = ["*.test_timeout", "*.test_default_timeout", "*.test_acquire_timeout", "*_nondaemon_on_shutdown"]


def python_tests(name, *arguments):
    """The interpreter's own tests `name`."""
    return ["/usr/bin/python3", "-m", "test", "-v", *arguments, *name.split()]


BATCHES = [
    Batch(
        "python3",
        "its own test_json and test_dict, all objects from malloc",
        python_tests("test_json test_dict"),
        PYTHON,
        varying=PYTHON_VARYING,
    ),
    Batch(
        "python3-threads",
        "its own test_threading, without what only waits",
        python_tests("test_threading", *(part for name in PYTHON_WAITING for part in ("--ignore", name))),
        PYTHON,
        varying=PYTHON_VARYING + THREADS_VARYING,
    ),
    Batch(
        "perl", "words in hashes and arrays, sorted and rewritten", ["/usr/bin/perl", INPUTS / "work.pl"],
        {"PERL_HASH_SEED": "0"},
    ),
    Batch("lua", "trees, tables of strings, coroutines", ["/usr/bin/lua5.4", INPUTS / "work.lua"]),
    Batch(
        "sqlite3",
        "a database in memory: inserts, joins, groups, updates",
        ["/usr/bin/sqlite3", "-init", INPUTS / "work.sql", ":memory:", ".exit"],
    ),
    Batch(
        "git",
        "gc, log, blame, fsck and archive of a history of 600 commits",
        ["/bin/bash", INPUTS / "git.sh"],
        make=make_repository,
    ),
    Batch(
        "g++",
        "a C++ file with templates, -O1",
        ["/usr/bin/g++", "-std=c++17", "-O1", "-Wall", "-c", INPUTS / "templates.cpp", "-o", "templates.o"],
        files=("templates.o",),
    ),
    Batch(
        "gs",
        "a page rendered at 200 dpi",
        ["/usr/bin/gs", "-q", "-dSAFER", "-dBATCH", "-dNOPAUSE", "-sDEVICE=png16m", "-r200", "-sOutputFile=page.png"]
        + [INPUTS / "page.ps"],
        files=("page.png",),
    ),
    Batch(
        "z3",
        "queens, factors, arrays and pigeons",
        ["/usr/bin/z3", "puzzle.smt2"],
        make=make_puzzle,
    ),
    Batch(
        "php",
        "all its extensions, and a script that uses them",
        ["/bin/bash", "-c", f"php -m && exec php {INPUTS / 'work.php'}"],
    ),
    Batch(
        "filter-service",
        "a program behind SystemCallFilter=@system-service",
        ["./filtered", SERVICE, "--", "./service"],
        make=make_filtered,
    ),
    Batch(
        "filter-resources",
        "the same, and ~@resources",
        ["./filtered", SERVICE, RESOURCES, "--", "./service"],
        make=make_filtered,
    ),
    Batch(
        "qemu",
        "ls, emulated, with the library inside and outside",
        ["/usr/bin/qemu-x86_64", "/bin/ls", INPUTS],
        peak_mib_max=1024,
    ),
]
