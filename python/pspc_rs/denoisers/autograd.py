"""Denoisers as functions that torch differentiates: torch.autograd, forward mode, and the transforms of torch.func.

The derivative of D with respect to z is exact: both modes ask the denoiser for a product with its Jacobian, from z and
sigma alone, so that nothing of the first call is kept. There are no derivatives with respect to sigma, and no second
ones; both are refused by name.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pspc_rs.arrays import check_sigma_shape, sigma_vector
from pspc_rs.denoisers.gradients import has_tangent, is_recorded, is_transformed
from pspc_rs.denoisers.selection import Selection
from pspc_rs.errors import GradientError
from pspc_rs.progress import Progress


class Differentiable(Protocol):
    """What this module asks of a denoiser."""

    def _evaluate(self, z: Any, sigma: Any, selection: Selection | None, progress: Progress | None) -> Any:
        """D(z, sigma) like z, without derivatives."""

    def _product(self, z: Any, sigma: Any, v: Any, selection: Selection | None, *, transposed: bool) -> Any:
        """J v, or J^T v, like z, for v [..., batch, channels, height, width]."""


@dataclass(frozen=True)
class _Call:
    """A call of a denoiser but for its tensors; ``transposed`` says which products with the Jacobian are meant."""

    denoiser: Differentiable
    selection: Selection | None
    progress: Progress | None = None
    transposed: bool = False

    def __repr__(self) -> str:
        return f"_Call({self.denoiser!r})"

    @property
    def who(self) -> str:
        return type(self.denoiser).__name__

    def tiled(self, times: int, batch: int) -> "_Call":
        """The call for a batch that is the same batch several times over."""
        if self.selection is None:
            return self
        queries: npt.NDArray[np.intp] = np.tile(np.arange(batch), times)
        return replace(self, selection=self.selection.of(queries))


def differentiable_call(
    denoiser: Differentiable, z: Any, sigma: Any, selection: Selection | None, progress: Progress | None
) -> Tensor:
    """D(z, sigma) with its derivative with respect to z.

    Args:
        denoiser: the denoiser.
        z: tensor [batch, channels, height, width], checked but for its values.
        sigma: noise levels.
        selection: which images count.
        progress: of the denoiser; there is none for derivatives.

    Raises:
        GradientError: a derivative with respect to sigma is wanted.
        ShapeError: sigma has another shape.
        InvalidValueError: z or sigma holds bad numbers.
    """
    call = _Call(denoiser, selection, progress)
    if isinstance(sigma, Tensor) and is_transformed(sigma):
        check_sigma_shape(tuple(sigma.shape), len(z))
        levels = sigma.reshape(-1).expand(len(z))
    else:
        if isinstance(sigma, Tensor) and (is_recorded(sigma) or has_tangent(sigma)):
            raise _no_sigma(call, "sigma requires gradients")
        levels = torch.from_numpy(sigma_vector(sigma, len(z)))
    return _applied(_Denoise, z, levels, call)


def _no_sigma(call: _Call, what: str) -> GradientError:
    return GradientError(
        f"{what}, but {call.who} has no derivatives with respect to it; for those with respect to z alone call it with "
        "sigma.detach()"
    )


def _no_second(call: _Call) -> GradientError:
    return GradientError(f"a second derivative is wanted, but {call.who} has first derivatives only")


class _Denoise(torch.autograd.Function):
    """D(z, sigma)."""

    @staticmethod
    def forward(z: Tensor, sigma: Tensor, call: _Call) -> Tensor:
        denoised: Tensor = call.denoiser._evaluate(z, sigma, call.selection, call.progress)
        return denoised

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, _Call], output: Tensor) -> None:
        z, sigma, ctx.call = inputs
        # So that a tangent of zeros, which is nothing wanted, can be told from one that is.
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, sigma)
        ctx.save_for_forward(z, sigma)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None, None]:
        if gradient is None:
            return None, None, None
        if ctx.needs_input_grad[1]:
            raise _no_sigma(ctx.call, "a derivative with respect to sigma is wanted")
        z, sigma = ctx.saved_tensors
        return _applied(_Product, z, sigma, gradient, replace(ctx.call, transposed=True)), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, of_sigma: Tensor | None, _: None) -> Tensor:
        if of_sigma is not None:
            raise _no_sigma(ctx.call, "a derivative with respect to sigma is wanted")
        z, sigma = ctx.saved_tensors
        return _applied(_Product, z, sigma, tangent, replace(ctx.call, transposed=False))

    @staticmethod
    def vmap(info: Any, in_dims: Any, z: Tensor, sigma: Tensor, call: _Call) -> tuple[Tensor, int]:
        size = info.batch_size
        many_z, many_sigma = _in_front(z, in_dims[0], size), _in_front(sigma, in_dims[1], size)
        batch = many_z.shape[1]
        flat = _applied(_Denoise, many_z.flatten(0, 1), many_sigma.flatten(0, 1), call.tiled(size, batch))
        return flat.reshape(many_z.shape), 0


class _Product(torch.autograd.Function):
    """J v or J^T v, J the Jacobian of D at z and sigma; v may have further axes in front of those of z."""

    @staticmethod
    def forward(z: Tensor, sigma: Tensor, v: Tensor, call: _Call) -> Tensor:
        # Under torch.func this function gets plain tensors; torch.autograd's own batches come as they are.
        if is_transformed(v):
            raise GradientError(
                f"{call.who} has no derivatives in torch.autograd's batches (is_grads_batched, vectorize); "
                "torch.func.jacrev and vjp with several u compute several at once"
            )
        product: Tensor = call.denoiser._product(z, sigma, v, call.selection, transposed=call.transposed)
        return product

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, _Call], output: Tensor) -> None:
        z, sigma, _, ctx.call = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, sigma)
        ctx.save_for_forward(z, sigma)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[None, None, Tensor | None, None]:
        if gradient is None:
            return None, None, None, None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            raise _no_second(ctx.call)
        z, sigma = ctx.saved_tensors
        other = replace(ctx.call, transposed=not ctx.call.transposed)
        return None, None, _applied(_Product, z, sigma, gradient, other), None

    @staticmethod
    def jvp(ctx: Any, of_z: Tensor | None, of_sigma: Tensor | None, tangent: Tensor, _: None) -> Tensor:
        if of_z is not None or of_sigma is not None:
            raise _no_second(ctx.call)
        z, sigma = ctx.saved_tensors
        return _applied(_Product, z, sigma, tangent, ctx.call)

    @staticmethod
    def vmap(info: Any, in_dims: Any, z: Tensor, sigma: Tensor, *others: Any) -> tuple[Tensor, int]:
        (v, call), size = others, info.batch_size
        many_v = _in_front(v, in_dims[2], size)
        if in_dims[0] is None and in_dims[1] is None:
            # Several products with one Jacobian, which the denoiser computes in one go.
            return _applied(_Product, z, sigma, many_v, call), 0
        many_z, many_sigma = _in_front(z, in_dims[0], size), _in_front(sigma, in_dims[1], size)
        batch, before = many_z.shape[1], many_v.ndim - many_z.ndim
        several = many_v.movedim(0, before)
        flat_v = several.flatten(before, before + 1)
        flat = _applied(_Product, many_z.flatten(0, 1), many_sigma.flatten(0, 1), flat_v, call.tiled(size, batch))
        return flat.reshape(several.shape), before


def _applied(function: Any, *inputs: Any) -> Tensor:
    result: Tensor = function.apply(*inputs)
    return result


def _in_front(x: Tensor, axis: int | None, size: int) -> Tensor:
    """The tensor with the axis of a vmap in front; several times the same tensor if it has none."""
    return x.expand(size, *x.shape) if axis is None else x.movedim(axis, 0)
