"""Whole federations on loopback: a SuperLink with TLS and node authentication, a ServerApp, and nodes that are killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from .federation import CLIENTS, Federation, scenario_of


@pytest.fixture
def federation(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Federation]:
    made = Federation(tmp_path, scenario_of(request.param))
    for node in made.nodes:
        node.start()  # forked before there are threads
    made.thread.start()
    try:
        yield made
    finally:
        made.supervisor.stop()
        made.thread.join(60)
        for node in made.nodes:
            node.stop()


@pytest.mark.slow
@pytest.mark.parametrize("federation", [4], indirect=True)
def test_no_finished_round_is_lost_when_a_node_the_superlink_and_the_serverapp_are_killed(
    federation: Federation,
) -> None:
    victim = federation.nodes[2]
    federation.wait_for_round(1)
    victim.kill()
    victim.start()
    federation.wait_for_round(2)
    kept = json.dumps(federation.rounds[:3])
    os.kill(federation.program("superlink"), signal.SIGKILL)
    federation.wait_for_round(3)
    executor = psutil.Process(federation.program("superexec"))
    (serverapp,) = [child for child in executor.children(recursive=True) if "serverapp" in " ".join(child.cmdline())]
    serverapp.kill()
    federation.finish()
    rows = federation.rounds
    assert [row["round"] for row in rows] == [0, 1, 2, 3, 4], federation.story()
    assert json.dumps(rows[:3]) == kept
    assert "superlink ended with -9; it is started again" in federation.said
    assert victim.log.count("knows this node as") == 2
    if all(row["contributors"] == CLIENTS for row in rows[1:]):
        np.testing.assert_array_equal(federation.found(), federation.expected())
    assert any(row["contributors"] for row in rows[3:]), federation.story()
