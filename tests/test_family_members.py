"""The members of the family against the golden numbers, driven by their manifest, and the identities between them.

The golden numbers are float64 numbers of a brute force that shares no code with this package. Denoised images agree to
1e-5 in [-1, 1] units, log evidence to 1e-5 relative or 1e-6 absolute, entropies, variances and attribution to 1e-5.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import pspc_rs as pspc

Array = npt.NDArray[Any]
Golden = dict[str, Array]

ORBITS: dict[str, pspc.Orbit] = {
    "hflip": pspc.Orbit(xflip=True),
    "vflip": pspc.Orbit(yflip=True),
    "hvflip": pspc.Orbit(xflip=True, yflip=True),
    "rot90": pspc.Orbit(rot90=True),
    "shift1_wrap": pspc.Orbit(shifts=[(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]),
    "shift1_zero": pspc.Orbit(shifts=[(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)], border="zero"),
    "shift_up2_left3_zero": pspc.Orbit(shifts=[(-2, -3)], border="zero"),
}


@pytest.fixture(scope="module")
def golden(test_data: Path) -> Golden:
    with np.load(test_data / "golden" / "family-dev.npz") as stored:
        return dict(stored)


def manifest(golden: Golden) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = json.loads(bytes(golden["manifest_json"]).decode())
    return entries


class Case:
    """A key of the manifest: its denoiser, the arguments of its calls, and what they should give."""

    def __init__(self, golden: Golden, key: str) -> None:
        self.golden, self.key, self.images = golden, key, key.split(".", maxsplit=1)[0]
        entries = manifest(golden)
        self.options = dict(entries[key])
        while self.options["member"] not in MEMBERS:
            # An option of a member that stands under a key of its own.
            base = entries[f"{self.images}.{self.options['member']}"]
            self.options |= {"member": base["member"]} | {name: base[name] for name in base if name not in self.options}

    def __getitem__(self, name: str) -> Array:
        return self.golden[f"{self.images}.{name}"]

    @property
    def data(self) -> pspc.ImageSet:
        labels = self["labels"] if f"{self.images}.labels" in self.golden else None
        prior = self["log_prior"].astype(np.float64) if "log_prior" in self.options else None
        return pspc.ImageSet(self["images_u8"], labels, log_prior=prior, channels_last=False)

    @property
    def denoiser(self) -> Any:
        further: dict[str, Any] = {"temperature": self.options.get("T", 1.0)}
        if "orbit" in self.options:
            further["source"] = ORBITS[self.options["orbit"]]
        return MEMBERS[self.options["member"]](self, further)

    def arguments(self, level: int) -> dict[str, Any]:
        subset = self.options.get("subset", "")
        if subset.startswith("labels"):
            return {"class_labels": self["query_label"][level]}
        if subset.startswith("without"):
            return {"exclude": self["loo_exclude"][level]}
        if subset.startswith("keep"):
            return {"exclude": ~self["keep"][level]}
        if subset.startswith("pca_keep"):
            kept = self["pca_keep"]
            return {
                "exclude": ~(
                    kept[level] if kept.ndim == 3 else np.broadcast_to(kept, (len(self["z"][level]), len(kept)))
                )
            }
        return {}

    def check(self) -> None:
        D, exact = self.denoiser, self.golden[self.key]
        if self.options.get("mixed"):
            found = D(self["mixed_z"], self["mixed_sigma"].astype(np.float64))
            np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5, err_msg=self.key)
            return
        for level, sigma in enumerate(self["sigma"]):
            found = D(self["z"][level], float(sigma), **self.arguments(level))
            np.testing.assert_allclose(found, exact[level], rtol=0, atol=1e-5, err_msg=f"{self.key} at {sigma}")


def pca(case: Case, further: dict[str, Any]) -> Any:
    options = case.options
    return pspc.PCALocality(
        case.data,
        options["tau"],
        normalise=options["normalise"],
        maximum=options["max"],
        average_chunks=options.get("wss_chunk"),
        **further,
    )


def soft(case: Case, further: dict[str, Any]) -> Any:
    response = {"lam": "same", "delta": "centre"}.get(case.options["rho"], case.options["rho"])
    return pspc.SoftPSPC(case.data, case.options["b"], response=response, **further)


def rows(case: Case, kind: str, further: dict[str, Any]) -> Any:
    shape = case.data.shape if kind == "densec" else case.data.shape[1:]
    weights = [case[f"{kind}_{name}"].reshape(-1, *shape) for name in ("lam", "rho")]
    return pspc.FilteredPosteriorMean(case.data, *weights, **further)


MEMBERS: dict[str, Any] = {
    "empirical": lambda case, further: pspc.Empirical(case.data, **further),
    "pspc_square": lambda case, further: pspc.PSPCSquare(case.data, patch_sizes=case.options["side"], **further),
    "ls": lambda case, further: pspc.LS(case.data, window_sizes=case.options["k"], **further),
    "els": lambda case, further: pspc.ELS(
        case.data, window_sizes=case.options["k"], source=case.options["source"], **further
    ),
    "bbels": lambda case, further: pspc.BBELS(case.data, window_sizes=case.options["k"], **further),
    "gauss": soft,
    "dense": lambda case, further: rows(case, "dense", further),
    "dense_coordinates": lambda case, further: rows(case, "densec", further),
    "pca_locality": pca,
}


@pytest.mark.parametrize("images", list("abcdefgh"))
@pytest.mark.filterwarnings("ignore:.* masks are empty")
def test_every_key_of_the_manifest(golden: Golden, images: str) -> None:
    keys = [key for key in manifest(golden) if key.startswith(f"{images}.")]
    assert keys
    for key in keys:
        Case(golden, key).check()
