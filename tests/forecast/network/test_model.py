from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.networks import SMALL, network
from torch import Tensor
from torch.nn import functional as F

from lcsearch.forecast.network.features import N_CUT, N_PAIR, N_PLAN, N_TOKEN
from lcsearch.forecast.network.model import Past
from lcsearch.forecast.network.params import N_MATCH
from lcsearch.forecast.network.size import Size

NET = network()


def inputs(q: int, c: int, d: int = 3, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "state": normal(1, q, SMALL.curve_width),
        "cut": normal(1, q, N_CUT),
        "kind": torch.randint(3, (1, q), generator=generator),
        "pairs": normal(1, q, c, N_PAIR),
        "plans": normal(1, q, c, N_PLAN),
        "match": normal(1, q, c, d, N_MATCH),
        "context": normal(1, c, SMALL.curve_width),
        "use": torch.rand(1, q, c, generator=generator) < 0.8,
    }


def answer(**inputs: Any) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        logs, split = NET.answer(**inputs)
    return logs, split


def close(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=0.0, atol=1e-5)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 100))
@torch.inference_mode()
def test_a_state_depends_on_no_later_token(t: int, more: int, seed: int) -> None:
    tokens = torch.randn(2, t + more, N_TOKEN, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(NET.encode(tokens)[:, :t], NET.encode(tokens[:, :t]), rtol=0.0, atol=1e-5)
    other = tokens.clone()
    other[:, t:] = 7.0
    torch.testing.assert_close(NET.encode(other)[:, :t], NET.encode(tokens)[:, :t], rtol=0.0, atol=0.0)


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 100))
@torch.inference_mode()
def test_going_on_from_what_was_kept_is_the_whole_pass(sizes: list[int], seed: int) -> None:
    tokens = torch.randn(3, sum(sizes), N_TOKEN, generator=torch.Generator().manual_seed(seed))
    past = Past()
    parts = [NET.encode(part, past) for part in torch.split(tokens, sizes, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), NET.encode(tokens), rtol=0.0, atol=1e-5)
    assert len(past.layers) == SMALL.curve_layers
    assert past.layers[0][0].shape[2] == sum(sizes)


@settings(deadline=None)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=6), st.integers(0, 100))
@torch.inference_mode()
def test_the_ends_alone_are_those_of_the_whole_pass(ends: list[int], seed: int) -> None:
    tokens = torch.randn(len(ends), 9, N_TOKEN, generator=torch.Generator().manual_seed(seed))
    whole = NET.encode(tokens)[torch.arange(len(ends)), torch.tensor(ends)]
    torch.testing.assert_close(NET.encode_ends(tokens, torch.tensor(ends)), whole, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("c", [1, 7, 40])
def test_the_order_of_context_trials_means_nothing(c: int) -> None:
    one = inputs(5, c)
    order = torch.randperm(c, generator=torch.Generator().manual_seed(1))
    other = {k: v[:, :, order] if k in ("pairs", "plans", "match", "use") else v for k, v in one.items()}
    close(answer(**{**other, "context": one["context"][:, order]}), answer(**one))


def test_the_order_of_parameters_means_nothing() -> None:
    one = inputs(5, 7, d=6)
    close(answer(**{**one, "match": one["match"].flip(-2)}), answer(**one))


def test_an_answer_depends_on_no_other_query() -> None:
    one = inputs(6, 9)
    whole = answer(**one)
    for i in range(6):
        alone = {k: v if k == "context" else v[:, i : i + 1] for k, v in one.items()}
        close(answer(**alone), (whole[0][:, i : i + 1], whole[1][:, i : i + 1]))


def test_a_trial_that_does_not_count_is_not_seen() -> None:
    one = inputs(4, 6)
    one["use"][:, :, 2] = False
    other = {k: v.clone() for k, v in one.items()}
    for name in ("pairs", "plans", "match"):
        other[name][:, :, 2] = 9.0
    other["context"][:, 2] = 9.0
    close(answer(**other), answer(**one))


def test_no_context_and_context_that_does_not_count_are_the_same() -> None:
    one = inputs(4, 6)
    one["use"][:] = False
    none = {k: v[:, :, :0] if k in ("pairs", "plans", "match", "use") else v for k, v in one.items()}
    close(answer(**{**none, "context": one["context"][:, :0]}), answer(**one))


def test_a_parameter_that_is_nowhere_is_as_none() -> None:
    one = inputs(4, 6)
    blank = torch.cat([one["match"], torch.zeros(1, 4, 6, 2, N_MATCH)], -2)
    close(answer(**{**one, "match": blank}), answer(**one))


@torch.inference_mode()
def test_values_mixed_first_are_values_mixed_last() -> None:
    look: Any = NET.study[0]
    b, n, c = 2, 3, 5
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(b, n, SMALL.study_width, generator=generator)
    pairs = torch.randn(b, n, c, SMALL.pair_width, generator=generator)
    use = torch.rand(b, n, c, generator=generator) < 0.6
    use[0, 0] = False
    h = F.gelu(look.hidden(F.gelu(pairs + look.to_pair(look.norm(q)).unsqueeze(2))))
    share = torch.softmax(look.scores(h).masked_fill(~use.unsqueeze(-1), -1e9), 2) * use.any(2)[..., None, None]
    values = look.values(h).view(b, n, c, look.heads, -1)
    mixed = torch.einsum("bqcgh,bqchd->bqghd", share.view(b, n, c, 2, look.heads), values)
    x = q + look.out(mixed.reshape(b, n, -1))
    x = x + look.down(F.gelu(look.up(look.norm2(x))))
    torch.testing.assert_close(look(q, pairs, use), x, rtol=0.0, atol=1e-6)


def test_the_head_gives_masses_that_sum_to_one() -> None:
    logs, split = answer(**inputs(6, 9))
    assert logs.shape == (1, 6, SMALL.bins + 2)
    torch.testing.assert_close(logs.exp().sum(-1), torch.ones(1, 6))
    assert split.abs().max() <= 3.0


def test_names_of_weights_are_as_trained() -> None:
    names = set(network(Size()).state_dict())
    assert {"borders", "token.weight", "curve.2.qkv.bias", "study.1.values.weight", "head.2.weight"} <= names
    assert len(names) == 99
