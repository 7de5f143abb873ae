"""What every denoiser here is: a callable D(z, sigma) with the attributes EDM-style samplers look for."""

import math
from abc import ABC, abstractmethod
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from pspc_rs.arrays import MAX_SIGMA, MIN_SIGMA, Array, like, noisy_images
from pspc_rs.cuda import on_gpu
from pspc_rs.denoisers.gradients import refuse_gradient, uncompiled
from pspc_rs.denoisers.modules import checked_device
from pspc_rs.errors import InvalidValueError
from pspc_rs.progress import Progress


class Denoiser(ABC):
    """A denoiser D(z, sigma): an estimate of the clean image x behind z = x + sigma * n, n standard normal.

    Attributes:
        shape: ``(channels, height, width)`` of the images.
        label_dim: number of classes; 0, as training-free denoisers are unconditional.
        sigma_min: smallest noise level accepted.
        sigma_max: largest noise level accepted.
        can_compute_on_gpu: whether torch tensors on an NVIDIA GPU are denoised there; else on the CPU.
    """

    label_dim = 0
    sigma_min = MIN_SIGMA
    sigma_max = MAX_SIGMA
    can_compute_on_gpu = False
    _engine_checks_z = False

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape

    @property
    def img_channels(self) -> int:
        """Number of channels of the images."""
        return self.shape[0]

    @property
    def img_resolution(self) -> int | tuple[int, int]:
        """Side of the images, or ``(height, width)`` where they are not square."""
        _, height, width = self.shape
        return height if height == width else (height, width)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the numbers: the class, its parameters and the fingerprint of the data, for records."""
        return {"denoiser": type(self).__name__}

    def round_sigma(self, sigma: Array) -> Array:
        """Sigma itself: every noise level is accepted as it is, none is rounded to a grid."""
        return sigma

    def to(self, device: Any) -> Self:
        """The denoiser itself, as ``module.to(device)`` is.

        Images are denoised wherever they lie, and the result lies beside them.

        Args:
            device: a torch device or its name.

        Raises:
            InvalidValueError: there is no such device.

        Example:
            >>> import numpy as np, pspc_rs as pspc
            >>> D = pspc.Empirical(pspc.ImageSet(np.zeros((2, 1, 4, 4), np.uint8)))
            >>> D.to("cpu").eval() is D
            True
        """
        if str(device) != "cpu":
            checked_device(device)
        return self

    def eval(self) -> Self:
        """The denoiser itself, as ``module.eval()`` is: there is no other mode."""
        return self

    @uncompiled
    def __call__(
        self,
        z: Array,
        sigma: Any,
        class_labels: Any = None,
        *,
        force_fp32: bool = False,
        progress: Progress | None = None,
    ) -> Array:
        """The denoised images.

        Args:
            z: noisy images [batch, channels, height, width] in [-1, 1] units, a numpy array or torch tensor.
            sigma: noise level, a number or one per image, in the units of z.
            class_labels: None, or labels of no classes [batch, 0]: there are no conditional denoisers here yet.
            force_fp32: for programs that pass it to networks; half precision is never used here.
            progress: called as ``progress(done, total)`` about ten times per second during long calls.

        Returns:
            An array or tensor like z: same type, shape, dtype and device.

        Raises:
            ShapeError: z or sigma has the wrong shape.
            DTypeError: z is not an array of floating-point numbers.
            InvalidValueError: z holds NaN or infinite pixels, sigma is not a positive number in range, labels were
                given, or a result is too large for the dtype of z.
            GradientError: torch records derivatives with respect to z or sigma, of which there are none yet.
        """
        del force_fp32
        refuse_labels(type(self).__name__, class_labels)
        refuse_gradient(type(self).__name__, z=z, sigma=sigma)
        if self.can_compute_on_gpu and not isinstance(z, np.ndarray) and on_gpu(z):
            return cast(Array, self._denoise_on_gpu(z, sigma, progress))
        noisy, sigmas = noisy_images(z, sigma, self.shape, check_values=not self._engine_checks_z)
        return like(self._denoise(noisy, sigmas, progress), z)

    def _denoise_on_gpu(self, z: Any, sigma: Any, progress: Progress | None) -> Any:
        """Denoises a tensor where it is; denoisers that can say so by `can_compute_on_gpu`."""
        raise NotImplementedError

    @abstractmethod
    def _denoise(
        self, z: npt.NDArray[np.floating[Any]], sigmas: npt.NDArray[np.float64], progress: Progress | None
    ) -> npt.NDArray[np.floating[Any]]:
        """Denoises checked queries; ``sigmas`` has one entry per query."""


def refuse_labels(who: str, class_labels: Any) -> None:
    """Refuses class labels where they would not count. Labels of no classes, [batch, 0], count as none.

    Raises:
        InvalidValueError: there are some.

    Example:
        >>> refuse_labels("Empirical", np.zeros((4, 0)))
    """
    if class_labels is not None and math.prod(np.shape(class_labels)) > 0:
        raise InvalidValueError(
            f"class_labels were given, but {who} has no classes and would ignore them; allowed is None"
        )
