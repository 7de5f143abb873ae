"""The GPU engine against the float64 oracle and the CPU engine, on the CUDA device of this machine.

On a machine without one these tests are skipped, and `test_cuda_emulated.py` runs them on an emulated device.
"""

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
import reference
from pspc_rs import _core, cuda
from test_composite import Problem, close, problems

Array = npt.NDArray[Any]


def no_gpu() -> str | None:
    try:
        return None if cuda.devices() else "there is no GPU"
    except pspc.PspcError as error:
        return str(error)


NO_GPU = no_gpu()
EMULATED = NO_GPU is None and "Emulated" in cuda.devices()[0]
pytestmark = pytest.mark.skipif(NO_GPU is not None, reason=NO_GPU or "")


@given(problems())
def test_empirical_is_the_oracle(problem: Problem) -> None:
    _, _, height, width = problem.images.shape
    denoised = pspc.Empirical(problem.data, device="cuda")(problem.z, problem.sigma)
    close(problem, reference.full_window(height, width), denoised)


@given(problems(), st.data())
def test_square_windows_are_the_oracle(problem: Problem, data: st.DataObject) -> None:
    _, _, height, width = problem.images.shape
    side = data.draw(st.integers(1, min(height, width)))
    denoised = pspc.PSPCSquare(problem.data, patch_sizes=side, device="cuda")(problem.z, problem.sigma)
    close(problem, reference.square_windows(height, width, side), denoised)


@given(problems(), st.data())
def test_masks_are_the_oracle(problem: Problem, data: st.DataObject) -> None:
    _, _, height, width = problem.images.shape
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    masks = rng.random((data.draw(st.integers(1, 12)), height, width)) < data.draw(st.floats(0.1, 0.9))
    masks[0] |= ~masks.any(axis=0)
    masks = masks[masks.any(axis=(1, 2))]
    close(
        problem,
        torch.from_numpy(masks),
        pspc.PSPCFlex(problem.data, masks=masks, device="cuda")(problem.z, problem.sigma),
    )


@pytest.mark.parametrize("xflip", [False, True])
@pytest.mark.parametrize("side", [2, 5, 8])
def test_small_sigma_with_too_many_near_images_is_the_oracle(xflip: bool, side: int) -> None:
    """Images one grey level apart all carry weight: lists of candidates overflow, and the dense passes take over."""
    rng = np.random.default_rng(0)
    images = (rng.integers(50, 200, (1, 1, 8, 8)) + rng.integers(0, 2, (400, 1, 8, 8))).astype(np.uint8)
    sigma = np.array([0.02, 0.05, 3.0])
    z = pspc.ImageSet(images).batch([0, 1, 2]) + sigma[:, None, None, None] * rng.standard_normal((3, 1, 8, 8))
    problem = Problem(images, xflip, z, sigma)
    denoised = pspc.PSPCSquare(problem.data, patch_sizes=side, device="cuda")(z, sigma)
    close(problem, reference.square_windows(8, 8, side), denoised)


def smooth(shape: tuple[int, int, int, int], seed: int = 0) -> pspc.ImageSet:
    """Images with large structures, as photographs have them, and flips."""
    count, channels, height, width = shape
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((count, channels, height // 4 + 1, width // 4 + 1))
    images = np.kron(coarse, np.ones((1, 1, 4, 4)))[..., :height, :width] * 60 + 128
    noisy = images + rng.normal(0, 4, images.shape)
    return pspc.ImageSet(noisy.clip(0, 255).astype(np.uint8), xflip=True)


def noisy(data: pspc.ImageSet, sigma: Array, seed: int = 1) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    clean = data.batch(rng.integers(0, len(data), len(sigma))).astype(np.float64)
    return clean + sigma[:, None, None, None] * rng.standard_normal(clean.shape)


@pytest.mark.parametrize(
    ("shape", "side"),
    [((90, 3, 32, 32), 3), ((90, 3, 32, 32), 23), ((70, 1, 33, 47), 7), ((5, 3, 40, 64), 33), ((6, 1, 256, 256), 3)],
)
def test_large_shapes_are_as_on_the_cpu(shape: tuple[int, int, int, int], side: int) -> None:
    data, sigma = smooth(shape), np.array([1.0, 0.06]) if shape[2] < 256 else np.array([0.3])
    z = noisy(data, sigma)
    gpu = pspc.PSPCSquare(data, patch_sizes=side, device="cuda")(z, sigma)
    np.testing.assert_allclose(gpu, pspc.PSPCSquare(data, patch_sizes=side)(z, sigma), rtol=0, atol=2e-6)


def every_denoiser(data: pspc.ImageSet, device: str) -> list[pspc.denoisers.PosteriorComposite]:
    masks = np.zeros((3, data.height, data.width), bool)
    masks[0, :, :5] = masks[1, 2:, 3:] = masks[2] = True
    return [
        pspc.Empirical(data, device=device),
        pspc.PSPCSquare(data, patch_sizes=3, device=device),
        pspc.PSPCFlex(data, masks=masks, device=device),
    ]


def test_bits_do_not_depend_on_the_batch_and_repeat() -> None:
    data, sigma = smooth((150, 1, 8, 9)), np.array([8.0, 0.8, 0.2, 0.01])
    z = noisy(data, sigma)
    for D in every_denoiser(data, "cuda"):
        together = D(z, sigma)
        np.testing.assert_array_equal(together, D(z, sigma))
        for i, level in enumerate(sigma):
            np.testing.assert_array_equal(together[i : i + 1], D(z[i : i + 1], float(level)))


def test_progress_counts_up_to_the_whole() -> None:
    data, sigma = smooth((150, 1, 8, 9)), np.array([8.0, 0.2, 0.01])
    for D in every_denoiser(data, "cuda"):
        calls: list[tuple[int, int]] = []
        D(noisy(data, sigma), sigma, progress=lambda *call: calls.append(call))  # noqa: B023
        done = [one for one, _ in calls]
        assert done == sorted(done) and calls[-1][0] == calls[-1][1] and len({total for _, total in calls}) == 1


def test_an_error_in_progress_reaches_the_caller() -> None:
    def stop(done: int, total: int) -> None:
        raise RuntimeError("enough")

    data = smooth((150, 1, 8, 9))
    with pytest.raises(RuntimeError, match="enough"):
        pspc.Empirical(data, device="cuda")(np.zeros((1, 1, 8, 9)), 1.0, progress=stop)


def test_numpy_queries_that_are_not_finite_are_refused_and_an_empty_batch_is_empty() -> None:
    data = smooth((150, 1, 8, 9))
    for D in every_denoiser(data, "cuda"):
        assert D(np.zeros((0, 1, 8, 9)), 1.0).shape == (0, 1, 8, 9)
        with pytest.raises(pspc.errors.InvalidValueError):
            D(np.full((1, 1, 8, 9), np.nan), 1.0)


@pytest.mark.skipif(not EMULATED, reason="only an emulated GPU shares the addresses of the CPU")
@pytest.mark.parametrize("wide", [False, True])
def test_queries_by_address_are_as_by_value_and_bad_ones_become_nan(wide: bool) -> None:
    data, sigma = smooth((150, 1, 8, 9)), np.array([8.0, 0.8, 0.2, 0.01])
    z = noisy(data, sigma).astype(np.float64 if wide else np.float32)
    for D in every_denoiser(data, "cuda"):
        expected: Array = D(z, sigma)
        given, out = z.copy(), np.zeros_like(z)
        given[2, 0, 0, 0] = np.inf
        engine, windows = D._engine_on(0), D.windows_at(1.0)
        assert isinstance(windows, _core.Components) and isinstance(engine, _core.Engine)
        engine.composite_at(windows, given.ctypes.data, wide, sigma.tolist(), True, out.ctypes.data, wide, 0)
        good = [0, 1, 3]
        assert np.isnan(out[2]).all()
        np.testing.assert_allclose(out[good], np.asarray(expected[good], np.float64), rtol=0, atol=1e-7)


@pytest.mark.skipif(EMULATED or NO_GPU is not None, reason="torch has no emulated GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_on_the_gpu_are_denoised_there(dtype: torch.dtype) -> None:
    data, sigma = smooth((150, 1, 8, 9)), np.array([8.0, 0.8, 0.2, 0.01])
    z = torch.from_numpy(noisy(data, sigma)).to("cuda", dtype).requires_grad_()
    for D, on_cpu in zip(every_denoiser(data, "cpu"), every_denoiser(data, "cpu"), strict=True):
        for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream), torch.no_grad():
                denoised = D(z, torch.from_numpy(sigma))
            stream.synchronize()
            assert denoised.dtype == dtype and denoised.device == z.device and not denoised.requires_grad
            expected = on_cpu(z.detach().double().cpu(), torch.from_numpy(sigma))
            tolerance = {torch.float16: 1e-3, torch.bfloat16: 1e-2}.get(dtype, 2e-6)
            torch.testing.assert_close(denoised.double().cpu(), expected, rtol=0, atol=tolerance)


def test_a_data_set_that_does_not_fit_is_copied_in_tiles() -> None:
    data, sigma = smooth((700, 1, 12, 11)), np.array([8.0, 0.8, 0.2, 0.01])
    if "FAKE_CUDA_FREE" in os.environ:
        assert not cuda.engine(_core.Bank(data.images), 0).resident
    z = noisy(data, sigma)
    for ours, theirs in zip(every_denoiser(data, "cuda"), every_denoiser(data, "cpu"), strict=True):
        np.testing.assert_allclose(ours(z, sigma), theirs(z, sigma), rtol=0, atol=2e-6)
