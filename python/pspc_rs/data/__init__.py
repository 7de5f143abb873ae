"""Data sets: `ImageSet`, the readers of every file format, and `load`, which finds the right one."""

from pspc_rs.data.convert import save_store
from pspc_rs.data.image_set import ImageSet, to_float
from pspc_rs.data.latents import Scaling, decode_latents
from pspc_rs.data.load import NAMES, load
from pspc_rs.data.readers import (
    read_cifar10,
    read_cifar100,
    read_edm_zip,
    read_folder,
    read_idx,
    read_imagenet,
    read_npy,
    read_npz,
    read_table,
    read_webdataset,
    save_edm_zip,
)
from pspc_rs.files import cache_dir

__all__ = [
    "NAMES",
    "ImageSet",
    "Scaling",
    "cache_dir",
    "decode_latents",
    "load",
    "read_cifar10",
    "read_cifar100",
    "read_edm_zip",
    "read_folder",
    "read_idx",
    "read_imagenet",
    "read_npy",
    "read_npz",
    "read_table",
    "read_torch_dataset",
    "read_webdataset",
    "save_edm_zip",
    "save_store",
    "to_float",
]

read_torch_dataset = ImageSet.from_torch
"""The images of a torch `Dataset`, as `ImageSet.from_torch` reads them."""
