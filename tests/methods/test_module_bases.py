"""Methods of our own on bases that are not tiny, not whole or not theirs; and their row in the documents."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
import torch

from fedpeft.base import load_base
from fedpeft.errors import ScenarioError
from fedpeft.methods import Attached, Method
from fedpeft.methods.adapter_fusion import AdapterFusion
from fedpeft.methods.adapter_lora import AdapterLora
from fedpeft.methods.attached import PRIVATE, SHARED
from fedpeft.methods.bitfit import BitFit
from fedpeft.methods.compacter import Compacter
from fedpeft.methods.diff_pruning import DiffPruning
from fedpeft.methods.expert_mixture import ExpertMixture
from fedpeft.methods.fed_sb import FedSb
from fedpeft.methods.full import Full
from fedpeft.methods.houlsby import Houlsby
from fedpeft.methods.lora import Lora
from fedpeft.methods.pfeiffer import Pfeiffer
from fedpeft.methods.shared_lora import SharedLora
from fedpeft.methods.unipelt import UniPelt
from tests.methods.modules import (
    METHODS,
    M,
    attached,
    noisy,
)
from tests.methods.tiny import base_of, batch, llama


@METHODS
def test_no_token_sees_a_later_one(method, size):
    own = attached("llama", method)
    own.write(SHARED, noisy(own))
    ids = batch("llama")["input_ids"]
    other = ids.clone()
    other[:, 6:] = 5
    with torch.no_grad():
        one, two = own.model(input_ids=ids).logits, own.model(input_ids=other).logits
        torch.testing.assert_close(one[:, :6], two[:, :6], atol=1e-5, rtol=1e-5)
        cached = own.model(input_ids=ids[:, :6], use_cache=True).past_key_values
        later = own.model(input_ids=ids[:, 6:], past_key_values=cached).logits
    torch.testing.assert_close(later, one[:, 6:], atol=1e-4, rtol=1e-4)


def test_full_fine_tuning_of_the_builtin_base_leaves_its_file_alone():
    base = load_base("keyboard", "float32")
    file = base.folder / "model.safetensors"
    before = sha256(file.read_bytes()).hexdigest()
    own = Attached(base, Full(), Full().private(4), 0)
    assert own.schemas[SHARED].size == base.parameters  # tied embeddings once
    own.write(SHARED, own.read(SHARED) + np.float32(0.01))
    own.activate()
    assert sha256(file.read_bytes()).hexdigest() == before
    own.activate(SHARED, PRIVATE)
    assert set(own.methods) == {SHARED, PRIVATE}
    assert isinstance(own.methods[PRIVATE], Lora)


@METHODS
def test_the_builtin_base_can_learn_with_it(method, size):
    own = Attached(load_base("keyboard", "float32"), method, None, 0)
    ids = torch.randint(5, 2048, (2, 12), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(own.parameters(SHARED), lr=1e-3)
    losses = []
    for _ in range(4):
        loss = own.model(input_ids=ids, labels=ids).loss
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]


def test_the_bases_own_directions_are_not_to_be_had_from_four_bits():
    with pytest.raises(
        ScenarioError, match=r"^method\.init: found 'svd', expected random; the base's weights are quant"
    ):
        Attached(load_base("keyboard", "float32", precision="nf4"), FedSb(init="svd"), None, 0)


@pytest.mark.parametrize("method", [Pfeiffer(size=M), FedSb(rank=4), BitFit(), DiffPruning(), SharedLora(rank=2)])
def test_a_base_in_four_bits_will_do(method):
    own = Attached(load_base("keyboard", "float32", precision="nf4"), method, None, 0)
    ids = torch.randint(5, 2048, (2, 12), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(own.parameters(SHARED), lr=3e-3)
    losses = []
    for _ in range(3):
        loss = own.model(input_ids=ids, labels=ids).loss
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Houlsby(size=65), "method.size: found 65, expected at most 64"),
        (ExpertMixture(size=65), "method.size: found 65, expected at most 64"),
        (AdapterFusion(size=65), "method.size: found 65, expected at most 64"),
        (AdapterLora(adapter=Pfeiffer(size=65)), "method.adapter.size: found 65, expected at most 64"),
        (UniPelt(size=65), "method.size: found 65, expected at most 64"),
        (Compacter(n=3, size=9), "method.n: found 3, expected a divisor of 64"),
        (Compacter(n=4, size=10), "method.size: found 10, expected a multiple of n = 4"),
        (Compacter(n=4, size=8, rank=3), "method.rank: found 3, expected at most size / n = 2"),
        (ExpertMixture(experts=2, top=3), "method.top: found 3, expected at most experts = 2"),
        (FedSb(rank=33), "method.rank: found 33, expected at most 32; .* is 32 wide"),
        (SharedLora(rank=33), "method.rank: found 33, expected at most 32; .* is 32 wide"),
        (AdapterLora(lora=Lora(rank=33)), "method.lora.rank: found 33, expected at most 32; .* is 32 wide"),
        (UniPelt(rank=33), "method.rank: found 33, expected at most 32"),
        (SharedLora(rank=2, groups=3), "method.groups: found 3, expected at most 2"),
        (
            SharedLora(rank=2, targets=["lm_head"]),
            "method.targets: found 'lm_head', expected modules inside the layers",
        ),
        (FedSb(rank=2, targets=["q_porj"]), "method.targets: found 'q_porj', .*q_proj.*; modules of this base: "),
        (BitFit(targets=["nowhere"]), "method.targets: found 'nowhere'"),
        (DiffPruning(mask="given"), "method.like: found '', expected the folder of an adapter; mask is 'given'"),
        (DiffPruning(like="folder"), "method.like: found 'folder', expected nothing; mask is 'seeded'"),
        (DiffPruning(targets=[]), r"method.targets: found \[\]"),
        (DiffPruning(mask="learned", targets=["nowhere"]), "method.targets: found 'nowhere'"),
    ],
    ids=lambda v: v.name if isinstance(v, Method) else "",
)
def test_what_does_not_fit_the_base_is_refused_with_a_remedy(method, message):
    with pytest.raises(ScenarioError, match=f"^{message}"):
        Attached(base_of(llama()), method, None, 0)


def test_a_mask_of_another_method_or_base_is_refused(tmp_path):
    own = attached("llama", Pfeiffer(size=M))
    own.adapter(SHARED, own.read(SHARED)).save(tmp_path / "pfeiffer")
    with pytest.raises(
        ScenarioError, match=r"^method\.like: found 'pfeiffer in .*', expected diff_pruning with mask = 'learned'"
    ):
        attached("llama", DiffPruning(mask="given", like=str(tmp_path / "pfeiffer")))
    other = attached("bert", DiffPruning(mask="learned"))
    other.adapter(SHARED, other.read(SHARED)).save(tmp_path / "bert")
    with pytest.raises(ScenarioError, match=r"^method\.like: found 'nothing for model\.layers\.0"):
        attached("llama", DiffPruning(mask="given", like=str(tmp_path / "bert")))


@METHODS
def test_its_row_in_the_documents_is_one_line_each(method, size):
    for field in ("equation", "source", "sends", "limits"):
        text = getattr(type(method), field)
        assert text
        assert "\n" not in text
        assert len(text) <= 120
    assert all(field.description for field in type(method).model_fields.values())
