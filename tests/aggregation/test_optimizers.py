"""Server optimizers against Flower's own strategies, and against the papers' formulas in float64."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.adapters import Update
from fedpeft.aggregation import RULES, advance
from fedpeft.aggregation.optimizers import Aggregation
from fedpeft.federation.flower_internals import TaskIdentity, identify

SIZE, ROUNDS = 30, 5


@pytest.fixture(scope="module", autouse=True)
def _identity():
    """Let this process build Flower messages; tests that come later find it as it was."""
    before = {name: getattr(TaskIdentity, name) for name in ("_task_id", "_run_id", "_node_id")}
    identify(run_id=1, node_id=1)
    yield
    for name, value in before.items():
        setattr(TaskIdentity, name, value)


def changes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what three clients change in each round, and how many examples each has."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, (ROUNDS, 3, SIZE)).astype(np.float32), rng.integers(1, 100, (ROUNDS, 3))


def ours(rule: Aggregation, deltas: np.ndarray, examples: np.ndarray) -> list[np.ndarray]:
    """Return the global vector after each round."""
    x, state, course = np.zeros(SIZE, np.float32), {}, []
    for of_clients, weights in zip(deltas, examples, strict=True):
        updates = [Update.weighted(d, float(w) / 100, {}) for d, w in zip(of_clients, weights, strict=True)]
        step, state = advance((updates[0] + updates[1] + updates[2]).mean(), state, rule)
        x = x + step
        course.append(x)
    return course


def theirs(strategy: FedAvg, deltas: np.ndarray, examples: np.ndarray, before=lambda round_: None) -> list[np.ndarray]:
    """Drive a Flower strategy with the same clients; each replies with the new vector, as Flower wants it."""
    x, course = np.zeros(SIZE, np.float32), []
    for number, (of_clients, weights) in enumerate(zip(deltas, examples, strict=True)):
        record = ArrayRecord({"x": _array(x)})
        strategy.current_arrays = {"x": x} if isinstance(strategy, FedAdam) else record
        before(number)
        replies = []
        for node, (delta, count) in enumerate(zip(of_clients, weights, strict=True)):
            asked = Message(RecordDict(), dst_node_id=node + 1, message_type="train")
            content = {
                "arrays": ArrayRecord({"x": _array(x + delta)}),
                "metrics": MetricRecord({"num-examples": int(count)}),
            }
            replies.append(Message(RecordDict(content), reply_to=asked))
        arrays, _ = strategy.aggregate_train(number, replies)
        assert arrays is not None
        x = arrays["x"].numpy()
        course.append(x)
    return course


def _array(vector: np.ndarray) -> Array:
    return Array(np.ascontiguousarray(vector, np.float32))


@pytest.mark.parametrize("seed", range(3))
def test_avg_is_flowers_fedavg(seed):
    for mine, flowers in zip(ours(Aggregation(), *changes(seed)), theirs(FedAvg(), *changes(seed)), strict=True):
        np.testing.assert_allclose(mine, flowers, atol=1e-6)


@pytest.mark.parametrize(("rate", "beta"), [(1.0, 0.9), (0.5, 0.5), (2.0, 0.0)])
def test_momentum_is_flowers_fedavgm(rate, beta):
    rule = Aggregation(rule="momentum", learning_rate=rate, beta1=beta)
    flower = FedAvgM(server_learning_rate=rate, server_momentum=beta)
    for mine, flowers in zip(ours(rule, *changes(1)), theirs(flower, *changes(1)), strict=True):
        np.testing.assert_allclose(mine, flowers, atol=2e-6)


@pytest.mark.parametrize(
    ("rate", "b1", "b2", "tau"), [(0.1, 0.9, 0.99, 1e-3), (1.0, 0.5, 0.9, 0.1), (0.01, 0.0, 0.0, 1e-3)]
)
def test_adam_is_flowers_fedadam_without_its_bias_correction(rate, b1, b2, tau):
    """Flower multiplies its rate by Kingma and Ba's correction, which the federated paper leaves out; undo that."""
    rule = Aggregation(rule="adam", learning_rate=rate, beta1=b1, beta2=b2, tau=tau)
    flower = FedAdam(eta=rate, beta_1=b1, beta_2=b2, tau=tau)

    def uncorrect(round_: int) -> None:
        flower.eta = rate * (1 - b1 ** (round_ + 1)) / np.sqrt(1 - b2 ** (round_ + 1))

    for mine, flowers in zip(ours(rule, *changes(2)), theirs(flower, *changes(2), uncorrect), strict=True):
        np.testing.assert_allclose(mine, flowers, atol=3e-6 * max(1.0, rate / tau / 10))


def reference(rule: Aggregation, means: np.ndarray) -> list[np.ndarray]:
    """Return the steps from the papers' formulas, coordinate by coordinate in Python's floats."""
    lr, b1, b2, tau = rule.learning_rate, rule.beta1, rule.beta2, rule.tau
    m, v, steps = [0.0] * means.shape[1], [0.0] * means.shape[1], []
    for mean in means.astype(float).tolist():
        step = []
        for i, d in enumerate(mean):
            if rule.rule == "avg":
                step.append(lr * d)
            elif rule.rule == "momentum":
                m[i] = b1 * m[i] + d
                step.append(lr * m[i])
            else:
                m[i] = b1 * m[i] + (1 - b1) * d
                v[i] = b2 * v[i] + (1 - b2) * d * d
                step.append(lr * m[i] / (v[i] ** 0.5 + tau))
        steps.append(np.array(step))
    return steps


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(RULES)),
    st.floats(0.01, 2.0),
    st.floats(0.0, 0.95),
    st.floats(0.0, 0.95),
    st.floats(1e-2, 1.0),
    st.integers(0, 99),
)
def test_every_rule_is_its_papers_formula(name, rate, b1, b2, tau, seed):
    rule = Aggregation(rule=name, learning_rate=rate, beta1=b1, beta2=b2, tau=tau)
    means = np.random.default_rng(seed).normal(0, 0.3, (6, 8)).astype(np.float32)
    state = {}
    for mean, expected in zip(means, reference(rule, means), strict=True):
        step, state = advance(mean, state, rule)
        assert step.dtype == np.float32
        assert all(part.dtype == np.float32 and part.shape == mean.shape for part in state.values())
        np.testing.assert_allclose(step, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_state_that_was_written_and_read_goes_on_as_if_nothing_had_happened(name, tmp_path):
    rule = Aggregation(rule=name, learning_rate=0.3)
    means = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    state, kept = {}, {}
    for number, mean in enumerate(means):
        straight, state = advance(mean, state, rule)
        resumed, kept = advance(mean, kept, rule)
        assert np.array_equal(straight, resumed)
        np.savez(tmp_path / f"{number}.npz", **kept)
        with np.load(tmp_path / f"{number}.npz") as stored:
            kept = dict(stored)


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_step_changes_neither_its_mean_nor_the_state_it_was_given(name):
    rule = Aggregation(rule=name)
    mean = np.random.default_rng(0).normal(size=8).astype(np.float32)
    _, state = advance(mean, {}, rule)
    before = mean.copy(), {key: part.copy() for key, part in state.items()}
    advance(mean, state, rule)
    assert np.array_equal(mean, before[0])
    assert all(np.array_equal(state[key], part) for key, part in before[1].items())
