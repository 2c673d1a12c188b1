"""A base is found by name, mapped in its compute precision, and refused in one clear line otherwise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedpeft.base import builtin_names, load_base
from fedpeft.base.cache import home as home_of_process
from fedpeft.base.locate import BUILTIN, locate
from fedpeft.errors import BaseError

KEYBOARD = BUILTIN / "keyboard"


def mapped(folder: Path) -> bool:
    """Say whether this process maps the folder's weights (rather than having read them)."""
    return str(folder / "model.safetensors") in Path("/proc/self/maps").read_text()


def logits(base) -> torch.Tensor:
    with torch.no_grad():
        return base.model(input_ids=torch.tensor([[1, 3, 300, 301, 302, 2]])).logits


def test_the_builtin_base_needs_no_copy(home):
    base = load_base("keyboard")
    assert builtin_names() == ["keyboard"]
    assert base.folder == KEYBOARD
    assert base.dtype == torch.bfloat16
    assert mapped(base.folder)
    assert not home.exists()


def test_a_base_is_frozen_and_in_evaluation_mode():
    base = load_base("keyboard")
    assert not base.model.training
    assert not any(p.requires_grad for p in base.model.parameters())


def test_sizes_count_tied_parameters_once():
    base = load_base("keyboard")
    state = base.model.state_dict()
    assert state["lm_head.weight"].data_ptr() == state["model.embed_tokens.weight"].data_ptr()
    assert base.parameters == sum(t.numel() for name, t in state.items() if name != "lm_head.weight")
    assert base.float32_bytes == 4 * base.parameters


def test_another_precision_is_converted_once_and_then_mapped(home):
    first = load_base("keyboard", "float32")
    assert first.dtype == torch.float32
    assert first.folder.parent == home / "bases"
    assert first.folder.name.startswith(first.fingerprint[:16])
    assert first.folder.name.endswith("float32")
    assert mapped(first.folder)
    # A second conversion would change the times of the files, or of the folder that its draft lay in.
    places = [first.folder.parent, first.folder, *first.folder.iterdir()]
    written = [place.stat().st_mtime_ns for place in places]
    assert load_base("keyboard", "float32").folder == first.folder
    assert [place.stat().st_mtime_ns for place in places] == written
    assert [p.name for p in (home / "bases").iterdir()] == [first.folder.name]


def test_the_converted_copy_holds_the_originals_numbers(home):
    original, copy = load_base("keyboard"), load_base("keyboard", "float32")
    for (name, ours), (_, theirs) in zip(copy.model.named_parameters(), original.model.named_parameters(), strict=True):
        assert torch.equal(ours, theirs.float()), name
    assert copy.tokenizer.get_vocab() == original.tokenizer.get_vocab()
    # bfloat16 keeps 8 bits; the two agree as well as that allows.
    assert (logits(copy) - logits(original).float()).abs().max() < 0.03 * logits(copy).abs().max()


def test_weights_in_the_wanted_precision_need_no_copy_even_if_their_configuration_does_not_say_so(copied, home):
    """Encoders published before transformers 4.5 have no ``dtype`` in their configuration."""
    silent = {key: value for key, value in CONFIG.items() if key not in ("dtype", "torch_dtype")}
    (copied / "config.json").write_text(json.dumps(silent))
    assert load_base(str(copied), "bfloat16").folder == copied
    assert not home.exists()


def test_a_language_model_whose_weights_are_not_all_there_is_refused(copied, home):
    weights = load_file(copied / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, copied / "model.safetensors", {"format": "pt"})
    for dtype in ("bfloat16", "float32"):
        with pytest.raises(BaseError, match=r"found 'weights without model\.norm\.weight', expected a causal"):
            load_base(str(copied), dtype)


def test_an_unknown_way_of_holding_weights_is_refused_with_the_nearest():
    with pytest.raises(BaseError, match=r"base\.precision: found 'nf8', .*did you mean 'nf4'\?"):
        load_base("keyboard", precision="nf8")


def test_a_folder_is_a_base_by_its_path_absolute_or_relative_to_a_root(copied):
    assert load_base(str(copied)).folder == copied
    assert load_base(copied.name, root=copied.parent).fingerprint == load_base("keyboard").fingerprint


def test_home_is_where_the_environment_says(home, monkeypatch):
    assert home_of_process() == home
    monkeypatch.delenv("FEDPEFT_HOME")
    assert home_of_process() == Path.home() / ".cache" / "fedpeft"
    monkeypatch.setenv("FEDPEFT_HOME", "")
    assert home_of_process() == Path.home() / ".cache" / "fedpeft"


def test_an_account_without_a_home_needs_none_when_the_environment_names_a_place(home, monkeypatch):
    def homeless(_: object = None) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert home_of_process() == home


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "keybord",
            "base.name: found 'keybord', expected a builtin name, a folder or a hub id; did you mean 'keyboard'?",
        ),
        (
            "./nowhere",
            "base.name: found './nowhere', expected a builtin name, a folder or a hub id; known: keyboard, minilm, smollm2-135m",
        ),
        (
            "a/b/c",
            "base.name: found 'a/b/c', expected a builtin name, a folder or a hub id; known: keyboard, minilm, smollm2-135m",
        ),
    ],
)
def test_an_unknown_base_is_refused_with_what_was_probably_meant(name, message):
    with pytest.raises(BaseError) as refused:
        load_base(name)
    assert str(refused.value) == message


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(BaseError, match=r"expected a folder with config\.json; .* has none"):
        load_base(tmp_path.name, root=tmp_path.parent)


def test_an_unknown_precision_is_refused_with_the_nearest():
    with pytest.raises(BaseError, match=r"base\.dtype: found 'bf16', .*did you mean 'bfloat16'\?"):
        load_base("keyboard", "bf16")


def test_a_hub_id_without_a_network_says_what_to_use_instead(tmp_path, monkeypatch):
    # The hub's client reads its environment when it is imported; a process that started offline has these.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BaseError) as refused:
        locate("someone/some-model")
    assert refused.value.field == "base.name"
    assert refused.value.value == "someone/some-model"
    assert refused.value.expected == "a hub id that can be fetched from here"
    assert (
        "use a known base (keyboard, minilm, smollm2-135m) or a local folder when there is no network"
        in refused.value.remedy
    )


CONFIG = json.loads((KEYBOARD / "config.json").read_text())


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"),
        ("config.json", "{}"),
        ("config.json", json.dumps({**CONFIG, "model_type": "no-such-model"})),
        ("config.json", json.dumps({**CONFIG, "hidden_size": 128, "head_dim": 32})),
        ("tokenizer.json", "{"),
        ("tokenizer.json", None),
    ],
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_folder_that_is_no_whole_model_is_refused(copied, home, file, content, dtype):
    if content is None:
        (copied / file).unlink()
        (copied / "tokenizer_config.json").unlink()
    else:
        (copied / file).write_text(content)
    with pytest.raises(BaseError, match="base"):
        load_base(str(copied), dtype)
    assert not list(home.glob("bases/*"))


def test_truncated_weights_are_refused_before_anything_is_loaded(edit):
    with pytest.raises(BaseError, match="a whole safetensors file"):
        load_base(str(edit(lambda content: content[:-1])))


def test_a_converted_copy_follows_a_change_of_the_sources_configuration(copied, home):
    """The fingerprint is over the weights alone, so it cannot be the copy's whole name."""
    load_base(str(copied), "float32")
    (copied / "config.json").write_text(json.dumps({**CONFIG, "rms_norm_eps": 0.5}))
    assert load_base(str(copied), "float32").model.config.rms_norm_eps == 0.5


def test_a_full_disk_leaves_no_half_copy_and_names_the_cache(home):
    script = (
        "import resource\n"
        "from fedpeft.base import load_base\n"
        "from fedpeft.errors import BaseError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try:\n"
        "    load_base('keyboard', 'float32')\n"
        "except BaseError as refused:\n"
        "    print(refused)\n"
    )
    # ``copy`` of the environment: the home that the fixture made.
    done = subprocess.run(
        [sys.executable, "-c", script], env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "base cache" in done.stdout
    assert "room to write a copy" in done.stdout
    assert list((home / "bases").iterdir()) == []
