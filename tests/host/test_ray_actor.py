"""The model as an actor of a real cluster of three nodes: found, shared, killed, moved, refused."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import ray
from kit.endpoints import weight_file
from kit.forecasters import ForecasterKit, ask, laws, study
from ray import cloudpickle, tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lcsearch import extras
from lcsearch.errors import EnvironmentProblem, InvalidValue
from lcsearch.forecast.contract import Absent, Forecaster, Forecasts
from lcsearch.host import ray_actor, registry
from lcsearch.host.hosted import IN_A_ROW, Hosted
from lcsearch.host.in_process import Pretrained
from lcsearch.host.link import HostLate, HostTrouble
from lcsearch.host.ray_actor import NAMESPACE, RayLink
from lcsearch.host.wire import Reply
from lcsearch.schedulers.optuna import CurvePruner
from lcsearch.schedulers.ray_tune import CurveScheduler
from lcsearch.session.decision_log import read_log
from lcsearch.study import Snapshot
from lcsearch.weights import shipped

LOCAL = Pretrained()
PATIENCE_S = 300.0
"""For a busy machine; nothing here takes that long."""
STEPS, MOST_KILLS = 20, 4
RATES = [10 ** (-4 + 4 * ((0.618 * i) % 1)) for i in range(12)]

# Workers cannot import this module; what it defines travels whole.
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def link(cluster: Any) -> Iterator[RayLink]:
    """The way to the actor, which has begun."""
    made = RayLink(LOCAL)
    made.about(PATIENCE_S)
    yield made
    made.end()


def snapshot() -> Snapshot:
    losses = laws(11)
    return study(losses[:8], [(f"live-{i}", losses[8 + i, : 4 + 5 * i]) for i in range(3)])


def close(a: Forecasts, b: Forecasts) -> None:
    assert (a.absent, a.source, a.sign) == (b.absent, b.source, b.sign)
    np.testing.assert_allclose(a.knots, b.knots, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(a.levels, b.levels, rtol=0, atol=1e-5)


def resources(name: str) -> float:
    """What of it is free in the cluster."""
    return float(ray.available_resources().get(name, 0))  # type: ignore[no-untyped-call]


def eventually(holds: Callable[[], Any]) -> Any:
    """What it gives once it gives something; a host that does not answer gives nothing."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            if found := holds():
                return found
        except HostTrouble:
            pass
        time.sleep(0.05)
    raise AssertionError("not within the test's patience")


class TestOnRay(ForecasterKit):
    affine_rtol = 1e-3
    batch_atol = again_atol = 1e-5

    @pytest.fixture(autouse=True)
    def _cluster(self, link: RayLink) -> None: ...

    def make(self) -> Forecaster:
        (found,) = registry.resolve_forecasters(None, "ray")
        assert isinstance(found, Hosted)
        assert isinstance(found.link, RayLink)
        return found


def test_says_what_the_model_says_in_process(link: RayLink) -> None:
    one = snapshot()
    client = Hosted(LOCAL, link)
    close(client.forecast(one, ask(one)), LOCAL.forecast(one, ask(one)))
    assert client.unanswered == 0
    actor: Any = ray.get_actor(link.name, NAMESPACE)
    assert "lcsearch_host_queries_total" in ray.get(actor.metrics.remote())
    assert eventually(lambda: resources("CPU") == 3), "it takes no trial's CPU"


def test_a_process_without_a_cluster_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    client, one = Hosted(LOCAL, RayLink(LOCAL)), snapshot()
    with caplog.at_level(logging.WARNING, logger="lcsearch"):
        close(client.forecast(one, ask(one)), LOCAL.forecast(one, ask(one)))
        client.forecast(one, ask(one))
    (record,) = caplog.records
    assert record.getMessage() == (
        "lcsearch: forecasts are made in this process until the host answers again: "
        f"actor lcsearch-host-{LOCAL.version} of the Ray cluster: this process is connected to no Ray cluster. Call "
        'ray.init(address="auto") before the study, or name the URL of `lcsearch serve` as host'
    )


def test_a_forked_child_is_told_that_it_has_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_actor, "_forked", True)
    with pytest.raises(HostTrouble, match=r"a forked child has no connection to its parent's cluster\. Spawn it"):
        RayLink(LOCAL).about(1)


def test_without_ray_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "_is_there", lambda _: False)
    with pytest.raises(EnvironmentProblem) as caught:
        registry.link_to("ray")
    assert str(caught.value) == (
        "host=\"ray\": expected the packages of the extra 'ray', got no ray. Install them: pip install 'lcsearch[ray]'"
    )


def test_whoever_asks_others_needs_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "package", lambda: tmp_path)
    for forecasters in ("parametric", None):
        found = registry.resolve_forecasters(forecasters, "ray")
        assert {one.name for one in found} <= set(registry.FALLBACK)


def test_no_such_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ray_actor.DEVICE, "tpu")
    with pytest.raises(InvalidValue, match=r"^LCSEARCH_HOST_DEVICE: expected one of cpu, cuda, auto, got 'tpu'\.$"):
        registry.link_to("ray")
    with pytest.raises(InvalidValue, match=r"^gpus: expected a share in \(0, 1\], got 2\.$"):
        RayLink(LOCAL, "auto", 2)


def test_a_cluster_that_does_not_answer_is_waited_for_no_longer_than_the_deadline(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(ray, "get_actor", lambda *_: gate.wait(PATIENCE_S) and None)
    stuck, before = RayLink(LOCAL), threading.active_count()
    for _ in range(5):
        with pytest.raises(HostLate, match=r"^actor lcsearch-host-.*: not found within 0\.1 s$"):
            stuck.about(0.1)
    assert threading.active_count() == before + 1
    gate.set()


def test_several_drivers_and_nodes_that_begin_it_at_once_share_one(cluster: Any, link: RayLink) -> None:
    link.end()
    driver = "import ray, sys, json; from lcsearch.host.registry import link_to\n"
    driver += "ray.init(address=sys.argv[1], log_to_driver=False); link = link_to('ray')\n"
    driver += f"print(json.dumps(link.about({PATIENCE_S})))"
    other = subprocess.Popen([sys.executable, "-c", driver, cluster.address], stdout=subprocess.PIPE, text=True)

    @ray.remote(num_cpus=1, max_retries=0)
    def asked() -> Any:
        return registry.link_to("ray").about(PATIENCE_S)  # type: ignore[union-attr]

    facts = ray.get([asked.remote() for _ in range(3)], timeout=2 * PATIENCE_S)
    said, _ = other.communicate(timeout=PATIENCE_S)
    facts += [json.loads(said), link.about(PATIENCE_S)]
    assert len({one["pid"] for one in facts}) == 1
    assert facts[0]["model"] == LOCAL.version


class Heard:
    """A link that notes what came through it."""

    def __init__(self, link: RayLink) -> None:
        self.link, self.where, self.replies = link, link.where, 0

    def send(self, body: bytes, seconds: float) -> Reply:
        reply = self.link.send(body, seconds)
        self.replies += 1
        return reply

    def about(self, seconds: float) -> Mapping[str, Any]:
        return self.link.about(seconds)


def kill(link: RayLink, how: str, pid: int) -> None:
    if how == "SIGKILL":
        os.kill(pid, signal.SIGKILL)
    else:
        ray.kill(ray.get_actor(link.name, NAMESPACE), no_restart=False)


@pytest.mark.parametrize("how", ["killed by Ray", "SIGKILL"])
def test_a_host_that_dies_costs_no_more_than_forecasts_of_the_moment(link: RayLink, how: str) -> None:
    """Asked on and on: absent, then by the local weights, then by the host again; right whenever there is an answer."""
    heard, one = Heard(link), snapshot()
    client = Hosted(LOCAL, heard, deadline=PATIENCE_S)
    expected = LOCAL.forecast(one, ask(one))
    pid, absent, local, waits = link.about(PATIENCE_S)["pid"], [0], 0, [0.0]
    close(client.forecast(one, ask(one)), expected)
    client.deadline = 1.0
    kill(link, how, pid)
    gone = time.monotonic()

    def is_back() -> bool:
        nonlocal local
        start, before = time.monotonic(), heard.replies
        try:
            said = client.forecast(one, ask(one))
        except HostTrouble:
            said = Forecasts.none([Absent.FAILED])
        waits.append(time.monotonic() - start)
        if said.absent[0] is not None:
            absent[-1] += 1
            return False
        absent.append(0)
        close(said, expected)
        local += heard.replies == before
        return heard.replies > before and link.about(PATIENCE_S)["pid"] != pid

    eventually(is_back)
    print(f"back after {time.monotonic() - gone:.1f} s, {sum(absent)} absent, {local} local, waits {max(waits):.2f} s")
    assert max(absent) <= IN_A_ROW, "in a row; then the local weights answer"
    assert max(waits) < client.deadline + 60, "the deadline, the loading of the local weights, and a busy machine"


class Decay(tune.Trainable):
    """A noisy decay to a limit that the learning rate sets."""

    def setup(self, config: dict[str, Any]) -> None:
        self.lr, self.at = config["lr"], 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        self.at += 1
        return {"loss": loss(self.lr, self.at), "done": self.at >= STEPS}

    def save_checkpoint(self, checkpoint_dir: str) -> None: ...


def loss(lr: float, step: int) -> float:
    limit = 0.1 + abs(math.log10(lr) + 2) / 4
    return float(limit + (1 - limit) * step**-0.8 + 0.01 * math.sin(1e4 * lr * step))


def fitted(folder: Path, host: str) -> tuple[CurveScheduler, dict[float, int]]:
    """A run of one trial at a time: its scheduler, and each trial's last step."""
    of = CurveScheduler(metric="loss", mode="min", max_t=STEPS, decision_log=folder / "decisions", host=host)
    grid = tune.Tuner(
        Decay,
        param_space={"lr": tune.grid_search(RATES)},
        tune_config=tune.TuneConfig(scheduler=of, max_concurrent_trials=1, reuse_actors=True, time_budget_s=600),
        run_config=tune.RunConfig(name="run", storage_path=str(folder), verbose=0),
    ).fit()
    found = [grid[i] for i in range(len(grid))]
    return of, {r.config["lr"]: r.metrics["training_iteration"] for r in found if r.config and r.metrics}


def linked(of: Any) -> RayLink:
    """The way of a scheduler's or pruner's forecaster to its host."""
    (client,) = of.session.panel.forecasters
    assert isinstance(client, Hosted)
    assert isinstance(client.link, RayLink)
    return client.link


def test_a_tune_run_stops_what_it_stops_with_the_local_weights(link: RayLink, tmp_path: Path) -> None:
    of, ends = fitted(tmp_path / "ray", "ray")
    local, expected = fitted(tmp_path / "local", "local")
    assert ends == expected
    assert 3 <= len(of.stopped()) == len(local.stopped())
    assert "failed open" not in of.debug_string()
    for record in read_log(tmp_path / "ray" / "decisions"):
        assert record["models"] == {"network": LOCAL.version}
    again = pickle.loads(cloudpickle.dumps(of))  # type: ignore[no-untyped-call]
    assert linked(again).about(PATIENCE_S) == linked(of).about(PATIENCE_S)
    back = tune.Tuner.restore(str(tmp_path / "ray" / "run"), trainable=Decay)
    kept = back._local_tuner._tune_config.scheduler  # type: ignore[union-attr]  # noqa: SLF001
    assert linked(kept).about(PATIENCE_S)["model"] == LOCAL.version


def test_a_host_killed_in_a_tune_run_causes_no_stop(link: RayLink, tmp_path: Path) -> None:
    done, killed = threading.Event(), list[int]()

    def killing() -> None:
        while len(killed) < MOST_KILLS and not done.wait(0.5):  # each costs the start of a process
            with contextlib.suppress(HostTrouble, ProcessLookupError):
                os.kill(pid := link.about(PATIENCE_S)["pid"], signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=killing)
    thread.start()
    try:
        of, ends = fitted(tmp_path, "ray")
    finally:
        done.set()
        thread.join()
    assert killed
    stops = [record for record in read_log(tmp_path / "decisions") if record["verdict"] == "STOP"]
    assert len(stops) == len(of.stopped())
    for record in stops:
        assert record["now"] is not None, "no stop without a forecast"
    assert ends[min(RATES, key=lambda lr: loss(lr, STEPS))] == STEPS


def test_an_optuna_study_stops_what_it_stops_with_the_local_weights(link: RayLink) -> None:
    def run(host: str) -> list[tuple[int, str]]:
        pruner = CurvePruner(max_steps=STEPS, host=host)
        made = optuna.create_study(pruner=pruner)

        def objective(trial: optuna.Trial) -> float:
            lr = trial.suggest_float("lr", 1e-4, 1, log=True)
            for step in range(1, STEPS + 1):
                trial.report(loss(lr, step), step)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return loss(lr, STEPS)

        for lr in RATES:
            made.enqueue_trial({"lr": lr})
        made.optimize(objective, n_trials=len(RATES))
        if host == "ray":
            assert linked(pruner).about(PATIENCE_S)["ready"]
        return [(len(trial.intermediate_values), trial.state.name) for trial in made.trials]

    found = run("ray")
    assert found == run("local")
    assert [state for _, state in found].count("PRUNED") >= 3


def test_weights_of_one_s_own_are_sent_along_and_again(link: RayLink, tmp_path: Path) -> None:
    path = weight_file(tmp_path)
    (client,) = registry.resolve_forecasters(f"network={path}", "ray")
    assert isinstance(client, Hosted)
    facts, one = linked_to(client).about(PATIENCE_S), snapshot()
    assert facts["device"] == "cpu"
    assert facts["model"] == client.version != LOCAL.version
    assert facts["pid"] != link.about(PATIENCE_S)["pid"]
    close(client.forecast(one, ask(one)), client.local.forecast(one, ask(one)))
    os.kill(facts["pid"], signal.SIGKILL)
    assert eventually(lambda: linked_to(client).about(PATIENCE_S))["pid"] != facts["pid"]
    linked_to(client).end()


def linked_to(client: Hosted) -> RayLink:
    assert isinstance(client.link, RayLink)
    return client.link


def test_a_node_without_the_package_is_named(cluster: Any, link: RayLink, tmp_path: Path) -> None:
    """Whose workers see no lcsearch; the driver has it, and forecasts itself."""
    link.end()
    (tmp_path / "lcsearch").mkdir()
    (tmp_path / "lcsearch" / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'lcsearch'\")")
    driver = "import ray, sys; from lcsearch.host.link import HostTrouble; from lcsearch.host.registry import link_to\n"
    driver += "env = {'env_vars': {'PYTHONPATH': sys.argv[2]}}\n"
    driver += "ray.init(address=sys.argv[1], log_to_driver=False, runtime_env=env); link = link_to('ray')\n"
    driver += f"for _ in range(2):\n    try: link.about({PATIENCE_S})\n    except HostTrouble as error: print(error)"
    command = [sys.executable, "-c", driver, cluster.address, str(tmp_path)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=2 * PATIENCE_S, check=True).stdout
    ip = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    sentence = f"{link.where}: it cannot begin on node {ip}: ModuleNotFoundError: No module named 'lcsearch'. Install "
    sentence += 'lcsearch on every node, or name it in ray.init(runtime_env={"pip": [...]})'
    assert said.splitlines() == [sentence, sentence], "the second one begins none"


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_a_node_whose_package_ships_other_weights_is_named(
    link: RayLink, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for weights that it takes for the package's; a GPU makes no difference."""
    made, begun = RayLink(Pretrained(file=weight_file(tmp_path)), device), RayLink._begun  # noqa: SLF001
    monkeypatch.setattr(Pretrained, "own_bytes", lambda _: None)
    monkeypatch.setattr(RayLink, "_begun", lambda self, _: begun(self, "cpu"))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": 1.0})
    ip = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    for _ in range(2):  # the second one begins none
        with pytest.raises(HostTrouble) as caught:
            made.about(PATIENCE_S)
        assert str(caught.value) == (
            f"{made.where}: it cannot begin on node {ip}: expected the weights {made.name[14:]}, got {LOCAL.version}, "
            "those that its lcsearch ships. Install the same lcsearch on every node"
        )


def test_no_gpu_that_others_hold_is_waited_for(
    cluster: Any, link: RayLink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The GPU is one in name only: torch sees none, and computes on the CPU."""
    link.end()
    monkeypatch.setattr(ray_actor, "GPU_WAIT_S", 1.0)
    node = cluster.add_node(num_cpus=0, num_gpus=1)
    try:
        holder: Any = ray.remote(num_cpus=0, num_gpus=1)(Decay)
        holder = holder.remote({"lr": 0.1})
        ray.get(holder.step.remote(), timeout=PATIENCE_S)
        with caplog.at_level(logging.WARNING, logger="lcsearch"):
            assert RayLink(LOCAL, "auto").about(PATIENCE_S)["model"] == LOCAL.version
        (record,) = caplog.records
        assert record.getMessage() == (
            "lcsearch: no GPU of the Ray cluster was free within 1 s, so the host of the model takes the CPU"
        )
        link.end()
        ray.kill(holder)
        monkeypatch.setattr(ray_actor, "GPU_WAIT_S", PATIENCE_S)
        RayLink(LOCAL, "auto", 0.25).about(PATIENCE_S)
        assert eventually(lambda: resources("GPU") == 0.75)
    finally:
        link.end()
        cluster.remove_node(node)


def test_it_moves_when_its_node_is_gone(cluster: Any, link: RayLink) -> None:
    link.end()
    node = cluster.add_node(num_cpus=1)

    @ray.remote(num_cpus=1, max_retries=0)
    def begun() -> Any:
        return registry.link_to("ray").about(PATIENCE_S)  # type: ignore[union-attr]

    there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    facts = ray.get(begun.options(scheduling_strategy=there).remote(), timeout=2 * PATIENCE_S)
    assert facts["node_id"] == node.node_id != ray.get_runtime_context().get_node_id()
    client, one = Hosted(LOCAL, link), snapshot()
    close(client.forecast(one, ask(one)), LOCAL.forecast(one, ask(one)))
    cluster.remove_node(node)
    gone = time.monotonic()
    moved = eventually(lambda: link.about(1.0))
    print(f"moved after {time.monotonic() - gone:.1f} s")
    assert moved["node_id"] != node.node_id
    close(client.forecast(one, ask(one)), LOCAL.forecast(one, ask(one)))
