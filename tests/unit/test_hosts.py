"""What ``python -m tests.three_hosts`` says where it cannot be done, and how it counts where it can."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

import pytest

from tests import hosts, three_hosts
from training.lab_questions import questions


def test_who_is_not_root_is_told_why_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["three_hosts"])
    monkeypatch.setattr(three_hosts, "run", None)  # it must not be tried
    monkeypatch.setattr(three_hosts.signal, "signal", lambda *_: None)
    three_hosts.main()
    told = capsys.readouterr()
    why = "only root may make network namespaces"
    assert json.loads(told.out.removeprefix("RESULT ")) == {"skipped": why}
    assert why in told.err


def test_what_is_missing_is_named_by_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda command, path: None if command in ("sshd", "rsync", "ip") else command)
    assert hosts.lacking() == "missing: apt-get install iproute2 openssh-server rsync"


def test_python_must_be_where_every_host_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda command, path: command)
    monkeypatch.setattr(sys, "prefix", "/tmp/venv")
    assert "make the virtual environment elsewhere" in hosts.lacking()


def test_answers_are_counted_by_hand() -> None:
    first, second, third = questions(3)
    assert first.answer
    rows: list[dict[str, Any]] = [
        {"id": first.id, "at": 9.0, "text": first.answer, "attempts": 1, "seconds": 0.1},
        {"id": second.id, "at": 10.0, "text": "no", "attempts": 2, "seconds": 41.26},
        {"id": third.id, "at": 20.0, "error": "NoAgentLeft: nobody"},
    ]
    assert three_hosts.told(rows, (10.0, 20.0)) == {
        **{"answered": 2, "errors": ["NoAgentLeft: nobody"], "right": 1, "asked_while_cut_off": 1, "asked_again": 1},
        **{"slowest_s": 41.3, "median_s": 20.68},
    }
