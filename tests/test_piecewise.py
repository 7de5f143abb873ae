"""`Piecewise`: the parts' own results, to the bit; boundaries; derivatives; samplers; what is refused."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
from pspc_rs.errors import DTypeError, GradientError, InvalidValueError, ShapeError
from pspc_rs.experiments import compare
from pspc_rs.experiments.leaving_out import Sources, left_out
from pspc_rs.heatmaps import heatmaps_at
from pspc_rs.samplers import SAMPLERS, log_likelihood, sample_general

RNG = np.random.default_rng(0)
SHAPE = (2, 4, 5)
DATA = pspc.ImageSet(RNG.integers(0, 256, (30, *SHAPE), dtype=np.uint8), labels=np.arange(30) % 3, xflip=True)
SQUARE, FULL = pspc.PSPCSquare(DATA, patch_sizes=3), pspc.Empirical(DATA)
GAUSSIAN = pspc.Gaussian(DATA, cache=False)
LOW, HIGH = 0.3, 2.0
THREE = pspc.Piecewise([(LOW, HIGH, FULL), (HIGH, 80.0, GAUSSIAN), (0.002, LOW, SQUARE)])
Z = RNG.standard_normal((6, *SHAPE)) * 2


def half(x: Any, sigma: Any) -> Any:
    return x / 2


class Module(torch.nn.Module):
    """A network that depends on z without being linear in it."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = torch.tanh(self.mix(x)) / (1 + sigma.reshape(-1, 1, 1, 1))
        return mixed


def part_of(sigma: float) -> Any:
    return SQUARE if sigma < LOW else FULL if sigma < HIGH else GAUSSIAN


def by_part(sigma: Any) -> list[tuple[Any, Any]]:
    """The parts with the queries of each, which a part gets as one batch."""
    parts = [part_of(level) for level in sigma]
    return [(one, np.flatnonzero([part is one for part in parts])) for one in dict.fromkeys(parts)]


levels = st.one_of(st.sampled_from([0.002, LOW, HIGH, 80.0]), st.floats(0.01, 70))


@given(st.lists(levels, min_size=1, max_size=6), st.booleans())
def test_every_query_is_that_of_its_part_to_the_bit(sigmas: list[float], tensors: bool) -> None:
    z, sigma = Z[: len(sigmas)], np.array(sigmas)
    given: Any = (torch.from_numpy(z), torch.from_numpy(sigma)) if tensors else (z, sigma)
    found = np.asarray(THREE(*given))
    for part, queries in by_part(sigma):
        np.testing.assert_array_equal(found[queries], part(z[queries], sigma[queries]))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1), (6,), (6, 1, 1, 1)])
def test_shapes_of_sigma(shape: tuple[int, ...]) -> None:
    sigma = np.full(shape, 0.5)
    np.testing.assert_array_equal(THREE(Z, sigma), FULL(Z, 0.5))
    if 6 in shape:
        mixed = np.linspace(0.1, 5, 6)
        found = THREE(Z, mixed.reshape(shape))
        np.testing.assert_array_equal(THREE(Z, mixed.tolist()), found)
        assert sorted({part_of(one) is SQUARE for one in mixed}) == [False, True]
    assert THREE(Z[:0], 0.5).shape == (0, *SHAPE)


def test_a_boundary_belongs_to_the_upper_part_in_either_precision() -> None:
    for bound in (0.1, 0.3, 0.7, 1.1, 5.315):
        D = pspc.Piecewise([(0.01, bound, FULL), (bound, 8.0, GAUSSIAN)])
        below = float(np.nextafter(np.float32(bound), np.float32(0)))
        assert D.part_at(bound) is D.part_at(float(np.float32(bound))) is GAUSSIAN
        assert D.part_at(below) is FULL
        for dtype in (np.float32, np.float64):
            np.testing.assert_array_equal(D(Z, np.full(6, bound, dtype)), GAUSSIAN(Z, np.full(6, bound, dtype)))
    assert THREE.part_at(80.0) is GAUSSIAN and THREE.part_at(0.002) is SQUARE
    assert THREE.part_at(float(np.float32(0.002))) is SQUARE
    for sigma in (0.0019, 80.1):
        with pytest.raises(
            InvalidValueError, match=rf"sigma is {sigma}; the parts of this Piecewise are for 0.002 to 80"
        ):
            THREE(Z, sigma)


def test_ends_left_open_are_those_of_the_part() -> None:
    net = pspc.Network(half, sigma_min=0.01, sigma_max=3.0)
    D = pspc.Piecewise([(None, 1.0, net), (1.0, None, FULL)])
    assert (D.sigma_min, D.sigma_max) == (0.01, FULL.sigma_max)
    alone = pspc.Piecewise([(None, None, half)])
    assert (alone.sigma_min, alone.sigma_max, alone.shape) == (0.0, np.inf, None)
    np.testing.assert_array_equal(alone(Z, 3.0), Z / 2)


def test_it_has_what_samplers_look_for() -> None:
    assert (THREE.shape, THREE.img_channels, THREE.img_resolution) == (SHAPE, 2, (4, 5))
    assert (THREE.sigma_min, THREE.sigma_max, THREE.label_dim) == (0.002, 80.0, 0)
    assert THREE.to("cpu").eval() is THREE
    conditional = pspc.Empirical(DATA, conditional=True)
    assert pspc.Piecewise([(0.1, 1, conditional), (1, 2, conditional)]).label_dim == 3
    assert pspc.Piecewise([(0.1, 1, conditional), (1, 2, FULL)]).label_dim == 0
    assert repr(pspc.Piecewise([(0.1, 1, half)])).startswith("Piecewise(0.1 to 1: Network(")
    settings = THREE.settings
    assert settings["denoiser"] == "Piecewise"
    assert settings["parts"][0] == {"sigma_min": 0.002, "sigma_max": LOW, **SQUARE.settings}


def test_levels_are_rounded_by_their_parts() -> None:
    class Rounding:
        """A network for integer levels."""

        def __call__(self, x: Any, sigma: Any) -> Any:
            return x

        def round_sigma(self, sigma: Any) -> Any:
            return sigma.round()

    D = pspc.Piecewise([(0.1, 4.0, FULL), (4.0, 90.0, Rounding())])
    assert np.asarray(D.round_sigma(np.array([79.6, 4.4, 3.3]))).tolist() == [80, 4, 3.3]
    rounded = D.round_sigma(torch.tensor([79.6, 4.4]))
    assert isinstance(rounded, torch.Tensor) and rounded.tolist() == [80, 4]
    assert D.round_sigma(3.3) == 3.3


def test_labels_and_left_out_images_are_those_of_each_query() -> None:
    D = pspc.Piecewise([(0.1, 1.0, SQUARE), (1.0, 9.0, FULL)])
    sigma, labels, exclude = np.array([0.2, 5, 0.3, 2, 0.4, 3]), np.arange(6) % 3, np.arange(6)
    found = D(Z, sigma, labels, exclude=exclude)
    as_lists = D(Z, sigma, labels.tolist(), exclude=[[one] for one in exclude])
    np.testing.assert_array_equal(found, as_lists)
    for one in range(6):
        part, query = D.part_at(sigma[one]), slice(one, one + 1)
        expected = part(Z[query], sigma[one], labels[query], exclude=exclude[query])  # type: ignore[call-arg]
        np.testing.assert_array_equal(found[query], expected)
    with pytest.raises(InvalidValueError, match="Gaussian"):
        THREE(Z, 5.0, np.zeros(6, int))
    with pytest.raises(InvalidValueError, match=r"exclude is given, but the part .* for sigma 1 to 2: Network\("):
        pspc.Piecewise([(0.1, 1, FULL), (1, 2, half)])(Z, 1.5, exclude=exclude)


def test_progress_runs_over_the_whole_batch() -> None:
    told: list[float] = []
    THREE(Z, np.array([0.1, 0.1, 1, 1, 5, 5]), progress=lambda done, total: told.append(done / total))
    assert told == sorted(told) and told[0] >= 0 and told[-1] <= 1


def test_derivatives_are_those_of_the_parts() -> None:
    sigma, v = np.array([0.1, 5, 1, 0.2, 3, 1.5]), RNG.standard_normal((3, 6, *SHAPE))
    denoised, Jv = THREE.jvp(Z, sigma, v)
    _, Ju = THREE.vjp(Z, sigma, v[0])
    _, traces = THREE.divergence(Z, sigma)
    for part, queries in by_part(sigma):
        own, products = part.jvp(Z[queries], sigma[queries], v[:, queries])
        np.testing.assert_array_equal(denoised[queries], own)
        np.testing.assert_array_equal(Jv[:, queries], products)
        np.testing.assert_array_equal(Ju[queries], part.vjp(Z[queries], sigma[queries], v[0, queries])[1])
        np.testing.assert_array_equal(traces[queries], part.divergence(Z[queries], sigma[queries])[1])


def test_torch_differentiates_through_every_part() -> None:
    net = pspc.Network(Module().double(), shape=SHAPE)
    D = pspc.Piecewise([(0.01, 1.0, FULL), (1.0, 80.0, net)])
    sigma = torch.tensor([0.4, 5.0, 0.8, 2.0, 1.0, 0.5], dtype=torch.float64)
    z = torch.from_numpy(Z).requires_grad_()
    (gradient,) = torch.autograd.grad(D(z, sigma).square().sum(), z)
    for one, level in enumerate(sigma.tolist()):
        own = torch.from_numpy(Z[one : one + 1]).requires_grad_()
        (expected,) = torch.autograd.grad((FULL if level < 1 else net)(own, level).square().sum(), own)
        torch.testing.assert_close(gradient[one : one + 1], expected, rtol=0, atol=1e-10)
    with pytest.raises(GradientError, match=r"sigma 1 to 80: Network\(.*has no method jvp"):
        D.jvp(Z, sigma.numpy(), Z)
    assert D.jvp(Z, 0.5, Z)[1].shape == Z.shape
    assert not D.provides("jvp") and THREE.provides("jvp")


def test_the_posterior_is_that_of_one_part() -> None:
    P, own = THREE.posterior(Z, 0.2, top=2), SQUARE.posterior(Z, 0.2, top=2)
    np.testing.assert_array_equal(P.entropy, own.entropy)
    np.testing.assert_array_equal(P.top_index, own.top_index)
    with pytest.raises(InvalidValueError, match="of several parts"):
        THREE.posterior(Z, [0.2, 0.2, 1, 1, 1, 1])
    with pytest.raises(InvalidValueError, match=r"Gaussian.* has no posteriors over images"):
        THREE.posterior(Z, 3.0)


def test_likelihoods_are_exact_where_all_parts_are() -> None:
    x = DATA.batch([0, 1]).astype(np.float64)
    D = pspc.Piecewise([(0.01, 1.0, GAUSSIAN), (1.0, 80.0, GAUSSIAN)])
    levels = pspc.edm_sigmas(20, 0.01, 80.0)
    np.testing.assert_array_equal(log_likelihood(D, x, levels).value, log_likelihood(GAUSSIAN, x, levels).value)
    net = pspc.Piecewise([(0.01, 1.0, GAUSSIAN), (1.0, 80.0, pspc.Network(GAUSSIAN))])
    mixed = log_likelihood(net, torch.from_numpy(x), levels)
    np.testing.assert_allclose(np.asarray(mixed.value), log_likelihood(GAUSSIAN, x, levels).value, rtol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_hands_over_at_the_boundary(name: str) -> None:
    seen: dict[str, list[float]] = {"low": [], "high": []}

    def told(which: str, D: Any) -> Any:
        def net(z: Any, sigma: Any) -> Any:
            seen[which].append(float(sigma[0]))
            return D(z, sigma)

        return net

    D = pspc.Piecewise([(0.002, 1.0, told("low", SQUARE)), (1.0, 80.0, told("high", GAUSSIAN))])
    found = SAMPLERS[name](D, np.float32(80 * Z), [80.0, 8.0, 1.0, 0.7, 0.1, 0.0])
    assert found.shape == Z.shape and found.dtype == np.float32
    assert min(seen["high"]) == 1.0 and max(seen["low"]) == pytest.approx(0.7)
    assert len(seen["low"]) + len(seen["high"]) == {"euler": 5, "dpmpp_2m": 5}.get(name, 9)


def test_a_hybrid_of_equal_parts_samples_the_same_bits() -> None:
    D = pspc.Piecewise([(0.002, 0.7, SQUARE), (0.7, 80.0, SQUARE)])
    options: dict[str, Any] = {"num_steps": 5, "generator": "numpy"}
    np.testing.assert_array_equal(pspc.sample(D, 3, **options), pspc.sample(SQUARE, 3, **options))
    start, levels = np.float32(80 * Z[:2]), pspc.edm_sigmas(5)
    np.testing.assert_array_equal(sample_general(D, start, levels), sample_general(SQUARE, start, levels))
    jumped = pspc.sample(D, 2, jump=GAUSSIAN, jump_to=3.0, **options)
    np.testing.assert_array_equal(jumped, pspc.sample(SQUARE, 2, jump=GAUSSIAN, jump_to=3.0, **options))


def test_parts_may_be_piecewise() -> None:
    D = pspc.Piecewise([(0.002, 80.0, THREE), (80.0, 100.0, FULL)])
    sigma = np.array([0.1, 1, 5, 90, 0.1, 1])
    found = D(Z, sigma)
    np.testing.assert_array_equal(found[:3], THREE(Z[:3], sigma[:3]))
    np.testing.assert_array_equal(found[3:4], FULL(Z[3:4], 90.0))
    assert D.provides("divergence")


def test_copies_and_pickles_give_the_same_bits() -> None:
    sigma = np.array([0.1, 1, 5, 70, 0.1, 1])
    expected = THREE(Z, sigma)
    for other in (copy.copy(THREE), copy.deepcopy(THREE), pickle.loads(pickle.dumps(THREE))):  # noqa: S301
        np.testing.assert_array_equal(other(Z, sigma), expected)
        assert repr(other) == repr(THREE)


def test_compare_knows_it_and_leaves_images_out(tmp_path: Path) -> None:
    D = pspc.Piecewise([(0.01, 1.0, SQUARE), (1.0, 80.0, FULL)])
    options: dict[str, Any] = {"sigmas": [2.0, 0.5], "processes": ["forward"], "n": 4, "leave_one_out": True}
    rows = compare(DATA, {"net": half}, {"both": D, "square": SQUARE, "full": FULL}, tmp_path, **options)
    mse = {(row["denoiser"], row["sigma"]): row["mse"] for row in rows}
    assert mse["both", 2.0] == mse["full", 2.0] and mse["both", 0.5] == mse["square", 0.5]
    assert mse["both", 2.0] != mse["square", 2.0]


def test_leaving_out_asks_every_part() -> None:
    sources = Sources(DATA.fingerprint, np.arange(6))
    assert left_out("it", pspc.Piecewise([(0.1, 1, half), (1, 2, half)]), sources) is None
    found = left_out("it", pspc.Piecewise([(0.1, 1, SQUARE), (1, 2, FULL)]), sources)
    assert found is sources.indices
    with pytest.raises(InvalidValueError, match="of the parts of it some hold images"):
        left_out("it", pspc.Piecewise([(0.1, 1, SQUARE), (1, 2, half)]), sources)
    with pytest.raises(InvalidValueError, match=r"it, sigma 2 to 80 \(Gaussian\) cannot leave an image out"):
        left_out("it", THREE, sources)
    with pytest.raises(InvalidValueError, match="in a Network"):
        left_out("it", pspc.Network(THREE), sources)


def test_heat_maps_are_those_of_the_part() -> None:
    for sigma in (0.1, 1.0, 5.0):
        found, expected = (heatmaps_at(D, Z[:2], sigma)[0] for D in (THREE, part_of(sigma)))
        np.testing.assert_array_equal(found, expected)


NARROW = pspc.Network(half, sigma_max=5.0)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ([], InvalidValueError, "there are no parts"),
        ("abc", DTypeError, "parts are 'abc'"),
        ([FULL], DTypeError, r"a part is .*allowed are \(low, high, model\)"),
        ([(0.1, 1.0, "net.pt")], DTypeError, "the model of a part is 'net.pt'"),
        ([("a", 1.0, FULL)], DTypeError, "the end of a range is 'a'"),
        ([(0, 1.0, FULL)], InvalidValueError, "the end of a range is 0; allowed are numbers from 1e-06"),
        ([(0.1, np.inf, FULL)], InvalidValueError, "the end of a range is inf"),
        ([(1.0, 1.0, FULL)], InvalidValueError, "a part is for sigma 1 to 1; the high end must be above"),
        ([(2.0, 1.0, FULL)], InvalidValueError, "a part is for sigma 2 to 1"),
        ([(1.0, 1.0 + 1e-9, FULL)], InvalidValueError, "the high end must be above"),
        ([(0.1, 1, FULL), (1.5, 2, FULL)], InvalidValueError, "for sigma 0.1 to 1 and 1.5 to 2 leave a gap"),
        ([(0.1, 1.5, FULL), (1, 2, FULL)], InvalidValueError, "for sigma 0.1 to 1.5 and 1 to 2 overlap"),
        ([(0.1, 2, FULL), (0.5, 1, FULL)], InvalidValueError, "overlap"),
        ([(None, None, FULL), (1, 2, FULL)], InvalidValueError, "overlap"),
        ([(0.1, 2, NARROW), (2, 9, NARROW)], InvalidValueError, "is the part for 2 to 9, but sigma is 9"),
        ([(0.1, 2, THREE), (2, 90, THREE)], InvalidValueError, "is the part for 2 to 90, but sigma is 90"),
        (
            [(0.1, 1, FULL), (1, 2, pspc.Network(half, shape=(3, 4, 5)))],
            ShapeError,
            r"images of shapes \[2, 4, 5\] and \[3, 4, 5\]",
        ),
    ],
)
def test_bad_parts(parts: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pspc.Piecewise(parts)


def test_bad_queries() -> None:
    with pytest.raises(ShapeError, match="z has shape"):
        THREE(Z[0], 0.5)
    with pytest.raises(DTypeError, match="z"):
        THREE(Z.tolist(), 0.5)
    with pytest.raises(ShapeError, match="sigma has shape"):
        THREE(Z, np.ones(5))
    with pytest.raises(InvalidValueError, match="sigma"):
        THREE(Z, 0.0)
    with pytest.raises(ShapeError, match="v has shape"):
        THREE.jvp(Z, [0.1, 1, 5, 70, 0.1, 1], Z[:5])
