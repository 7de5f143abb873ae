"""One file for each family of file formats; every reader returns an `ImageSet`."""

from pspc_rs.data.readers.cifar import read_cifar10
from pspc_rs.data.readers.edm_zip import read_edm_zip
from pspc_rs.data.readers.folder import read_folder
from pspc_rs.data.readers.idx import read_idx
from pspc_rs.data.readers.npz import read_npy, read_npz
from pspc_rs.data.readers.torch_dataset import read_torch_dataset

__all__ = ["read_cifar10", "read_edm_zip", "read_folder", "read_idx", "read_npy", "read_npz", "read_torch_dataset"]
