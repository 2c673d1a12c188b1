"""Who holds a tensor in which round."""

import numpy as np
import pytest

from fedpeft.adapters.partition import PARTITIONS, Role, keeping

A, B = "model.layers.0.q_proj.lora_A.weight", "model.layers.0.q_proj.lora_B.weight"
SHARED, PRIVATE, FROZEN = Role.SHARED, Role.PRIVATE, Role.FROZEN


@pytest.mark.parametrize(
    ("partition", "of_a", "of_b"),
    [
        ("all", [SHARED] * 4, [SHARED] * 4),
        ("ffa", [FROZEN] * 4, [SHARED] * 4),
        ("alternate", [FROZEN, SHARED] * 2, [SHARED, FROZEN] * 2),
        ("fedsa", [SHARED] * 4, [PRIVATE] * 4),
    ],
)
def test_a_partition_says_who_holds_what_in_each_round(partition, of_a, of_b):
    role = PARTITIONS[partition]
    assert [role(A, round_) for round_ in range(4)] == of_a
    assert [role(B, round_) for round_ in range(4)] == of_b


def test_these_are_all_there_are():
    assert set(PARTITIONS) == {"all", "ffa", "alternate", "fedsa"}


def test_what_a_scenario_names_private_stays_with_the_client_under_any_partition():
    for partition in PARTITIONS.values():
        role = keeping(partition, ("score", "router"))
        assert role("score.weight", 0) == role("layers.1.router.bias", 3) == PRIVATE
        assert [role(A, round_) for round_ in range(2)] == [partition(A, round_) for round_ in range(2)]


def test_only_frozen_factors_make_the_mean_of_products_exact(shared):
    """ffa on a real schema: with a common A, averaging B averages the change itself."""
    rng = np.random.default_rng(0)
    moves = shared.schema.mask(lambda name: PARTITIONS["ffa"](name, 0) == SHARED)
    clients = [shared.vector + moves * rng.normal(size=shared.vector.size).astype(np.float32) for _ in range(3)]
    module = "base_model.model.model.layers.0.mlp.up_proj"

    def change(vector):
        tensors = shared.schema.unflatten(vector.astype(np.float32))
        return tensors[f"{module}.lora_B.weight"].astype(np.float64) @ tensors[f"{module}.lora_A.weight"]

    mean_of_changes = np.mean([change(vector) for vector in clients], axis=0)
    np.testing.assert_allclose(change(np.mean(clients, axis=0)), mean_of_changes, atol=1e-6)
