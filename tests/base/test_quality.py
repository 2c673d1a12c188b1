"""The base that ships is worth building on."""

from fedpeft.bench import base


def test_the_builtin_base_predicts_people_it_has_never_seen():
    assert base.run(full=False).figures["perplexity"] <= 60.0
