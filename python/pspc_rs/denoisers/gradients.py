"""What torch does to functions - derivatives, transforms, compilation - and where denoisers cannot follow."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from pspc_rs.arrays import is_torch
from pspc_rs.errors import GradientError

P = ParamSpec("P")
R = TypeVar("R")

_NOT_COMPILED = (
    "denoisers of pspc_rs are not traced by torch.compile: leave out fullgraph=True, or call them outside the compiled "
    "function"
)


def wants_gradient(*given: Any) -> bool:
    """Whether torch would record derivatives with respect to one of these: tensors, or anything else.

    Example:
        >>> import torch
        >>> z = torch.zeros(1, requires_grad=True)
        >>> wants_gradient(z), wants_gradient(z.detach()), wants_gradient(0.5)
        (True, False, False)
        >>> with torch.no_grad():
        ...     wants_gradient(z)
        False
    """
    return any(is_torch(x) and (is_recorded(x) or has_tangent(x) or is_transformed(x)) for x in given)


def is_transformed(x: Any) -> bool:
    """Whether a tensor is one of torch.func, vmap or a batch of torch.autograd, whose numbers cannot be looked at."""
    torch = sys.modules.get("torch")
    functorch = getattr(getattr(torch, "_C", None), "_functorch", None)
    tests = [getattr(functorch, name, None) for name in ("is_functorch_wrapped_tensor", "is_legacy_batchedtensor")]
    return is_torch(x) and any(test is not None and bool(test(x)) for test in tests)


def refuse_gradient(who: str, **given: Any) -> None:
    """Refuses to answer with numbers where torch wants a derivative.

    Args:
        who: what would answer: "Empirical".
        **given: its arguments by name.

    Raises:
        GradientError: one of them is a tensor with respect to which torch records derivatives, or that it traces.
    """
    for name, x in given.items():
        if not is_torch(x):
            continue
        if is_transformed(x):
            raise GradientError(
                f"{name} is a tensor of torch.func or torch.vmap, for which {who} has no derivatives; call it with "
                "plain tensors"
            )
        if is_recorded(x) or has_tangent(x):
            raise GradientError(
                f"{name} requires gradients, but {who} has no derivatives with respect to it; for its values alone "
                f"call it under torch.no_grad() or with {name}.detach()"
            )
        refuse_tracing(who, x)


def refuse_tracing(who: str, x: Any) -> None:
    """Refuses to answer with numbers where torch.jit.trace would keep them as constants.

    Raises:
        GradientError: x is a tensor, and a trace is recorded.
    """
    if is_torch(x) and sys.modules["torch"].jit.is_tracing():
        raise GradientError(f"{who} cannot be traced by torch.jit.trace, which would keep its numbers as constants")


def is_recorded(x: Any) -> bool:
    """Whether torch records what is computed from a tensor, for reverse mode."""
    return bool(sys.modules["torch"].is_grad_enabled()) and bool(x.requires_grad)


def has_tangent(x: Any) -> bool:
    """Whether a tensor carries a derivative of forward mode, which torch.no_grad() does not stop."""
    return sys.modules["torch"].autograd.forward_ad.unpack_dual(x).tangent is not None


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """A function that torch.compile calls as it is: with fullgraph=True, torch's error gives the reason.

    As ``torch.compiler.disable``, but torch is not imported for it.

    Example:
        >>> @uncompiled
        ... def double(x):
        ...     return 2 * x
        >>> double(2)
        4
    """
    disabled: list[Callable[P, R]] = []

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        # Where nothing was compiled yet, torch's compiler is not imported, which takes seconds.
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(sys.modules["torch"].compiler.disable(function))
        return disabled[0](*args, **kwargs)

    marked = cast(Any, called)
    marked._torchdynamo_disable, marked._torchdynamo_disable_msg = True, _NOT_COMPILED
    return called
