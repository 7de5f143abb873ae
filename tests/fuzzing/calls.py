"""The API that is fuzzed: calls whose arguments are mostly right, and now and then of any other kind.

Counts that are right but huge are left out: a billion steps is a wish, not a fault.
"""

import random
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import pspc_rs as pspc
from bad_files import random_images
from fuzzing.targets import Arrays, Target
from pspc_rs import images, samplers, schedules, sigmas
from pspc_rs.data import load, to_float
from pspc_rs.denoisers.predictions import PREDICTIONS, Prediction
from pspc_rs.experiments import METRICS, flow_distance, r2

SHAPE = (2, 6, 5)
_HOSTILE_SHARE = 0.12


class Odd:
    """Looks like an array, an integer and a data set, and is none."""

    shape = (1, 2, 3)
    dtype = "float32"

    def __index__(self) -> int:
        raise TypeError("odd")

    def __len__(self) -> int:
        return 3

    def __repr__(self) -> str:
        return "Odd()"


def hostile(source: random.Random) -> Any:
    """A value that is probably none that is allowed."""
    kinds: list[Any] = [
        *(None, True, False, -1, 0, 2.5, -0.0, float("nan"), float("inf"), -float("inf"), 1e-320, 1e300, 10**400),
        *(2**63, -(2**63) - 1, 1j, "", "x", "1", b"", b"\x00", (), [], {}, set(), Odd(), object, print),
        *(range(3), slice(2), [[1], [2, 3]], [float("nan")], "a\x00b", "caf\udce9", {"a": 1}, Path()),
        *(np.float32(1), np.int8(-1), np.nan, np.array(1.0), np.array([]), np.array(["a"]), np.array([None])),
        *(np.zeros((1, *SHAPE)), np.zeros((0, *SHAPE), np.uint8), np.full(SHAPE, np.nan), np.zeros((2, 2), bool)),
        *(np.zeros(3, [("x", np.uint8)]), np.ma.zeros((1, *SHAPE)), np.zeros((1, *SHAPE), ">f4"), np.datetime64("now")),
        *(Ellipsis, NotImplemented),
    ]
    return source.choice(kinds)


def maybe(source: random.Random, *allowed: Any) -> Any:
    """One of some values; now and then a hostile one."""
    return hostile(source) if source.random() < _HOSTILE_SHARE else source.choice(allowed)


def numbers(source: random.Random, shape: tuple[int, ...]) -> Any:
    """An array of floats of any type and layout, with now and then a number that is none."""
    generator = np.random.default_rng(source.randrange(2**32))
    scale = source.choice([1.0, 1e-6, 30.0, 1e3, 1e30])
    with np.errstate(over="ignore"):
        array = np.asarray(generator.normal(size=shape) * scale, source.choice(["f4", "f4", "f8", "f2", ">f4", ">f8"]))
    if array.size and source.random() < 0.08:
        array.flat[source.randrange(array.size)] = source.choice([np.nan, np.inf, -np.inf])
    if source.random() < 0.2 and find_spec("torch") is not None:
        import torch

        return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    layouts: list[Callable[[Any], Any]] = [lambda x: x, np.asfortranarray, np.flip]
    return source.choice(layouts)(array)


def batch(source: random.Random, shape: tuple[int, ...] = SHAPE) -> Any:
    """Noisy images, mostly of the right shape."""
    if source.random() < 0.1:
        return hostile(source)
    if source.random() < 0.1:
        shape = tuple(source.randrange(8) for _ in range(source.randrange(5)))
        return numbers(source, shape)
    return numbers(source, (source.randrange(4), *shape))


def sigma(source: random.Random, size: int = 1) -> Any:
    """Noise levels of the usual and of extreme sizes."""
    levels = [1e-6, 1e-3, 0.1, 1.0, 80.0, 1e9]
    if source.random() < 0.3:
        return maybe(source, [source.choice(levels) for _ in range(size)], np.full((size, 1, 1, 1), 0.5))
    return maybe(source, *levels)


@cache
def training_data(floats: bool) -> pspc.ImageSet:
    """A small data set of bytes, or of floats of many sizes."""
    if not floats:
        return pspc.ImageSet(random_images(30, *SHAPE), np.arange(30) % 4, xflip=True)
    pixels = np.random.default_rng(0).normal(size=(30, *SHAPE)) * np.logspace(-6, 5, 30)[:, None, None, None]
    return pspc.ImageSet(pixels, log_prior=np.linspace(-50, 1e3, 30))


@cache
def denoisers() -> list[pspc.Denoiser | pspc.Piecewise]:
    """One of each kind, on either data set."""
    masks = np.zeros((2, *SHAPE[1:]), bool)
    masks[0, :4] = masks[1, 2:] = True
    found: list[pspc.Denoiser | pspc.Piecewise] = []
    for data in (training_data(False), training_data(True)):
        found += [
            pspc.Empirical(data),
            pspc.PSPCSquare(data, patch_sizes=["full", 4, 3], sigmas=[10.0, 1.0, 0.1]),
            pspc.PSPCFlex(data, masks=masks),
            pspc.CFDM(data, num_noises=2),
            pspc.SNIS(data, num_neighbors=5, num_draws=10),
            pspc.Gaussian(data, cache=False),
        ]
        found.append(pspc.Piecewise([(None, 0.5, found[-5]), (0.5, 5, found[-6]), (5, None, found[-1])]))
    return found


def denoise(source: random.Random, folder: Path) -> Arrays:
    """Any denoiser on anything."""
    del folder
    z = batch(source)
    size = z.shape[0] if len(getattr(z, "shape", ())) == 4 else 1
    denoised = source.choice(denoisers())(z, sigma(source, size))
    assert denoised.shape == z.shape
    assert denoised.dtype == z.dtype
    return [denoised]


def ask(source: random.Random, folder: Path) -> Arrays:
    """Posteriors, densities and derivatives of any denoiser, with any choice of images."""
    del folder
    z = numbers(source, (source.randrange(1, 3), *SHAPE)) if source.random() < 0.8 else batch(source)
    size = z.shape[0] if len(getattr(z, "shape", ())) == 4 else 1
    D: Any = source.choice(denoisers())
    labels = maybe(source, None, None, [1] * size, np.eye(4)[[2] * size], np.zeros((size, 0)))
    flags = np.arange(30) < np.full((size, 1), source.randrange(31))
    exclude = maybe(source, None, None, [3] * size, [[-1, 5, 59]] * size, flags)
    v = maybe(source, z, numbers(source, (size, *SHAPE)), numbers(source, (2, size, *SHAPE)))
    options = {"class_labels": labels, "exclude": exclude}
    calls: list[Callable[[], Any]] = [
        lambda: [D(z, sigma(source, size), **options)],
        lambda: D.jvp(z, sigma(source, size), v, **options),
        lambda: D.vjp(z, sigma(source, size), v, **options),
        lambda: D.divergence(z, sigma(source, size), **options),
    ]
    if hasattr(D, "posterior"):
        calls.append(lambda: statistics(D.posterior(z, sigma(source, size), maybe(source, 1, 5, 99), **options)))
    if hasattr(D, "log_prob"):
        calls.append(lambda: [D.log_prob(z, sigma(source, size), **options)])
    return list(source.choice(calls)())


def statistics(P: pspc.Posterior) -> Arrays:
    """Everything that a posterior says."""
    kept = [P.log_evidence, P.entropy, P.effective_images, P.top_index, P.top_view, P.top_weight]
    return [*kept, P.attribution(), P.variance, P.component_variance, P.denoised]


def build_set(source: random.Random, folder: Path) -> Arrays:
    """An `ImageSet` of any arrays, and what can be asked of it."""
    del folder
    shape = tuple(source.randrange(1, 7) for _ in range(source.choice([2, 3, 4, 4, 4, 5])))
    dtype = source.choice(["u1", "f4", "f8", "f2", ">f4", "i8", "?", "U1", "O", "c8", "M8[s]"])
    pixels = maybe(source, np.zeros(shape, dtype), numbers(source, shape))
    kinds = [None, list(range(shape[0])), np.zeros(shape[0], source.choice(["u2", "f4", "i8", "?", "U1"]))]
    options = {"xflip": maybe(source, True, False), "channels_last": maybe(source, None, True, False)}
    labels, prior = maybe(source, *kinds), maybe(source, None, np.zeros(shape[0]), np.full(shape[0], 2e6))
    data = (
        load(pixels, **options) if source.random() < 0.5 else pspc.ImageSet(pixels, labels, log_prior=prior, **options)
    )
    calls: list[Any] = [data.batch, data.subset, data.select, data.__getitem__]
    found = source.choice(calls)(maybe(source, 0, [0], [-1], [0, 0], slice(1), np.array([0])))
    return [data.images, getattr(found, "images", found)]


def build_denoiser(source: random.Random, folder: Path) -> Arrays:
    """Denoisers with any parameters."""
    del folder
    data = maybe(source, training_data(False), training_data(True))
    masks = np.random.default_rng(source.randrange(99)).random((2, *SHAPE[1:])) > 0.2
    sides, levels = maybe(source, 3, "full", [4, 3], [3]), maybe(source, None, [1.0], [1, 0.1])
    nearest, scale = maybe(source, "log", None), maybe(source, None, 5)
    maps = maybe(source, numbers(source, (1, 6, 5, 6, 5)), np.ones((2, 6, 5, 6, 5)))
    ends, gap = maybe(source, None, 1.0, 1e-6), maybe(source, 1.0, 1.0, 1.5)
    makes: list[Callable[[], Any]] = [
        lambda: pspc.PSPCSquare(data, patch_sizes=sides, sigmas=levels),
        lambda: pspc.PSPCSquare(data, maybe(source, "cifar10"), scale_to=scale, nearest=nearest),
        lambda: pspc.PSPCFlex(data, masks=maybe(source, masks, masks[:1], masks.astype(int), ~masks)),
        lambda: pspc.PSPCFlex(data, heatmaps=maps, thresholds=maybe(source, 0.5, [0.5], [1, 0.5]), sigmas=levels),
        lambda: pspc.CFDM(data, maybe(source, 0.5, 0), maybe(source, 1, 3), maybe(source, 0, 7)),
        lambda: pspc.SNIS(data, maybe(source, 1, 100), maybe(source, 1, 10), maybe(source, 0, 7)),
        lambda: pspc.Gaussian(data, maybe(source, None, 1, 5), cache=False),
        lambda: pspc.Gaussian(data, variance_floor=maybe(source, None, 0.1), cache=False),
        lambda: pspc.Gaussian(data, shrinkage=maybe(source, 0, 0.5, "ledoit-wolf"), cache=False),
        lambda: pspc.Piecewise([(ends, gap, pspc.Empirical(data)), (1.0, ends, pspc.SNIS(data, 3, 5, 0))]),
        lambda: pspc.Empirical(data, maybe(source, "cpu", "auto", "cuda:x")),
        lambda: pspc.Empirical(data, temperature=maybe(source, 1, 0.5, 1e18), conditional=maybe(source, True, False)),
    ]
    denoiser = source.choice(makes)()
    return [denoiser(np.zeros((1, *denoiser.shape), np.float32), 0.5)]


def build_sample(source: random.Random, folder: Path) -> Arrays:
    """Samples by any sampler with any options."""
    del folder
    options: dict[str, Any] = {
        "sigma_min": maybe(source, 0.002, 0.1),
        "sigma_max": maybe(source, 80.0, 1.0),
        "rho": maybe(source, 7.0, 1.0, 0.1),
        "seed": maybe(source, 0, 2**40),
        "generator": maybe(source, "numpy", "auto"),
        "trajectory": source.random() < 0.3,
    }
    kept = {name: value for name, value in options.items() if source.random() < 0.5}
    if source.random() < 0.2:
        kept["protocol"] = maybe(source, *samplers.PROTOCOLS)
    number: Any = source.choice([1, 2, -1, 0, 1.5, None, "2"])
    steps: Any = source.choice([1, 2, 5, -1, 0, 2.5, None])
    sampler = maybe(source, "euler", "heun", "edm", "dpmpp_2m")
    return [pspc.sample(source.choice(denoisers()), number, sampler, steps, **kept)]


def solve(source: random.Random, folder: Path) -> Arrays:
    """A solver on any state, with any levels."""
    del folder
    levels = maybe(source, [80.0, 1.0, 0.0], [1.0, 0.5], [1e9, 1e-6], sigmas.edm_sigmas(4), [1.0, 1.0])
    options: dict[str, Any] = {"float64_state": source.random() < 0.5}
    solver = source.choice([*samplers.SAMPLERS.values()])
    if solver is samplers.sample_edm:
        names = ("S_churn", "S_min", "S_max", "S_noise", "noise")
        options |= {name: maybe(source, 0, 1, 40.0) for name in names if source.random() < 0.5}
    return [solver(source.choice(denoisers()), batch(source), levels, **options)]


def predict(source: random.Random, folder: Path) -> Arrays:
    """What a denoiser predicts in another convention."""
    del folder
    seen = Prediction(source.choice(denoisers()), maybe(source, *PREDICTIONS), sigma_data=maybe(source, 0.5, 1.0))
    x = batch(source)
    size = x.shape[0] if getattr(x, "shape", ()) else 1
    return [seen(x, maybe(source, 1.0, sigma(source, size)), sigma(source, size))]


def score(source: random.Random, folder: Path) -> Arrays:
    """Metrics between images."""
    del folder
    first = batch(source)
    second = first if source.random() < 0.1 else batch(source, tuple(getattr(first, "shape", SHAPE))[1:])
    calls: list[Callable[[], Any]] = [
        lambda: METRICS[source.choice([*METRICS])].compute(first, second),
        lambda: r2(first, second, ddof=maybe(source, 0, 1)),
        lambda: flow_distance(first, second, order=maybe(source, 1, 2)),
    ]
    return [np.array(source.choice(calls)())]


def grids(source: random.Random, folder: Path) -> Arrays:
    """Noise levels and schedules."""
    del folder
    steps: Any = source.choice([1, 2, 18, 0, -1, 2.5, None, True])
    threads: Any = source.choice([0, -1, 2**63, 10**6, None, 1.5, "2"])
    size, levels, scale = maybe(source, 8, (8, 6)), maybe(source, None, [1.0, 0.5]), maybe(source, None, 8)
    calls: list[Callable[[], Any]] = [
        lambda: sigmas.edm_sigmas(steps, maybe(source, 0.002, 1.0), maybe(source, 80.0, 1.0), maybe(source, 7.0, 1e-3)),
        lambda: sigmas.nearest_level(sigma(source), maybe(source, [2.0, 1.0], [1.0]), maybe(source, "log", "linear")),
        lambda: schedules.patch_schedule("cifar10").at(sigma(source)),
        lambda: schedules.resolve_patch_schedule(maybe(source, "cifar10", 3, "full", [3, 2]), size, levels, scale),
        lambda: schedules.resolve_threshold_schedule(maybe(source, 0.4, [0.1, 1]), size, levels),
        lambda: schedules.ThresholdSchedule(maybe(source, (1, 0.5)), maybe(source, (2.0, 1.0)), maybe(source, (8, 8))),
        lambda: pspc.set_num_threads(threads),
    ]
    found = source.choice(calls)()
    return [found] if isinstance(found, np.ndarray) else []


def pictures(source: random.Random, folder: Path) -> Arrays:
    """Pixels as bytes, grids and files."""
    shape = tuple(source.randrange(5) for _ in range(source.choice([2, 3, 4, 4])))
    calls: list[Callable[[], Any]] = [
        lambda: images.to_uint8(maybe(source, numbers(source, shape))),
        lambda: images.image_grid(maybe(source, numbers(source, shape)), maybe(source, None, 2), maybe(source, 0, 2)),
        lambda: images.save_png(folder / "a.png", maybe(source, np.zeros(shape, np.uint8))),
        lambda: to_float(maybe(source, np.zeros(shape, np.uint8), np.zeros(shape, np.float32))),
        lambda: pspc.save_edm_zip(maybe(source, training_data(True)), folder / "a.zip"),
        lambda: load(maybe(source, str(folder), folder / "gone", np.zeros((2, *SHAPE), np.uint8))),
    ]
    found = source.choice(calls)()
    return [found] if isinstance(found, np.ndarray) else []


def items(source: random.Random, folder: Path) -> Arrays:
    """Data sets of torch and what looks like them."""
    del folder
    shape = source.choice([SHAPE, (6, 5), (6, 5, 3), (9, 8, 3)])

    def item() -> Any:
        image = maybe(source, np.zeros(shape, np.uint8), np.zeros(shape, np.float32), numbers(source, shape))
        label = maybe(source, 0, 1, np.int64(2), [0, 1], 0.5, "cat", None)
        return source.choice([image, (image,), (image, label), [image, label]])

    most: Any = source.choice([None, None, 1, 2, 0, -1, 1.5])
    data = pspc.ImageSet.from_torch(
        maybe(source, [item() for _ in range(source.randrange(4))], [item()] * 3),
        value_range=maybe(source, None, None, (0, 1), (-1.0, 1.0)),
        max_size=most,
        classes=maybe(source, None, None, [0], [0, 1]),
        channels_last=maybe(source, None, False, True),
    )
    return [data.images]


CALLS = [
    Target("denoise", denoise, 4),
    Target("posterior", ask, 4),
    Target("image set", build_set, 3),
    Target("denoiser", build_denoiser, 2),
    Target("sample", build_sample),
    Target("solve", solve, 2),
    Target("predict", predict, 2),
    Target("score", score),
    Target("grids", grids, 2),
    Target("pictures", pictures, 2),
    Target("items", items, 2),
]
"""The calls that are fuzzed."""
