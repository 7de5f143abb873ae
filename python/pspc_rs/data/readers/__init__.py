"""One file for each family of file formats; every reader returns an `ImageSet`."""

from pspc_rs.data.readers.array_files import read_idx, read_npy, read_npz
from pspc_rs.data.readers.cifar import read_cifar10, read_cifar100
from pspc_rs.data.readers.image_files import read_edm_zip, read_folder, save_edm_zip
from pspc_rs.data.readers.imagenet import read_imagenet
from pspc_rs.data.readers.tables import read_table
from pspc_rs.data.readers.webdataset import read_webdataset

__all__ = [
    "read_cifar10",
    "read_cifar100",
    "read_edm_zip",
    "read_folder",
    "read_idx",
    "read_imagenet",
    "read_npy",
    "read_npz",
    "read_table",
    "read_webdataset",
    "save_edm_zip",
]
