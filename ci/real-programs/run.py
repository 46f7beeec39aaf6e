"""Real programs with the library preloaded and without: ci/real-programs.sh says how to call it."""

import argparse
import difflib
import os
import pathlib
import signal
import statistics
import subprocess
import sys

from batch import BATCHES
from caches import Memcached, Redis
from database import Postgresql
from logins import Sshd
from measure import Failure, Session
from pages import PhpFpm
from web import Nginx, Node

PROGRAMS = [*BATCHES, Redis(), Memcached(), Nginx(), Postgresql(), Node(), Sshd(), PhpFpm()]
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
LINES_OF_DIFFERENCE = 40


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(prog="ci/real-programs.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run of a program on each side")
    parser.add_argument("--runs", type=int, help="runs of a program on each side, in turns; 3 unless told")
    parser.add_argument("--only", default="", help="names, with commas between them", metavar="NAME[,NAME]")
    parser.add_argument("--library", type=pathlib.Path, help="what to preload; target/release/libmagalloc.so")
    parser.add_argument("--table", type=pathlib.Path, help="where to write the table as well", metavar="FILE.md")
    parser.add_argument("--env", action="append", default=[], help="set with the library only", metavar="NAME=VALUE")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    chosen = parser.parse_args()
    unknown = {name for name in chosen.only.split(",") if name} - {program.name for program in PROGRAMS}
    if unknown:
        parser.error(f"no such program: {', '.join(sorted(unknown))}")
    if any("=" not in pair for pair in chosen.env):
        parser.error("--env wants NAME=VALUE")
    if chosen.runs is not None and chosen.runs < 1:
        parser.error("--runs wants one or more")
    return chosen


def built_library():
    """The library of this repository, as it is now."""
    build = ["cargo", "build", "--quiet", "--release", "--locked", "--package", "magalloc-capi"]
    subprocess.run(build, cwd=REPOSITORY, check=True)
    return REPOSITORY / os.environ.get("CARGO_TARGET_DIR", "target") / "release/libmagalloc.so"


def indented(lines):
    """For what belongs to the line above."""
    return "".join(f"    {line.rstrip()}\n" for line in lines)


def compare(reference, run, side):
    """What `run` has to answer for, printed; true when there is nothing."""
    good = True
    if reference.output != run.output:
        good = False
        texts = reference.output.splitlines(), run.output.splitlines()
        difference = list(difflib.unified_diff(*texts, "system", side.name, lineterm=""))
        print(f"  FAILED: other output on {side.name}")
        print(indented(difference[:LINES_OF_DIFFERENCE]), end="")
        if len(difference) > LINES_OF_DIFFERENCE:
            print(f"    ... and {len(difference) - LINES_OF_DIFFERENCE} lines more")
    for complaint in run.complaints:
        good = False
        print(f"  FAILED: on {side.name}: {complaint}")
    if not good and run.errors:
        print(f"  its stderr ends in:\n{indented(run.errors.splitlines()[-15:])}", end="")
    return good


def check(program, session, count):
    """Runs `program` on both sides in turns. Its row of the table, or None when it failed."""
    print(f"-- {program.name}: {program.what}", flush=True)
    sides = session.system, session.preloaded
    runs = {side.name: [] for side in sides}
    reference = None
    try:
        program.prepare(session)
        complaints = program.check_loaded(session)
        for complaint in complaints:
            print(f"  FAILED: {complaint}")
        good = not complaints
        for _ in range(count):
            for side in sides:
                run = program.run(session, side)
                reference = reference or run
                good &= compare(reference, run, side)
                runs[side.name].append(run)
    except (Failure, OSError, subprocess.SubprocessError) as failure:
        print(f"  FAILED: {failure}", flush=True)
        return None
    row = Row(program, *runs.values())
    print(f"  {row.summary()}", flush=True)
    return row if good else None


class Row:
    """Medians of the runs of one program."""

    def __init__(self, program, *sides):
        self.program = program
        self.seconds = [statistics.median(run.seconds for run in runs) for runs in sides]
        self.peaks = [statistics.median(run.peak_kib for run in runs) / 1024 for runs in sides]

    def time_ratio(self):
        return self.seconds[1] / self.seconds[0]

    def peak_ratio(self):
        return self.peaks[1] / self.peaks[0]

    def summary(self):
        """For the one who waits."""
        seconds, peaks = self.seconds, self.peaks
        return (
            f"{seconds[0]:.2f} s and {seconds[1]:.2f} s ({self.time_ratio():.2f}), "
            f"{peaks[0]:.1f} MiB and {peaks[1]:.1f} MiB ({self.peak_ratio():.2f})"
        )

    def markdown(self):
        """A line of the table."""
        seconds, peaks = self.seconds, self.peaks
        cells = [self.program.name, self.program.what, f"{seconds[0]:.2f}", f"{seconds[1]:.2f}"]
        cells += [f"{self.time_ratio():.2f}", f"{peaks[0]:.1f}", f"{peaks[1]:.1f}", f"{self.peak_ratio():.2f}"]
        return f"| {' | '.join(cells)} |"


def table(rows, side):
    """All rows as markdown, and the geometric means of the ratios."""
    ratios = zip(*((row.time_ratio(), row.peak_ratio()) for row in rows))
    means = [statistics.geometric_mean(column) for column in ratios]
    lines = [
        f"| program | what it does | time, s: system | {side} | ratio | peak resident, MiB: system | {side} | ratio |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
        *(row.markdown() for row in rows),
        f"| geometric mean | | | | {means[0]:.2f} | | | {means[1]:.2f} |",
    ]
    return "".join(f"{line}\n" for line in lines)


def main():
    """Runs what was asked for; 1 when any of it failed."""
    chosen = arguments()
    if chosen.list:
        for program in PROGRAMS:
            print(f"{program.name:16} {program.what}")
        return 0
    wanted = set(filter(None, chosen.only.split(",")))
    programs = [program for program in PROGRAMS if not wanted or program.name in wanted]
    library = (chosen.library or built_library()).resolve()
    if not library.is_file():
        sys.exit(f"no such library: {library}")
    count = chosen.runs or (1 if chosen.quick else 3)
    # So that what is open is closed when this is ended from outside.
    for ending in signal.SIGTERM, signal.SIGHUP:
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    session = Session(library, dict(pair.split("=", 1) for pair in chosen.env))
    try:
        rows = {program.name: check(program, session, count) for program in programs}
    finally:
        session.close()
    good = [row for row in rows.values() if row]
    if good:
        text = table(good, session.preloaded.name)
        print(f"\n{text}", end="")
        if chosen.table:
            chosen.table.write_text(text)
    failed = [name for name, row in rows.items() if not row]
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
