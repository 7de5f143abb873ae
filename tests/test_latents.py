"""Latents: how they were scaled is kept by data sets and stores, and undone before they are decoded."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import pspc_rs as pspc
from command_line import fail, succeed
from pspc_rs.data import ImageSet, Scaling, decode_latents, load, save_store
from pspc_rs.data.store_record import record_path
from pspc_rs.errors import DTypeError, InvalidValueError, PspcError, ShapeError
from pspc_rs.provenance import describe_data

RAW = np.random.default_rng(0).normal(2, 5, (12, 4, 32, 32)).astype(np.float32)
SCALING = Scaling([0.5, 0.25, 2, -1], shift=[1, 0, 0.5, 2])
NUMBERS = st.floats(-1e3, 1e3).filter(lambda number: abs(number) > 1e-3)


@given(scale=st.lists(NUMBERS, min_size=4, max_size=4), shift=st.floats(-100, 100))
def test_scaling_and_back(scale: list[float], shift: float) -> None:
    scaling = Scaling(scale, shift)
    scaled = scaling.apply(RAW)
    assert scaled.dtype == np.float32
    expected = (RAW.astype(np.float64) - shift) * np.array(scale)[:, None, None]
    np.testing.assert_allclose(scaled, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scaling.restore(scaled), RAW, rtol=1e-4, atol=1e-4 + 1e-6 * abs(shift))
    assert Scaling(**scaling.settings) == scaling and hash(Scaling(scale, shift)) == hash(scaling)


def nearest(latents: Any) -> Any:
    return latents[:, :3].repeat(8, axis=2).repeat(8, axis=3)


def test_a_data_set_keeps_its_scaling() -> None:
    data = ImageSet(SCALING.apply(RAW), np.arange(12) % 3, scaling=SCALING)
    assert "Scaling(scale=[0.5, 0.25, 2.0, -1.0], shift=[1.0, 0.0, 0.5, 2.0])" in repr(data)
    kept = [data.subset([3, 1]), data.select(2, xflip=True), load(data, xflip=True), copy.copy(data)]
    for one in [*kept, pickle.loads(pickle.dumps(data))]:  # noqa: S301 - ours
        assert one.scaling == SCALING
    assert describe_data(data)["scaling"] == SCALING.settings
    assert "scaling" not in describe_data(ImageSet(RAW))
    assert data.fingerprint == ImageSet(SCALING.apply(RAW), np.arange(12) % 3).fingerprint
    pictures = data.decode(data.batch(range(12)), nearest, batch=5)
    assert pictures.shape == (12, 3, 256, 256)
    np.testing.assert_allclose(pictures, nearest(RAW), rtol=1e-5, atol=1e-5)
    earlier = vars(data) | {}
    del earlier["_scaling"]
    fresh = ImageSet.__new__(ImageSet)
    fresh.__setstate__(earlier)
    assert fresh.scaling is None


def test_a_store_keeps_the_scaling(tmp_path: Path) -> None:
    np.save(tmp_path / "raw.npy", RAW)
    scaled = ImageSet(SCALING.apply(RAW), scaling=SCALING)
    for source, given_scaling in ((tmp_path / "raw.npy", SCALING), (scaled, None)):
        data = load(save_store(source, tmp_path / "a.npy", scaling=given_scaling, overwrite=True), xflip=True)
        assert data.scaling == SCALING and data.dtype == np.float32
        np.testing.assert_array_equal(data.images, scaled.images)
    again = load(save_store(tmp_path / "a.npy", tmp_path / "b.npy", max_size=5))
    assert again.scaling == SCALING and again.num_stored == 5
    with pytest.raises(InvalidValueError, match=r"has Scaling\(.*already"):
        save_store(tmp_path / "a.npy", tmp_path / "c.npy", scaling=SCALING)
    record = json.loads(record_path(tmp_path / "a.npy").read_text())
    record["store"]["scaling"]["scale"] = ["x"]
    record_path(tmp_path / "a.npy").write_text(json.dumps(record))
    with pytest.raises(PspcError):
        load(tmp_path / "a.npy")


def test_the_command_scales_latents(tmp_path: Path) -> None:
    np.save(tmp_path / "raw.npy", RAW)
    succeed("data", "convert", tmp_path / "raw.npy", tmp_path / "a.npy", "--scale", 0.18215, "--shift", 0.5)
    data = load(tmp_path / "a.npy")
    assert data.scaling == Scaling(0.18215, 0.5)
    np.testing.assert_array_equal(data.images, Scaling(0.18215, 0.5).apply(RAW))
    assert "--shift is for stores" in fail(
        2, "data", "convert", tmp_path / "raw.npy", tmp_path / "a.zip", "--shift", 0.5
    )


@pytest.mark.parametrize(
    ("scale", "shift", "error"),
    [
        (0, 0, InvalidValueError),
        ([1, 0], 0, InvalidValueError),
        (float("nan"), 0, InvalidValueError),
        (1, float("inf"), InvalidValueError),
        ("a", 0, DTypeError),
        (None, 0, DTypeError),
        (True, 0, DTypeError),
        ([], 0, ShapeError),
        ([[1.0]], 0, ShapeError),
        ([1.0, [2.0]], 0, ShapeError),
    ],
)
def test_what_is_no_scaling(scale: Any, shift: Any, error: type[PspcError]) -> None:
    with pytest.raises(error, match=r"scale|shift"):
        Scaling(scale, shift)


def test_what_cannot_be_scaled_or_decoded(tmp_path: Path) -> None:
    with pytest.raises(DTypeError, match="images are bytes"):
        ImageSet(np.zeros((1, 4, 2, 2), np.uint8), scaling=Scaling(2.0))
    with pytest.raises(ShapeError, match="have 3 channels, but scale has 4 numbers"):
        ImageSet(np.zeros((1, 3, 2, 2)), scaling=SCALING)
    with pytest.raises(DTypeError, match="scaling is a float"):
        ImageSet(RAW, scaling=2.0)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="scaling is a float"):
        save_store(ImageSet(RAW), tmp_path / "a.npy", scaling=2.0)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="latents"):
        save_store(ImageSet(np.zeros((2, 4, 2, 2), np.uint8)), tmp_path / "a.npy", scaling=Scaling(2.0))
    cases: list[tuple[Any, Any, type[PspcError], str]] = [
        (RAW[0], nearest, ShapeError, r"\[B, C, H, W\]"),
        (RAW[:0], nearest, ShapeError, "no latents"),
        (RAW, lambda x: x[:, :2], ShapeError, "1 or 3 or 4"),
        (RAW, lambda x: x[:1], ShapeError, "for 12 latents"),
        (RAW, lambda x: x * np.nan, InvalidValueError, "not finite"),
        (RAW, lambda x: "picture", DTypeError, "what decode returns"),
    ]
    for x, decode, error, words in cases:
        with pytest.raises(error, match=words):
            decode_latents(x, decode)
    with pytest.raises(InvalidValueError, match="batch"):
        decode_latents(RAW, nearest, batch=0)


def test_decoders_of_torch_and_of_diffusers() -> None:
    torch = pytest.importorskip("torch")

    class Decoder(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(4, 3, 1, dtype=torch.float64)

        def forward(self, latents: Any) -> Any:
            assert latents.dtype == torch.float64 and not torch.is_grad_enabled()
            return self.convolution(latents)

        def decode(self, latents: Any) -> Any:
            return SimpleNamespace(sample=self(latents))

    torch.manual_seed(0)
    net = Decoder()
    data = ImageSet(SCALING.apply(RAW), scaling=SCALING)
    with torch.no_grad():
        expected = net.convolution(torch.from_numpy(RAW).double()).numpy()
    for decode in (net, net.decode):
        found = data.decode(torch.from_numpy(data.batch(range(12))), decode, batch=7)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_denoisers_take_latents() -> None:
    data = ImageSet(SCALING.apply(RAW), scaling=SCALING)
    x = pspc.sample(pspc.PSPCSquare(data, patch_sizes=5), 2, num_steps=4, generator="numpy")
    assert x.shape == (2, 4, 32, 32) and data.decode(x, nearest).shape == (2, 3, 256, 256)


def test_the_example_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    script = Path(__file__).parents[1] / "examples" / "latents.py"
    if not script.is_file():
        pytest.skip("an installed package has no examples")
    words = [
        sys.executable,
        str(script),
        "--outdir",
        str(tmp_path),
        "--steps",
        "3",
        "--samples",
        "2",
        "--images",
        "200",
    ]
    # More threads than free cores would wait for each other.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 samples; squared error of the autoencoder" in done.stdout
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.mode == "RGB"
    assert load(tmp_path / "latents.npy").scaling is not None
