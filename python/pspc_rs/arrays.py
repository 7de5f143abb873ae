"""Numpy arrays and torch tensors alike: checks, conversions, and torch imported where it is needed.

Torch is not imported for numpy arrays: whoever passes a tensor has imported torch already.
"""

import math
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pspc_rs import _core
from pspc_rs.errors import DTypeError, InvalidValueError, ShapeError
from pspc_rs.extras import import_extra

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array")
"""A numpy array or a torch tensor; the result is of the same kind as the argument."""

MIN_SIGMA = _core.MIN_SIGMA
"""Smallest noise level a denoiser accepts, 1e-6."""

MAX_SIGMA = _core.MAX_SIGMA
"""Largest noise level a denoiser accepts, 1e9."""

_FLOATS = ("float16", "bfloat16", "float32", "float64")


def is_torch(x: object) -> "TypeGuard[torch.Tensor]":
    """Whether x is a torch tensor; torch is not imported to find out.

    Example:
        >>> is_torch(np.zeros(3))
        False
    """
    torch_module = sys.modules.get("torch")
    return torch_module is not None and isinstance(x, torch_module.Tensor)


def is_module(net: object) -> bool:
    """Whether net is a torch module; torch is not imported to find out.

    Example:
        >>> is_module(print)
        False
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(net, torch.nn.Module)


def import_torch(purpose: str) -> ModuleType:
    """The torch module.

    Args:
        purpose: what needs it, the first words of the message: "as_torch=True".

    Raises:
        MissingDependencyError: torch is not installed, or cannot be imported.
    """
    torch: ModuleType = import_extra("torch", purpose, "torch")
    return torch


def import_safetensors(purpose: str, part: str = "") -> Any:
    """The safetensors module, or a part of it such as "torch".

    Args:
        purpose: what needs it, the first words of the message: "a network file".
        part: name of a submodule.

    Raises:
        MissingDependencyError: safetensors is not installed, or cannot be imported.
    """
    return import_extra(f"safetensors.{part}" if part else "safetensors", purpose, "torch")


def to_numpy(x: object, name: str = "z") -> NDArray[np.floating[Any]]:
    """The same numbers as a numpy array: a view where memory can be shared, float32 for bfloat16.

    Args:
        x: numpy array or torch tensor (on any device, with or without gradients) of float16, bfloat16, float32 or
            float64.
        name: what messages call it.

    Raises:
        DTypeError: x is neither an array nor a tensor, or its numbers are not of these types.

    Example:
        >>> z = np.ones((2, 3), np.float32)
        >>> np.shares_memory(to_numpy(z), z)
        True
    """
    check_dtype(x, name)
    return numpy_view(x)


def as_numpy(x: object, name: str) -> NDArray[Any]:
    """An array or tensor of any dtype as a numpy array; memory is shared where it can be.

    Raises:
        DTypeError: x is neither an array nor a tensor, or is a masked array.

    Example:
        >>> as_numpy(np.zeros(2, np.uint8), "images").dtype
        dtype('uint8')
    """
    if isinstance(x, np.ma.MaskedArray):
        raise DTypeError(f"{name} is a masked array; fill it first, for example with .filled(0)")
    if is_array(x):
        return numpy_view(x)
    raise DTypeError(f"{name} must be a numpy array or a torch tensor, not {type(x).__name__}")


def is_array(x: object) -> bool:
    """Whether `as_numpy` takes x.

    Example:
        >>> is_array([1, 2])
        False
    """
    return is_torch(x) or hasattr(x, "__array__")


def check_dtype(x: object, name: str = "z") -> None:
    """Refuses what is not an array or tensor of floats.

    Raises:
        DTypeError: it is something else, or its numbers are of another type.

    Example:
        >>> check_dtype(np.zeros(2, int))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        pspc_rs.errors.DTypeError: z has dtype int64; allowed are float16, bfloat16, float32, float64: convert to ...
    """
    if isinstance(x, np.ma.MaskedArray) or not (isinstance(x, np.ndarray) or is_torch(x)):
        raise DTypeError(f"{name} is a {type(x).__name__}; allowed are numpy arrays and torch tensors")
    dtype = _dtype_name(x)
    if dtype not in _FLOATS:
        raise DTypeError(f"{name} has dtype {dtype}; allowed are {', '.join(_FLOATS)}: convert to float32")


def _dtype_name(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.") if is_torch(x) else str(x.dtype.newbyteorder("="))


def numpy_view(x: Any) -> NDArray[Any]:
    """An array or tensor as a numpy array, whatever its dtype: memory is shared where it can be.

    Raises:
        DTypeError: x is a tensor without numbers that can be read: of torch.func, vmap, torch.export or the device
            "meta", or a sparse one.

    Example:
        >>> numpy_view(np.zeros(2, np.uint8)).dtype
        dtype('uint8')
    """
    if not is_torch(x):
        return np.asarray(x)
    # numpy has no bfloat16; every bfloat16 is exactly a float32.
    tensor = x.float() if _dtype_name(x) == "bfloat16" else x
    try:
        array: NDArray[Any] = tensor.numpy(force=True)
    except (RuntimeError, TypeError) as error:
        raise DTypeError(
            "a tensor's numbers cannot be read, as inside torch.func, torch.vmap and torch.export, on the device meta, "
            f"or where it is sparse; allowed are plain tensors ({str(error).splitlines()[0]})"
        ) from error
    return array


def copy_of(x: Any) -> Any:
    """The same numbers in memory of their own; a tensor keeps its graph.

    For what is handed to foreign code, which may write to it, and for what foreign code returns and may use again.

    Example:
        >>> z = np.zeros(2)
        >>> np.shares_memory(copy_of(z), z)
        False
    """
    return x.clone() if is_torch(x) else np.array(x)


def like(array: NDArray[Any], template: Array) -> Array:
    """The numbers of a numpy array as the template's kind, dtype and device; memory is shared where it can be.

    Args:
        array: numpy array of any shape.
        template: numpy array or torch tensor; its shape plays no part.

    Raises:
        InvalidValueError: a finite number does not fit the template's dtype.

    Example:
        >>> like(np.ones(2), np.zeros((5, 5), np.float32))
        array([1., 1.], dtype=float32)
        >>> like(np.array([1e5]), np.zeros(1, np.float16))
        Traceback (most recent call last):
        ...
        pspc_rs.errors.InvalidValueError: the result reaches 100000, which does not fit into float16; use float32
    """
    if is_torch(template):
        return cast(Array, convert(as_tensor(array), template))
    return cast(Array, converted(array, cast(Any, template).dtype))


def beside(array: NDArray[Any], template: Array) -> Array:
    """The numbers of a numpy array in their own dtype, as the template's kind and on its device.

    Example:
        >>> beside(np.ones(2), np.zeros(5, np.float32))
        array([1., 1.])
    """
    if is_torch(template):
        return cast(Array, as_tensor(array).to(template.device))
    return cast(Array, array)


def as_tensor(array: NDArray[Any]) -> "torch.Tensor":
    """A numpy array as a torch tensor of the same dtype; memory is shared where it can be.

    Example:
        >>> as_tensor(np.ones(2, ">f4")).dtype
        torch.float32
    """
    # torch warns about memory that it may not write to and refuses foreign byte orders.
    plain = np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "W"])
    tensor: torch.Tensor = import_torch("a tensor").from_numpy(plain)
    return tensor


def convert(tensor: "torch.Tensor", template: "torch.Tensor") -> "torch.Tensor":
    """The tensor in the dtype and on the device of another one, with its graph.

    Raises:
        InvalidValueError: a finite number does not fit that dtype.
    """
    narrow: torch.Tensor = converted(tensor, template.dtype)
    return narrow.to(template.device)


def converted(x: Any, dtype: Any, name: str = "the result") -> Any:
    """An array or tensor in another type of floats; a tensor keeps its graph.

    Args:
        x: array or tensor of floats.
        dtype: of the same library.
        name: what messages call x.

    Raises:
        InvalidValueError: a finite number does not fit, float16 ends at 65504.

    Example:
        >>> converted(np.array([1.0, 7e4]), np.float16)
        Traceback (most recent call last):
        ...
        pspc_rs.errors.InvalidValueError: the result reaches 70000, which does not fit into float16; use float32
    """
    if is_torch(x):
        result = x.to(dtype)
    else:
        with np.errstate(over="ignore"):
            result = x.astype(dtype, copy=False)
    if _largest(result) >= _largest(x):
        return result
    lost = (abs(result) == math.inf) & (abs(x) < math.inf)
    if bool(lost.any()):
        largest = float(abs(x[lost]).max())
        wider = "float64" if result.dtype.itemsize == 4 else "float32"
        raise InvalidValueError(
            f"{name} reaches {largest:g}, which does not fit into {_dtype_name(result)}; use {wider}"
        )
    return result


def _largest(x: Any) -> float:
    """The largest number of the dtype of an array or tensor."""
    return float((sys.modules["torch"] if is_torch(x) else np).finfo(x.dtype).max)


def check_finite(name: str, array: object) -> None:
    """Refuses an array or tensor of floats with a NaN or an infinity in it.

    Raises:
        InvalidValueError: some value is not finite; the message gives the first one and its index.

    Example:
        >>> check_finite("z", np.array([[0.0, np.nan]]))
        Traceback (most recent call last):
        ...
        pspc_rs.errors.InvalidValueError: z holds nan at [0, 1]; all values must be finite
    """
    if is_torch(array) and bool(array.isfinite().all()):
        return
    values = to_numpy(array, name)
    finite = np.isfinite(values)
    if not finite.all():
        index = np.unravel_index(int(np.argmin(finite)), values.shape)
        where = ", ".join(str(int(i)) for i in index)
        raise InvalidValueError(f"{name} holds {values[index]} at [{where}]; all values must be finite")


def noisy_images(
    z: object, sigma: object, shape: tuple[int, int, int], *, check_values: bool = True
) -> tuple[NDArray[np.floating[Any]], NDArray[np.float64]]:
    """Noisy images and their noise levels, checked: what every denoiser starts with.

    Args:
        z: array or tensor of floats, [batch, channels, height, width].
        sigma: noise levels, see `sigma_vector`.
        shape: (channels, height, width) of the denoiser's images.
        check_values: whether to look for pixels that are not finite; the engine looks itself.

    Returns:
        z as a numpy array, and sigma as float64 [batch].

    Raises:
        DTypeError: z is not an array of floating-point numbers.
        ShapeError: z or sigma has the wrong shape.
        InvalidValueError: z holds NaN or infinite pixels, or sigma is out of range.

    Example:
        >>> noisy, sigmas = noisy_images(np.zeros((2, 1, 4, 4)), 0.5, (1, 4, 4))
        >>> noisy.shape, sigmas
        ((2, 1, 4, 4), array([0.5, 0.5]))
    """
    noisy = to_numpy(z)
    check_image_shape(noisy.shape, shape)
    if check_values:
        check_finite("z", noisy)
    return noisy, sigma_vector(sigma, noisy.shape[0])


def check_image_shape(found: tuple[int, ...], shape: tuple[int, int, int]) -> None:
    """Refuses noisy images of another shape than [batch, channels, height, width].

    Raises:
        ShapeError: another shape.

    Example:
        >>> check_image_shape((2, 3, 8, 8), (3, 8, 8))
    """
    if len(found) != 4 or tuple(found[1:]) != shape:
        c, h, w = shape
        raise ShapeError(f"z has shape {list(found)}; allowed is [batch, {c}, {h}, {w}]")


def check_like(what: str, returned: Any, x: Any) -> None:
    """Refuses what a function returned if it is not an array or tensor of the kind and shape of its argument.

    Raises:
        DTypeError: it is another kind.
        ShapeError: it has another shape.

    Example:
        >>> check_like("the model", np.zeros(2), np.zeros(3))
        Traceback (most recent call last):
        ...
        pspc_rs.errors.ShapeError: the model returned shape [2] for [3]; it must be the same
    """
    if is_torch(returned) != is_torch(x) or not hasattr(returned, "shape"):
        kinds = f"a {type(returned).__name__} for a {type(x).__name__}"
        raise DTypeError(f"{what} returned {kinds}; it must return the same")
    if tuple(returned.shape) != tuple(x.shape):
        raise ShapeError(f"{what} returned shape {list(returned.shape)} for {list(x.shape)}; it must be the same")


def sigma_vector(sigma: object, batch: int) -> NDArray[np.float64]:
    """Noise levels as float64 [batch], one per sample.

    Args:
        sigma: noise level in pixel units, 1e-6 .. 1e9: a number, or an array, tensor or list of shape [], [1],
            [batch] or [batch, 1, 1, 1]. One number is for the whole batch.
        batch: number of samples.

    Raises:
        DTypeError: sigma is not made of real numbers.
        ShapeError: sigma has another shape.
        InvalidValueError: a noise level is NaN, infinite, zero, negative or out of range.

    Example:
        >>> sigma_vector(0.5, 3)
        array([0.5, 0.5, 0.5])
    """
    values = real_array("sigma", sigma)
    check_sigma_shape(values.shape, batch)
    _core.check_sigma(values.reshape(-1))
    return np.broadcast_to(values.reshape(-1), (batch,)).copy()


def check_sigma_shape(shape: tuple[int, ...], batch: int, name: str = "sigma") -> None:
    """Refuses noise levels, or other numbers per image, of another shape than `sigma_vector` takes.

    Raises:
        ShapeError: another shape.

    Example:
        >>> check_sigma_shape((3, 1, 1, 1), 3)
    """
    if tuple(shape) not in ((), (1,), (1, 1, 1, 1), (batch,), (batch, 1, 1, 1)):
        raise ShapeError(
            f"{name} has shape {list(shape)}; allowed are a number, [1], [{batch}] and [{batch}, 1, 1, 1] "
            f"for a batch of {batch}"
        )


def real_array(name: str, values: object) -> NDArray[np.float64]:
    """Numbers as a float64 array of the same shape.

    Args:
        name: what messages call them.
        values: a number, or a list, array or tensor of real numbers; booleans are refused.

    Raises:
        DTypeError: the values are not real numbers.
        ShapeError: a nested list is ragged.

    Example:
        >>> real_array("sigmas", [2, 1])
        array([2., 1.])
    """
    try:
        array = numpy_view(values)
    except ValueError as error:
        raise ShapeError(f"{name} is not rectangular: {error}") from error
    if array.dtype.kind not in "iuf":
        raise DTypeError(f"{name} is {values!r:.80}; allowed are real numbers and arrays of them")
    return array.astype(np.float64)
