"""sshd: log-ins through its sandboxed child, and files through the session."""

import getpass
import os
import pathlib
import signal
import time

from servers import HOST, Server, tool


class Sshd(Server):
    """Log-ins by key, each with files sent and fetched. Before a key is accepted, a child behind a filter of system calls
    serves the client. The session is sshd itself, so all of its processes are looked at."""

    name = "sshd"
    what = "log-ins by key, files sent and fetched"
    version = "-V"
    # Its sandboxed child may call nothing that these need, and ends by exit.
    has_statistics = False
    LOGINS = 4
    # What it wants to be there, and a service's start makes.
    EMPTY = pathlib.Path("/run/sshd")

    CONFIGURATION = """
ListenAddress {host}:{port}
HostKey {directory}/host
PidFile none
AuthorizedKeysFile {directory}/user.pub
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
LogLevel VERBOSE
Subsystem sftp internal-sftp
ForceCommand internal-sftp
"""

    def prepare(self, session):
        if os.geteuid() == 0:
            self.EMPTY.mkdir(mode=0o755, exist_ok=True)
        self.keys = session.root / "keys"
        self.keys.mkdir()
        for name in "host", "user":
            tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.keys / name, directory=self.keys)

    def program(self):
        return "/usr/sbin/sshd"

    def options(self, directory, port):
        for key in self.keys.iterdir():
            copy = directory / key.name
            copy.write_bytes(key.read_bytes())
            copy.chmod(0o600)
        # A daemon that is another user by then reads it.
        (directory / "user.pub").chmod(0o644)
        configuration = directory / "sshd_config"
        configuration.write_text(self.CONFIGURATION.format(directory=directory, host=HOST, port=port))
        return ["-D", "-e", "-f", configuration]

    def load(self, directory, port):
        host = (self.keys / "host.pub").read_text().split()
        (directory / "known").write_text(f"[{HOST}]:{port} {host[0]} {host[1]}\n")
        sent = directory / "sent"
        sent.write_bytes(bytes(range(256)) * 20_000)
        commands = directory / "commands"
        options = {
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": directory / "known",
            "IdentitiesOnly": "yes",
            "PreferredAuthentications": "publickey",
            "BatchMode": "yes",
            "ConnectTimeout": "20",
        }
        arguments = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        arguments += ["-F", "none", "-i", directory / "user", "-P", port, "-q", "-b", commands]
        begin = time.perf_counter()
        for number in range(self.LOGINS):
            fetched = directory / f"fetched-{number}"
            lines = [f"put {sent} {directory}/there-{number}", f"get {directory}/there-{number} {fetched}"]
            commands.write_text("".join(f"{line}\n" for line in [*lines, f"ls -1 {directory}"]))
            tool("sftp", *arguments, f"{getpass.getuser()}@{HOST}", directory=directory)
            assert fetched.read_bytes() == sent.read_bytes()
        return time.perf_counter() - begin, f"{self.LOGINS} log-ins\n"

    stop_signal = signal.SIGTERM
