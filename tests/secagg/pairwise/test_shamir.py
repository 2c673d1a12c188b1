"""Secret sharing: any t shares give the secret back, t − 1 say nothing about it."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft.secagg.pairwise.shamir import PRIME, combine, draw, share


@settings(max_examples=80, deadline=None)
@given(st.integers(0, PRIME - 1), st.integers(1, 12), st.integers(0, 8), st.randoms())
def test_any_t_shares_give_the_secret(secret, threshold, spare, rng):
    shares = share(secret, threshold, threshold + spare)
    points = rng.sample(range(1, threshold + spare + 1), threshold)
    assert combine(points, [shares[x - 1] for x in points]) == secret
    assert combine(points, [shares[x - 1] for x in points], at=points[-1]) == shares[points[-1] - 1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, PRIME - 1), st.integers(0, PRIME - 1), st.integers(2, 8))
def test_fewer_shares_fit_every_secret(secret, other, threshold):
    """With t − 1 shares and any other secret there is a polynomial: nothing is excluded."""
    shares = share(secret, threshold, threshold)[:-1]
    points = [0, *range(1, threshold)]
    last = combine(points, [other, *shares], at=threshold)
    assert combine(range(1, threshold + 1), [*shares, last]) == other


def test_the_modulus_is_the_largest_prime_of_128_bits():
    rng = random.Random(0)

    def prime(n: int) -> bool:
        """Miller–Rabin."""
        odd, twos = n - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        for _ in range(40):
            x = pow(rng.randrange(2, n - 1), odd, n)
            if x in (1, n - 1):
                continue
            for _ in range(twos - 1):
                x = x * x % n
                if x == n - 1:
                    break
            else:
                return False
        return True

    assert prime(PRIME)
    assert not any(prime(n) for n in range(PRIME + 2, 2**128, 2))


def test_draws_are_field_elements_and_differ():
    values = draw(1000)
    assert len(set(values)) == 1000
    assert all(0 <= value < PRIME for value in values)
