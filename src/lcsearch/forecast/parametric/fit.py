"""Batched MAP + Laplace of every family on every curve at once.

For curve i and family k, with r = y - f_k(u; p), Student-t noise of nu degrees and Gaussian priors on p, minimised is

    E(p, s) = [ sum_j (nu + 1)/2 log(1 + r_j^2 / (nu s^2)) + n log s ] / T
              + nu0/2 (s0^2 / s^2 + 2 log s) + |(p - m) / q|^2 / 2

T > 1 tempers the likelihood: residuals of training curves are correlated and n of them say less than n would.
A grid over the shape with (v, a, d) in closed form gives the start; Levenberg steps with Student-t weights refine it;
the evidence is Laplace's: -E + log|2 pi C| / 2 with C the inverse Hessian (Gauss-Newton), which the draws use too.
Loops run over families and iterations, never over curves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lcsearch.curves import Floats
from lcsearch.forecast.parametric.families import FAMILIES, Family, scaled_shape, with_ends
from lcsearch.forecast.parametric.observed import Observed

NU = 4.0
TEMPER = 2.0
#: Prior noise in a curve's own unit, and what it weighs in observations.
NOISE = 0.01
NOISE_WEIGHT = 1.0
#: Prior sd of the value at the horizon around the last loss, in the curve's own unit.
VALUE_SD = 1.0
DRIFT_SD = 0.3
IRLS = 2
STEPS = 8
_LARGEST_STEP = np.array([5.0, 5.0, 5.0, 1.5, 1.0])


@dataclass(frozen=True, eq=False)
class Fit:
    """C curves, F families, P = 5 parameters (see families.PARAMETERS).

    Attributes:
        p: (C, F, P) MAP.
        root: (C, F, P, P) lower Cholesky factor of the Laplace covariance.
        sigma: (C, F) noise scale, corrected for the parameters spent.
        noise: (C, F) the same of the second half of the curve, at most sigma: what future reports will have.
        weights: (C, F) family probabilities.
        surprise: (C, F, N) |residual| / sigma of every point; 0 where padded.
    """

    p: Floats
    root: Floats
    sigma: Floats
    noise: Floats
    weights: Floats
    surprise: Floats


@dataclass(frozen=True, eq=False)
class _Prior:
    mean: Floats  # (C, F, P)
    precision: Floats  # (C, F, P)


def priors(seen: Observed, families: tuple[Family, ...] = FAMILIES) -> _Prior:
    """Gaussian priors in the curve's own unit: v ~ N(0, 1), a around the drop seen so far, shapes as in the family."""
    c, f = seen.n.size, len(families)
    mean, sd = np.zeros((c, f, 5)), np.ones((c, f, 5))
    drop = seen.y[:, 0]
    sd[:, :, 0] = VALUE_SD
    for k, family in enumerate(families):
        mean[:, k, 1] = drop
        sd[:, k, 1] = np.sqrt(1.0 + drop**2)
        sd[:, k, 2] = DRIFT_SD
        mean[:, k, 3:] = family.mean
        sd[:, k, 3:] = family.sd
        off = ~np.array(family.active)
        mean[:, k, off], sd[:, k, off] = 0.0, 1.0
    return _Prior(mean, sd**-2.0)


def fit(seen: Observed, families: tuple[Family, ...] = FAMILIES, log_prior: Floats | None = None) -> Fit:
    """Fit every family to every curve.

    Args:
        seen: C curves.
        families: F families.
        log_prior: (F,) log prior weights; from the families when None.
    """
    prior = priors(seen, families)
    u = with_ends(seen.u, seen.u[:, :1])
    p = _start(seen, u, families, prior)
    f, jac = model(families, u, p)
    y, mask, n = seen.y[:, None], seen.mask[:, None], seen.n[:, None].astype(np.float64)
    sigma2 = _noise(y - f, np.broadcast_to(seen.weight[:, None], f.shape), mask, n)
    damp = np.full(p.shape[:2], 1e-2)
    eye = np.eye(5)
    value = energy(y - f, mask, n, sigma2, p, prior)
    for _ in range(STEPS):
        r = y - f
        w = mask * (NU + 1.0) / (NU + r * r / sigma2[..., None])
        hess, grad = _normal(jac, w, r, sigma2, p, prior)
        diagonal = np.einsum("cfii->cfi", hess)
        step = np.linalg.solve(hess + damp[..., None, None] * diagonal[..., None] * eye, grad[..., None])[..., 0]
        trial = p + np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
        f_trial, jac_trial = model(families, u, trial)
        new = energy(y - f_trial, mask, n, sigma2, trial, prior)
        ok = new <= value
        p = np.where(ok[..., None], trial, p)
        f = np.where(ok[..., None], f_trial, f)
        jac = np.where(ok[..., None, None], jac_trial, jac)
        damp = np.where(ok, damp * 0.3, damp * 4.0)
        r = y - f
        sigma2 = _noise(r, (NU + 1.0) / (NU + r * r / sigma2[..., None]), mask, n)
        value = energy(r, mask, n, sigma2, p, prior)
    r = y - f
    w = mask * (NU + 1.0) / (NU + r * r / sigma2[..., None])
    hess, _ = _normal(jac, w, r, sigma2, p, prior)
    cov = np.linalg.inv(hess)
    _, logdet = np.linalg.slogdet(hess)
    norm = -0.5 * np.log(prior.precision).sum(2)  # log of the prior's own normaliser; 2 pi cancels
    evidence = -value - 0.5 * logdet - norm
    # Points that the parameters used up say nothing about the noise.
    spent = 5.0 - (np.einsum("cfii->cfi", cov) * prior.precision).sum(2)
    total = n / TEMPER + NOISE_WEIGHT
    correction = total / np.maximum(total - spent / TEMPER, 0.25 * total)
    sigma2 = sigma2 * correction
    # Reports to come are as noisy as the recent ones: early misfit and large learning rates are behind us.
    recent = mask * (np.arange(mask.shape[2]) >= seen.n[:, None, None] // 2)
    noise2 = np.minimum(_noise(r, w, recent, recent.sum(2)) * correction, sigma2)
    hess, _ = _normal(jac, w, r, sigma2, p, prior)
    root = np.asarray(np.linalg.cholesky(np.linalg.inv(hess)), np.float64)
    if log_prior is None:
        log_prior = np.log([k.weight for k in families])
    logit = evidence + log_prior
    weights = np.exp(logit - logit.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    sigma = np.sqrt(sigma2)
    return Fit(p, root, sigma, np.sqrt(noise2), weights, mask * np.abs(r) / sigma[..., None])


def model(families: tuple[Family, ...], u: Floats, p: Floats) -> tuple[Floats, Floats]:
    """Losses and their derivatives: u (C, N + 2) with ends, p (C, F, P) -> (C, F, N), (C, F, P, N)."""
    jac = np.zeros((*p.shape, u.shape[1] - 2))
    jac[:, :, 0] = 1.0
    for k, family in enumerate(families):
        if not family.active[1]:
            continue
        h, slopes = scaled_shape(family, u, p[:, k, 3], p[:, k, 4], slopes=True)
        a = p[:, k, 1, None]
        jac[:, k, 1] = h
        if family.active[2]:
            jac[:, k, 2] = u[:, :-2] - 1.0
        for i, slope in enumerate(slopes):
            np.multiply(a, slope, out=jac[:, k, 3 + i])
    f = p[..., 0, None] + p[..., 1, None] * jac[:, :, 1] + p[..., 2, None] * jac[:, :, 2]
    return f, jac


def curve_at(families: tuple[Family, ...], which: NDArray[np.intp], u: Floats, first: Floats, p: Floats) -> Floats:
    """Losses of single parameter vectors: which (M,) family index, u (M, T), first (M,), p (M, P) -> (M, T)."""
    out = p[:, 0, None] + p[:, 2, None] * (u - 1.0)
    for k, family in enumerate(families):
        if not family.active[1]:
            continue
        rows = np.flatnonzero(which == k)
        if rows.size:
            h, _ = scaled_shape(family, with_ends(u[rows], first[rows, None]), p[rows, 3], p[rows, 4])
            out[rows] += p[rows, 1, None] * h
    return out


def energy(r: Floats, mask: Floats, n: Floats, sigma2: Floats, p: Floats, prior: _Prior) -> Floats:
    """(C, F) E of the module docstring."""
    tail = (mask * np.log1p(r * r / (NU * sigma2[..., None]))).sum(2)
    log = np.log(sigma2)
    like = (0.5 * (NU + 1.0) * tail + 0.5 * n * log) / TEMPER
    noise = 0.5 * NOISE_WEIGHT * (NOISE**2 / sigma2 + log)
    out: Floats = like + noise + 0.5 * (prior.precision * (p - prior.mean) ** 2).sum(2)
    return out


def _noise(r: Floats, w: Floats, mask: Floats, n: Floats) -> Floats:
    """(C, F) noise variance that minimises E for given weights (one EM step)."""
    total = (mask * w * r * r).sum(2) / TEMPER + NOISE_WEIGHT * NOISE**2
    out: Floats = total / (n / TEMPER + NOISE_WEIGHT)
    return out


def _normal(jac: Floats, w: Floats, r: Floats, sigma2: Floats, p: Floats, prior: _Prior) -> tuple[Floats, Floats]:
    """Gauss-Newton Hessian (C, F, P, P) of E and minus its gradient (C, F, P)."""
    s = (w / (TEMPER * sigma2[..., None]))[:, :, None] * jac
    hess = np.matmul(s, np.swapaxes(jac, 2, 3))
    grad = np.matmul(s, r[..., None])[..., 0] + prior.precision * (prior.mean - p)
    index = np.arange(5)
    hess[..., index, index] += prior.precision
    return hess, grad


def _start(seen: Observed, u: Floats, families: tuple[Family, ...], prior: _Prior) -> Floats:
    """(C, F, P) the best point of every family's grid, v, a and d in closed form, robustly reweighted."""
    c = seen.n.size
    grids = [family.starts for family in families]
    shapes = []
    for family, grid in zip(families, grids, strict=True):
        t1, t2 = (np.broadcast_to(grid[:, i], (c, len(grid))) for i in (0, 1))
        shapes.append(scaled_shape(family, u[:, None], t1, t2)[0])
    h = np.concatenate(shapes, 1)
    of = np.repeat(np.arange(len(families)), [len(grid) for grid in grids])
    q, m = prior.precision[:, of], prior.mean[:, of]
    drifts = np.flatnonzero([families[k].active[2] for k in of])
    y, n = seen.y[:, None], seen.n[:, None].astype(np.float64)
    e = np.broadcast_to((seen.u - 1.0)[:, None], (c, drifts.size, u.shape[1] - 2))
    mask = np.broadcast_to(seen.mask[:, None], h.shape)
    w = np.broadcast_to(seen.weight[:, None], h.shape)
    y = np.broadcast_to(y, h.shape)
    sigma2 = np.full(h.shape[:2], 0.05**2)
    v = a = d = np.zeros(h.shape[:2])
    r = np.zeros(h.shape)
    for _ in range(IRLS):
        ridge = TEMPER * sigma2
        wh, we = w * h, w[:, drifts] * e
        s3, s4, b2 = (np.zeros(h.shape[:2]) for _ in range(3))  # without a drift: the equation s5 d = 0
        s5 = ridge * q[..., 2]
        s3[:, drifts], s4[:, drifts], b2[:, drifts] = we.sum(2), _dot(we, h[:, drifts]), _dot(we, y[:, drifts])
        s5[:, drifts] += _dot(we, e)
        s0, s2 = w.sum(2) + ridge * q[..., 0], _dot(wh, h) + ridge * q[..., 1]
        b1 = _dot(wh, y) + ridge * q[..., 1] * m[..., 1]
        v, a, d = _solve3(s0, wh.sum(2), s2, s3, s4, s5, _dot(w, y), b1, b2)
        r = y - v[..., None] - a[..., None] * h
        r[:, drifts] -= d[:, drifts, None] * e
        rr = r * r
        sigma2 = (_dot(w, rr) / TEMPER + NOISE_WEIGHT * NOISE**2) / (n / TEMPER + NOISE_WEIGHT)
        w = mask * ((NU + 1.0) / (NU + rr / sigma2[..., None]))
    p = np.empty((*v.shape, 5))
    p[..., 0], p[..., 1], p[..., 2] = v, a, d
    p[..., 3:] = np.concatenate(grids)
    p *= np.array([family.active for family in families])[of]
    score = energy(r, mask, n, sigma2, p, _Prior(m, q))
    out = np.empty((c, len(families), 5))
    rows = np.arange(c)
    at = 0
    for k, grid in enumerate(grids):
        out[:, k] = p[rows, at + np.argmin(score[:, at : at + len(grid)], 1)]
        at += len(grid)
    return out


def _dot(x: Floats, y: Floats) -> Floats:
    out: Floats = np.einsum("cgn,cgn->cg", x, y)
    return out


def _solve3(
    s0: Floats, s1: Floats, s2: Floats, s3: Floats, s4: Floats, s5: Floats, b0: Floats, b1: Floats, b2: Floats
) -> tuple[Floats, Floats, Floats]:
    """Solve [[s0, s1, s3], [s1, s2, s4], [s3, s4, s5]] (v, a, d) = (b0, b1, b2), elementwise, by elimination."""
    l1, l2 = s1 / s0, s3 / s0
    m11, m12, m22 = s2 - l1 * s1, s4 - l1 * s3, s5 - l2 * s3
    c1, c2 = b1 - l1 * b0, b2 - l2 * b0
    l3 = m12 / m11
    d = (c2 - l3 * c1) / (m22 - l3 * m12)
    a = (c1 - m12 * d) / m11
    return (b0 - s1 * a - s3 * d) / s0, a, d
