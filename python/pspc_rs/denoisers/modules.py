"""Torch modules as guests of a denoiser: their mode, the type and place of their weights, and what they raise."""

import hashlib
import inspect
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pspc_rs.arrays import import_torch, numpy_view
from pspc_rs.errors import InvalidValueError

_ERROR_LENGTH = 300


def is_module(net: object) -> bool:
    """Whether net is a torch module; torch is not imported to find out.

    Example:
        >>> is_module(print)
        False
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(net, torch.nn.Module)


class _HeldModules:
    """Modules that are kept in evaluation mode while calls need it, and the number of these calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By identity, as a module may compare as it likes; each is alive for as long as it is held.
        self._calls: dict[int, int] = {}

    @contextmanager
    def hold(self, net: Any) -> Iterator[None]:
        with self._lock:
            held = [one for one in net.modules() if id(one) in self._calls or getattr(one, "training", False) is True]
            for one in held:
                self._calls[id(one)] = self._calls.get(id(one), 0) + 1
                one.training = False
        try:
            yield
        finally:
            with self._lock:
                for one in held:
                    self._calls[id(one)] -= 1
                    if self._calls[id(one)] == 0:
                        del self._calls[id(one)]
                        one.training = True


_HELD = _HeldModules()


@contextmanager
def evaluation_mode(net: object) -> Iterator[None]:
    """A module and those in it in evaluation mode; at the end, those that were in training mode are in it again.

    Several threads may use one module: it goes back when the last of them is done.

    Example:
        >>> import torch
        >>> net = torch.nn.Dropout()
        >>> with evaluation_mode(net):
        ...     net.training
        False
        >>> net.training
        True
    """
    if not is_module(net):
        yield
        return
    with _HELD.hold(net):
        yield


def input_dtype(net: Any) -> Any:
    """The torch dtype in which a module takes its input: that of its weights, float32 where they differ.

    If some weights are float64, all must be. A module with an attribute ``accepts_float32`` converts its input itself,
    so that its formulas are not rounded to half precision.

    Example:
        >>> import torch
        >>> input_dtype(torch.nn.Linear(1, 1)), input_dtype(torch.nn.Linear(1, 1).half())
        (torch.float32, torch.float16)
    """
    torch = sys.modules["torch"]
    dtypes = {one.dtype for one in net.parameters() if one.is_floating_point()}
    if torch.float64 in dtypes:
        return torch.float64
    own = len(dtypes) == 1 and not getattr(net, "accepts_float32", False)
    return dtypes.pop() if own else torch.float32


def device_of(net: Any) -> Any:
    """The device of a module's weights, None if it has none."""
    weights = next(net.parameters(), None)
    return None if weights is None else weights.device


def checked_device(device: Any) -> Any:
    """The torch device of that name.

    Raises:
        InvalidValueError: there is none.

    Example:
        >>> checked_device("cpu")
        device(type='cpu')
    """
    torch = import_torch("a device")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidValueError(f"device is {device!r:.80}, which cannot be used: {reason}") from error
    return torch.device(device)


def takes(net: object, argument: str) -> bool:
    """Whether a callable, or a module's ``forward``, has an argument of that name.

    Example:
        >>> takes(lambda x, sigma, force_fp32=False: x, "force_fp32")
        True
    """
    called: Any = getattr(net, "forward", net) if is_module(net) else net
    try:
        return argument in inspect.signature(called).parameters
    except (TypeError, ValueError):
        return False


def weights_checksum(module: Any) -> str:
    """A checksum of the names, types, shapes and numbers of a module's weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        weights = numpy_view(tensor.detach())
        digest.update(f"{name} {tensor.dtype} {weights.shape}".encode())
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()


def in_one_line(error: BaseException) -> str:
    """An exception as one line: its type and the line of its message that says most.

    Example:
        >>> in_one_line(ValueError("no"))
        'ValueError: no'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # TorchScript's message is a traceback, which ends with what happened.
    line = "" if not lines else lines[-1] if "TorchScript" in lines[0] else lines[0]
    return f"{type(error).__name__}: {line:.{_ERROR_LENGTH}}" if line else type(error).__name__
