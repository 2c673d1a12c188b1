"""Prompts and prefixes before every way to hand over a text: generation, caches, masks, embeddings."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from fedpeft.methods.attached import SHARED
from fedpeft.methods.prompt_tuning import PromptTuning
from tests.methods.prompted import (
    METHODS,
    ON,
    PLAIN,
    K,
    attached,
    generated,
    logits,
    opened_by_peft,
    padded,
)
from tests.methods.tiny import batch


@METHODS
def test_greedy_generation_is_the_same_with_and_without_a_cache(method, size):
    own = attached("llama", method, private=method.private(4))
    cached = generated(own.model)
    assert torch.equal(cached, generated(own.model, use_cache=False))
    own.activate()
    assert not torch.equal(cached, generated(own.model))


@METHODS
def test_beams_and_padded_texts_generate_the_same_with_and_without_a_cache(method, size):
    own = attached("llama", method)
    mask = torch.ones_like(batch("llama")["input_ids"])
    mask[0, :4] = 0
    cached = generated(own.model, attention_mask=mask)
    assert torch.equal(cached, generated(own.model, attention_mask=mask, use_cache=False))
    alone = own.model.generate(
        input_ids=batch("llama")["input_ids"][:1, 4:], max_new_tokens=10, min_new_tokens=10, do_sample=False
    )
    assert torch.equal(cached[:1, 4:], alone)
    beams = generated(own.model, attention_mask=mask, num_beams=3)
    assert torch.equal(beams, generated(own.model, attention_mask=mask, num_beams=3, use_cache=False))


@PLAIN
def test_it_generates_what_peft_generates(method, tmp_path):
    own = attached("llama", method)
    theirs = opened_by_peft("llama", own.adapter(SHARED, own.read(SHARED)), tmp_path / "adapter")
    assert torch.equal(generated(own.model), generated(theirs))


@METHODS
@pytest.mark.parametrize("masked", [True, False], ids=["mask", "no mask"])
def test_a_text_read_in_pieces_through_a_cache_is_the_text_read_at_once(method, size, masked):
    own = attached("llama", method, private=method.private(4))
    ids = batch("llama")["input_ids"]
    whole = logits(own.model, "llama", input_ids=ids)
    for given in (None, DynamicCache(), DynamicCache(config=own.model.config)):
        cache, parts, read = given, [], 0
        for piece in ids.split([5, 1, 4, 2], dim=1):
            read += piece.shape[1]
            mask = {"attention_mask": torch.ones(len(ids), read, dtype=torch.long)} if masked else {}
            with torch.no_grad():
                out = own.model(input_ids=piece, past_key_values=cache, use_cache=True, **mask)
            cache = out.past_key_values
            parts.append(out.logits)
        assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-5)


@PLAIN
def test_an_emptied_cache_is_a_new_one(method):
    own = attached("llama", method)
    ids, cache = batch("llama")["input_ids"], DynamicCache()
    with torch.no_grad():
        first = own.model(input_ids=ids, past_key_values=cache).logits
        cache.crop(-cache.get_seq_length())
        again = own.model(input_ids=ids, past_key_values=cache).logits
    assert torch.equal(first, again)


# How it is called.


@ON
@METHODS
def test_it_does_not_matter_how_the_text_is_handed_over(method, size, kind):
    own = attached(kind, method)
    given = padded(kind)
    expected = logits(own.model, kind)
    vectors = own.model.get_input_embeddings()(given["input_ids"])
    with torch.no_grad():
        by_vectors = own.model(inputs_embeds=vectors, attention_mask=given["attention_mask"]).logits
        as_tuple = own.model(**given, return_dict=False)[0]
        positions = torch.arange(vectors.shape[1])[None]
        by_position = own.model(**given, position_ids=positions).logits
        states = own.model(**given, output_hidden_states=True).hidden_states
    for found in (by_vectors, as_tuple, by_position):
        assert torch.equal(found, expected)
    if kind == "llama":
        assert {s.shape[1] for s in states} == {vectors.shape[1]}
    else:
        types = torch.zeros_like(given["input_ids"])
        assert torch.equal(logits(own.model, kind, **given, token_type_ids=types), expected)


@ON
@METHODS
def test_a_full_mask_is_no_mask(method, size, kind):
    own = attached(kind, method)
    ids = batch(kind)["input_ids"]
    without = logits(own.model, kind, input_ids=ids)
    torch.testing.assert_close(without, logits(own.model, kind, input_ids=ids, attention_mask=torch.ones_like(ids)))


@ON
def test_prompts_train_alike_when_activations_are_computed_again(kind):
    gradients = []
    for again in (False, True):
        own = attached(kind, PromptTuning(length=K))
        for module in own.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if again:
            own.model.gradient_checkpointing_enable({"use_reentrant": False})
        own.model.train()
        parameters = own.parameters(SHARED)
        own.model(**batch(kind)).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in parameters]))
    torch.testing.assert_close(*gradients)
