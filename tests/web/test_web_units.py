"""The client's own tests, and that what they expect is what Python gives.

``python tests/web/test_web_units.py`` writes ``client/web/tests/expected.json`` anew.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpeft.device.manifest import DecoderFacts
from fedpeft.device.text import Text
from fedpeft.device.words import Words, finished
from fedpeft.export.adapter import write_onnx_adapter
from fedpeft.signing.encoding import enc

CLIENT = Path(__file__).resolve().parents[2] / "client" / "web"
EXPECTED = CLIENT / "tests" / "expected.json"
TOKENIZER = CLIENT.parents[1] / "fedpeft" / "base" / "builtin" / "keyboard" / "tokenizer.json"
FACTS = DecoderFacts(
    context=512, vocabulary=2048, layers=4, kv_heads=4, head_dim=64, start=(1,), me=(3,), you=(4,), end=(2,), pad=0
)
TEXTS = (
    "",
    "I think that we should go",
    "I'm goi",
    "  two  spaces\n\nand\tlines ",
    "naïve façade – ‘quotes’ “double” …",
    "😀 emoji 👩‍👩‍👧 and 日本語",
    "I've you'd don't DON'T 100,000.50 $5% #1",
    "<me> <pad></s>typed marks",
    "(so",
    "it's 5 o'cl",
    "wait...what?!",
    "ümlaut Ünd ß",
    "a" * 60,
)


def expectations() -> dict[str, Any]:
    """Compute what the client must give."""
    text = Text(TOKENIZER.read_bytes(), FACTS)
    words = Words(text)
    divided = {typed: words.divide(typed) for typed in TEXTS}
    cases = ((b"", b""), (b" I", b" I"), (b"", b" th"), (b" t", b" thi"), (b"", b"x"), (b" the", b" the"))
    return {
        "ids": {typed: text.encode(typed) for typed in TEXTS},
        "decoded": {typed: text.decode(text.encode(typed)) for typed in TEXTS},
        "begun": text.begin("I think that we should go", room=6),
        "divided": {typed: [before, list(target)] for typed, (before, target) in divided.items()},
        "following": [
            [list(spelled), list(target), np.flatnonzero(words.following(spelled, target)).tolist()]
            for spelled, target in cases
        ],
        "ends": np.flatnonzero(words.ends).tolist(),
        "finished": {
            word: finished(word.encode(), b" th") for word in (" that", " th", " the.", " they're", " that's'", "thus")
        },
        "encoded": enc("bundle", b"abc", b"").hex(),
        "adapter": _adapter(),
    }


def _adapter() -> dict[str, Any]:
    """Return a small adapter file of both kinds of numbers, and what is in it."""
    arrays = {
        "a.lora_A.weight": np.arange(6, dtype=np.float32).reshape(3, 2) / 7,
        "b.half": np.array([0.5, -2, 65504, 6e-8, 0], np.float16),
        "c.empty": np.zeros((0, 4), np.float32),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.onnx_adapter"
        write_onnx_adapter(arrays, path)
        content = path.read_bytes()
    tensors = {name: [list(array.shape), array.astype(float).ravel().tolist()] for name, array in arrays.items()}
    return {"file": base64.b64encode(content).decode(), "tensors": tensors}


def test_what_the_clients_tests_expect_is_what_python_gives() -> None:
    written, fresh = json.loads(EXPECTED.read_text()), json.loads(json.dumps(expectations()))
    for part in (written, fresh):
        del part["adapter"]["file"]  # the format leaves some bytes open
    assert written == fresh, f"python {Path(__file__).name}"


@pytest.mark.parametrize("command", ["check", "test"])
def test_the_clients_types_and_own_tests_pass(command: str) -> None:
    from fedpeft.web import built_page

    npm = shutil.which("npm")
    assert npm, "install node 20 or newer with npm"
    built_page()  # installs the packages
    done = subprocess.run(
        [npm, "run", "--silent", command], cwd=CLIENT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    EXPECTED.write_text(json.dumps(expectations(), ensure_ascii=False, indent=1, sort_keys=True) + "\n")
