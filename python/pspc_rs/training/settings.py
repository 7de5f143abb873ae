"""What a training run is: everything that decides its numbers, what does not, and named runs."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from pspc_rs.checks import integer, one_of, real_number
from pspc_rs.data import ImageSet
from pspc_rs.errors import DataError

ProcessName: TypeAlias = Literal["edm", "vp", "ve"]
"""A noise process: it decides the preconditioner and the loss."""

Precision: TypeAlias = Literal["fp32", "bf16"]
"""Precision of the network's computation; weights, loss and optimiser are float32 in either case."""

_PRECONDITIONER_OF_PROCESS = {"edm": "EDMPrecond", "vp": "VPPrecond", "ve": "VEPrecond"}
_MAX_SEED = 2**64 - 1
_LONGEST_RAMP = 10_000_000
_RAMP_SHARE = 20


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides the numbers of a run, besides the data. The defaults are EDM's for CIFAR-10.

    Counts are of training images, however often each is seen, so that they do not depend on the batch.

    Attributes:
        architecture: name of the network, see ``pspc_rs.networks.registry``.
        architecture_kwargs: its arguments, without ``augment_dim``.
        process: noise process, "edm", "vp" or "ve".
        conditional: give the network the classes of the images.
        images: length of the run.
        batch: images per step, over all ranks.
        learning_rate: of Adam, once it has ramped up.
        betas: of Adam.
        eps: of Adam.
        weight_decay: share of a weight, in units of the learning rate, by which every step shrinks it (AdamW).
        learning_rate_ramp: images over which the learning rate grows from 0; None for a twentieth of the run, at most
            ten million.
        ema_half_life: images after which the old weights are half of the average.
        ema_ramp: the half-life is at most this share of the images seen; None for no such limit.
        augment: probability of every augmentation, 0 for none, see ``AugmentPipe``.
        loss_scale: factor of the loss; Adam's steps depend on it only through ``eps``.
        precision: "fp32" or "bf16".
        seed: of weights, order, noise, augmentation and dropout.

    Raises:
        InvalidValueError: a value is out of range.
        DTypeError: a value has the wrong type.

    Example:
        >>> TrainSettings(images=1_000_000).ramp
        50000
    """

    architecture: str = "SongUNet"
    architecture_kwargs: Mapping[str, Any] = field(default_factory=dict)
    process: ProcessName = "edm"
    conditional: bool = False
    images: int = 200_000_000
    batch: int = 512
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    learning_rate_ramp: int | None = None
    ema_half_life: float = 500_000
    ema_ramp: float | None = 0.05
    augment: float = 0.12
    loss_scale: float = 1.0
    precision: Precision = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("process", self.process, _PRECONDITIONER_OF_PROCESS)
        one_of("precision", self.precision, ("fp32", "bf16"))
        for name in ("images", "batch"):
            integer(name, getattr(self, name))
        integer("seed", self.seed, 0, _MAX_SEED)
        if self.learning_rate_ramp is not None:
            integer("learning_rate_ramp", self.learning_rate_ramp, least=0)
        for name in ("learning_rate", "eps", "loss_scale"):
            real_number(name, getattr(self, name), above=0)
        for name, beta in zip(("beta1", "beta2"), self.betas, strict=True):
            real_number(name, beta, least=0, below=1)
        for name in ("ema_half_life", "weight_decay"):
            real_number(name, getattr(self, name), least=0)
        if self.ema_ramp is not None:
            real_number("ema_ramp", self.ema_ramp, above=0)
        real_number("augment", self.augment, least=0, most=1)

    @property
    def ramp(self) -> int:
        """Images over which the learning rate grows."""
        if self.learning_rate_ramp is not None:
            return self.learning_rate_ramp
        return min(_LONGEST_RAMP, self.images // _RAMP_SHARE)

    @property
    def num_steps(self) -> int:
        """Steps of the run; the last one ends at ``images`` or beyond."""
        return -(-self.images // self.batch)

    def label_dim(self, data: ImageSet) -> int:
        """Number of classes of a conditional network, else 0.

        Raises:
            DataError: the network is to be conditional, but the images have no labels.
        """
        if not self.conditional:
            return 0
        if data.labels is None or int(data.labels.min()) < 0:
            raise DataError(f"{data.name} has no labels 0, 1, ..., which a conditional network needs")
        return int(data.labels.max()) + 1

    def description(self, data: ImageSet, augment_dim: int) -> dict[str, Any]:
        """The network for the data, as ``pspc_rs.networks.build_network`` takes it.

        Args:
            data: what it is to be trained on.
            augment_dim: number of augmentation labels.
        """
        square = data.height == data.width
        return {
            "preconditioner": _PRECONDITIONER_OF_PROCESS[self.process],
            "preconditioner_kwargs": {
                "img_resolution": data.height if square else [data.height, data.width],
                "img_channels": data.channels,
                "label_dim": self.label_dim(data),
            },
            "architecture": self.architecture,
            "architecture_kwargs": {**self.architecture_kwargs, "augment_dim": augment_dim},
        }

    @classmethod
    def with_defaults(cls, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record of ``as_dict``, also of an earlier version: settings that it did not have yet are the defaults.

        Example:
            >>> TrainSettings.with_defaults({"batch": 8})["weight_decay"]
            0.0
        """
        simple = {one.name: one.default for one in fields(cls) if one.default is not MISSING}
        return {**simple, **record}

    def as_dict(self) -> dict[str, Any]:
        """Every setting by name, the ramp as it will be."""
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"learning_rate_ramp": self.ramp}


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; it may be resumed with others.

    None stands for a share of the run: a thousandth for the log, a hundredth for checkpoints, a twentieth for samples.

    Attributes:
        device: "auto" (CUDA if there is any), "cpu", "cuda" or "cuda:0".
        micro_batch: most images that a rank computes at once; None for its share of the batch. Gradients of the
            parts are added up.
        compile: pass the network through ``torch.compile``; a string names the backend.
        tf32: allow CUDA to round the factors of float32 products to 10 bits.
        log_every: images between lines of the log.
        checkpoint_every: images between checkpoints.
        sample_every: images between pictures of samples and evaluations.
        num_samples: samples in a picture, 0 for no pictures.
        sample_steps: steps of Heun's method.
        evaluate_images: images of an evaluation of the averaged network, 0 for none.
        half_precision: save the finished network in float16.

    Example:
        >>> RunOptions(device="cpu", num_samples=0).evaluate_images
        256
    """

    device: str = "auto"
    micro_batch: int | None = None
    compile: bool | str = False
    tf32: bool = False
    log_every: int | None = None
    checkpoint_every: int | None = None
    sample_every: int | None = None
    num_samples: int = 64
    sample_steps: int = 18
    evaluate_images: int = 256
    half_precision: bool = False

    def __post_init__(self) -> None:
        for name in ("micro_batch", "log_every", "checkpoint_every", "sample_every"):
            if getattr(self, name) is not None:
                integer(name, getattr(self, name))
        integer("num_samples", self.num_samples, least=0)
        integer("evaluate_images", self.evaluate_images, least=0)
        integer("sample_steps", self.sample_steps)


_DITS = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "xl": (1152, 28, 16)}
_PATCHES = (2, 4, 8)

_DDPMPP: dict[str, Any] = {
    "embedding_type": "positional",
    "encoder_type": "standard",
    "channel_mult_noise": 1,
    "resample_filter": [1, 1],
}
_NCSNPP: dict[str, Any] = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
_UVIT_S2: dict[str, Any] = {"patch_size": 2, "hidden_size": 512, "depth": 12, "num_heads": 8}
_CIFAR: dict[str, Any] = {"model_channels": 128, "channel_mult": [2, 2, 2], "dropout": 0.13}
_FFHQ: dict[str, Any] = {"model_channels": 128, "channel_mult": [1, 2, 2, 2], "dropout": 0.05}


def _dit(size: str, patch: int) -> TrainSettings:
    """Niedoba et al., "Towards a Mechanistic Explanation of Diffusion Model Generalization", 2025, table 2."""
    hidden, depth, heads = _DITS[size]
    kwargs = {"patch_size": patch, "hidden_size": hidden, "depth": depth, "num_heads": heads, "dropout": 0.12}
    return TrainSettings("DiT", kwargs, learning_rate=1e-4, batch=512, augment=0.12, images=200_000_000)


def _unet_64(architecture: Mapping[str, Any], dropout: float) -> TrainSettings:
    kwargs = {**architecture, **_FFHQ, "dropout": dropout}
    return TrainSettings("SongUNet", kwargs, batch=256, learning_rate=2e-4, augment=0.15)


PRESETS: Mapping[str, TrainSettings] = MappingProxyType(
    {
        **{f"dit-{size}{patch}": _dit(size, patch) for size in _DITS for patch in _PATCHES},
        "ddpmpp": TrainSettings("SongUNet", {**_DDPMPP, **_CIFAR}),
        "ncsnpp": TrainSettings("SongUNet", {**_NCSNPP, **_CIFAR}),
        "ddpmpp-ffhq": _unet_64(_DDPMPP, 0.05),
        "ncsnpp-ffhq": _unet_64(_NCSNPP, 0.05),
        "ddpmpp-afhq": _unet_64(_DDPMPP, 0.25),
        "ncsnpp-afhq": _unet_64(_NCSNPP, 0.25),
        # Bao et al., "All are Worth Words", 2023: 500,000 steps of 128 images. An average that keeps .9999 in a step
        # forgets half in 887,000 images.
        "uvit-s2": TrainSettings(
            "UViT",
            _UVIT_S2,
            process="vp",
            images=64_000_000,
            batch=128,
            learning_rate=2e-4,
            betas=(0.99, 0.999),
            weight_decay=0.03,
            learning_rate_ramp=320_000,
            ema_half_life=887_000,
            augment=0.0,
        ),
        "adm": TrainSettings(
            "DhariwalUNet",
            {"model_channels": 192, "channel_mult": [1, 2, 3, 4], "dropout": 0.10},
            conditional=True,
            images=2_500_000_000,
            batch=4096,
            learning_rate=1e-4,
            ema_half_life=50_000_000,
            augment=0.0,
        ),
    }
)
"""The runs by name. ``dit-b4`` is the PSPC paper's DiT; ``ddpmpp``, ``ncsnpp`` (CIFAR-10), their ``-ffhq`` and
``-afhq`` forms and ``adm`` (ImageNet-64) are EDM's; ``uvit-s2`` is U-ViT's for CIFAR-10."""


def preset(name: str) -> TrainSettings:
    """The settings of a named run.

    Raises:
        InvalidValueError: there is none of that name.

    Example:
        >>> preset("dit-b4").architecture_kwargs["hidden_size"]
        768
    """
    return PRESETS[one_of("preset", name, PRESETS)]
