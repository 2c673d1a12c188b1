"""A smaller base: the first and last layers of a larger one, a base like any other."""

import pytest
import torch

from fedpeft.base import load_base
from fedpeft.base.fingerprint import fingerprint
from fedpeft.base.shrink import kept_layers, shrink
from fedpeft.base.tokenizer import vocabulary_hash
from fedpeft.cli.app import main
from fedpeft.errors import BaseError


def test_the_first_and_the_last_layers_stay_and_of_an_odd_number_one_more_of_the_first():
    assert kept_layers(4, 2) == [0, 3]
    assert kept_layers(30, 5) == [0, 1, 2, 28, 29]


def test_what_is_left_is_the_larger_bases_own_weights_under_a_fingerprint_of_its_own(tmp_path):
    identity = shrink("keyboard", 3, tmp_path / "small", "Apache-2.0")
    small, whole = load_base(str(tmp_path / "small")), load_base("keyboard")
    assert small.fingerprint == identity == fingerprint(tmp_path / "small") != whole.fingerprint
    assert vocabulary_hash(small.tokenizer) == vocabulary_hash(whole.tokenizer)
    for mine, theirs in zip(small.model.model.layers, [whole.model.model.layers[i] for i in (0, 1, 3)], strict=True):
        for name, parameter in mine.named_parameters():
            assert torch.equal(parameter, theirs.get_parameter(name)), name
    assert torch.equal(small.model.lm_head.weight, whole.model.lm_head.weight)
    ids = torch.arange(5, 13)[None]
    del whole.model.model.layers[2]
    with torch.no_grad():
        wanted = whole.model(input_ids=ids, use_cache=False).logits
        assert torch.equal(small.model(input_ids=ids, use_cache=False).logits, wanted)
    card = (tmp_path / "small" / "README.md").read_text()
    assert "layers 1, 2 and 4" in card
    assert card.startswith("---\nlicense: Apache-2.0\n---\n# keyboard with 3 of its 4 layers\n")


def test_bases_without_so_many_layers_encoders_and_folders_in_use_are_refused(tmp_path):
    for layers in (1, 4):
        with pytest.raises(BaseError, match=f"--layers: found {layers}, expected 2 to 3, fewer than the 4 of keyboard"):
            shrink("keyboard", layers, tmp_path / "small")
    with pytest.raises(BaseError, match=r"base.name: found 'minilm', expected a causal language model"):
        shrink("minilm", 2, tmp_path / "small")
    assert not list(tmp_path.iterdir())
    with pytest.raises(BaseError, match=r"--out: found .*, expected a folder that is not there yet"):
        shrink("keyboard", 2, tmp_path)


def test_the_command_line_shrinks_and_asks_a_teacher(tmp_path, capsys):
    out, text = tmp_path / "small", tmp_path / "text.txt"
    assert main_code(["base", "shrink", "keyboard", "--layers", "2", "--out", str(out)]) == 0
    assert "2,032,896 parameters" in capsys.readouterr().out
    text.write_text("what do you think of it\n\nhaha yeah\n" * 20)
    options = ["--text", str(text), "--window", "16", "--windows", "4", "--top", "8"]
    assert main_code(["distill", str(out), "--out", str(tmp_path / "l.safetensors"), *options]) == 0
    assert "4 windows of 16 tokens" in capsys.readouterr().out
    assert main_code(["distill", "keyboard", "--out", str(tmp_path / "m"), "--text", str(tmp_path / "no")]) == 2
    assert "--text: found" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "m").exists()


def main_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)
