"""Whatever it is sent, a host answers or refuses, and goes on: 10^5 requests are sent by tests/nightly/test_fuzz.py."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from kit.endpoints import Served, command, fetch, question
from kit.forecasters import ask, laws, study
from kit.fuzz import ANSWERS, Fuzz, fuzz, raw, saved, statuses
from kit.hosts import Running
from safetensors.numpy import load, save

from lcsearch.errors import InvalidValue
from lcsearch.forecast.parametric import ParametricEnsemble
from lcsearch.host import wire
from lcsearch.host.in_process import Pretrained
from lcsearch.host.service import KeptTrials
from lcsearch.host.wire import Refused

SEEN = study(laws(5), [("live", laws(1, seed=1)[0, :9])])


@pytest.fixture(scope="module")
def served(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    options = ["--weights", str(small), "--device", "cpu", "--max-body", str(2**20)]
    with command(tmp_path_factory.mktemp("served"), *options) as found:
        yield found


def assert_well(served: Served, small: Path) -> None:
    """A good question is answered rightly, and nothing was complained of."""
    own = Pretrained(file=small)
    found = fetch(served.url, body=question(SEEN, ask(SEEN), own.version))
    assert found.status == 200
    answer = wire.unpack_answer(found.body, len(ask(SEEN)), 1.0, own.version)
    np.testing.assert_allclose(answer.p_beat(0.4), own.forecast(SEEN, ask(SEEN)).p_beat(0.4), atol=1e-5)
    assert served.log.read_text().count("\n") == 1, served.log.read_text()


def test_a_thousand_requests(served: Served, small: Path) -> None:
    assert_well(served, small)
    before = served.rss()
    counts = fuzz(served, 1000, 0, Pretrained(file=small).version)
    assert counts[wire.OK] > 100
    assert counts[wire.MALFORMED] > 100
    assert_well(served, small)
    assert served.rss() - before < 100 * 2**20


def test_the_row_is_the_same_for_the_same_seed() -> None:
    first, second, other = (list(zip(range(40), Fuzz(seed, "m"), strict=False)) for seed in (3, 3, 4))
    assert first == second
    assert first != other
    assert len({raw(np.random.default_rng(i), b"body") for i in range(50)}) > 40
    assert statuses(b"HTTP/1.1 400 Bad\r\n\r\nHTTP/1.1 200 OK\r\n") == [400, 200]
    assert 500 not in ANSWERS


def test_a_refusal_can_be_said_whatever_it_quotes(small: Path) -> None:
    """Half a surrogate pair in a name made the host raise, where it never does."""
    own = Pretrained(file=small)
    with Running(own) as running:
        reply = running.send(question(SEEN, ask(SEEN), "\ud800\x1b[2J"), 60)
    assert reply.status == wire.OTHER_MODEL
    assert b"got one to ??[2J" in reply.body


def test_numbers_of_any_size_are_no_reason_to_fail(small: Path) -> None:
    """Where warnings are errors a horizon of 1e-300, or a plan that long, was answered by 500."""
    own = Pretrained(file=small)
    row = Fuzz(5, own.version)
    with Running(own) as running:
        assert {running.send(row.strange(), 60).status for _ in range(120)} <= {wire.OK, wire.LATE}


class Answers(Fuzz):
    """Answers that no host would give."""

    answer = wire.pack_answer(ParametricEnsemble().forecast(SEEN, ask(SEEN)), "m", "")

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield self.pick((self.noise, self.torn, self.reordered, self.renumbered))()

    def good(self) -> bytes:
        return saved(load(self.answer))


def test_an_answer_is_a_row_of_distributions_or_none() -> None:
    """Whatever it is: what is not refused gives probabilities, or says that it gives none."""
    given = 0
    for body in islice(Answers(0, "m"), 2000):
        try:
            found = wire.unpack_answer(body, len(ask(SEEN)), 1.0, "m")
        except InvalidValue:
            continue
        given += 1
        for at in (-1e300, 0.0, 0.4, 1e300):
            p = found.p_beat(at)
            known = np.array([reason is None for reason in found.absent])
            assert ((p >= 0) & (p <= 1))[known].all(), p
    assert given > 100


def test_json_is_bounded() -> None:
    """Sixteen megabytes of it took four hundred to read."""
    arrays = load(question(SEEN, ask(SEEN), "m"))
    arrays["asked.facts"] = np.frombuffer(b"[" + b"[]," * (wire.MOST_TEXT // 3) + b"[]]", np.uint8)
    with pytest.raises(
        Refused, match=r"body\[asked\.facts\]: expected at most 4194304 bytes of JSON, got 4194307"
    ) as no:
        wire.unpack(save(arrays))
    assert no.value.status == wire.MALFORMED


def test_a_trial_keeps_its_own_part_of_a_body() -> None:
    """All of the body was kept as long as any of its trials."""
    request = wire.unpack(question(study(laws(30), []), [], "m"))
    for trial in request.trials:
        for array in (trial.curve.steps, trial.curve.values):
            while array.base is not None:
                array = array.base
            assert array.nbytes <= 2 * 8 * len(trial.curve)


def test_one_study_keeps_no_more_than_all_may() -> None:
    """It was never dropped, however large it grew; and long names and many parameters counted for nothing."""
    one = wire.unpack(question(study(laws(30), []), [], "m"))
    with pytest.raises(Refused, match="expected finished trials of at most 20000 bytes, got about 7") as no:
        KeptTrials(most=20_000).find(one)
    assert no.value.status == wire.TOO_LARGE
    kept = KeptTrials()
    kept.find(one)
    plain = kept.bytes
    assert 30 * (1000 + 40 * 40) <= plain <= 30 * (1100 + 40 * 40)
