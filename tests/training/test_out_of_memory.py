"""A process that really runs out of memory takes its step all the same, with the numbers that it would have had."""

import json
import subprocess
import sys

import pytest

CHILD = """
import json, resource
from pathlib import Path
import torch
from fedpeft.base import load_base
from fedpeft.data import Client, load_federation
from fedpeft.data.windows import windows
from fedpeft.methods import Attached
from fedpeft.methods.attached import SHARED
from fedpeft.methods.lora import Lora
from fedpeft.tasks.next_word import NextWord
from fedpeft.training import Training, train

torch.set_num_threads(1)
federation, base = load_federation("keyboard"), load_base("keyboard", "float32")
attached, task = Attached(base, Lora(rank=4), None, seed=0), NextWord(base, federation, 64)
text = windows(Client.of(federation, "user-05").split.train, base.tokenizer, 64).head(24)

def trained(micro):
    attached.activate(SHARED)
    attached.write(SHARED, attached.initial[SHARED])
    done = train(attached, SHARED, task, text, Training(steps=1, batch=24, micro_batch=micro), seed=3)
    return done.micro, done.loss, attached.read(SHARED)

trained(1)  # what the libraries allocate once
held = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line)
resource.setrlimit(resource.RLIMIT_DATA, (1024 * held + (70 << 20), resource.RLIM_INFINITY))
scarce = trained(None)
resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
begun_so, plenty = trained(scarce[0]), trained(None)
alike = float((abs(scarce[2] - begun_so[2]) < 1e-6).mean())
print(json.dumps([scarce[:2], begun_so[:2], plenty[:2], alike]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_under_a_limit_of_the_system_parts_are_halved_and_nothing_is_lost():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-2000:]
    scarce, begun_so, plenty, alike = json.loads(done.stdout.splitlines()[-1])
    assert 1 <= scarce[0] < plenty[0] == 24
    assert scarce == [begun_so[0], pytest.approx(begun_so[1], rel=1e-6)]
    # Not to the bit: a matrix kernel that finds no room for its own buffers adds up in another order.
    assert alike > 0.99
