"""What the configuration of a diffusers scheduler says of a network's training; the library itself is not needed."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pspc_rs import errors
from pspc_rs.networks import open_network
from pspc_rs.networks.diffusers_scheduler import training_of
from pspc_rs.networks.processes import DiscreteVP, Edm, FlowMatching, named_process


def table(**entries: Any) -> Any:
    process = training_of(entries).process
    assert isinstance(process, DiscreteVP)
    return np.array(process.alphas_cumprod)


@given(
    steps=st.integers(3, 300),
    first=st.floats(1e-4, 0.01),
    last=st.floats(0.012, 0.3),
    schedule=st.sampled_from(["linear", "scaled_linear", "sigmoid", "trained"]),
)
def test_zero_snr_keeps_the_first_step_and_ends_with_nothing(
    steps: int, first: float, last: float, schedule: str
) -> None:
    betas = {"trained_betas": np.linspace(first, last, steps).tolist()}
    named = {"beta_schedule": schedule, "num_train_timesteps": steps, "beta_start": first, "beta_end": last}
    entries = betas if schedule == "trained" else named
    plain, rescaled = table(**entries), table(**entries, rescale_betas_zero_snr=True)
    roots = np.sqrt(plain)
    expected = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    np.testing.assert_allclose(rescaled, expected, rtol=1e-9, atol=1e-15)
    assert rescaled[-1] == 0 and rescaled[0] == pytest.approx(plain[0], rel=1e-12)


def test_sigmoid_betas() -> None:
    betas = 1 / (1 + np.exp(-np.linspace(-6, 6, 50))) * (0.02 - 1e-4) + 1e-4
    expected = np.cumprod(1 - betas)
    np.testing.assert_allclose(table(beta_schedule="sigmoid", num_train_timesteps=50), expected, rtol=1e-12)
    process: Any = named_process({"name": "vp-sigmoid", "num_steps": 50})
    np.testing.assert_allclose(process.alphas_cumprod, expected, rtol=1e-12)


def test_schedulers_with_other_processes() -> None:
    edm = training_of({"_class_name": "EDMEulerScheduler", "sigma_data": 0.7, "prediction_type": "v_prediction"})
    assert (edm.prediction, edm.process, edm.limits, edm.negated) == ("edm", Edm(0.7), (0.002, 80.0), True)
    flow = training_of(
        {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    )
    assert (flow.prediction, flow.process, flow.time_scale) == ("flow", FlowMatching(), 1000.0)
    times = {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous", "prediction_type": "v_prediction"}
    continuous = training_of({**times, "sigma_max": 700.0})
    assert (continuous.prediction, continuous.process) == ("v", Edm(1.0))
    assert continuous.limits == pytest.approx((0.01, 700.0), rel=1e-3)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"_class_name": "ScoreSdeVeScheduler"}, "is a ScoreSdeVeScheduler"),
        ({"_class_name": "FlowMatchSomethingElse"}, "is a FlowMatchSomethingElse"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, "has invert_sigmas"),
        ({"use_flow_sigmas": True}, "has use_flow_sigmas, which a DDPMScheduler does not know"),
        (
            {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "prediction_type": "v_prediction"},
            "prediction_type 'v_prediction' with use_flow_sigmas",
        ),
        ({"prediction_type": "flow_prediction"}, "prediction_type 'flow_prediction'"),
        ({"prediction_type": 3}, "prediction_type 3"),
        (
            {"timestep_type": "continuous", "prediction_type": "v_prediction"},
            "timestep_type 'continuous', which a DDPM",
        ),
        (
            {"_class_name": "EulerDiscreteScheduler", "timestep_type": "odd", "prediction_type": "v_prediction"},
            "timestep_type 'odd'",
        ),
        ({"beta_schedule": "laplace"}, "beta_schedule 'laplace'"),
        ({"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}, "prediction_type 'sample'"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.DataError, match=message):
        training_of(entries)


class StandIn(nn.Module):
    """A U-Net whose ``from_pretrained`` goes on where tensors are missing, as the library's does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, class_labels: Any = None, return_dict: bool = False) -> tuple[Tensor]:
        return (self.conv(x),)

    @classmethod
    def from_pretrained(cls, folder: str, output_loading_info: bool = False, **_: Any) -> Any:
        net = cls()
        found = net.load_state_dict(load_file(Path(folder, "weights.safetensors")), strict=False)
        told = {"missing_keys": found.missing_keys, "unexpected_keys": found.unexpected_keys}
        return (net, told) if output_loading_info else net


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline with everything at its root."""
    monkeypatch.setitem(sys.modules, "diffusers", types.SimpleNamespace(UNet2DModel=StandIn))
    (tmp_path / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "UNet2DModel"]}))
    config = {"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8-sig")
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDPMScheduler"}))
    torch.manual_seed(0)
    save_file(StandIn().state_dict(), tmp_path / "weights.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda one: {f"module.{name}": value for name, value in one.items()},
            r"lacks the tensor conv\.bias.*'module\.'",
        ),
        (lambda one: {"conv.weight": one["conv.weight"]}, r"lacks the tensor conv\.bias"),
        (lambda one: one | {"other": torch.zeros(1)}, "has a tensor 'other'"),
        (lambda one: one | {"conv.bias": torch.full((1,), torch.inf)}, r"conv\.bias holds NaN or infinities"),
    ],
)
def test_weights_that_do_not_fit(folder: Path, change: Any, message: str) -> None:
    z = np.ones((1, 1, 8, 8), np.float32)
    np.testing.assert_array_equal(open_network(folder)(z, 0.5), open_network(folder)(z, 0.5))
    file = folder / "weights.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(errors.DataError, match=message):
        open_network(folder)


@pytest.mark.parametrize("entries", [{"beta_start": "small"}, {"num_train_timesteps": 0}, {"trained_betas": ["a"]}])
def test_a_configuration_that_makes_no_sense_names_the_folder(folder: Path, entries: dict[str, Any]) -> None:
    (folder / "scheduler_config.json").write_text(json.dumps(entries))
    with pytest.raises(errors.DataError, match=f"{folder.name}.*configuration cannot be used"):
        open_network(folder)


def test_a_library_that_cannot_be_imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(errors.MissingDependencyError, match=r"needs diffusers: pip install"):
        open_network(folder)
