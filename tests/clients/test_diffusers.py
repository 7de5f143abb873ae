"""diffusers' own schedulers and pipelines beside ours; skipped where it is not installed (extra `clients`)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import pspc_rs as pspc
from pspc_rs import errors
from pspc_rs.networks import DiffusersModel, open_network
from pspc_rs.networks.diffusers_scheduler import training_of
from pspc_rs.networks.processes import DiscreteVP

diffusers: Any = pytest.importorskip("diffusers", reason="diffusers is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

LEVELS = (0.05, 0.7, 4.0)


def unet(**more: Any) -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        add_attention=False,
        **more,
    ).eval()


def write(folder: Path, scheduler: Any, **more: Any) -> Any:
    net = unet(**more)
    net.save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    index = {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return net


def images() -> Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "name", ["DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"]
)
@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"rescale_betas_zero_snr": True},
        {"rescale_betas_zero_snr": True, "beta_schedule": "scaled_linear"},
        {"rescale_betas_zero_snr": True, "trained_betas": np.linspace(0.001, 0.3, 50).tolist()},
    ],
)
def test_tables_are_those_of_the_library(name: str, entries: dict[str, Any]) -> None:
    scheduler = getattr(diffusers, name)(**entries)
    process = training_of({"_class_name": name, **dict(scheduler.config)}).process
    assert isinstance(process, DiscreteVP)
    expected, found = scheduler.alphas_cumprod.double(), torch.tensor(process.alphas_cumprod).double()
    if expected[-1] > expected[-2]:
        # Less than the 2^-24 that some schedulers put at the end is left one step before.
        expected[-1] = 0
    # The library computes in float32, where little is left of differences of small numbers.
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-7)
    assert found[-1] == expected[-1] or "rescale_betas_zero_snr" not in entries


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDPMParallelScheduler"])
def test_sigmoid_betas(name: str) -> None:
    scheduler = getattr(diffusers, name)(beta_schedule="sigmoid", num_train_timesteps=300)
    process = training_of({"_class_name": name, **dict(scheduler.config)}).process
    assert isinstance(process, DiscreteVP)
    expected = scheduler.alphas_cumprod.double()
    torch.testing.assert_close(torch.tensor(process.alphas_cumprod).double(), expected, rtol=1e-4, atol=0)


def test_defaults_are_those_of_each_scheduler() -> None:
    for name in ("HeunDiscreteScheduler", "LMSDiscreteScheduler", "PNDMScheduler"):
        process = training_of({"_class_name": name}).process
        assert isinstance(process, DiscreteVP)
        expected = getattr(diffusers, name)().alphas_cumprod.double()
        torch.testing.assert_close(torch.tensor(process.alphas_cumprod).double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_edm_schedulers(tmp_path: Path, name: str, kind: str) -> None:
    scheduler = getattr(diffusers, name)(prediction_type=kind, sigma_data=0.7, sigma_min=0.01, sigma_max=50.0)
    net = write(tmp_path, scheduler)
    D = open_network(tmp_path)
    assert (D.sigma_min, D.sigma_max) == (0.01, 50.0)
    z = images()
    for sigma in map(torch.tensor, LEVELS):
        with torch.no_grad():
            raw = net(scheduler.precondition_inputs(z, sigma), scheduler.precondition_noise(sigma)).sample
        expected = scheduler.precondition_outputs(z, raw, sigma)
        torch.testing.assert_close(D(z, sigma), expected, rtol=0, atol=1e-5)


def test_continuous_times(tmp_path: Path) -> None:
    limits = {"sigma_min": 0.002, "sigma_max": 700.0}
    scheduler = diffusers.EulerDiscreteScheduler(
        timestep_type="continuous", prediction_type="v_prediction", use_karras_sigmas=True, **limits
    )
    net = write(tmp_path, scheduler)
    D = open_network(tmp_path)
    assert (D.sigma_min, D.sigma_max) == (0.002, 700.0)
    scheduler.set_timesteps(6)
    x = images() * scheduler.init_noise_sigma
    t = scheduler.timesteps[0]
    with torch.no_grad():
        raw = net(scheduler.scale_model_input(x, t), t).sample
    expected = scheduler.step(raw, t, x).pred_original_sample
    torch.testing.assert_close(D(x, float(scheduler.sigmas[0])), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["flow_prediction", "epsilon", "sample"])
def test_flow_sigmas(tmp_path: Path, kind: str) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type=kind)
    net = write(tmp_path, scheduler)
    D = open_network(tmp_path)
    scheduler.set_timesteps(8)
    for index in (1, 4, 7):
        scheduler._step_index = index
        share, t = float(scheduler.sigmas[index]), scheduler.sigmas[index] * 1000
        x_t = (1 - share) * images()
        with torch.no_grad():
            raw = net(x_t, t).sample
        expected = scheduler.convert_model_output(raw, sample=x_t)
        torch.testing.assert_close(D(images(), share / (1 - share)), expected, rtol=1e-4, atol=1e-4)


def test_pipelines_with_everything_at_their_root(tmp_path: Path) -> None:
    write(tmp_path / "deep", diffusers.DDPMScheduler())
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (tmp_path / "deep").rglob("*.*"):
        file.rename(flat / file.name)
    write(tmp_path / "again", diffusers.DDPMScheduler())
    z = images()
    torch.testing.assert_close(open_network(flat)(z, 1.0), open_network(tmp_path / "again")(z, 1.0), rtol=0, atol=0)


def rewrite(folder: Path, change: Any) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(change(load_file(file)), file)


def with_nan(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors["conv_in.bias"][0] = float("nan")
    return tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {f"module.{name}": one for name, one in tensors.items()}, r"lacks .*take 'module\.' away"),
        (lambda tensors: {f"_orig_mod.{name}": one for name, one in tensors.items()}, r"take '_orig_mod\.' away"),
        (
            lambda tensors: {name: one for name, one in tensors.items() if name != "conv_in.bias"},
            r"lacks .*conv_in\.bias",
        ),
        (lambda tensors: tensors | {"extra": torch.zeros(1)}, "has a tensor 'extra'"),
        (lambda tensors: tensors | {"conv_in.bias": torch.zeros(3)}, r"conv_in\.bias|shape"),
        (with_nan, r"conv_in\.bias holds NaN"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: Any, message: str) -> None:
    write(tmp_path, diffusers.DDPMScheduler())
    rewrite(tmp_path, change)
    with pytest.raises(errors.DataError, match=message):
        open_network(tmp_path)


def test_class_labels(tmp_path: Path) -> None:
    net = write(tmp_path, diffusers.DDPMScheduler(), num_class_embeds=3)
    D = open_network(tmp_path)
    assert D.label_dim == 3
    z = images()
    by_index, by_row = D(z, 1.0, torch.tensor([2, 0])), D(z, 1.0, torch.eye(3)[[2, 0]])
    torch.testing.assert_close(by_index, by_row, rtol=0, atol=0)
    assert not torch.equal(by_index, D(z, 1.0, torch.tensor([1, 1])))
    del net
    with pytest.raises(errors.InvalidValueError, match="needs class_labels"):
        D(z, 1.0)
    with pytest.raises(errors.InvalidValueError, match="one-hot rows"):
        D(z, 1.0, torch.zeros(2, 3))


DATA = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8), dtype=np.uint8))
DENOISER = pspc.PSPCSquare(DATA, patch_sizes=5)


def drawn(scheduler: Any, start: Tensor, model: Any = None) -> Tensor:
    """What the scheduler makes of the denoiser from a start in its own scale."""
    model = DiffusersModel(DENOISER, scheduler) if model is None else model
    x = start
    for t in scheduler.timesteps:
        given = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(model(given, t).sample, t, x).prev_sample
    return x


def test_ddim_on_the_levels_of_ddim10_is_eulers_method_on_them() -> None:
    scheduler = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(10)
    protocol = pspc.samplers.PROTOCOLS["ddim10"]
    assert scheduler.timesteps.tolist() == list(range(900, -1, -100))
    abar = scheduler.alphas_cumprod[scheduler.timesteps].double()
    np.testing.assert_allclose(((1 - abar) / abar).sqrt(), protocol.grid(include_zero=False), rtol=1e-4)
    ours = pspc.samplers.sample_euler(DENOISER, images() * protocol.start_scale, protocol.sigmas)
    torch.testing.assert_close(ours, drawn(scheduler, images()), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "entries", "sampler"),
    [
        ("EulerDiscreteScheduler", {}, "euler"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, "euler"),
        ("EulerDiscreteScheduler", {"prediction_type": "v_prediction"}, "euler"),
        ("EulerDiscreteScheduler", {"prediction_type": "sample"}, "euler"),
        ("HeunDiscreteScheduler", {}, "heun"),
        ("EDMEulerScheduler", {}, "euler"),
        ("EDMEulerScheduler", {"prediction_type": "v_prediction"}, "euler"),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "euler"),
    ],
)
def test_its_samplers_are_ours_on_their_levels(name: str, entries: dict[str, Any], sampler: str) -> None:
    scheduler = getattr(diffusers, name)(**entries)
    scheduler.set_timesteps(12)
    sigmas = scheduler.sigmas.double()
    scale = float(getattr(scheduler, "init_noise_sigma", 1.0))
    if name.startswith("Flow"):
        # At time 1 nothing of the image is left.
        sigmas, scale = torch.cat([torch.tensor([1e6]), (sigmas / (1 - sigmas))[1:]]), 1e6
    levels = torch.unique_consecutive(sigmas)
    ours = pspc.samplers.SAMPLERS[sampler](DENOISER, images().double() * scale, levels)
    start = images() * float(getattr(scheduler, "init_noise_sigma", 1.0))
    torch.testing.assert_close(drawn(scheduler, start).double(), ours, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("DDPMScheduler", {"clip_sample": False}),
        ("DDPMScheduler", {"clip_sample": False, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
        ("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True,
                           "prediction_type": "v_prediction"}),
        ("PNDMScheduler", {}),
        ("DEISMultistepScheduler", {}),
        ("DPMSolverMultistepScheduler", {}),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
        ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
        ("DPMSolverSinglestepScheduler", {"lower_order_final": True}),
        ("EulerAncestralDiscreteScheduler", {}),
        ("LMSDiscreteScheduler", {}),
        ("UniPCMultistepScheduler", {}),
        ("EDMDPMSolverMultistepScheduler", {}),
        ("FlowMatchHeunDiscreteScheduler", {}),
        ("FlowMatchLCMScheduler", {}),
    ],
)  # fmt: skip
def test_every_scheduler_samples_the_data(name: str, entries: dict[str, Any]) -> None:
    """The denoiser of a single image leads every solver to that image."""
    image = DATA.images[:1]
    D = pspc.Empirical(pspc.ImageSet(image))
    scheduler = getattr(diffusers, name)(**entries)
    scheduler.set_timesteps(30)
    torch.manual_seed(0)
    start = images() * float(getattr(scheduler, "init_noise_sigma", 1.0))
    x = drawn(scheduler, start, DiffusersModel(D, scheduler))
    expected = torch.from_numpy(image / 127.5 - 1).expand(2, -1, -1, -1).float()
    torch.testing.assert_close(x.float(), expected, rtol=0, atol=0.05)


def test_a_pipeline_draws_with_a_denoiser() -> None:
    scheduler = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=True)
    pipeline = diffusers.DDIMPipeline(unet=DiffusersModel(DENOISER, scheduler), scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline(batch_size=2, num_inference_steps=10, output_type="np", generator=torch.manual_seed(1)).images
    protocol = pspc.samplers.PROTOCOLS["ddim10"]
    ours = pspc.samplers.sample_euler(DENOISER, images() * protocol.start_scale, protocol.sigmas)
    expected = (ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    np.testing.assert_allclose(pictures, expected, rtol=0, atol=1e-4)
