"""Denoisers as models of diffusers and azula, with stand-ins for what these libraries hand over."""

import math
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pspc_rs as pspc
from pspc_rs import errors
from pspc_rs.denoisers import Prediction
from pspc_rs.networks import DiffusersModel, azula_denoiser, clients
from pspc_rs.samplers import PROTOCOLS, sample_euler

DATA = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (30, 1, 8, 6), dtype=np.uint8), labels=np.arange(30) % 3)
DENOISER = pspc.PSPCSquare(DATA, patch_sizes=5)


def images(num: int = 2) -> Tensor:
    return torch.randn(num, 1, 8, 6, generator=torch.Generator().manual_seed(1))


class Scheduler:
    """What a scheduler of diffusers hands over: its configuration, timesteps and noise levels."""

    def __init__(self, **config: Any) -> None:
        self.config = config
        self.alphas_cumprod = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))).float()


class DDIMScheduler(Scheduler):
    """Counts steps."""

    def step(self, predicted: Tensor, t: int, x: Tensor) -> Tensor:
        """DDIM's formula from one step to the hundredth before it, and from the first to the image."""
        now = float(self.alphas_cumprod[t])
        after = float(self.alphas_cumprod[t - 100]) if t >= 100 else 1.0
        x0 = (x - math.sqrt(1 - now) * predicted) / math.sqrt(now)
        return math.sqrt(after) * x0 + math.sqrt(1 - after) * predicted


class WithLevels(Scheduler):
    """Has noise levels of its own."""

    def __init__(self, timesteps: list[float], sigmas: list[float], **config: Any) -> None:
        super().__init__(**config)
        self.timesteps, self.sigmas, self.step_index = torch.tensor(timesteps), torch.tensor(sigmas), None

    step_index: int | None


class EulerDiscreteScheduler(WithLevels):
    pass


class EDMEulerScheduler(WithLevels):
    pass


class FlowMatchEulerDiscreteScheduler(WithLevels):
    pass


def test_ddim_with_it_is_eulers_method_on_ddim10() -> None:
    scheduler, protocol = DDIMScheduler(), PROTOCOLS["ddim10"]
    model = DiffusersModel(DENOISER, scheduler)
    x = images()
    for t in range(900, -1, -100):
        x = scheduler.step(model(x, t).sample, t, x)
    ours = sample_euler(DENOISER, images() * protocol.start_scale, protocol.sigmas)
    torch.testing.assert_close(x, ours, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("kind", "prediction"), [("epsilon", "eps"), ("v_prediction", "v"), ("sample", "x0")])
def test_it_predicts_what_the_configuration_says(kind: str, prediction: str) -> None:
    scheduler = DDIMScheduler(prediction_type=kind)
    abar = float(scheduler.alphas_cumprod[400])
    expected = Prediction(DENOISER, prediction)(images(), math.sqrt(abar), math.sqrt(1 - abar))
    model = DiffusersModel(DENOISER, scheduler)
    torch.testing.assert_close(model(images(), 400).sample, expected, rtol=1e-5, atol=1e-5)
    (as_tuple,) = model(images(), torch.tensor([400, 400]), return_dict=False)
    torch.testing.assert_close(as_tuple, expected, rtol=1e-5, atol=1e-5)


def test_levels_are_those_of_the_schedulers_steps() -> None:
    scheduler = EulerDiscreteScheduler([999.0, 333.0, 0.0], [9.0, 2.0, 0.5, 0.0])
    model = DiffusersModel(DENOISER, scheduler)
    for t, sigma in ((999.0, 9.0), (333.0, 2.0), (0.0, 0.5)):
        alpha = 1 / math.sqrt(1 + sigma**2)
        expected = Prediction(DENOISER, "eps")(images(), alpha, alpha * sigma)
        torch.testing.assert_close(model(images(), torch.tensor(t)).sample, expected, rtol=0, atol=1e-5)
    # Two steps may have one timestep, as rounded Karras levels do: the present one counts.
    scheduler.timesteps[1], scheduler.step_index = 999.0, 1
    alpha = 1 / math.sqrt(5)
    expected = Prediction(DENOISER, "eps")(images(), alpha, 2 * alpha)
    torch.testing.assert_close(model(images(), 999.0).sample, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "sign"), [("epsilon", 1), ("v_prediction", -1)])
def test_edms_schedulers_get_the_raw_network(kind: str, sign: int) -> None:
    scheduler = EDMEulerScheduler([0.2], [2.0, 0.0], prediction_type=kind, sigma_data=0.7)
    z = images() * 2
    c_in, total = 1 / math.sqrt(0.49 + 4), 0.49 + 4
    F = DiffusersModel(DENOISER, scheduler)(z * c_in, 0.2).sample
    denoised = 0.49 / total * z + sign * 2 * 0.7 / math.sqrt(total) * F
    torch.testing.assert_close(denoised, DENOISER(z, 2.0), rtol=0, atol=1e-5)


def test_flow_matching_at_its_first_step_has_the_limit() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler([1000.0, 400.0], [1.0, 0.4, 0.0])
    model, n = DiffusersModel(DENOISER, scheduler), images()
    # Of noise alone the best guess of the image is the mean of the data.
    mean = torch.from_numpy(DATA.batch(np.arange(30)).mean(axis=0))
    torch.testing.assert_close(n - model(n, 1000.0).sample, mean.expand_as(n), rtol=0, atol=1e-3)
    flow = Prediction(DENOISER, "flow")(n, 0.6, 0.4)
    torch.testing.assert_close(model(n, 400.0).sample, flow, rtol=0, atol=1e-5)


def test_labels_go_to_the_denoiser() -> None:
    D, scheduler = pspc.Empirical(DATA), DDIMScheduler(prediction_type="sample")
    abar = float(scheduler.alphas_cumprod[200])
    labels = np.array([1, 2])
    expected = D(images() / math.sqrt(abar), math.sqrt((1 - abar) / abar), labels)
    found = DiffusersModel(D, scheduler)(images(), 200, class_labels=labels).sample
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_what_pipelines_read() -> None:
    model = DiffusersModel(DENOISER, DDIMScheduler())
    assert (model.config.in_channels, model.config.sample_size) == (1, (8, 6))
    assert (model.dtype, model.device) == (torch.float32, torch.device("cpu"))
    assert model.to(torch.float64).dtype == torch.float64 and not model.state_dict()
    square = DiffusersModel(lambda z, sigma: z, DDIMScheduler(), shape=(3, 4, 4))
    assert (square.config.in_channels, square.config.sample_size) == (3, 4)
    assert "eps" in repr(square) and "DDIMScheduler" in repr(square)


def test_bad_schedulers_and_timesteps_are_refused() -> None:
    with pytest.raises(errors.DTypeError, match="scheduler is a float; allowed are schedulers of diffusers"):
        DiffusersModel(DENOISER, 1.0)
    with pytest.raises(errors.DataError, match="the scheduler is a Scheduler; allowed are DDPMScheduler"):
        DiffusersModel(DENOISER, Scheduler())
    counting = DiffusersModel(DENOISER, DDIMScheduler())
    with pytest.raises(errors.InvalidValueError, match="timestep is 1000; allowed are integers from 0 to 999"):
        counting(images(), 1000)
    with pytest.raises(errors.InvalidValueError, match=r"timestep is 0\.5; allowed are integers"):
        counting(images(), 0.5)
    with pytest.raises(errors.ShapeError, match="timestep has 3 entries; allowed are 1 and the batch, 2"):
        counting(images(), torch.tensor([1, 2, 3]))
    levels = DiffusersModel(DENOISER, EulerDiscreteScheduler([999.0], [9.0, 0.0]))
    with pytest.raises(errors.InvalidValueError, match="timestep is 7, none of the scheduler's; call set_timesteps"):
        levels(images(), 7.0)


class Posterior(NamedTuple):
    mean: Tensor


@pytest.fixture
def azula(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package with the two classes of azula's that are needed."""
    package, part = ModuleType("azula"), ModuleType("azula.denoise")
    part.Denoiser, part.DiracPosterior = nn.Module, Posterior  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "azula", package)
    monkeypatch.setitem(sys.modules, "azula.denoise", part)
    clients._azula_class.cache_clear()
    yield part
    clients._azula_class.cache_clear()


def test_an_azula_denoiser_has_the_denoised_image_as_its_mean(azula: ModuleType) -> None:
    def schedule(t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t

    denoiser = azula_denoiser(DENOISER, schedule)
    assert isinstance(denoiser, nn.Module) and denoiser.schedule is schedule
    assert "PSPCSquare" in repr(denoiser)
    for t in (torch.tensor(0.25), torch.tensor([0.25, 0.25])):
        posterior = denoiser(images(), t)
        torch.testing.assert_close(posterior.mean, DENOISER(images() / 0.75, 1 / 3), rtol=0, atol=1e-5)
    of_class = azula_denoiser(pspc.Empirical(DATA), schedule)(
        images(), torch.tensor(0.5), class_labels=np.array([0, 1])
    )
    expected = pspc.Empirical(DATA)(images() / 0.5, 1.0, np.array([0, 1]))
    torch.testing.assert_close(of_class.mean, expected, rtol=0, atol=1e-5)
    with pytest.raises(errors.DTypeError, match="schedule is a str; allowed are noise schedules of azula"):
        azula_denoiser(DENOISER, "vp")  # type: ignore[arg-type]


def test_without_azula_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azula", None)
    clients._azula_class.cache_clear()
    with pytest.raises(
        errors.MissingDependencyError, match=r'azula_denoiser needs azula: pip install "pspc-rs\[azula\]"'
    ):
        azula_denoiser(DENOISER, lambda t: (t, t))
