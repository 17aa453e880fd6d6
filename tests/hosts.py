"""Hosts on one machine, for what only shows on several: each has a network address, processes, /tmp, shared memory, a
home and an sshd of its own, made of Linux namespaces. Debian's openssh-server, rsync and iproute2 do the rest.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

NEEDED = {
    **{"ip": "iproute2", "sshd": "openssh-server", "ssh": "openssh-client", "ssh-keygen": "openssh-client"},
    **{"rsync": "rsync", "unshare": "util-linux", "setpriv": "util-linux", "mount": "mount", "pgrep": "procps"},
}
HOMES = Path("/mnt")  # each host mounts its own there: nobody's, and empty, on most machines
SEARCH = os.pathsep.join(("/usr/sbin", "/sbin", os.environ.get("PATH", os.defpath)))
OPERATOR, FIRST = "10.213.0.1", 10  # in a network namespace of our own: it may be anybody's elsewhere
OWN = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]

# What a host does: its own mounts, then sshd until it is killed. $1 is a folder with what it needs, $2 its home.
_BECOME = """
set -e
mount --bind "$1/passwd" /etc/passwd
mount -t tmpfs tmpfs /mnt
mkdir -p "$2"
cp -a "$1/home/." "$2"
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
until ip -brief address show eth0 2>/dev/null | grep -q UP; do sleep 0.05; done
mount -t tmpfs tmpfs /tmp
exec "$3" -D -e -f "$2/.sshd/config"
"""
_SSHD = """\
ListenAddress {address}
HostKey {home}/.sshd/key
PidFile none
AuthorizedKeysFile {home}/.ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
"""


def lacking() -> str:
    """Why such hosts cannot be had here; empty where they can."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    missing = {package for command, package in NEEDED.items() if shutil.which(command, path=SEARCH) is None}
    if missing:
        return f"missing: apt-get install {' '.join(sorted(missing))}"
    for hidden in ("/tmp", "/mnt", "/run"):
        if Path(sys.prefix).is_relative_to(hidden):
            return f"Python runs from {hidden}, which each host has for itself: make the virtual environment elsewhere"
    tried = subprocess.run([*OWN, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"namespaces are not allowed here ({tried.stderr.strip()})"
    return ""


class Host:
    """One of them.

    Args:
        number: which one; the last part of its address follows from it.
        work: a folder of its own on this machine.
        key: the operator's private key, whose public half is beside it.
    """

    def __init__(self, name: str, number: int, work: Path, key: Path) -> None:
        self.name, self.address, self.home = name, f"10.213.0.{FIRST + number}", HOMES / name
        self._link, self._key = f"mesh{number}", key
        self._furnish(work, key)
        sshd = shutil.which("sshd", path=SEARCH)
        command = [*OWN, "sh", "-c", _BECOME, "sh", str(work), str(self.home), str(sshd)]
        with (work / "sshd.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._connect(self._inner())

    def _furnish(self, work: Path, key: Path) -> None:
        home = work / "home"
        (home / ".ssh").mkdir(parents=True)
        (home / ".sshd").mkdir()
        shutil.copy(f"{key}.pub", home / ".ssh" / "authorized_keys")
        make_key(home / ".sshd" / "key")
        (home / ".sshd" / "config").write_text(_SSHD.format(address=self.address, home=self.home))
        users = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
        lines = [":".join([*user[:5], str(self.home), "/bin/bash"] if user[0] == "root" else user) for user in users]
        (work / "passwd").write_text("\n".join(lines) + "\n")
        image(home / "mesh", self.home / "mesh")

    def _inner(self) -> int:
        """The process within, which holds the host's network."""
        children, ours = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children"), _network_of("self")
        until(
            f"host {self.name}",
            lambda: any(_network_of(each) != ours for each in children.read_text().split()),
            10,
            0.05,
        )
        return int(children.read_text().split()[0])

    def _connect(self, pid: int) -> None:
        peer = ["peer", "name", "eth0", "netns", str(pid)]
        ip("link", "add", self._link, "type", "veth", *peer)
        ip("link", "set", self._link, "master", "mesh-br")
        within = ["nsenter", "--net", "--target", str(pid), "ip"]
        for words in (
            ["link", "set", "lo", "up"],
            ["address", "add", f"{self.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["route", "add", "default", "via", OPERATOR],  # by which Ray finds out the host's own address
        ):
            subprocess.run([*within, *words], check=True, capture_output=True)
        self.join()

    def cut(self) -> None:
        """Pull its cable."""
        ip("link", "set", self._link, "down")

    def join(self) -> None:
        """Put it back."""
        ip("link", "set", self._link, "up")

    def run(self, command: str, within_s: float = 120.0, check: bool = True) -> str:
        """What a command prints there, run in a login's environment over ssh. Raises RuntimeError where it fails."""
        command = f"bash --login -c -i {shlex.quote('source ~/.bashrc; ' + command)}"
        done = subprocess.run(
            [*ssh(self._key), f"root@{self.address}", command],
            **{"capture_output": True, "text": True, "timeout": within_s, "stdin": subprocess.DEVNULL},
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {command} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def close(self) -> None:
        """End everything that runs there."""
        self._process.kill()
        self._process.wait()


def _network_of(process: str) -> str:
    return os.readlink(f"/proc/{process}/ns/net")


def image(made: Path, seen_as: Path | None = None) -> None:
    """A virtual environment as an image has it: Python and all that we depend on are there already, we ourselves not.

    Args:
        seen_as: its path where it is used.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made)], check=True)
    (site,) = made.glob("lib/python*/site-packages")
    (site / "image.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")) + "\n")
    ray = made / "bin" / "ray"
    ray.write_text(f"#!{seen_as or made}/bin/python\nfrom ray.scripts.scripts import main\nmain()\n")
    ray.chmod(0o755)


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def ssh(key: Path) -> list[str]:
    """The beginning of an ssh command that trusts whom it meets."""
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=10"]
    return ["ssh", "-i", str(key), *(word for option in options for word in ("-o", option))]


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def network() -> None:
    """Within a network namespace of our own: a bridge, with the operator on it."""
    ip("link", "set", "lo", "up")
    ip("link", "add", "mesh-br", "type", "bridge")
    ip("address", "add", f"{OPERATOR}/24", "dev", "mesh-br")
    ip("link", "set", "mesh-br", "up")


def until(what: str, true: Callable[[], object], within_s: float, every_s: float = 1.0) -> float:
    """Wait until a function says yes; how long that took. Raises TimeoutError with ``what`` was waited for."""
    begun = time.monotonic()
    while time.monotonic() - begun < within_s:
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            if true():
                return time.monotonic() - begun
        time.sleep(every_s)
    raise TimeoutError(f"{what}: not within {within_s:g} s")
