"""What is said of the mistakes that only a sweep file can have; the others are told in yaml_file/messages.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcsearch.sweep.spec import allocator, distributions, model, objective, pruner, sampler
from lcsearch.yaml_file.document import Path
from lcsearch.yaml_file.messages import Own, did_you_mean, either, show

_KINDS: dict[Path, tuple[str, ...]] = {
    ("pruner",): pruner.PRUNERS,
    ("sampler",): sampler.SAMPLERS,
    ("allocator",): allocator.ALLOCATORS,
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
    names = either(distributions.DISTRIBUTIONS)
    if not isinstance(got, Mapping):
        return f"expected a single value or {{{names}: ...}}, got {show(got)}. Did you mean {{choice: ...}}?"
    kinds = [key for key in got if key in distributions.DISTRIBUTIONS]
    if kinds:
        return f"expected one distribution, got {' and '.join(kinds)}."
    keys = ", ".join(map(str, got)) or "none"
    hint = next((h for key in got if (h := did_you_mean(key, distributions.DISTRIBUTIONS))), "")
    return f"expected a distribution ({names}), got the keys {keys}.{hint}"


OWN = Own(
    {
        "objective": objective.Objective,
        "schedule": model.SchedulePlan,
        "backend": model.Backend,
        "workers": model.Workers,
        "<sampler random>": sampler.RandomSamplerSpec,
        "<sampler tpe>": sampler.TpeSamplerSpec,
        "<sampler curve>": sampler.CurveSamplerSpec,
        "budget": model.Budget,
        "stop_when": model.StopWhen,
        "<param>": model.ParamRef,
        "<uniform>": distributions.Uniform,
        "<loguniform>": distributions.LogUniform,
        "<int>": distributions.Int,
        "<logint>": distributions.LogInt,
        "<choice>": distributions.Choice,
        "<curve>": pruner.CurvePrunerSpec,
        "<median>": pruner.MedianPrunerSpec,
        "<hyperband>": pruner.HyperbandPrunerSpec,
        "<none>": pruner.NoPrunerSpec,
        "checkpoints": model.Checkpoints,
        "finish": model.Finish,
        "<allocator going-rate>": allocator.GoingRateSpec,
        "<allocator asha>": allocator.AshaSpec,
        "<allocator hyperband>": allocator.AsyncHyperbandSpec,
        "<allocator halving>": allocator.HalvingSpec,
        "<allocator uniform>": allocator.UniformSpec,
        "<allocator greedy>": allocator.GreedySpec,
        "<allocator sec>": allocator.SecSpec,
        "<allocator dump>": allocator.DumpSpec,
        "<allocator alp-gmm>": allocator.AlpGmmSpec,
        "<allocator uncertain>": allocator.UncertainSpec,
        "<allocator top-two>": allocator.TopTwoSpec,
        "<allocator mfpi>": allocator.MfpiSpec,
        "<allocator pandora>": allocator.PandoraSpec,
        "<allocator robust>": allocator.RobustSpec,
    },
    _untagged,
)
"""For :func:`lcsearch.yaml_file.messages.explain`."""
