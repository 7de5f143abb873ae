"""What every denoiser here is: a callable D(z, sigma) with the attributes EDM-style samplers look for."""

import math
from abc import ABC, abstractmethod
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from pspc_rs.arrays import (
    MAX_SIGMA,
    MIN_SIGMA,
    Array,
    beside,
    check_dtype,
    check_finite,
    check_image_shape,
    is_torch,
    like,
    noisy_images,
    to_numpy,
)
from pspc_rs.cuda import on_gpu
from pspc_rs.data import ImageSet
from pspc_rs.denoisers.gradients import refuse_gradient, refuse_tracing, uncompiled, wants_gradient
from pspc_rs.denoisers.modules import checked_device
from pspc_rs.denoisers.selection import Selection, refuse_exclude, refuse_labels
from pspc_rs.errors import GradientError, ShapeError
from pspc_rs.notebook import described, pictures, some_of
from pspc_rs.progress import Progress

Floats = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]


class Denoiser(ABC):
    """A denoiser D(z, sigma): an estimate of the clean image x behind z = x + sigma * n, n standard normal.

    Attributes:
        shape: ``(channels, height, width)`` of the images.
        label_dim: number of classes that samplers may ask for; 0 unless it was made with ``conditional=True``.
        sigma_min: smallest noise level accepted.
        sigma_max: largest noise level accepted.
        can_compute_on_gpu: whether torch tensors on an NVIDIA GPU are denoised there; else on the CPU.

    Example:
        >>> import pspc_rs as pspc
        >>> D = pspc.Empirical(pspc.ImageSet(np.zeros((2, 3, 8, 4), np.uint8)))
        >>> isinstance(D, pspc.Denoiser), D.shape, D.img_resolution
        (True, (3, 8, 4), (8, 4))
    """

    label_dim = 0
    sigma_min = MIN_SIGMA
    sigma_max = MAX_SIGMA
    can_compute_on_gpu = False
    _engine_checks_z = False
    _has_derivatives = False

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape

    def _repr_html_(self) -> str:
        """What notebooks show: the repr, and a few of the images behind the denoiser where it has some."""
        data = getattr(self, "data", None)
        return described(self, pictures(data.batch(some_of(data.num_stored))) if isinstance(data, ImageSet) else "")

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
        exclude: Any = None,
        force_fp32: bool = False,
        progress: Progress | None = None,
    ) -> Array:
        """The denoised images.

        Where torch records derivatives with respect to z, those of the result are exact, in reverse and forward mode
        and under torch.func. There are none with respect to sigma, and no second ones.

        Args:
            z: noisy images [batch, channels, height, width] in [-1, 1] units, a numpy array or torch tensor.
            sigma: noise level, a number or one per image, in the units of z.
            class_labels: None, or one class per query, whose images alone count: labels of the data set, integers
                [batch], or rows [batch, classes] whose column j stands for the j-th of its sorted labels, with a single
                1, or zeros for all images. Labels of no classes, [batch, 0], count as none.
            exclude: None, or images that do not count, as if they were not in the data set: their indices [batch], or
                [batch, m] with -1 for none, or bool [batch, images] that is True where an image is left out. All views
                of an image are left out, whichever is given.
            force_fp32: for programs that pass it to networks; half precision is never used here.
            progress: called as ``progress(done, total)`` about ten times per second during long calls.

        Returns:
            An array or tensor like z: same type, shape, dtype and device.

        Raises:
            ShapeError: z, sigma, labels or indices have the wrong shape.
            DTypeError: z is not an array of floating-point numbers, or labels or indices are of another type.
            InvalidValueError: z holds NaN or infinite pixels, sigma is not a positive number in range, a label or index
                is unknown, no image is left, the denoiser cannot choose among its images, or a result is too large for
                the dtype of z.
            GradientError: torch wants a derivative that there is none of.
        """
        del force_fp32
        self._check_images(z)
        selection = self._select(class_labels, exclude, cast(Any, z).shape[0])
        who = type(self).__name__
        if self._has_derivatives and is_torch(z) and wants_gradient(z, sigma):
            refuse_tracing(who, z)
            from pspc_rs.denoisers.autograd import differentiable_call

            return cast(Array, differentiable_call(self, z, sigma, selection, progress))
        refuse_gradient(who, z=z, sigma=sigma)
        return cast(Array, self._evaluate(z, sigma, selection, progress))

    @uncompiled
    def jvp(
        self,
        z: Array,
        sigma: Any,
        v: Any,
        class_labels: Any = None,
        *,
        exclude: Any = None,
        progress: Progress | None = None,
    ) -> tuple[Array, Array]:
        """D(z, sigma), and J v with J = dD/dz, its Jacobian: how the result changes as z moves along v.

        It is computed in closed form, not by differences, and costs about as much as the denoised images. Several
        directions share the work on z.

        Args:
            z: see ``__call__``.
            sigma: see ``__call__``.
            v: the direction, in the shape of z, or several [m, batch, channels, height, width]; finite floats.
            class_labels: see ``__call__``.
            exclude: see ``__call__``.
            progress: see ``__call__``.

        Returns:
            The denoised images like z, and the products in the shape of v and otherwise like z.

        Raises:
            ShapeError: v has another shape, or see ``__call__``.
            DTypeError: v is not an array of floats, or see ``__call__``.
            InvalidValueError: v is not finite, a product is too large for the dtype of z, or see ``__call__``.
            GradientError: the denoiser has no derivatives, or torch wants a second one.

        Example:
            >>> import pspc_rs as pspc
            >>> D = pspc.Empirical(pspc.ImageSet(np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1)))
            >>> denoised, Jv = D.jvp(np.zeros((1, 1, 1, 1)), 1.0, np.full((1, 1, 1, 1), 2.0))  # D(z) = tanh(z)
            >>> denoised.item(), Jv.item()
            (0.0, 2.0)
        """
        queries = self._checked_queries("jvp", z, sigma, class_labels, exclude, v=v)
        denoised, products = self._products(*queries, self._checked_directions("v", v, z), progress, transposed=False)
        return like(denoised, z), like(products, z)

    @uncompiled
    def vjp(
        self,
        z: Array,
        sigma: Any,
        u: Any,
        class_labels: Any = None,
        *,
        exclude: Any = None,
        progress: Progress | None = None,
    ) -> tuple[Array, Array]:
        """D(z, sigma), and J^T u with J = dD/dz, its Jacobian: the gradient of u . D(z) with respect to z.

        As `jvp`, with u in the place of v.

        Args:
            z: see ``__call__``.
            sigma: see ``__call__``.
            u: the weights of the outputs, in the shape of z, or several [m, batch, channels, height, width]; finite.
            class_labels: see ``__call__``.
            exclude: see ``__call__``.
            progress: see ``__call__``.

        Returns:
            The denoised images like z, and the products in the shape of u and otherwise like z.

        Raises:
            ShapeError, DTypeError, InvalidValueError, GradientError: see `jvp`.

        Example:
            >>> import pspc_rs as pspc
            >>> D = pspc.Gaussian(pspc.ImageSet(np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1)), cache=False)
            >>> D.vjp(np.zeros((1, 1, 1, 1)), 1.0, np.ones((3, 1, 1, 1, 1)))[1].ravel()  # D(z) = z / 2
            array([0.5, 0.5, 0.5])
        """
        queries = self._checked_queries("vjp", z, sigma, class_labels, exclude, u=u)
        denoised, products = self._products(*queries, self._checked_directions("u", u, z), progress, transposed=True)
        return like(denoised, z), like(products, z)

    @uncompiled
    def divergence(
        self,
        z: Array,
        sigma: Any,
        class_labels: Any = None,
        *,
        exclude: Any = None,
        progress: Progress | None = None,
    ) -> tuple[Array, Array]:
        """D(z, sigma), and its divergence: the trace of its Jacobian, sum_d dD_d/dz_d, exactly.

        For posterior composites a diagonal entry is the posterior variance there over T sigma^2, so that the trace
        costs no more than the variances.

        Args:
            z: see ``__call__``.
            sigma: see ``__call__``.
            class_labels: see ``__call__``.
            exclude: see ``__call__``.
            progress: see ``__call__``.

        Returns:
            The denoised images like z, and the divergences, float64 [batch].

        Raises:
            ShapeError, DTypeError, InvalidValueError: see ``__call__``.
            GradientError: the denoiser has no derivatives, or torch wants a second one.

        Example:
            >>> import pspc_rs as pspc
            >>> D = pspc.Gaussian(pspc.ImageSet(np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1)), cache=False)
            >>> D.divergence(np.zeros((1, 1, 1, 1)), 1.0)[1]
            array([0.5])
        """
        noisy, sigmas, selection = self._checked_queries("divergence", z, sigma, class_labels, exclude)
        denoised, divergence = self._divergence(noisy, sigmas, selection, progress)
        return like(denoised, z), beside(divergence, z)

    def _evaluate(self, z: Any, sigma: Any, selection: Selection | None, progress: Progress | None) -> Any:
        """D(z, sigma) like z, without derivatives; for ``denoisers.autograd``."""
        if self.can_compute_on_gpu and on_gpu(z):
            return self._denoise_on_gpu(z, sigma, selection, progress)
        noisy, sigmas = noisy_images(z, sigma, self.shape, check_values=not self._engine_checks_z)
        return like(self._denoise(noisy, sigmas, selection, progress), z)

    def _product(self, z: Any, sigma: Any, v: Any, selection: Selection | None, *, transposed: bool) -> Any:
        """J v or J^T v like z, for v [..., batch, channels, height, width]; for ``denoisers.autograd``."""
        noisy, sigmas = noisy_images(z, sigma, self.shape, check_values=not self._engine_checks_z)
        directions = to_numpy(v, "the gradient")
        check_finite("the gradient", directions)
        _, products = self._products(noisy, sigmas, selection, directions, None, transposed=transposed)
        return like(products, z)

    def _check_images(self, z: Any) -> None:
        check_dtype(z)
        check_image_shape(tuple(z.shape), self.shape)

    def _checked_queries(
        self, method: str, z: Any, sigma: Any, class_labels: Any, exclude: Any, **further: Any
    ) -> tuple[Floats, Float64, Selection | None]:
        """The checked arguments of a method whose results carry no graph, ``further`` ones by name."""
        refuse_gradient(f"{type(self).__name__}.{method}", z=z, sigma=sigma, **further)
        self._check_images(z)
        selection = self._select(class_labels, exclude, z.shape[0])
        noisy, sigmas = noisy_images(z, sigma, self.shape, check_values=not self._engine_checks_z)
        return noisy, sigmas, selection

    def _checked_directions(self, name: str, v: Any, z: Any) -> Floats:
        directions, shape = to_numpy(v, name), list(z.shape)
        if list(directions.shape[-4:]) != shape or directions.ndim not in (4, 5):
            several = ", ".join(map(str, ["m", *shape]))
            raise ShapeError(f"{name} has shape {list(directions.shape)}; allowed are {shape}, as z, and [{several}]")
        check_finite(name, directions)
        return directions

    def _products(
        self,
        z: Floats,
        sigmas: Float64,
        selection: Selection | None,
        v: Floats,
        progress: Progress | None,
        *,
        transposed: bool,
    ) -> tuple[Floats, Float64]:
        """D(z) and the products with v [..., *z.shape], in its shape."""
        directions = v.reshape(math.prod(v.shape[:-4]), *z.shape).astype(np.float64)
        # Products are linear in v: powers of two take its size out, which the engine's float32 could not hold.
        axes = (2, 3, 4)
        exponents = np.frexp(np.abs(directions).max(axis=axes, initial=0, keepdims=True))[1]
        scaled = np.ldexp(directions, -exponents)
        denoised, products = self._derivative(z, sigmas, selection, scaled, progress, transposed=transposed)
        return denoised, np.ldexp(products.astype(np.float64), exponents).reshape(v.shape)

    def _select(self, class_labels: Any, exclude: Any, batch: int) -> Selection | None:
        """Which images count for each query; None where all do, as where a denoiser has no choice."""
        del batch
        refuse_labels(type(self).__name__, class_labels)
        refuse_exclude(type(self).__name__, exclude)
        return None

    def _denoise_on_gpu(self, z: Any, sigma: Any, selection: Selection | None, progress: Progress | None) -> Any:
        """Denoises a tensor where it is; denoisers that can say so by `can_compute_on_gpu`."""
        raise NotImplementedError

    @abstractmethod
    def _denoise(
        self, z: Floats, sigmas: Float64, selection: Selection | None, progress: Progress | None
    ) -> npt.NDArray[np.floating[Any]]:
        """Denoises checked queries; ``sigmas`` has one entry per query."""

    def _derivative(
        self,
        z: Floats,
        sigmas: Float64,
        selection: Selection | None,
        v: Float64,
        progress: Progress | None,
        *,
        transposed: bool,
    ) -> tuple[Floats, Floats]:
        """D(z) and J v, or J^T v, of checked queries, for v [m, *z.shape]."""
        raise GradientError(f"{type(self).__name__} has no derivatives")

    def _divergence(
        self, z: Floats, sigmas: Float64, selection: Selection | None, progress: Progress | None
    ) -> tuple[Floats, Float64]:
        """D(z) and the trace of its Jacobian [batch], of checked queries."""
        raise GradientError(f"{type(self).__name__} has no derivatives")
