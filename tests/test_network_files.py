"""Our network files: what is written comes back, and what is spoiled, hostile or foreign is refused."""

import json
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from command_line import fail, succeed
from edm_pickles import edm_pickle
from edm_vectors import built, description, network, relative_error, tensor, vectors
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, MissingFileError, OutputError, PspcError
from pspc_rs.networks import (
    convert_edm_pickle,
    describe_network,
    is_safetensors,
    open_network,
    read_metadata,
    read_network,
    save_network,
)

SMALL: dict[str, Any] = {
    "preconditioner": "iDDPMPrecond",
    "preconditioner_kwargs": {"img_resolution": 4, "img_channels": 1, "M": 20},
    "architecture": "SongUNet",
    "architecture_kwargs": {"model_channels": 4, "channel_mult": [1], "num_blocks": 1, "embedding_type": "fourier"},
}


def small() -> nn.Module:
    torch.manual_seed(0)
    return built(SMALL)


def saved(folder: Path, **kwargs: Any) -> Path:
    save_network(small(), folder / "net.safetensors", **kwargs)
    return folder / "net.safetensors"


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def rebuilt(header: dict[str, Any], tensors: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def refused(path: Path, data: bytes, words: str) -> None:
    # A new file each time: Windows cannot rewrite one that a traceback still maps.
    path = Path(tempfile.mkdtemp(dir=path.parent), path.name)
    path.write_bytes(data)
    with pytest.raises(DataError, match=words) as caught:
        read_network(path)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_network_comes_back(tmp_path: Path, dtype: str) -> None:
    net = small()
    path = saved(tmp_path, metadata={"steps": 3, "loss": float("inf"), "data": Path("a")}, dtype=dtype)
    again = read_network(path)
    assert describe_network(again) == describe_network(net)
    parameters = dict(net.named_parameters())
    for name, value in again.state_dict().items():
        wanted = net.state_dict()[name]
        # Frequencies and noise levels are not rounded.
        rounded = wanted.to(getattr(torch, dtype)).float() if name in parameters else wanted
        assert value.dtype == torch.float32
        assert torch.equal(value, rounded), name
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())
    record = read_metadata(path)
    assert record.pop("metadata") == {"steps": 3, "loss": "inf", "data": "a"}
    assert record == describe_network(net)
    assert list(tmp_path.iterdir()) == [path]
    assert is_safetensors(path)


def test_a_trained_network_gives_the_published_numbers_from_a_file(test_data: Path, tmp_path: Path) -> None:
    numbers = vectors(test_data, "adm_iddpm")
    save_network(network(test_data, "adm_iddpm"), tmp_path / "net")
    net = read_network(tmp_path / "net")
    found = net(tensor(numbers["case0/x"]), tensor(numbers["case0/sigma"]), tensor(numbers["case0/class_labels"]))
    assert relative_error(found, numbers["case0/D"]) < 5e-6
    assert describe_network(net)["architecture_kwargs"].items() >= {"model_channels": 32, "channel_mult": [2]}.items()
    assert description(test_data, "adm_iddpm")["architecture"] == "DhariwalUNet"


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    with pytest.raises(DTypeError, match="a Linear is none of"):
        save_network(nn.Linear(2, 2), path)
    with pytest.raises(InvalidValueError, match="dtype is 'int8'; allowed are float32, float16, bfloat16"):
        save_network(small(), path, dtype="int8")
    with pytest.raises(DTypeError, match="cannot be recorded"):
        save_network(small(), path, {"net": object()})
    net = small()
    net.get_parameter("model.map_layer0.weight").data[0, 0] = 1e5
    with pytest.raises(
        InvalidValueError, match=r"model.map_layer0.weight holds numbers that are not finite in float16"
    ):
        save_network(net, path, dtype="float16")
    net.get_parameter("model.map_layer0.weight").data[0, 0] = torch.nan
    with pytest.raises(InvalidValueError, match="not finite in float32"):
        save_network(net, path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        save_network(small(), tmp_path / "file" / "net")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_double_networks_are_stored_as_float32(tmp_path: Path) -> None:
    save_network(small().double(), tmp_path / "net")
    assert torch.equal(read_network(tmp_path / "net").get_buffer("u"), small().get_buffer("u"))


def test_spoiled_files_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    data = path.read_bytes()
    for cut in (0, 4, 8, 9, 100, len(data) // 2, len(data) - 1):
        refused(path, data[:cut], "damaged")
    refused(path, data + b"\0", "damaged")
    refused(path, struct.pack("<Q", 1 << 62) + data[8:], "damaged")
    refused(path, b"PK\x03\x04" + data, "damaged")
    with pytest.raises(MissingFileError):
        read_network(tmp_path / "none")
    with pytest.raises(DataError):
        read_network(tmp_path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    header, tensors = parts(path.read_bytes())
    name = "model.map_layer0.weight"

    def about(**changes: Any) -> bytes:
        record = json.loads(header["__metadata__"]["pspc_rs"]) | changes
        return rebuilt({**header, "__metadata__": {"pspc_rs": json.dumps(record)}}, tensors)

    without = {key: value for key, value in header.items() if key != "__metadata__"}
    refused(path, rebuilt(without, tensors), "does not say which network it holds")
    for text, words in (("{", "no JSON"), ("3", "format 3"), ("[" * 100_000, "no JSON"), ("{}", "format None")):
        refused(path, rebuilt({**header, "__metadata__": {"pspc_rs": text}}, tensors), words)
    refused(path, about(format=2), "has the format 2; this version reads format 1")
    refused(path, about(architecture="os.system"), "architecture is 'os.system'; allowed are SongUNet")
    refused(path, about(metadata=3), "metadata are a int")
    refused(path, about(extra=3), "entry 'extra'")
    wide = {**SMALL["architecture_kwargs"], "model_channels": 1 << 13}
    refused(path, about(architecture_kwargs=wide), "has shape")
    refused(path, about(architecture_kwargs={**wide, "num_blocks": 10**9}), "num_blocks is 1000000000")
    refused(path, about(architecture_kwargs={**SMALL["architecture_kwargs"], "num_blocks": 2}), "lacks the tensor")
    renamed = {("w" if key == name else key): value for key, value in header.items()}
    refused(path, rebuilt(renamed, tensors), f"lacks the tensor {re.escape(name)}")
    refused(path, rebuilt({**header, name: {**header[name], "dtype": "I32"}}, tensors), "is stored as I32; allowed")
    turned = {**header[name], "shape": header[name]["shape"][::-1]}
    refused(path, rebuilt({**header, name: turned}, tensors), f"{re.escape(name)} has shape")
    refused(path, rebuilt(header, b"\xff" * len(tensors)), "holds NaN")


@pytest.mark.parametrize("lowest_bytes", [b"\x80", b"PK"])
def test_a_header_as_long_as_another_kind_of_file_begins_is_no_pickle_or_archive(
    tmp_path: Path, lowest_bytes: bytes
) -> None:
    header, tensors = parts(saved(tmp_path).read_bytes())
    text = json.dumps(header).encode()
    period = 1 << 8 * len(lowest_bytes)
    text += b" " * ((int.from_bytes(lowest_bytes, "little") - len(text)) % period)
    (tmp_path / "net").write_bytes(struct.pack("<Q", len(text)) + text + tensors)
    assert (tmp_path / "net").read_bytes().startswith(lowest_bytes)
    net = open_network(tmp_path / "net").net
    assert isinstance(net, nn.Module)
    assert describe_network(net) == describe_network(small())


def test_a_noise_table_that_is_none_is_refused(tmp_path: Path) -> None:
    net = small()
    net.get_buffer("u")[3] = 0.0
    save_network(net, tmp_path / "net")
    with pytest.raises(DataError, match="u is not a table of falling noise levels"):
        read_network(tmp_path / "net")


with tempfile.TemporaryDirectory() as _folder:
    DATA = saved(Path(_folder)).read_bytes()
HEADER = 8 + struct.unpack("<Q", DATA[:8])[0]


@given(
    st.lists(st.tuples(st.integers(0, HEADER + 9), st.binary(max_size=3), st.integers(0, 5)), min_size=1, max_size=3)
)
def test_spoiled_headers_give_a_network_or_our_error(changes: list[tuple[int, bytes, int]]) -> None:
    data = DATA
    for place, inserted, removed in changes:
        data = data[:place] + inserted + data[place + removed :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net")
        path.write_bytes(data)
        try:
            values: list[Tensor] = list(read_network(path).state_dict().values())
        except PspcError as error:
            assert isinstance(error, DataError), repr(error)
        else:
            assert all(bool(value.isfinite().all()) for value in values)


def test_conversion_leaves_the_source_code_behind(tmp_path: Path) -> None:
    net = small()
    data = edm_pickle(net)
    (tmp_path / "net.pkl").write_bytes(data)
    convert_edm_pickle(tmp_path / "net.pkl", tmp_path / "net.safetensors")
    again = read_network(tmp_path / "net.safetensors")
    assert describe_network(again) == describe_network(net)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in again.state_dict().items())
    source = read_metadata(tmp_path / "net.safetensors")["metadata"]
    assert source["source"]["file"] == "net.pkl"
    assert re.fullmatch("[0-9a-f]{64}", source["source"]["sha256"])
    assert source["dataset_kwargs"] == {"path": "a.zip", "xflip": False}
    assert b"import os" in data
    assert b"import os" not in (tmp_path / "net.safetensors").read_bytes()


def test_commands(tmp_path: Path) -> None:
    pickled, converted = tmp_path / "net.pkl", tmp_path / "net.safetensors"
    pickled.write_bytes(edm_pickle(small()))
    words = succeed("network", "convert", pickled, converted, "--dtype", "float16")
    count = sum(parameter.numel() for parameter in small().parameters())
    assert words == f"{converted}: IDDPMPrecond of SongUNet, {count} parameters\n"
    for path in (pickled, converted):
        facts = json.loads(succeed("network", "info", path, "--json"))
        assert facts["architecture_kwargs"]["embedding_type"] == "fourier"
        assert facts["parameters"] == count
        assert facts["metadata"]["dataset_kwargs"] == {"path": "a.zip", "xflip": False}
    shown = succeed("network", "info", converted)
    assert "architecture            SongUNet\n" in shown
    assert "  model_channels        4\n" in shown


def test_commands_refuse_other_files(tmp_path: Path) -> None:
    (tmp_path / "net.pkl").write_bytes(b"\x80\x04cos\nsystem\n.")
    assert "asks for 'os.system', which was not run" in fail(1, "network", "info", tmp_path / "net.pkl")
    target = tmp_path / "out.safetensors"
    assert "asks for 'os.system'" in fail(1, "network", "convert", tmp_path / "net.pkl", target)
    assert not target.exists()
    (tmp_path / "text").write_text("hello")
    assert "is no pickle" in fail(1, "network", "info", tmp_path / "text")
    assert "does not exist" in fail(2, "network", "info", tmp_path / "none")


@pytest.mark.parametrize(
    ("package", "code", "words"),
    [
        ("torch", "from pspc_rs.networks import read_network", "torch: pip install"),
        ("torch", "from pspc_rs.networks.registry import build_network; build_network(SMALL)", "torch: pip install"),
        (
            "safetensors",
            "from pspc_rs.networks import read_network; read_network('pyproject.toml')",
            "safetensors: pip",
        ),
    ],
)
def test_missing_packages_are_named(package: str, code: str, words: str) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; import pspc_rs; SMALL = {SMALL!r}; {code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert "MissingDependencyError" in done.stderr
    assert words in done.stderr


def test_import_of_the_package_of_networks_imports_no_torch() -> None:
    program = "import sys, pspc_rs.networks, pspc_rs.networks.registry; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "False\n", done.stderr
