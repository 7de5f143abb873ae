"""Whether a network that was built from an account of a pickle is the one that the pickle holds."""

import math
from typing import Any

from torch import nn

from pspc_rs.errors import DataError
from pspc_rs.networks.edm_pickle.tree import Account, plain_value

_ATTRIBUTES = {
    "UNetBlock": ("in_channels", "out_channels", "emb_channels", "num_heads", "skip_scale", "adaptive_scale"),
    "Conv2d": ("in_channels", "out_channels", "up", "down", "fused_resample"),
    "GroupNorm": ("num_groups", "eps"),
    "Linear": ("in_features", "out_features"),
    "PositionalEmbedding": ("num_channels", "max_positions", "endpoint"),
}
"""What decides what a module computes, beside its tensors."""

# Published networks compute their limits in single precision, which is off by a few per cent for the VP process.
_LIMIT_TOLERANCE = 0.05


def check_agreement(network: nn.Module, account: Account, what: str) -> None:
    """Refuses a network that differs from the account in its modules, their order or their attributes.

    Args:
        network: what ``build_network`` made of the account's description.
        account: the account.
        what: the file it comes from.

    Raises:
        DataError: there is a difference; the message names the module.
    """
    ours = dict(network.named_modules())
    for (name, module), (stored_name, node) in zip(ours.items(), account.modules.items(), strict=False):
        if name != stored_name:
            raise DataError(f"{what} has the module {stored_name!r} where its architecture has {name!r}")
        if name and node.class_name != type(module).__name__:
            raise DataError(
                f"{what}: {name} is a {node.class_name}; in its architecture it is a {type(module).__name__}"
            )
        for attribute in _ATTRIBUTES.get(node.class_name, ()):
            _check_attribute(f"{name}.{attribute}", node.state.get(attribute), getattr(module, attribute), what)
    if len(ours) != len(account.modules):
        raise DataError(f"{what} has {len(account.modules)} modules; its architecture has {len(ours)}")


def check_limits(network: Any, account: Account, what: str) -> None:
    """Refuses a network whose range of noise levels is not that of the account, if it has one.

    Raises:
        DataError: there is a difference.
    """
    for name in ("sigma_min", "sigma_max"):
        stored = account.modules[""].state.get(name)
        own = getattr(network, name)
        known = isinstance(stored, float | int) and math.isclose(stored, own, rel_tol=_LIMIT_TOLERANCE)
        if stored is not None and not known:
            shown = plain_value(stored, name, what)
            raise DataError(f"{what}: {name} is {shown!r:.80}; that of its network is {own:g}")


def _check_attribute(name: str, stored: object, own: object, what: str) -> None:
    agree = isinstance(stored, bool | int | float) and isinstance(own, bool | int | float)
    if not agree or not math.isclose(float(stored), float(own), rel_tol=1e-9):  # type: ignore[arg-type]
        shown = plain_value(stored, name, what)
        raise DataError(f"{what}: {name} is {shown!r:.80}; in its architecture it is {own!r}")
