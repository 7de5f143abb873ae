"""The rebuilt trained networks against the outputs that came with their weights."""

from pathlib import Path

import numpy as np
import pytest

import trained_networks

NETWORKS = {
    "bp_ddpm_mnist": trained_networks.bp_mnist,
    "yz_ddpm_mnist_starter": trained_networks.yz_mnist,
    "bfcnn_bsd300_color": trained_networks.bfcnn_color,
    "bfcnn_bsd300_color_64": trained_networks.bfcnn_color,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_the_authors(name: str, test_data: Path) -> None:
    with np.load(test_data / "networks" / "reference_outputs.npz") as reference:
        levels = [key.split("|")[2] for key in reference.files if key.startswith(f"{name}|z|")]
        assert levels
        for sigma in levels:
            found = NETWORKS[name](reference[f"{name}|z|{sigma}"], float(sigma)).numpy()
            np.testing.assert_allclose(found, reference[f"{name}|D|{sigma}"], rtol=0, atol=1e-4)
