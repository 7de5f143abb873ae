"""The compiled engine; use it through the package's public names."""

from collections.abc import Callable
from typing import final

import numpy as np
import numpy.typing as npt

__all__ = [
    "Bank",
    "CudaBank",
    "Windows",
    "build_info",
    "composite",
    "cuda_devices",
    "cuda_sources",
    "cuda_state",
    "num_threads",
    "set_num_threads",
    "vector_rate",
]

@final
class Bank:
    def __new__(cls, images: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> Bank: ...

@final
class CudaBank:
    def __new__(cls, bank: Bank, device: int, cache: str | None) -> CudaBank: ...
    @property
    def resident(self) -> bool: ...
    def composite(
        self,
        windows: Windows,
        z: npt.NDArray[np.float32] | npt.NDArray[np.float64],
        sigma: list[float],
        flips: bool,
        progress: Callable[[int, int], object] | None = None,
    ) -> npt.NDArray[np.float32]: ...
    def composite_at(
        self,
        windows: Windows,
        z: int,
        z_wide: bool,
        sigma: list[float],
        flips: bool,
        out: int,
        out_wide: bool,
        stream: int,
        progress: Callable[[int, int], object] | None = None,
    ) -> None: ...

@final
class Windows:
    @staticmethod
    def full(height: int, width: int) -> Windows: ...
    @staticmethod
    def square(height: int, width: int, side: int) -> Windows: ...
    @staticmethod
    def masks(masks: npt.NDArray[np.bool_]) -> Windows: ...

def composite(
    bank: Bank,
    windows: Windows,
    z: npt.NDArray[np.float32] | npt.NDArray[np.float64],
    sigma: list[float],
    flips: bool,
    progress: Callable[[int, int], object] | None = None,
) -> npt.NDArray[np.float32]: ...
def cuda_devices() -> list[tuple[int, str, int]]: ...
def cuda_sources(architecture: int) -> list[tuple[str, str, list[str]]]: ...
def cuda_state() -> str: ...
def num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def vector_rate() -> float: ...
def build_info() -> list[tuple[str, str]]: ...
