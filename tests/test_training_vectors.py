"""Augmentation and losses against numbers of the published EDM code."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edm_vectors import network, relative_error, tensor, vectors
from pspc_rs.training.augment import AugmentPipe
from pspc_rs.training.losses import LOSSES, squared_error

OPERATIONS = {
    "xflip": "xflip",
    "yflip": "yflip",
    "scale": "scale",
    "rotate": "rotate_frac",
    "aniso": "aniso",
    "translate": "translate_frac",
}
AUGMENTED = ("p1_16", "p012_16", "p1_32", "p015_16_grey", "only_rotate_16", "only_translate_16")
TRAINED = (
    "EDMLoss__ddpmpp_edm",
    "VPLoss__ddpmpp_vp",
    "VELoss__ncsnpp_ve",
    "EDMLoss__ncsnpp_edm",
    "EDMLoss__adm_edm",
)


class Recorded:
    """Recorded random numbers, in their order and of their kind."""

    def __init__(self, file: dict[str, NDArray[Any]], item: str, num: int) -> None:
        names = sorted(name for name in file if name.startswith(f"{item}/draw"))
        self.rows = [(name, row) for name in names for row in tensor(file[name], torch.float64).reshape(-1, num)]

    def _next(self, kind: str) -> torch.Tensor:
        row: torch.Tensor
        name, row = self.rows.pop(0)
        assert name.endswith(f"_{kind}"), (name, kind)
        return row

    def coin(self) -> torch.Tensor:
        return self._next("randint2")

    def uniform(self) -> torch.Tensor:
        return self._next("rand")

    def normal(self) -> torch.Tensor:
        return self._next("randn")


@cache
def items(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    about = json.loads(str(vectors(folder, name)["meta"]))
    return {item["name"]: item for item in about["items"]}


def test_every_item_of_the_files_is_tested(test_data: Path) -> None:
    assert set(items(test_data, "augment")) == set(AUGMENTED)
    assert set(items(test_data, "train")) == set(TRAINED)


@pytest.mark.parametrize("item", AUGMENTED)
def test_augmentation(test_data: Path, item: str) -> None:
    file, about = vectors(test_data, "augment"), items(test_data, "augment")[item]
    pipe = AugmentPipe(about["p"], **{ours: about["multipliers"].get(name, 0) for ours, name in OPERATIONS.items()})
    x, out, labels = (tensor(file[f"{item}/{name}"]) for name in ("x", "out", "labels"))
    draws = Recorded(file, item, len(x))
    augmentation = pipe.draw(len(x), draws)
    assert not draws.rows
    assert pipe.label_dim == labels.shape[1]
    assert (augmentation.labels - labels).abs().max() < 1e-6
    assert (pipe.apply(x, augmentation) - out).abs().max() < 1e-5


@pytest.mark.parametrize("item", TRAINED)
def test_losses_and_gradients(test_data: Path, item: str) -> None:
    file, about = vectors(test_data, "train"), items(test_data, "train")[item]
    kind = about["loss"].removesuffix("Loss").lower()
    loss = LOSSES[kind]
    assert loss.draw == about["rnd_kind"]
    net = network(test_data, about["network_vector_file"].removesuffix(".npz")).requires_grad_(True)
    y, noise, number = (tensor(file[f"{item}/{name}"]) for name in ("y", "noise", "rnd"))
    labels = tensor(file[f"{item}/class_labels"]) if f"{item}/class_labels" in file else None
    sigma = loss.sigma(number)
    assert relative_error(sigma, file[f"{item}/sigma"]) < 1e-6
    error = loss.weight(sigma) * squared_error(net, y, noise, sigma, class_labels=labels)
    with torch.no_grad():
        denoised = net(y + sigma * noise, sigma, labels)
    assert relative_error(denoised, file[f"{item}/D"]) < 2e-5
    assert relative_error(error.detach().mean((1, 2, 3)), file[f"{item}/loss_mean_per_sample"]) < 2e-5
    assert relative_error(error.detach().flatten()[:32], file[f"{item}/loss_head"]) < 1e-4
    assert float(error.detach().mean()) == pytest.approx(about["loss_mean"], rel=1e-5)
    torch.autograd.backward(error.sum() / len(y))
    compare_gradients(file, item, net)


def compare_gradients(file: dict[str, NDArray[Any]], item: str, net: torch.nn.Module) -> None:
    # Where there are no augmentation labels, their weights have no gradient, which is recorded as 0.
    gradients = {
        name: np.zeros(one.shape, np.float32) if one.grad is None else one.grad.numpy()
        for name, one in net.named_parameters()
    }
    names = file[f"{item}/grad_name"].tolist()
    assert sorted(gradients) == sorted(names)
    norms, heads = file[f"{item}/grad_norm"], file[f"{item}/grad_head"]
    # Some gradients are 0 but for rounding: those of biases that the softmax cancels, say.
    floor = 1e-6 * norms.max()
    for name, norm, head in zip(names, norms, heads, strict=True):
        found = gradients[name]
        assert np.linalg.norm(found.astype(np.float64)) == pytest.approx(norm, rel=1e-4, abs=floor), name
        first = found.flatten()[: len(head)]
        assert np.abs(first - head[: len(first)]).max() <= 2e-4 * norm + floor, name
        if f"{item}/grad/{name}" in file:
            assert np.abs(found - file[f"{item}/grad/{name}"]).max() <= 1e-4 * norm + floor, name
