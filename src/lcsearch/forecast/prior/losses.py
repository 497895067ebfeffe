"""Losses of a batch of trials without noise, in task units: chance is 1, the best possible about 0."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcsearch.forecast.prior import annealing, bases, departures
from lcsearch.forecast.prior.rates import shares
from lcsearch.forecast.prior.variates import Variates, kumaraswamy, phi

TRAITS = (
    *("floor", "rate", "exponent", "start", "plateau", "peak", "noise", "when"),
    *("stuck", "late", "slow", "hump", "climb", "dip", "spike", "cycle", "blow_up", "collapse", "diverge", "missing"),
    *("constant", "schedule"),
)
"""What differs between the trials of a study."""

GOOD = {
    **{
        "floor": -0.8,
        "rate": 0.35,
        "stuck": -0.6,
        "diverge": -0.5,
        "climb": -0.4,
        "blow_up": -0.3,
        "slow": -0.4,
        "constant": -0.4,
    },
    **{"late": 0.1, "start": -0.2, "collapse": -0.2, "dip": -0.1, "schedule": 0.2},
}
"""How a trait goes with how good a trial is, in the median study: its loss's floor is low, it learns quickly."""

_EVENTS = 3


@dataclass(frozen=True)
class Losses:
    """N curves over S reports.

    Attributes:
        smooth: (N, S) losses, departures but blow-ups included.
        added: (N, S) blow-ups, added after any warp of the metric.
        level: (N, S) share of the gain still to come, for noise that shrinks with it.
        gain: (N,) from the plateau to the floor.
        lost: (N, S) True where the report is not finite.
        gone: (N, S) True from where a trial diverged.
        stuck: (N,) never-learners.
        constant: (N,) bool, reports the same value throughout.
        rate: (N, S) learning rate as a share of its peak; ones where no schedule matters.
        spread: (B,) width of the floors in a study.
        scheduled: (B,) bool, studies in which a schedule shapes the losses.
    """

    smooth: Tensor
    added: Tensor
    level: Tensor
    gain: Tensor
    lost: Tensor
    gone: Tensor
    stuck: Tensor
    constant: Tensor
    rate: Tensor
    spread: Tensor
    scheduled: Tensor


def losses(
    draws: Variates, z: dict[str, Tensor], task: Tensor, u: Tensor, length: Tensor, returns: Tensor, schedules: Tensor
) -> Losses:
    """Draw the curves.

    Args:
        draws: randomness.
        z: standard normal traits (N,), by the names in `TRAITS`.
        task: (N,) study of each curve.
        u: (N, S) step of each report as a share of the last one's.
        length: (N,) reports to the horizon.
        returns: (B,) bool, studies of returns.
        schedules: (B,) bool, studies whose losses follow a schedule.
    """
    b, n = len(returns), len(task)
    share = {name: p[task] for name, p in shares(draws, returns).items()}
    has = {name: phi(-z[name]) < p for name, p in share.items()}  # those with the highest trait
    stuck = has["stuck"]

    # Floors: anywhere between 0 and 1 with a skew of the study's own, then narrowed to its spread.
    spread = 10.0 ** (-2.5 * draws.uniform(b) ** 3)
    a, c = draws.log_uniform(b, low=0.5, high=2.5), draws.log_uniform(b, low=0.6, high=4.0)
    floor = (spread[task] * kumaraswamy(phi(z["floor"]), a[task], c[task])).clamp(max=0.97)
    floor = floor + (0.6 * draws.uniform(b) * (1.0 - spread))[task]

    # The chance plateau is the study's; its trials lie 1e-4 to 1e-2 apart there, or start far apart.
    apart = torch.where(
        draws.flip(b, p=0.7), draws.log_uniform(b, low=1e-4, high=1e-2), draws.log_uniform(b, low=1e-2, high=0.2)
    )
    plateau = 1.0 + apart[task] * z["plateau"].clamp(-3.0, 3.0)
    crawl = draws.log_uniform(b, low=1e-5, high=1e-2)[task] * draws.log_normal(n, median=1.0, sigma=1.0)
    floor = torch.where(stuck, plateau - crawl, torch.minimum(floor, plateau - 1e-3))
    gain = plateau - floor

    clock, rate, fall, scheduled = _annealed(draws, z, task, u, length, schedules)
    ball, better = noise_ball(draws, z, task, rate, schedules)
    floor = floor - better * gain
    gain = plateau - floor
    tau = _time_constants(draws, z, task, has["slow"], returns)
    begin = torch.where(has["late"], draws.uniform(n, low=0.03, high=1.05), 0.0)
    tau = torch.where(has["late"], tau * draws.log_uniform(n, low=0.05, high=0.5), tau)
    shape = _shapes(draws, z, task, has["slow"], returns)
    level = bases.mixture((clock - begin[:, None]).clamp(min=0.0), u[:, 0], tau, *shape)
    smooth = floor[:, None] + gain[:, None] * level

    # Some tasks start above chance and come down to it at once.
    excess = torch.where(draws.flip(b, p=0.35), draws.log_uniform(b, low=0.03, high=6.0), 0.0)[task]
    excess = excess * torch.exp(0.5 * z["start"])
    smooth = smooth + excess[:, None] * torch.exp(-u / (0.4 * tau[:, None].clamp(max=0.2)))
    smooth = smooth + gain[:, None] * (ball - fall)
    smooth = smooth + gain[:, None] * _departures(draws, b, task, u, level, has)

    added = torch.zeros_like(u)
    _add_blow_ups(draws, added, u, gain, has)
    lost, gone = _divergences(draws, added, u, has)
    constant = has["constant"]
    smooth = torch.where(constant[:, None], smooth[:, :1], smooth)
    return Losses(smooth, added, level, gain, lost, gone, stuck, constant, rate, spread, scheduled)


def _time_constants(draws: Variates, z: dict[str, Tensor], task: Tensor, slow: Tensor, returns: Tensor) -> Tensor:
    """(N,) as a share of the horizon: log-normal around the study's, slow learners beyond the horizon."""
    b, n = len(returns), len(task)
    centre = torch.where(
        returns, draws.log_normal(b, median=0.4, sigma=1.0), draws.log_normal(b, median=0.09, sigma=1.2)
    )
    width = draws.uniform(b, low=0.05, high=1.2)
    tau = (centre[task] * torch.exp(-width[task] * z["rate"])).clamp(1e-3, 1.5)
    return torch.where(slow, draws.log_uniform(n, low=0.4, high=4.0), tau)


def _shapes(
    draws: Variates, z: dict[str, Tensor], task: Tensor, slow: Tensor, returns: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Exponents a, d, h (N,) and weights of the bases (N, 7): the study's, and a little of the trial's own."""
    b, n, k = len(returns), len(task), len(bases.BASES)
    own = 0.25 * draws.uniform(b)[task] * z["exponent"]
    a = (draws.log_normal(b, median=0.8, sigma=0.6)[task] * torch.exp(own)).clamp(0.1, 4.0)
    d = (draws.log_normal(b, median=0.9, sigma=0.35)[task] * torch.exp(0.5 * own)).clamp(0.3, 4.0)
    jump = torch.where(returns, 2.5, 1.4)
    h = (jump[task] * draws.log_normal(b, median=1.0, sigma=0.35)[task] * torch.exp(0.5 * own)).clamp(0.4, 8.0)
    weights = draws.dirichlet_half(b, k)
    weights[:, -1] *= 0.3  # a whole study of near-linear learners is rare
    weights[:, 4] *= torch.where(returns, 4.0, 1.0)
    weights = weights[task] * torch.exp(0.4 * draws.normal(b, k)[task] * z["exponent"][:, None])
    linear = torch.zeros(k, device=draws.device)
    linear[-1] = 1.0
    weights = torch.where((slow & draws.flip(n, p=0.7))[:, None], linear, weights)
    return a, d, h, weights / weights.sum(-1, keepdim=True)


def _annealed(
    draws: Variates, z: dict[str, Tensor], task: Tensor, u: Tensor, length: Tensor, schedules: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clock S1 (N, S), rate, fall C S2 as a share of the gain, and the studies (B,) that have schedules."""
    clock, rate, fall = u.clone(), torch.ones_like(u), torch.zeros_like(u)
    rows = schedules[task].nonzero()[:, 0]
    if not rows.numel():
        return clock, rate, fall, schedules
    b, of = len(schedules), task[rows]
    # In half of them the schedule is one for all, in the others a hyperparameter.
    kind = draws.choice(b, weights=(0.15, 0.2, 0.3, 0.2, 0.15))[of]
    other = (phi(z["schedule"][rows]) * len(annealing.SCHEDULES)).long().clamp(max=len(annealing.SCHEDULES) - 1)
    kind = torch.where(draws.flip(b, p=0.5)[of], other, kind)
    warm = torch.where(draws.flip(b, p=0.5), draws.log_uniform(b, low=0.005, high=0.15), 0.0)[of]
    decay = torch.where(kind == annealing.SCHEDULES.index("step"), 0.15, 0.08) + draws.uniform(b, high=0.35)[of]
    low = torch.where(draws.flip(b, p=0.5), 0.0, draws.uniform(b, high=0.2))[of]
    final = torch.where(kind == annealing.SCHEDULES.index("step"), 0.05 + 0.45 * draws.uniform(b)[of], low)
    made = annealing.multiplier(kind, u[rows], warm, decay, final)
    memory = draws.log_uniform(b, low=0.01, high=0.3)[of]
    first, second = annealing.areas(made, length[rows], memory)
    # What annealing brings: of one size in a study, nearly, in half of the studies.
    size = draws.log_uniform(b, low=0.02, high=0.8)[of]
    apart = torch.where(draws.flip(b, p=0.5), 0.1, 0.5)[of]
    size = size * torch.exp(apart * z["peak"][rows])
    clock[rows], rate[rows], fall[rows] = first, made, size[:, None].clamp(max=0.9) * second
    return clock, rate, fall, schedules


def noise_ball(
    draws: Variates, z: dict[str, Tensor], task: Tensor, rate: Tensor, schedules: Tensor
) -> tuple[Tensor, Tensor]:
    """What a high peak costs while the rate is high, (N, S), and what it brings in the end, (N,); shares of the gain.

    A large rate bounces between the walls of a valley and yet goes down it faster (the river valley of Wen et al.
    2024): loss = way down the valley + B peak^k rate. So a trial behind throughout the flat phase may end ahead. In
    half of the studies with schedules.
    """
    b = len(schedules)
    has = (schedules & draws.flip(b, p=0.5))[task]
    height = draws.log_uniform(b, low=0.01, high=0.5)[task] * torch.exp(draws.uniform(b, high=1.0)[task] * z["peak"])
    height = torch.where(has, height.clamp(max=1.0), 0.0)
    better = torch.where(draws.flip(b, p=0.7), draws.uniform(b, high=1.0), 0.0)[task] * height
    return height[:, None] * rate, better.clamp(max=0.9)


def _departures(draws: Variates, b: int, task: Tensor, u: Tensor, level: Tensor, has: dict[str, Tensor]) -> Tensor:
    """(N, S) humps, climbs, dips, spikes and saw-teeth, in shares of the gain."""
    made = torch.zeros_like(u)
    learned = 1.0 - level
    size = draws.log_uniform(b, low=0.01, high=0.8)[task]
    rows = has["hump"].nonzero()[:, 0]
    n = len(rows)
    shape = draws.uniform(n, low=0.05, high=0.9), draws.log_uniform(n, low=0.5, high=2.0), draws.flip(n, p=0.2)
    height = size[rows] * draws.log_normal(n, median=1.0, sigma=0.5)
    made[rows] += height[:, None] * departures.hump(u[rows], *shape) * learned[rows]
    # Some learn nothing that generalises: they rise from the start on, above chance too.
    rows = has["climb"].nonzero()[:, 0]
    n = len(rows)
    height, exponent = draws.log_uniform(n, low=0.03, high=5.0), draws.log_uniform(n, low=0.3, high=2.0)
    made[rows] += height[:, None] * departures.climb(u[rows], exponent)
    for name, low, high, tau in (("dip", 0.05, 0.7, (0.01, 0.2)), ("spike", 0.02, 5.0, (0.001, 0.03))):
        rows = has[name].nonzero()[:, 0]
        n = len(rows)
        height = draws.log_uniform(n, _EVENTS, low=low, high=high)
        height[:, 1:] *= draws.flip(n, _EVENTS - 1, p=0.4)
        how = draws.uniform(n, _EVENTS, high=0.98), height, draws.log_uniform(n, _EVENTS, low=tau[0], high=tau[1])
        made[rows] += departures.kicks(u[rows], *how) * (0.1 + 0.9 * learned[rows])
    rows = has["cycle"].nonzero()[:, 0]
    n = len(rows)
    period, doubling = draws.uniform(b, low=0.06, high=0.45)[task[rows]], draws.flip(b, p=0.5)[task[rows]]
    height = size[rows] * draws.log_normal(n, median=1.0, sigma=0.3)
    made[rows] += height[:, None] * departures.saw_tooth(u[rows], period, doubling) * learned[rows]
    return made


def _add_blow_ups(draws: Variates, added: Tensor, u: Tensor, gain: Tensor, has: dict[str, Tensor]) -> None:
    """Blow-ups of any height and collapses by up to the gain; added in place."""
    rows = has["blow_up"].nonzero()[:, 0]
    n = len(rows)
    height = torch.where(
        draws.flip(n, p=0.9), draws.log_uniform(n, low=0.5, high=1e3), draws.log_uniform(n, low=1e3, high=1e30)
    )
    added[rows] += height[:, None] * departures.blow_up(u[rows], *_recovery(draws, n, (0.002, 0.1)))
    rows = has["collapse"].nonzero()[:, 0]
    n = len(rows)
    height = gain[rows] * draws.uniform(n, low=0.1, high=1.1)
    added[rows] += height[:, None] * departures.blow_up(u[rows], *_recovery(draws, n, (0.02, 0.5)))


def _recovery(draws: Variates, n: int, tau: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor]:
    """When (N,), how slowly, and what remains: nothing in 40 %, part in 30 %, all in 30 %."""
    kind = draws.uniform(n)
    part = draws.log_uniform(n, low=1e-3, high=1.0)
    remains = torch.where(kind < 0.4, 0.0, torch.where(kind < 0.7, part, 1.0))
    return draws.uniform(n, high=1.0), draws.log_uniform(n, low=tau[0], high=tau[1]), remains


def _divergences(draws: Variates, added: Tensor, u: Tensor, has: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(N, S) reports that are not finite and those after a divergence; growth before it is added in place."""
    rows = has["diverge"].nonzero()[:, 0]
    n = len(rows)
    at = draws.uniform(n).square()  # rather early
    height = torch.where(draws.flip(n, p=0.5), draws.log_uniform(n, low=0.1, high=1e6), 0.0)
    added[rows] += height[:, None] * departures.growth(u[rows], at, draws.log_uniform(n, low=0.003, high=0.1))
    gone = torch.zeros_like(u, dtype=torch.bool)
    gone[rows] = u[rows] >= at[:, None]
    rows = has["missing"].nonzero()[:, 0]
    lost = gone.clone()
    lost[rows] |= draws.flip(len(rows), u.shape[1], p=0.02)
    return lost, gone
