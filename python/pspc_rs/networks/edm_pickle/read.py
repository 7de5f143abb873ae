"""Networks from EDM pickles."""

import mmap
import os
from dataclasses import dataclass
from typing import Any

from torch import nn

from pspc_rs.data.readers.files import damage_named, existing
from pspc_rs.errors import DataError
from pspc_rs.networks.edm_pickle.agreement import check_agreement, check_limits
from pspc_rs.networks.edm_pickle.machine import read_objects
from pspc_rs.networks.edm_pickle.tree import account_of, description_of, plain_value
from pspc_rs.networks.loading import check_tensors, filled, outlined

_PICKLE = b"\x80"
# The least that a number takes.
_HALF = 2


@dataclass(frozen=True)
class EdmSnapshot:
    """What is worth keeping of an EDM pickle.

    Attributes:
        network: the averaged network.
        dataset_kwargs: what the file says of its training data, if it does.
    """

    network: nn.Module
    dataset_kwargs: dict[str, Any]


def read_edm_pickle(path: str | os.PathLike[str]) -> nn.Module:
    """The averaged network ("ema") of an EDM pickle: on the CPU, float32, in evaluation mode, without gradients.

    Nothing in the file is executed, imported or looked up; see ``pspc_rs.networks.edm_pickle``.

    Args:
        path: the file, such as ``edm-cifar10-32x32-uncond-vp.pkl``.

    Returns:
        A module called as ``net(x, sigma, class_labels=None)``.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is damaged, holds what does not belong in such a file, or its network is not the architecture that
            it claims to be. The message names what was found.
    """
    return read_edm_snapshot(path).network


def read_edm_snapshot(path: str | os.PathLike[str]) -> EdmSnapshot:
    """The network of an EDM pickle, and what the file says of its data. See ``read_edm_pickle``."""
    found = existing(path)
    with damage_named(found), found.open("rb") as file:
        # Tensors are views of the mapped file until they are copied into the network, one by one.
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return _snapshot(data, str(found))


def _snapshot(data: memoryview, what: str) -> EdmSnapshot:
    if data[:1] != _PICKLE:
        raise DataError(f"{what} is no pickle: it begins with {bytes(data[:4])!r}")
    objects = read_objects(data, what)
    if not isinstance(objects, dict) or "ema" not in objects:
        raise DataError(f"{what} is no EDM snapshot: it is no dict with an entry 'ema'")
    account = account_of(objects["ema"], what)
    network = outlined(description_of(account, what), what)
    check_agreement(network, account, what)
    check_tensors(what, {name: list(tensor.shape) for name, tensor in account.tensors.items()}, network)
    if account.number_of_values() * _HALF > len(data):
        raise DataError(
            f"{what} has {len(data)} bytes, too few for the {account.number_of_values()} numbers it announces"
        )
    network = filled(network, ((name, tensor.load()) for name, tensor in account.tensors.items()), what)
    check_limits(network, account, what)
    kwargs = plain_value(objects.get("dataset_kwargs") or {}, "dataset_kwargs", what)
    if not isinstance(kwargs, dict):
        raise DataError(f"{what}: dataset_kwargs are a {type(kwargs).__name__}; allowed is a dict")
    return EdmSnapshot(network, kwargs)
