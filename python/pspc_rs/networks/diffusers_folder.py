"""Networks of the diffusers library: a `UNet2DModel`, alone or in a pipeline, with the scheduler of its training."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pspc_rs.errors import DataError, DTypeError, InvalidValueError, ShapeError
from pspc_rs.extras import import_extra
from pspc_rs.files import decode_errors
from pspc_rs.networks.adapter import Adapter
from pspc_rs.networks.diffusers_scheduler import Training, training_of
from pspc_rs.networks.registry import check_weights

_UNET = "UNet2DModel"
_SCHEDULER_FILE = "scheduler_config.json"


class DiffusersUNet(nn.Module):
    """A `UNet2DModel` called as ``net(x_t, t, class_labels=None)``, which returns a tensor.

    Args:
        unet: the U-Net.
        negated: whether its output is given with the other sign.

    Attributes:
        label_dim: number of classes, 0 for none, None where the U-Net takes labels of another kind. Labels of classes
            may be indices [batch] or, as everywhere here, one-hot rows [batch, label_dim].
    """

    def __init__(self, unet: nn.Module, *, negated: bool = False) -> None:
        super().__init__()
        self.unet = unet
        self.negated = negated
        config = getattr(unet, "config", None)
        other_labels = getattr(config, "class_embed_type", None) is not None
        self.label_dim: int | None = None if other_labels else int(getattr(config, "num_class_embeds", None) or 0)

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """What the U-Net predicts for x at the times t.

        Raises:
            InvalidValueError: labels are missing, or not those of one class each.
        """
        if class_labels is None and self.label_dim != 0:
            raise InvalidValueError("this network needs class_labels, which say what each image is to show")
        labels = class_labels
        if class_labels is not None and self.label_dim is not None and class_labels.ndim == 2:
            labels = self._classes(class_labels)
        predicted: Tensor = self.unet(x, t, class_labels=labels, return_dict=False)[0]
        return -predicted if self.negated else predicted

    def _classes(self, rows: Tensor) -> Tensor:
        one_hot = nn.functional.one_hot(rows.argmax(1), rows.shape[1]).to(rows.dtype)
        if rows.shape[1] != self.label_dim or not torch.equal(one_hot, rows):
            raise InvalidValueError(
                f"class_labels have shape {list(rows.shape)}; allowed are one-hot rows [batch, {self.label_dim}] and "
                "indices [batch]"
            )
        return rows.argmax(1)


def read_diffusers(folder: Path) -> nn.Module:
    """The network of a folder as D(x, sigma): of a pipeline with ``unet`` and ``scheduler``, or a lone `UNet2DModel`.

    The parts of a pipeline may lie in the folder itself, too, as in the library's oldest ones. Weights are read from
    safetensors files alone, and nothing is downloaded. The scheduler's configuration says how the network was trained;
    one without any is taken for a DDPM with linear betas and 1000 steps, which is diffusers' own default, and predicts
    noise.

    Raises:
        DataError: the folder holds no such network, or one with a scheduler or model of another kind; or a tensor is
            missing, has no place in the network, or holds NaN or infinities.
        MissingDependencyError: diffusers is not installed, or cannot be imported.
    """
    unet_folder, scheduler = _parts(folder)
    config = _json(unet_folder / "config.json")
    if config.get("_class_name") != _UNET:
        raise DataError(f"{unet_folder} holds a {config.get('_class_name')!r:.80}; allowed is a {_UNET}")
    training = _training(folder, scheduler)
    net = Adapter(
        DiffusersUNet(_unet(unet_folder), negated=training.negated),
        training.prediction,
        training.process,
        time_scale=training.time_scale,
        sigma_min=training.limits[0],
        sigma_max=training.limits[1],
        shape=_shape(config),
    )
    return net.eval().requires_grad_(False)


def _training(folder: Path, scheduler: dict[str, Any]) -> Training:
    try:
        return training_of(scheduler)
    except (InvalidValueError, DTypeError, ShapeError) as error:
        raise DataError(f"{folder}: the scheduler's configuration cannot be used: {error}") from error


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
        inner, beside = folder / "scheduler" / _SCHEDULER_FILE, folder / _SCHEDULER_FILE
        unet = folder / "unet" if (folder / "unet").is_dir() else folder
        return unet, _json(beside if beside.is_file() and not inner.is_file() else inner)
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
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(entries, dict):
        raise DataError(f"{path} is no JSON object")
    return entries


def _unet(unet_folder: Path) -> nn.Module:
    library = import_extra("diffusers", f"the network {unet_folder}", "diffusers")
    try:
        unet, found = library.UNet2DModel.from_pretrained(
            str(unet_folder),
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except Exception as error:  # what the library and the readers below it raise for a damaged file can be anything
        raise DataError(f"{unet_folder} cannot be read by diffusers: {error}") from error
    _check_found(unet_folder, found)
    check_weights(unet_folder, unet)
    network: nn.Module = unet.float()
    return network


def _check_found(unet_folder: Path, found: dict[str, Any]) -> None:
    """Refuses weights that are not exactly those of the U-Net; the library would leave what is missing undefined."""
    missing, extra = (sorted(found.get(one) or ()) for one in ("missing_keys", "unexpected_keys"))
    if missing:
        message = f"{unet_folder} lacks the tensor {missing[0]}, which its configuration asks for"
        prefix = extra[0].removesuffix(missing[0]) if extra and extra[0].endswith(missing[0]) else ""
        if prefix:
            message += f"; it has {extra[0]}: take {prefix!r} away from the names, or save the module inside"
        elif extra:
            message += f"; it has {extra[0]} instead"
        raise DataError(message)
    if extra:
        raise DataError(f"{unet_folder} has a tensor {extra[0]!r:.80}, which its configuration does not ask for")
    for problem in (*(found.get("mismatched_keys") or ()), *(found.get("error_msgs") or ())):
        raise DataError(f"{unet_folder} does not fit its configuration: {problem}")
