"""The short form of ``python -m tests.three_hosts``."""

from __future__ import annotations

import pytest

from tests import hosts, three_hosts

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.timeout(1500)
def test_a_mesh_on_three_hosts_answers_while_one_is_cut_off() -> None:
    if why := hosts.lacking():
        pytest.skip(why)
    found = three_hosts.run(60, 1.0)
    assert (found["joined"], len({*found["agents"].values()})) == (3, 3)
    assert (found["answered"], found["errors"]) == (60, [])
    assert found["agents_cut_off"] >= 1
    assert found["asked_while_cut_off"] >= 5
    assert found["cut_off"] not in found["agents_while_cut_off"].values()
    assert found["up_by_job"]
    assert found["asked_by_job"]
    assert (found["let_in_with_token"], found["let_in_without"], found["dashboard_reachable"]) == (True, False, False)
