"""A mesh on three hosts, for real: ``python -m tests.three_hosts`` as root.

Three hosts are made of namespaces on this machine. ``ray up`` with ``deploy/cluster-local.yaml`` makes a cluster of
them, ``mesh up`` puts the pool ``lab`` on all three, and while its questions are asked, an agent joins and leaves, and
one host is cut off from the others and comes back. Then ``ray down``. Where it may not be done, it says why and skips.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.results import publish
from tests import hosts
from tests.hosts import Host, until
from training.grading import grade
from training.lab_questions import questions

REPO = Path(__file__).parents[1]
CLUSTER = REPO / "deploy" / "cluster-local.yaml"
ASKER = Path(__file__).with_name("deployed_asker.py")
NAMES = ("head", "worker-1", "worker-2")
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
DASHBOARD, FORWARDED = 8265, 18265
NUMBERS: dict[str, Any] = {
    **{"name": "numbers", "cost": 0.15, "assessor": "likelihood", "prompt": "plain", "num_gpus": 0},
    "engine": {"kind": "transformers", "max_batch": 64, "threads": 1, "device": "cpu"},
}
NODES = """python -c '
import json, ray
ray.init("auto", log_to_driver=False, logging_level="ERROR")
print("\\nNODES", json.dumps([node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]))'"""


class Deployment:
    """Three hosts, and what an operator does with them.

    Args:
        work: a folder of its own on this machine, with the wheel in ``dist``.
    """

    def __init__(self, work: Path) -> None:
        self.work, self.key = work, work / "key"
        hosts.make_key(self.key)
        hosts.network()
        self.hosts: list[Host] = []
        self.environment = {**os.environ, "HOME": str(work), "TMPDIR": str(work), "RAY_TMPDIR": str(work)}
        self.environment["PATH"] = hosts.SEARCH
        for name in ("RAY_ADDRESS", "PYTHONPATH", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            self.environment.pop(name, None)

    def open(self) -> None:
        for number, name in enumerate(NAMES):
            folder = self.work / name
            folder.mkdir()
            self.hosts.append(Host(name, number, folder, self.key))
        self.head, *self.workers = self.hosts
        for host in self.hosts:
            until(f"sshd of {host.name}", lambda host=host: host.run("true") == "", 20, 0.2)
        self.ray("get-auth-token", "--generate")
        self.file = self.work / "cluster.yaml"
        self.file.write_text(yaml.safe_dump(self.filled(), sort_keys=False))

    def filled(self) -> dict[str, Any]:
        """The cluster file as it ships, with what a user fills in."""
        config: dict[str, Any] = yaml.safe_load(CLUSTER.read_text())
        config["cluster_name"] = self.work.name
        config["provider"] |= {"head_ip": self.head.address, "worker_ips": [each.address for each in self.workers]}
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.key)}
        return config

    def ray(self, *words: str, within_s: float = 300.0) -> str:
        """One of Ray's commands, as the operator calls it; what it prints. Raises RuntimeError where it fails."""
        with (self.work / "ray.log").open("a+") as log:
            print("$ ray", *words, file=log, flush=True)
            begun = log.tell()
            done = subprocess.run(
                [*RAY, *words],
                **{"cwd": self.work, "env": self.environment, "stdin": subprocess.DEVNULL},
                **{"stdout": log, "stderr": subprocess.STDOUT, "timeout": within_s, "check": False},
            )
            log.seek(begun)
            told = log.read()
        if done.returncode:
            raise RuntimeError(f"ray {' '.join(words)} ended with {done.returncode}: {told[-2000:]}")
        return told

    def on_head(self, command: str, within_s: float = 300.0) -> str:
        return self.ray("exec", str(self.file), command, within_s=within_s)

    def nodes(self) -> list[str]:
        """The addresses of the machines that are in the cluster now."""
        found: list[str] = json.loads(re.findall("^NODES (.*)$", self.head.run(NODES), re.MULTILINE)[0])
        return found

    def status(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.head.run("mesh status --json"))
        return rows

    def reachable(self, port: int) -> bool:
        """Whether the operator's machine, which is none of the cluster's, reaches a port of the head."""
        with socket.socket() as tried:
            tried.settimeout(3)
            return tried.connect_ex((self.head.address, port)) == 0

    def lets_in(self, token: str) -> bool:
        """Whether the cluster lets in somebody from another machine who has this token."""
        environment = {**self.environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        command = [*RAY, "status", "--address", f"{self.head.address}:6379"]
        tried = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
        return tried.returncode == 0

    def job(self, *words: str, folder: Path | None = None) -> str:
        """What a job prints that the operator submits through ``ray dashboard``, an ssh tunnel to the head.

        Args:
            folder: what travels along, and where the job runs.
        """
        carried = ["--working-dir", str(folder)] if folder else []
        command = [*RAY, "dashboard", "--port", str(FORWARDED), str(self.file)]
        log = (self.work / "tunnel.log").open("wb")
        quiet = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        with log, subprocess.Popen(command, env=self.environment, cwd=self.work, **quiet) as tunnel:
            try:
                until("the tunnel", lambda: _listens(FORWARDED), 60)
                self.environment["RAY_AUTH_MODE"] = "token"
                return self.ray("job", "submit", "--address", f"http://127.0.0.1:{FORWARDED}", *carried, "--", *words)
            finally:
                self.environment.pop("RAY_AUTH_MODE", None)
                tunnel.terminate()

    def close(self) -> None:
        for host in self.hosts:
            host.close()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Asking:
    """Questions that are asked all the while, from the head."""

    def __init__(self, there: Deployment, count: int, pace_s: float) -> None:
        self.there, self.count = there, count
        made = [{"id": each.id, "question": each.text, "task": each.task} for each in questions(count)]
        (there.work / "asked.jsonl").write_text("".join(json.dumps(each) + "\n" for each in made))
        for file in (there.work / "asked.jsonl", ASKER):
            there.ray("rsync-up", str(there.file), str(file), f"~/{file.name}")
        asker = f"python {ASKER.name} asked.jsonl got.jsonl {pace_s}"
        there.head.run(f"setsid nohup {asker} > asker.log 2>&1 < /dev/null &")

    def rows(self) -> list[dict[str, Any]]:
        """What has come of those that have ended."""
        return [json.loads(line) for line in self.there.head.run("cat got.jsonl || true").splitlines()]

    def more(self, count: int = 3) -> None:
        """Wait until so many more are answered."""
        begun = len(self.rows())
        until("answers", lambda: len(self.rows()) >= min(begun + count, self.count), 300)

    def end(self) -> list[dict[str, Any]]:
        """All of them, which need not be asked slowly any more."""
        self.there.head.run("touch got.jsonl.hurry")
        until("the last answers", lambda: len(self.rows()) == self.count, 600)
        return self.rows()


def scenario(there: Deployment, count: int, pace_s: float) -> dict[str, Any]:
    """What becomes of it; everything that is told was seen."""
    begun = time.monotonic()
    found: dict[str, Any] = {"asked": count}
    there.ray("up", "--yes", "--no-config-cache", str(there.file), within_s=600)
    until("three hosts in the cluster", lambda: len(there.nodes()) == 3, 300, 2)
    found["joined"] = len(there.nodes())
    found["up_s"] = round(time.monotonic() - begun)
    say(f"{found['joined']} hosts have joined")
    there.on_head(f"mesh up lab --address {there.head.address}:6379")
    found["agents"] = {row["agent"]: name_of(row["host"]) for row in there.status()}
    say(f"mesh up: {found['agents']}")
    found["dashboard_reachable"] = there.reachable(DASHBOARD)
    token = (there.work / ".ray" / "auth_token").read_text()
    found["let_in_with_token"], found["let_in_without"] = there.lets_in(token), there.lets_in("0" * len(token))
    found["asked_by_job"] = "95" in there.job("mesh", "ask", "37+58=").split()
    (there.work / "pools").mkdir()
    (there.work / "pools" / "mine.yaml").write_text("{name: by-job, extends: scripted}")
    there.job("mesh", "up", "mine.yaml", folder=there.work / "pools")
    found["up_by_job"] = bool(json.loads(there.head.run("mesh ask hello --name by-job --json"))["text"])
    there.head.run("mesh down by-job")
    say(f"{found}")

    asking = Asking(there, count, pace_s)
    asking.more()
    joins_and_leaves(there, asking, found)
    is_cut_off(there, asking, found)
    rows = asking.end()
    there.on_head("mesh down")
    there.ray("down", "--yes", str(there.file))
    found["down_s"] = round(until("the workers' end", lambda: not any(map(raylets, there.hosts)), 180, 2))
    return found | told(rows, found.pop("cut_at")) | {"seconds": round(time.monotonic() - begun)}


def joins_and_leaves(there: Deployment, asking: Asking, found: dict[str, Any]) -> None:
    """An agent is added, which answers, and removed."""
    pools = there.head.run("python -c 'import mesh; print(mesh.__path__[0])'").strip() + "/pools"
    (there.work / "numbers.yaml").write_text(yaml.safe_dump({**NUMBERS, "model": f"{pools}/lab/numbers"}))
    there.ray("rsync-up", str(there.file), str(there.work / "numbers.yaml"), "~/numbers.yaml")
    there.on_head("mesh agents add numbers.yaml")
    asking.more()
    found["added_on"] = next(name_of(row["host"]) for row in there.status() if row["agent"] == "numbers")
    there.on_head("mesh agents remove numbers")
    asking.more()
    say(f"numbers has joined on {found['added_on']}, and left")


def is_cut_off(there: Deployment, asking: Asking, found: dict[str, Any]) -> None:
    """The host with most agents, not the head, loses its link until its agents are up elsewhere, then has it again."""
    on = [row["host"] for row in there.status()]
    host = max(there.workers, key=lambda each: on.count(each.address))
    cut = time.time()
    host.cut()
    say(f"{host.name} is cut off, with {on.count(host.address)} agents")

    def elsewhere() -> bool:
        rows = there.status()
        return all(row["state"] == "up" and row.get("host") not in (None, host.address) for row in rows)

    until("its agents elsewhere", elsewhere, 300, 2)
    found["elsewhere_s"] = round(time.time() - cut)
    found["agents_while_cut_off"] = {row["agent"]: name_of(row["host"]) for row in there.status()}
    say(f"its agents are up elsewhere after {found['elsewhere_s']} s: {found['agents_while_cut_off']}")
    until("the cluster's word that it is lost", lambda: len(there.nodes()) == 2, 300, 2)
    asking.more()
    back = time.time()
    host.join()
    found["cut_off"], found["agents_cut_off"], found["cut_at"] = host.name, on.count(host.address), (cut, back)
    until("its return", lambda: len(there.nodes()) == 3, 600, 2)
    found["back_s"] = round(time.time() - back)
    say(f"{host.name} is in the cluster again {found['back_s']} s after its link was back")
    asking.more()
    found["agents_after"] = {row["agent"]: name_of(row["host"]) for row in there.status()}


def told(rows: list[dict[str, Any]], cut: tuple[float, float]) -> dict[str, Any]:
    """What the questions have met."""
    answered = [row for row in rows if "error" not in row]
    right = {each.id: each for each in questions(len(rows))}
    return {
        "answered": len(answered),
        "errors": [row["error"] for row in rows if "error" in row],
        "right": sum(grade(row["text"], right[row["id"]]) for row in answered),
        "asked_while_cut_off": sum(cut[0] <= row["at"] < cut[1] for row in rows),
        "asked_again": sum(row["attempts"] > 1 for row in answered),
        "slowest_s": round(max(row["seconds"] for row in answered), 1),
        "median_s": round(statistics.median(row["seconds"] for row in answered), 3),
    }


def name_of(address: str) -> str:
    """A host's name."""
    return NAMES[int(address.rpartition(".")[2]) - hosts.FIRST]


def raylets(host: Host) -> bool:
    """Whether Ray runs there."""
    return bool(host.run("pgrep -x raylet", check=False).strip())


def inside(work: Path, count: int, pace_s: float) -> None:
    """What is done in namespaces of our own, in which everything ends that has been started."""
    there = Deployment(work)
    try:
        there.open()
        (work / "result.json").write_text(json.dumps(scenario(there, count, pace_s)))
    except BaseException:
        with contextlib.suppress(Exception):  # what else went wrong must not hide the first
            say(there.head.run("tail -n 30 asker.log; tail -n 5 got.jsonl; mesh status; ray status", check=False))
        raise
    finally:
        there.close()


def forget_connections(cluster: str) -> None:
    """Remove what Ray has left of its ssh connections, in a place that it lets nobody choose."""
    for folder in Path("/tmp").glob(f"ray_ssh_*/{hashlib.sha256(cluster.encode()).hexdigest()[:10]}"):
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are connected too
            folder.parent.rmdir()


def run(count: int, pace_s: float, keep: Path | None = None) -> dict[str, Any]:
    """The whole, in namespaces and a folder of its own that are gone afterwards (a copy of the folder in ``keep``).

    Raises:
        RuntimeError: it has failed; what it said is on stderr.
    """
    with tempfile.TemporaryDirectory(prefix="mesh-hosts-") as folder:
        work = Path(folder)
        wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(work / "dist"), str(REPO)]
        subprocess.run(wheel, check=True)
        within = [sys.executable, "-m", "tests.three_hosts", "--within", folder]
        within += ["--questions", str(count), "--pace-s", str(pace_s)]
        command = ["setpriv", "--pdeathsig", "KILL", *hosts.OWN, *within]  # it ends with us, however we end
        process = subprocess.Popen(command, cwd=REPO, env={**os.environ, "PATH": hosts.SEARCH}, stdout=sys.stderr)
        try:
            code = process.wait()
        finally:
            process.kill()  # and with it all that lives in its namespaces
            process.wait()
            forget_connections(work.name)
            if keep is not None:
                shutil.copytree(work, keep, dirs_exist_ok=True)
        if code:
            raise RuntimeError(f"it ended with {code}")
        result: dict[str, Any] = json.loads((work / "result.json").read_text())
        return result


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what has been made is removed
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=500, help="how many are asked (default: %(default)s)")
    parser.add_argument(
        "--pace-s", type=float, default=0.4, help="one each so many seconds at first (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="where three_hosts.json goes (default: benchmarks/results)")
    parser.add_argument("--keep", type=Path, help="a folder for the logs and the hosts' configuration")
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.within:
        return inside(args.within, args.questions, args.pace_s)
    if why := hosts.lacking():
        print(f"skipped: {why}", file=sys.stderr)
        print("RESULT " + json.dumps({"skipped": why}))
        return None
    result = run(args.questions, args.pace_s, args.keep)
    publish("three_hosts", result, out=args.out)
    if result["joined"] != len(NAMES) or result["answered"] != args.questions:
        sys.exit(1)
    return None


if __name__ == "__main__":
    main()
