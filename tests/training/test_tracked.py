"""What is counted on shapes is what the tensors would hold, and nothing is computed for it."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fedpeft.training.tracked import most_bytes

N = 1000
META = torch.device("meta")


def test_a_chain_holds_two_links_at_a_time():
    def work() -> None:
        x = torch.empty(N, device=META)
        for _ in range(5):
            x = x + 1

    assert most_bytes(work) == 2 * 4 * N


def test_views_and_what_was_there_before_cost_nothing():
    held = torch.empty(N, N, device=META)
    assert most_bytes(lambda: held.T[1:].reshape(-1, 1)[:5]) <= 4 * N * N
    assert most_bytes(lambda: held.view(-1)[3:]) == 0
    assert most_bytes(lambda: held.add_(1)) == 0


def test_a_product_keeps_its_factor_until_the_backward_pass_and_a_checkpoint_does_not():
    weight = nn.Parameter(torch.empty(N, device=META))

    def chain(x: torch.Tensor) -> torch.Tensor:
        for _ in range(8):
            x = (x * weight).exp()
        return x

    def whole() -> None:
        weight.grad = None
        chain(torch.empty(N, device=META)).sum().backward()

    def divided() -> None:
        weight.grad = None
        x = torch.empty(N, device=META)
        for _ in range(4):
            x = checkpoint(lambda y: (y * weight).exp(), x, use_reentrant=False)
        x.sum().backward()

    # exp keeps its result and the product its other factor, which is the exp before: one vector per link.
    assert 9 * 4 * N <= most_bytes(whole) <= 13 * 4 * N
    assert most_bytes(divided) <= 9 * 4 * N


def test_masks_are_known_and_decide_shapes():
    labels = torch.tensor([1, -100, 2, -100])
    hidden = torch.empty(4, N, device=META)

    def work() -> None:
        at = (labels != -100).nonzero().squeeze(1)
        assert not at.is_meta and at.tolist() == [0, 2]
        assert hidden.index_select(0, at.to(META)).shape == (2, N)

    assert 2 * 4 * N <= most_bytes(work) < 2 * 4 * N + 200


def test_attention_is_the_processors_own_and_keeps_no_matrix_of_weights():
    q = torch.empty(1, 4, 512, 16, device=META, requires_grad=True)
    matrix = 4 * 4 * 512 * 512

    def fused() -> None:
        F.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()

    def plain() -> None:
        (torch.softmax(q @ q.transpose(-1, -2), -1) @ q).sum().backward()

    assert most_bytes(fused) < matrix < most_bytes(plain)


def test_a_number_that_is_read_out_is_one():
    seen = []
    most_bytes(lambda: seen.append(float(torch.empty(3, device=META).sum())))
    assert seen == [1.0]
