"""Networks of the diffusers library: a `UNet2DModel`, alone or in a pipeline, with the scheduler of its training."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from pspc_rs.errors import DataError, MissingDependencyError
from pspc_rs.files import decode_errors
from pspc_rs.networks.adapter import Adapter
from pspc_rs.networks.processes import DiscreteVP, FlowMatching, NoiseProcess

_UNET = "UNet2DModel"
# What the library calls our predictions.
_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_SCHEDULER_FILE = "scheduler_config.json"
_VP_SCHEDULERS = (
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "DDPMParallelScheduler",
    "DDIMParallelScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "UniPCMultistepScheduler",
)


class DiffusersUNet(nn.Module):
    """A `UNet2DModel` called as ``net(x_t, t, class_labels=None)``, which returns a tensor.

    Class labels may be indices [batch] or, as everywhere here, one-hot rows [batch, label_dim].
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """What the U-Net predicts for x at the times t."""
        labels = class_labels.argmax(1) if class_labels is not None and class_labels.ndim == 2 else class_labels
        predicted: Tensor = self.unet(x, t, class_labels=labels, return_dict=False)[0]
        return predicted


def read_diffusers(folder: Path) -> nn.Module:
    """The network of a folder as D(x, sigma): of a pipeline with ``unet`` and ``scheduler``, or a lone `UNet2DModel`.

    Weights are read from safetensors files alone, and nothing is downloaded. The scheduler's configuration says how the
    network was trained; one without any is taken for a DDPM with linear betas and 1000 steps, which is diffusers' own
    default, and predicts noise.

    Raises:
        DataError: the folder holds no such network, or one with a scheduler or model of another kind.
        MissingDependencyError: diffusers is not installed.
    """
    unet_folder, scheduler = _parts(folder)
    config = _json(unet_folder / "config.json")
    if config.get("_class_name") != _UNET:
        raise DataError(f"{unet_folder} holds a {config.get('_class_name')!r:.80}; allowed is a {_UNET}")
    prediction, process = _training(scheduler)
    net = Adapter(
        DiffusersUNet(_unet(unet_folder)),
        prediction,
        process,
        time_scale=_time_scale(process, scheduler),
        shape=_shape(config),
    )
    return net.eval().requires_grad_(False)


def _shape(config: dict[str, Any]) -> tuple[int, int, int] | None:
    size, channels = config.get("sample_size"), config.get("in_channels")
    if not isinstance(channels, int) or not isinstance(size, int | list):
        return None
    height, width = (size, size) if isinstance(size, int) else size
    return channels, height, width


def _parts(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of the U-Net, and the scheduler's configuration, empty if there is none."""
    if (folder / "model_index.json").is_file():
        index = _json(folder / "model_index.json")
        if "vae" in index or "vqvae" in index:
            raise DataError(f"{folder} is a pipeline in a latent space; allowed are pipelines of pixels")
        return folder / "unet", _json(folder / "scheduler" / _SCHEDULER_FILE)
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} is no folder of diffusers: it has neither model_index.json nor config.json")
    for beside in (folder / _SCHEDULER_FILE, folder.parent / "scheduler" / _SCHEDULER_FILE):
        if beside.is_file():
            return folder, _json(beside)
    return folder, {}


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path} is missing")
    with decode_errors(path):
        entries = json.loads(path.read_bytes())
    if not isinstance(entries, dict):
        raise DataError(f"{path} is no JSON object")
    return entries


def _unet(unet_folder: Path) -> nn.Module:
    try:
        library: Any = importlib.import_module("diffusers")
    except ImportError as error:
        raise MissingDependencyError(f'{unet_folder} needs diffusers: pip install "pspc-rs[diffusers]"') from error
    try:
        unet: nn.Module = library.UNet2DModel.from_pretrained(
            str(unet_folder), use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise DataError(f"{unet_folder} cannot be read by diffusers: {error}") from error
    return unet.float()


def _training(scheduler: dict[str, Any]) -> tuple[str, NoiseProcess]:
    """What the network predicts, and of which process."""
    name = str(scheduler.get("_class_name", "DDPMScheduler"))
    if name.startswith("FlowMatch"):
        return "flow", FlowMatching()
    kind = scheduler.get("prediction_type", "epsilon")
    if kind not in _PREDICTIONS:
        raise DataError(f"the scheduler has prediction_type {kind!r:.80}; allowed are {', '.join(_PREDICTIONS)}")
    if name not in _VP_SCHEDULERS:
        raise DataError(
            f"the scheduler is a {name:.80}; allowed are {', '.join(_VP_SCHEDULERS)} and FlowMatch schedulers. Others "
            "can be described in a JSON file, with the U-Net as a TorchScript file or import path"
        )
    return _PREDICTIONS[kind], _process(scheduler)


def _process(scheduler: dict[str, Any]) -> DiscreteVP:
    if scheduler.get("trained_betas") is not None:
        return DiscreteVP.of_betas(np.asarray(scheduler["trained_betas"], np.float64))
    if scheduler.get("rescale_betas_zero_snr"):
        raise DataError("the scheduler rescales betas to zero terminal SNR, which is not supported")
    schedule = scheduler.get("beta_schedule", "linear")
    steps = scheduler.get("num_train_timesteps", 1000)
    ends = scheduler.get("beta_start", 1e-4), scheduler.get("beta_end", 0.02)
    match schedule:
        case "linear":
            return DiscreteVP.linear(steps, *ends)
        case "scaled_linear":
            return DiscreteVP.scaled_linear(steps, *ends)
        case "squaredcos_cap_v2":
            return DiscreteVP.cosine(steps)
    raise DataError(
        f"the scheduler has beta_schedule {schedule!r:.80}; allowed are linear, scaled_linear, squaredcos_cap_v2"
    )


def _time_scale(process: NoiseProcess, scheduler: dict[str, Any]) -> float:
    """Flow matching networks of the library count time in steps."""
    return float(scheduler.get("num_train_timesteps", 1000)) if isinstance(process, FlowMatching) else 1.0
