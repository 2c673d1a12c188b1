"""Every message has the length that was announced, and no altered one is taken."""

import numpy as np
import pytest

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise.rehearsal import Rehearsal
from fedpeft.secagg.pairwise.wire import contribution_length, handshake_length, reply_length, request_length

NAMES = [f"c{i}" for i in range(8)]


@pytest.mark.parametrize("bits", [4, 12, 16, 32])
def test_lengths_are_known_before_a_message_comes(bits):
    run = Rehearsal.of(NAMES, 11, bits)
    sent = dict.fromkeys(NAMES, np.zeros(11, np.uint8 if bits < 9 else np.uint16 if bits < 17 else np.uint32))
    collected = run.server.open_round(1, "train", "model", NAMES)
    context = collected.context
    for name in NAMES[1:]:
        message = run.clients[name].contribute(1, "train", "model", NAMES, sent[name])
        assert len(message) == contribution_length(context) == -(-11 * bits // 8) + handshake_length(context)
        collected.add(name, message)
    gone, stages = set(), []
    while (asked := collected.requests()) is not None:
        stage, requests = asked
        stages.append(stage)
        for name, request in requests.items():
            if stage == "survivors" and name == NAMES[1]:
                gone.add(name)
            if name in gone:
                continue
            i = context.index(name)
            wards, owed = len(collected._wards(i)), len(collected._owed(i))
            assert len(request) == request_length(stage, context, len(collected._left), wards)
            reply = run.clients[name].answer(stage, request)
            seeds = owed if stage == "pairs" or stages == ["survivors"] else 0
            assert len(reply) == reply_length(stage, seeds, wards)
            collected.answer(stage, name, reply)
    assert stages == ["survivors", "survivors", "pairs", "lock", "unmask"]
    assert len(collected.survivors) == 6


def test_a_message_is_measured_before_it_is_read():
    run = Rehearsal.of(NAMES, 11)
    collected = run.server.open_round(1, "train", "model", NAMES)
    for wrong in (b"", bytes(contribution_length(collected.context) + 1), bytes(10**7)):
        with pytest.raises(ProtocolError, match="length"):
            collected.add(NAMES[0], wrong)
    with pytest.raises(ProtocolError, match="length"):
        run.server.join(NAMES[0], bytes(199))
    run.clients[NAMES[0]].contribute(1, "train", "model", NAMES, np.zeros(11, np.uint16))
    with pytest.raises(ProtocolError, match="length"):
        run.clients[NAMES[0]].answer("survivors", bytes(10**6))
    with pytest.raises(ProtocolError, match="length"):
        run.clients[NAMES[0]].meet(NAMES, bytes(10**6))
