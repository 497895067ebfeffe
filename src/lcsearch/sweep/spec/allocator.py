"""`allocator:` of a sweep file, which paused trial goes on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from lcsearch.sweep.spec.strict import Count, Model, Share, by_kind

_Arms = Annotated[int, Field(ge=1)] | None


class _Rungs(Model):
    first: Share = 0.02
    eta: Annotated[float, Field(ge=2)] = 3.0


class GoingRateSpec(_Rungs):
    """Promotions by value that must pay better, by the forecast, than a new trial does."""

    kind: Literal["going-rate"]
    kappa: Annotated[float, Field(ge=0)] = 1.0
    startup: Annotated[float, Field(ge=0, le=1)] = 0.06


class AshaSpec(_Rungs):
    """Promotions by value: the best 1 / eta of every rung."""

    kind: Literal["asha"] = "asha"


class AsyncHyperbandSpec(_Rungs):
    """Promotions by value in brackets that begin at different rungs."""

    kind: Literal["hyperband"]
    n_brackets: _Arms = None


class HalvingSpec(_Rungs):
    """Successive halving of `n_arms` trials at a time (None: of all)."""

    kind: Literal["halving"]
    n_arms: _Arms = None


class UniformSpec(Model):
    """All trials in turn, a `quantum` (a share of max_steps) each."""

    kind: Literal["uniform"]
    n_arms: _Arms = None
    quantum: Share = 0.1


class GreedySpec(Model):
    """Where the forecast gain for a step is largest."""

    kind: Literal["greedy"]
    quantum: Share = 0.1
    gain: Literal["improvement", "p_beat"] = "improvement"
    n_startup_trials: Annotated[int, Field(ge=2)] = 2
    explore: Annotated[float, Field(ge=0, le=1)] = 0.0
    divergence_reports: Annotated[int, Field(ge=1)] = 3


class CurriculumSpec(_Rungs):
    """What allocators share that draw among forecast trials and new ones."""

    floor: Annotated[float, Field(ge=0, le=1)] = 0.25
    n_asked: Count = 16


class _Bandit(CurriculumSpec):
    groups: Annotated[str, Field(min_length=1)] = "rung"
    n_regions: Annotated[int, Field(ge=2)] = 3


class SecSpec(_Bandit):
    """Groups of trials by what turns in them have changed of P(beat) lately, drawn by softmax."""

    kind: Literal["sec"]
    alpha: Share = 0.5
    temperature: Annotated[float, Field(gt=0)] = 0.4


class DumpSpec(_Bandit):
    """The same with a bonus for groups that are seldom drawn."""

    kind: Literal["dump"]
    window: Count = 50
    temperature: Annotated[float, Field(gt=0)] = 0.1


class AlpGmmSpec(CurriculumSpec):
    """Regions of the space, of a mixture of Gaussians, by how much P(beat) differs there between neighbours."""

    kind: Literal["alp-gmm"]
    uniform: Annotated[float, Field(ge=0, le=1)] = 0.2
    refit: Annotated[int, Field(ge=10, le=120)] = 20


class UncertainSpec(CurriculumSpec):
    """Where P(beat) is nearest to 1/2, for a unit of cost."""

    kind: Literal["uncertain"]


class TopTwoSpec(CurriculumSpec):
    """Top-two Thompson sampling of the forecasts."""

    kind: Literal["top-two"]
    beta: Share = 0.5


class MfpiSpec(CurriculumSpec):
    """P(improvement) within a random turn, by a random amount."""

    kind: Literal["mfpi"]


class PandoraSpec(CurriculumSpec):
    """The lowest reservation value: what a trial is worth beyond what it costs."""

    kind: Literal["pandora"]


class RobustSpec(_Rungs):
    """Another one's moves while those that did not pay cost little beside the rest; else ASHA's."""

    kind: Literal["robust"]
    excess: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.25
    rule: Literal["pandora", "mfpi", "top-two", "uncertain"] = "pandora"
    n_asked: Count = 16


ALLOCATORS = (
    *("asha", "going-rate", "hyperband", "halving", "uniform", "greedy"),
    *("sec", "dump", "alp-gmm", "uncertain", "top-two", "mfpi", "pandora", "robust"),
)
FORECASTING = ("going-rate", "greedy", "sec", "dump", "alp-gmm", "uncertain", "top-two", "mfpi", "pandora", "robust")
"""Those that ask the forecasters."""


AllocatorSpec = Annotated[
    Annotated[GoingRateSpec, Tag("<allocator going-rate>")]
    | Annotated[AshaSpec, Tag("<allocator asha>")]
    | Annotated[AsyncHyperbandSpec, Tag("<allocator hyperband>")]
    | Annotated[HalvingSpec, Tag("<allocator halving>")]
    | Annotated[UniformSpec, Tag("<allocator uniform>")]
    | Annotated[GreedySpec, Tag("<allocator greedy>")]
    | Annotated[SecSpec, Tag("<allocator sec>")]
    | Annotated[DumpSpec, Tag("<allocator dump>")]
    | Annotated[AlpGmmSpec, Tag("<allocator alp-gmm>")]
    | Annotated[UncertainSpec, Tag("<allocator uncertain>")]
    | Annotated[TopTwoSpec, Tag("<allocator top-two>")]
    | Annotated[MfpiSpec, Tag("<allocator mfpi>")]
    | Annotated[PandoraSpec, Tag("<allocator pandora>")]
    | Annotated[RobustSpec, Tag("<allocator robust>")],
    Discriminator(by_kind(ALLOCATORS, "asha", "allocator ")),
]
