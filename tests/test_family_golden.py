"""Golden numbers of posteriors: evidence, entropy, weights, variances, attribution, derivatives and options.

They are float64 numbers of a brute force that shares no code with this package. The oracle must have them to rounding,
the engine within

- 1e-5 relative or 1e-6 absolute for log evidence, and 1e-5 for entropies, weights and attribution per component;
- 1e-5 for denoised images (in [-1, 1] units) and for variances;
- 1e-5 of the largest entry of a query for derivatives, which grow as 1 / sigma^2;
- the same order of the heaviest atoms where their weights differ by more than 1e-4 from those of the next.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

import pspc_rs as pspc
import reference
from posterior_problems import DEVICE

Array = npt.NDArray[Any]
Golden = dict[str, Array]

SETS = ("a", "b")
MEMBERS = ("empirical", "pspc3", "ls_k3")
OPTIONS = ("T", "prior", "label", "loo", "keep")
TEMPERATURE = 1.7


@pytest.fixture(scope="module")
def golden(test_data: Path) -> Golden:
    with np.load(test_data / "golden" / "family-dev.npz") as stored:
        return dict(stored)


@cache
def cut_boxes(height: int, width: int, side: int) -> Tensor:
    """The box around every pixel, cut at the border, bool [H W, H, W]."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    near = torch.maximum(
        (y.flatten()[:, None, None] - y).abs(),
        (x.flatten()[:, None, None] - x).abs(),
    )
    return near <= side // 2


class Member:
    """One member on one set: what the oracle and the package are asked, level by level."""

    def __init__(self, golden: Golden, images: str, member: str) -> None:
        self.golden, self.images, self.member = golden, images, member
        self.atoms = reference.pixels(self["images_u8"])
        _, _, height, width = self.atoms.shape
        boxes = {"empirical": reference.full_window(height, width), "pspc3": reference.square_windows(height, width, 3)}
        self.windows = boxes.get(member, cut_boxes(height, width, 3))
        self.is_local = member == "ls_k3"
        # The local score machine answers for the pixel in the middle alone.
        self.responses = torch.eye(height * width).reshape(-1, height, width) if self.is_local else None
        self.middles = torch.arange(height * width) if self.is_local else None

    def __getitem__(self, name: str) -> Array:
        return self.golden[f"{self.images}.{name}"]

    def exact(self, statistic: str = "") -> Array:
        """The golden numbers [levels, queries, ...] of a statistic or option; "" is the composite."""
        return self[f"{self.member}.{statistic}" if statistic else self.member]

    def oracle(self, level: int, option: str = "") -> reference.Posterior:
        return self.posterior(self["z"][level], self["sigma"][level], **self.options(level, option))

    def posterior(self, z: Any, sigma: Any, **options: Any) -> reference.Posterior:
        known: dict[str, Any] = {"responses": self.responses, "middles": self.middles}
        return reference.posterior(self.atoms, self.windows, z, sigma, **known, **options)

    def composite(self, z: Any, sigma: Any) -> Tensor:
        """What the package answers: all pixels of a component count."""
        return reference.posterior(self.atoms, self.windows, z, sigma).denoised

    def options(self, level: int, option: str) -> dict[str, Any]:
        if option == "T":
            return {"temperature": TEMPERATURE}
        if option == "prior":
            return {"log_prior": self["log_prior"]}
        counts = {
            "label": lambda: self["labels"] == self["query_label"][level][:, None],
            "loo": lambda: np.arange(len(self.atoms)) != self["loo_exclude"][level][:, None],
            "keep": lambda: self["keep"][level],
        }
        return {"counts": counts[option]()} if option else {}

    def denoiser(self, option: str = "") -> pspc.denoisers.PosteriorComposite:
        log_prior = self["log_prior"].astype(np.float64) if option == "prior" else None
        data = pspc.ImageSet(self["images_u8"], self["labels"], log_prior=log_prior, channels_last=False)
        options: dict[str, Any] = {"temperature": TEMPERATURE if option == "T" else 1.0, "device": DEVICE}
        if self.member == "empirical":
            return pspc.Empirical(data, **options)
        if self.member == "pspc3":
            return pspc.PSPCSquare(data, patch_sizes=3, **options)
        return pspc.PSPCFlex(data, masks=self.windows.numpy(), **options)

    def call(self, level: int, option: str) -> dict[str, Any]:
        """The arguments of a call that make the atoms of an option count."""
        if option == "label":
            return {"class_labels": self["query_label"][level]}
        if option == "loo":
            return {"exclude": self["loo_exclude"][level]}
        return {"exclude": ~self["keep"][level]} if option == "keep" else {}


@pytest.fixture(params=[(images, member) for images in SETS for member in MEMBERS], ids=".".join)
def member(request: pytest.FixtureRequest, golden: Golden) -> Member:
    return Member(golden, *request.param)


def by_level(member: Member, found: Callable[[int], Any]) -> Array:
    return np.stack([np.asarray(found(level)) for level in range(len(member["sigma"]))])


def heaviest(posterior: reference.Posterior) -> tuple[Array, Array]:
    order = posterior.logits.argsort(dim=-1, descending=True, stable=True)[..., :5]
    return order.numpy(), posterior.weights.gather(-1, order).numpy()


def test_the_oracle_has_every_statistic(member: Member) -> None:
    said = [member.oracle(level) for level in range(len(member["sigma"]))]
    image_variance = member.member == "empirical"
    found: dict[str, list[Any]] = {
        "": [one.denoised for one in said],
        "logZ": [one.log_evidence for one in said],
        "entropy": [one.entropy for one in said],
        "var": [one.variance if image_variance else one.component_variance for one in said],
        "attr": [one.weights.sum(1) for one in said],
        "top_w": [heaviest(one)[1] for one in said],
    }
    for statistic, values in found.items():
        np.testing.assert_allclose(np.stack(values), member.exact(statistic), rtol=1e-12, atol=2e-12, err_msg=statistic)
    np.testing.assert_array_equal([heaviest(one)[0] for one in said], member.exact("top_i"))


@pytest.mark.parametrize("option", OPTIONS)
def test_the_oracle_has_every_option(member: Member, option: str) -> None:
    found = by_level(member, lambda level: member.oracle(level, option).denoised)
    np.testing.assert_allclose(found, member.exact(option), rtol=0, atol=2e-12)


def test_the_oracle_has_the_derivatives(member: Member) -> None:
    v, exact = member["v"], member.exact("jvp")
    for level, (z, sigma) in enumerate(zip(member["z"], member["sigma"], strict=True)):

        def denoise(z: Tensor, sigma: float = sigma) -> Tensor:
            return member.posterior(z, sigma).denoised

        found = reference.jvp(denoise, z, np.repeat(v[:, None], len(z), axis=1))
        for query in range(len(z)):
            scale = np.abs(exact[level, query]).max()
            np.testing.assert_allclose(found[:, query], exact[level, query], rtol=0, atol=1e-10 * scale + 2e-12)


def test_the_oracle_takes_a_sigma_per_query(member: Member) -> None:
    found = member.posterior(member["mixed_z"], member["mixed_sigma"].astype(np.float64)).denoised
    np.testing.assert_allclose(found, member.exact("mixed"), rtol=0, atol=2e-12)


def check_top(index: Array, weight: Array, member: Member) -> None:
    exact = member.exact("top_w").reshape(-1, 5), member.exact("top_i").reshape(-1, 5)
    for found, found_weight, weights, images in zip(index.reshape(-1, 5), weight.reshape(-1, 5), *exact, strict=True):
        np.testing.assert_allclose(found_weight, weights, rtol=0, atol=1e-5)
        gaps = np.append(-np.diff(weights), weights[-1])
        # The place of an atom is certain where the weights on both sides are others.
        certain = (gaps > 1e-4) & (np.append(1.0, gaps[:-1]) > 1e-4)
        np.testing.assert_array_equal(found[certain], images[certain])


def test_the_engine_has_every_statistic(member: Member) -> None:
    D = member.denoiser()
    said = [D.posterior(z, sigma) for z, sigma in zip(member["z"], member["sigma"], strict=True)]
    statistics = {"logZ": (1e-5, 1e-6), "entropy": (0, 1e-5), "attr": (0, 1e-5 * len(member.windows))}
    found = {
        "logZ": [one.log_evidence for one in said],
        "entropy": [one.entropy for one in said],
        "attr": [one.attribution() for one in said],
    }
    if member.member == "empirical":
        found["var"] = [one.variance for one in said]
    if member.member == "pspc3":
        found["var"] = [one.component_variance for one in said]
    for name, values in found.items():
        rtol, atol = statistics.get(name, (0, 1e-5))
        np.testing.assert_allclose(np.stack(values), member.exact(name), rtol=rtol, atol=atol, err_msg=name)
    check_top(np.stack([one.top_index for one in said]), np.stack([one.top_weight for one in said]), member)
    assert not any(one.top_view.any() for one in said)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_engine_has_every_option(member: Member, option: str) -> None:
    D = member.denoiser(option)
    for level, (z, sigma) in enumerate(zip(member["z"], member["sigma"], strict=True)):
        chosen, exact = member.call(level, option), member.oracle(level, option)
        if not member.is_local:
            found = D(z.astype(np.float64), sigma, **chosen)
            np.testing.assert_allclose(found, member.exact(option)[level], rtol=0, atol=1e-5)
        P = D.posterior(z, sigma, **chosen)
        np.testing.assert_allclose(P.log_evidence, exact.log_evidence, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(P.entropy, exact.entropy, rtol=0, atol=1e-5)
        np.testing.assert_allclose(P.attribution(), exact.weights.sum(1), rtol=0, atol=1e-5 * len(member.windows))


def test_the_engine_has_the_derivatives(member: Member) -> None:
    D, v = member.denoiser(), member["v"]
    for level, (z, sigma) in enumerate(zip(member["z"], member["sigma"], strict=True)):
        directions = np.repeat(v[:, None], len(z), axis=1).astype(np.float64)
        exact = np.moveaxis(member.exact("jvp")[level], 1, 0)
        if member.is_local:
            # The masks of PSPCFlex answer for all of their pixels, unlike the local score machine.
            exact = reference.jvp(partial(member.composite, sigma=sigma), z, directions).numpy()
        denoised, found = D.jvp(z.astype(np.float64), sigma, directions)
        np.testing.assert_allclose(denoised, member.composite(z, sigma), rtol=0, atol=1e-5)
        for query in range(len(z)):
            scale = np.abs(exact[:, query]).max()
            np.testing.assert_allclose(found[:, query], exact[:, query], rtol=0, atol=1e-5 * scale + 1e-6)
