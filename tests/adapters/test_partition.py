"""Which factor is trained and shared in which round."""

import numpy as np
import pytest

from fedpeft.adapters.partition import PARTITIONS

A, B = "model.layers.0.q_proj.lora_A.weight", "model.layers.0.q_proj.lora_B.weight"


@pytest.mark.parametrize(
    ("partition", "of_a", "of_b"),
    [
        ("all", [True, True, True, True], [True, True, True, True]),
        ("ffa", [False, False, False, False], [True, True, True, True]),
        ("alternate", [False, True, False, True], [True, False, True, False]),
    ],
)
def test_a_partition_says_what_moves_in_each_round(partition, of_a, of_b):
    keep = PARTITIONS[partition]
    assert [keep(A, round_) for round_ in range(4)] == of_a
    assert [keep(B, round_) for round_ in range(4)] == of_b


def test_these_are_all_there_are():
    assert set(PARTITIONS) == {"all", "ffa", "alternate"}


def test_only_frozen_factors_make_the_mean_of_products_exact(attached, shared):
    """ffa on the real schema: with a common A, averaging B averages the change itself."""
    rng = np.random.default_rng(0)
    moves = shared.schema.mask(lambda name: PARTITIONS["ffa"](name, 0))
    clients = [shared.vector + moves * rng.normal(size=shared.vector.size).astype(np.float32) for _ in range(3)]
    module = "base_model.model.model.layers.0.mlp.up_proj"

    def change(vector):
        tensors = shared.schema.unflatten(vector.astype(np.float32))
        return tensors[f"{module}.lora_B.weight"].astype(np.float64) @ tensors[f"{module}.lora_A.weight"]

    mean_of_changes = np.mean([change(vector) for vector in clients], axis=0)
    np.testing.assert_allclose(change(np.mean(clients, axis=0)), mean_of_changes, atol=1e-6)
