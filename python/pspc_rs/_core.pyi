"""The compiled engine; use it through the package's public names."""

import os
from collections.abc import Callable, Sequence
from typing import Final, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "MAX_PIXEL",
    "MAX_SIGMA",
    "MAX_Z",
    "MIN_SIGMA",
    "Bank",
    "Components",
    "Engine",
    "Filter",
    "PlainZip",
    "Posteriors",
    "RankEvidence",
    "TorchNormals",
    "Weights",
    "build_info",
    "check_sigma",
    "covariance_of_bytes",
    "cuda_devices",
    "cuda_sources",
    "cuda_state",
    "decode_png_files",
    "num_threads",
    "set_num_threads",
    "vector_rate",
]

MIN_SIGMA: Final[float]
MAX_SIGMA: Final[float]
MAX_Z: Final[float]
MAX_PIXEL: Final[float]

@final
class Bank:
    def __new__(
        cls,
        images: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
        log_prior: npt.NDArray[np.float64] | None = None,
        pixel_range: tuple[float, float] | None = None,
    ) -> Bank: ...

@final
class Components:
    @staticmethod
    def full(height: int, width: int) -> Components: ...
    @staticmethod
    def square(height: int, width: int, side: int) -> Components: ...
    @staticmethod
    def masks(masks: npt.NDArray[np.bool_]) -> Components: ...

@final
class Weights:
    @staticmethod
    def boxes(side: int, wraps: bool) -> Weights: ...
    @staticmethod
    def taps(taps: npt.NDArray[np.float64]) -> Weights: ...
    @staticmethod
    def places(per_value: bool) -> Weights: ...
    @staticmethod
    def rows(rows: npt.NDArray[np.float64], per_value: bool) -> Weights: ...

@final
class Filter:
    def __new__(
        cls,
        shape: tuple[int, int, int],
        precision: Weights,
        response: Weights,
        views: npt.NDArray[np.int32],
        seen_by: npt.NDArray[np.uint8] | None = None,
    ) -> Filter: ...

@final
class Engine:
    def __new__(cls, bank: Bank, device: int | None = None, cache: str | None = None) -> Engine: ...
    @property
    def resident(self) -> bool: ...
    def composite(
        self,
        components: Components | Filter,
        z: npt.NDArray[np.float32] | npt.NDArray[np.float64],
        sigma: list[float],
        flips: bool,
        progress: Callable[[int, int], object] | None = None,
        images: npt.NDArray[np.uint32] | None = None,
        left_out: Sequence[npt.NDArray[np.uint32]] | None = None,
    ) -> npt.NDArray[np.float32]: ...
    def evidence(
        self,
        components: Components | Filter,
        z: npt.NDArray[np.float32] | npt.NDArray[np.float64],
        sigma: list[float],
        flips: bool,
        progress: Callable[[int, int], object] | None = None,
        images: npt.NDArray[np.uint32] | None = None,
        left_out: Sequence[npt.NDArray[np.uint32]] | None = None,
    ) -> Posteriors: ...
    def rank_evidence(
        self,
        components: Components | Filter,
        z: npt.NDArray[np.float32] | npt.NDArray[np.float64],
        sigma: list[float],
        flips: bool,
        progress: Callable[[int, int], object] | None = None,
        images: npt.NDArray[np.uint32] | None = None,
        left_out: Sequence[npt.NDArray[np.uint32]] | None = None,
    ) -> RankEvidence: ...
    def jvp(
        self,
        components: Components | Filter,
        z: npt.NDArray[np.float32] | npt.NDArray[np.float64],
        sigma: list[float],
        flips: bool,
        v: npt.NDArray[np.float64],
        transposed: bool,
        progress: Callable[[int, int], object] | None = None,
        images: npt.NDArray[np.uint32] | None = None,
        left_out: Sequence[npt.NDArray[np.uint32]] | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]: ...
    def num_moments(self, components: Components | Filter) -> int: ...
    def variance_of_moments(
        self, components: Components | Filter, moments: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
    def composite_at(
        self,
        components: Components,
        z: int,
        z_is_f64: bool,
        sigma: list[float],
        flips: bool,
        out: int,
        out_is_f64: bool,
        stream: int,
        progress: Callable[[int, int], object] | None = None,
        images: npt.NDArray[np.uint32] | None = None,
        left_out: Sequence[npt.NDArray[np.uint32]] | None = None,
    ) -> None: ...

@final
class Posteriors:
    @property
    def log_evidence(self) -> npt.NDArray[np.float64]: ...
    def statistics(
        self, top: int, progress: Callable[[int, int], object] | None = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.float64]]: ...
    def attribution(self, progress: Callable[[int, int], object] | None = None) -> npt.NDArray[np.float64]: ...
    def variance(
        self, progress: Callable[[int, int], object] | None = None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
    def composite(self, progress: Callable[[int, int], object] | None = None) -> npt.NDArray[np.float32]: ...
    def jvp(
        self,
        v: npt.NDArray[np.float64],
        transposed: bool,
        progress: Callable[[int, int], object] | None = None,
    ) -> npt.NDArray[np.float32]: ...
    def shared(self, log_shares: npt.NDArray[np.float64]) -> Posteriors: ...
    def mean_products(
        self,
        v: npt.NDArray[np.float64],
        transposed: bool,
        progress: Callable[[int, int], object] | None = None,
    ) -> npt.NDArray[np.float64]: ...
    def rank_derivatives(
        self,
        log_shares: npt.NDArray[np.float64],
        v: npt.NDArray[np.float64],
        transposed: bool,
        means: npt.NDArray[np.float64],
        progress: Callable[[int, int], object] | None = None,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
    def rank_moments(
        self,
        log_shares: npt.NDArray[np.float64],
        denoised: npt.NDArray[np.float64],
        progress: Callable[[int, int], object] | None = None,
    ) -> npt.NDArray[np.float64]: ...
    def contribution(
        self, log_shares: npt.NDArray[np.float64], progress: Callable[[int, int], object] | None = None
    ) -> npt.NDArray[np.float64]: ...

@final
class RankEvidence:
    @property
    def log_evidence(self) -> npt.NDArray[np.float64]: ...
    def contribution(
        self, log_shares: npt.NDArray[np.float64], progress: Callable[[int, int], object] | None = None
    ) -> npt.NDArray[np.float64]: ...

@final
class TorchNormals:
    def __new__(cls, seed: int) -> TorchNormals: ...
    def fill(self, numbers: npt.NDArray[np.float32]) -> None: ...

@final
class PlainZip:
    @staticmethod
    def open(path: str | os.PathLike[str]) -> PlainZip | None: ...
    def names(self) -> list[str]: ...
    def directory(self) -> bytes: ...
    def read(self, index: int, limit: int) -> bytes | None: ...
    def decode(self, members: Sequence[int], pixels: npt.NDArray[np.uint8], limit: int) -> list[int]: ...

def decode_png_files(
    paths: Sequence[str | os.PathLike[str]], pixels: npt.NDArray[np.uint8], limit: int
) -> list[int]: ...
def covariance_of_bytes(
    images: npt.NDArray[np.uint8],
    left: npt.NDArray[np.uint32],
    right: npt.NDArray[np.uint32],
    is_difference: bool,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
def check_sigma(sigma: npt.NDArray[np.float64]) -> None: ...
def cuda_devices() -> list[tuple[int, str, int]]: ...
def cuda_sources(architecture: int) -> list[tuple[str, str, list[str]]]: ...
def cuda_state() -> str: ...
def num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def vector_rate() -> float: ...
def build_info() -> list[tuple[str, str]]: ...
