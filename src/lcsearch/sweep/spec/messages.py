"""What is said of the mistakes that only a sweep file can have; the others are told in yaml_file/messages.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcsearch.sweep.spec import model
from lcsearch.yaml_file.document import Path
from lcsearch.yaml_file.messages import Own, did_you_mean, either, show

_KINDS: dict[Path, tuple[str, ...]] = {
    ("pruner",): model.PRUNERS,
    ("sampler",): model.SAMPLERS,
    ("allocator",): model.ALLOCATORS,
}


def _untagged(path: Path, got: Any) -> tuple[Path, str, bool] | None:
    if path and path[0] == "space":
        return path, _no_distribution(got), False
    kinds = _KINDS.get(path)
    if kinds is None:
        return None
    chosen = got.get("kind") if isinstance(got, Mapping) else got
    place = (*path, "kind") if isinstance(got, Mapping) else path
    return place, f"expected kind {either(kinds)}, got {show(chosen)}.{did_you_mean(chosen, kinds)}", False


def _no_distribution(got: Any) -> str:
    names = either(model.DISTRIBUTIONS)
    if not isinstance(got, Mapping):
        return f"expected a single value or {{{names}: ...}}, got {show(got)}. Did you mean {{choice: ...}}?"
    kinds = [key for key in got if key in model.DISTRIBUTIONS]
    if kinds:
        return f"expected one distribution, got {' and '.join(kinds)}."
    keys = ", ".join(map(str, got)) or "none"
    hint = next((h for key in got if (h := did_you_mean(key, model.DISTRIBUTIONS))), "")
    return f"expected a distribution ({names}), got the keys {keys}.{hint}"


OWN = Own(
    {
        "objective": model.Objective,
        "schedule": model.SchedulePlan,
        "backend": model.Backend,
        "workers": model.Workers,
        "<sampler random>": model.RandomSamplerSpec,
        "<sampler tpe>": model.TpeSamplerSpec,
        "<sampler curve>": model.CurveSamplerSpec,
        "budget": model.Budget,
        "stop_when": model.StopWhen,
        "<param>": model.ParamRef,
        "<uniform>": model.Uniform,
        "<loguniform>": model.LogUniform,
        "<int>": model.Int,
        "<logint>": model.LogInt,
        "<choice>": model.Choice,
        "<curve>": model.CurvePrunerSpec,
        "<median>": model.MedianPrunerSpec,
        "<hyperband>": model.HyperbandPrunerSpec,
        "<none>": model.NoPrunerSpec,
        "checkpoints": model.Checkpoints,
        "finish": model.Finish,
        "<allocator going-rate>": model.GoingRateSpec,
        "<allocator asha>": model.AshaSpec,
        "<allocator hyperband>": model.AsyncHyperbandSpec,
        "<allocator halving>": model.HalvingSpec,
        "<allocator uniform>": model.UniformSpec,
        "<allocator greedy>": model.GreedySpec,
        "<allocator sec>": model.SecSpec,
        "<allocator dump>": model.DumpSpec,
        "<allocator alp-gmm>": model.AlpGmmSpec,
        "<allocator uncertain>": model.UncertainSpec,
        "<allocator top-two>": model.TopTwoSpec,
        "<allocator mfpi>": model.MfpiSpec,
        "<allocator pandora>": model.PandoraSpec,
        "<allocator robust>": model.RobustSpec,
    },
    _untagged,
)
"""For :func:`lcsearch.yaml_file.messages.explain`."""
