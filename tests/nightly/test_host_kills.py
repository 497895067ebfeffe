"""Two hundred SIGKILLs (LCSEARCH_KILLS) of the host of a running sweep: no trial is lost, late, or stopped for them."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from sweep.kit import Remembering, write_toy

from lcsearch.host.hosted import DEADLINE_S
from lcsearch.host.registry import HOST
from lcsearch.session.decision_log import read_log
from lcsearch.sweep.monitor.outcome import SUCCESS
from lcsearch.sweep.run import run

pytestmark = pytest.mark.skipif("LCSEARCH_NIGHTLY" not in os.environ, reason="minutes of waiting: LCSEARCH_NIGHTLY=1")
KILLS = int(os.environ.get("LCSEARCH_KILLS", "200"))
BACK_S, SEED = 5.0, 0
TOKEN = "a-token-that-the-test-knows"

# Ends when the file `enough` is there, whatever the budget.
TRAIN = """\
import time
from pathlib import Path

def train(ctx):
    enough = Path(__file__).parent / "enough"
    for epoch in range(1, ctx.max_steps + 1):
        time.sleep(0.0 if enough.exists() else 0.03)
        ctx.report(ctx.params["a"] + (ctx.number % 3 > 0) * 0.02 + 0.5 ** (epoch / 9), epoch)
"""


class Killer:
    """Kills the host a moment after it answers its first look, again and again."""

    def __init__(self, folder: Path, enough: Path) -> None:
        self.ready, self.enough = folder / "host.json", enough
        self.back: list[float] = []
        self._thread = threading.Thread(target=self._kill, daemon=True)
        self._thread.start()

    def _kill(self) -> None:
        rng, known = np.random.default_rng(SEED), -1
        while len(self.back) < KILLS:
            with suppress(OSError, ValueError, KeyError):
                said = json.loads(self.ready.read_bytes())
                if said["pid"] == known:
                    time.sleep(0.02)
                    continue
                ready = time.monotonic()
                while not self._answered(said["url"]):
                    time.sleep(0.02)
                self.back.append(time.monotonic() - ready)
                time.sleep(float(rng.uniform(0, 0.3)))
                known = said["pid"]
                os.kill(known, signal.SIGKILL)
            time.sleep(0.02)
        self.enough.touch()

    def _answered(self, url: str) -> bool:
        connection = HTTPConnection(urlsplit(url).netloc, timeout=5)
        try:
            connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        found = re.search(r"^lcsearch_host_queries_total (\d+)", text, re.M)
        return found is not None and int(found[1]) > 0

    def join(self) -> None:
        self._thread.join(60)


def test_two_hundred_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOST, raising=False)
    monkeypatch.setattr("secrets.token_urlsafe", lambda: TOKEN)
    path = write_toy(tmp_path, TRAIN, workers=3, trials=4000, max_steps=100, pruner="curve")
    killer, view = Killer(tmp_path / "run", tmp_path / "enough"), Remembering()
    text = path.read_text().replace("budget: {", "budget: {seconds: 3000, ")
    path.write_text(text)

    def look(_: object) -> None:
        if (tmp_path / "enough").exists():
            os.kill(os.getpid(), signal.SIGINT)  # drain

    view.on_update = look
    outcome = run(path, folder=tmp_path / "run", view=view)
    killer.join()
    assert outcome.code in (SUCCESS, 130), outcome.message
    assert len(killer.back) == KILLS
    back = killer.back[1:]  # the first one waits until the study has a finished trial
    looks = list(read_log(tmp_path / "run" / "decisions"))
    absent = sum(bool(one["errors"]) for one in looks)
    latencies = np.array([one["latency"] for one in looks])
    stops = [one for one in looks if one["verdict"] == "STOP"]
    print(
        f"{len(looks)} looks, {absent} without a forecast, {len(stops)} stops; a look took at most "
        f"{latencies.max():.2f} s (median {1e3 * np.median(latencies):.0f} ms); forecasts were back within "
        f"{max(back):.2f} s of the restart (median {np.median(back):.2f} s)"
    )
    assert all(one["now"]["p"] is not None and one["before"]["p"] is not None for one in stops)
    assert latencies.max() < DEADLINE_S + 0.5  # the machine
    assert max(back) < BACK_S
    assert not any(trial.state.name == "FAIL" for trial in outcome.study.trials)
