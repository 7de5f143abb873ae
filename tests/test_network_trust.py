"""Programs in network files: what they can do, and that they are run for those who trust them."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from command_line import invoke
from pspc_rs import errors
from pspc_rs.networks import load_network, open_network, read_metadata
from pspc_rs.networks.opening import program_in


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.weight * x


def save(net: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(net), path)
    return path


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Files that bring a program, by what they are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_nets.py").write_text("def half(x, sigma):\n    return x / 2\n")
    files = {name: tmp_path / f"{name}.json" for name in ("described", "imported")}
    files["described"].write_text(json.dumps({"source": "script.pt"}))
    # As Windows' editors save it, with a byte-order mark.
    files["imported"].write_text(json.dumps({"source": "own_nets:half"}), encoding="utf-8-sig")
    return {"script": save(Half(), tmp_path / "script.pt"), **files}


@pytest.mark.parametrize("name", ["script", "described", "imported"])
def test_programs_in_files_want_trust(sources: dict[str, Path], name: str) -> None:
    z = np.ones((1, 1, 2, 2), np.float32)
    with pytest.warns(DeprecationWarning, match=r"if you trust it, write open_network\(\.\.\., trust=True\)") as caught:
        warned = open_network(sources[name])
    assert caught[0].filename == __file__
    for D in (warned, open_network(str(sources[name]), trust=True)):
        np.testing.assert_array_equal(D(z, 1.0), 0.5)
    with pytest.warns(DeprecationWarning) as both:
        load_network(sources[name])
    assert len(both) == 2


def test_what_is_no_program(tmp_path: Path) -> None:
    assert program_in(np.multiply) is None and program_in("numpy:multiply") is None
    open_network("numpy:multiply")
    open_network(np.multiply)
    with pytest.raises(errors.DTypeError, match="trust is 'yes'"):
        open_network(np.multiply, trust="yes")  # type: ignore[arg-type]


class Writer(Half):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        torch.save(x, "written.bin")
        return x


def test_torchscript_can_write_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(Writer(), tmp_path / "writer.pt")
    assert program_in(path) == f"{path} is TorchScript, a program that can read and write files"
    open_network(path, trust=True)(np.ones((1, 1, 2, 2)), 1.0)
    assert (tmp_path / "written.bin").is_file()


def test_commands_warn_of_programs(sources: dict[str, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=np.zeros((4, 8, 8), np.uint8))
    options = ["--data", "data.npz", "--denoiser", "network", "--t-idx", "0", "--n-samples", "1", "--outdir", "out"]
    told = invoke("denoise", *options, "--network", "imported.json")
    assert told.exit_code == 0
    assert "names the import path own_nets:half" in told.stderr and "give --trust if you trust it" in told.stderr
    for trusted in (("imported.json", "--trust"), ("own_nets:half",)):
        told = invoke("denoise", *options, "--network", *trusted)
        assert told.exit_code == 0 and "--trust" not in told.stderr


class Broken(Half):
    def __init__(self, name: str, value: float) -> None:
        super().__init__()
        with torch.no_grad():
            getattr(self, name).fill_(value)


@pytest.mark.parametrize(("name", "value"), [("weight", torch.nan), ("weight", torch.inf), ("mask", torch.nan)])
def test_torchscript_without_numbers_is_refused(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(errors.DataError, match=f"{name} holds NaN"):
        open_network(save(Broken(name, value), tmp_path / "net.pt"), trust=True)


def exported(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(Half(), (torch.zeros(2, 1, 8, 8), torch.ones(2))), path)


MADE: dict[str, Any] = {
    "old.pth": lambda path: torch.save(Half().state_dict(), path, _use_new_zipfile_serialization=False),
    "new.ckpt": lambda path: torch.save({"state_dict": Half().state_dict()}, path),
    "net.pt2": exported,
    "arrays.npz": lambda path: np.savez(path, a=np.zeros(2)),
    "array.npy": lambda path: np.save(path, np.zeros(2)),
    "net.py": lambda path: path.write_text("def net(x, sigma): return x"),
    "page.pkl": lambda path: path.write_text("<!DOCTYPE html><html>404</html>"),
    "pointer.pt": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "net.h5": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(20)),
    "net.onnx": lambda path: path.write_bytes(b"\x08\x08\x12\x07pytorch"),
    "net.tar.gz": lambda path: path.write_bytes(b"\x1f\x8b" + bytes(20)),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("old.pth", "file of torch.save in its old format, which holds weights"),
        ("new.ckpt", "file of torch.save, which holds weights"),
        ("net.pt2", "exported program of torch.export, which is not read"),
        ("arrays.npz", r"ZIP archive of 1 files \(a\.npy\), which hold no network"),
        ("array.npy", "is a numpy array"),
        ("net.py", "give module:callable, such as net:net"),
        ("page.pkl", "is a web page, not a network: the download has failed"),
        ("pointer.pt", "is a pointer of Git LFS"),
        ("net.h5", "is an HDF5 file"),
        ("net.onnx", "is an ONNX file"),
        ("net.tar.gz", "is a gzip file; unpack it"),
        ("empty", "is empty and holds no network"),
    ],
)
def test_files_are_told_by_what_they_are(tmp_path: Path, name: str, message: str) -> None:
    MADE[name](tmp_path / name)
    with pytest.raises(errors.DataError, match=message):
        open_network(tmp_path / name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.org/edm.pkl", "is a web address; nothing is downloaded here"),
        ("s3://bucket/net.pt", "is a web address"),
        ("", "empty text"),
        ("  ", "empty text"),
        ("json.py:loads", r"cannot be imported: .*; write json:loads"),
    ],
)
def test_texts_that_name_no_network(source: str, message: str) -> None:
    with pytest.raises(errors.InvalidValueError, match=message):
        open_network(source)


def test_a_module_that_fails_when_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_nets.py").write_text("raise ZeroDivisionError('no\\nluck')")
    with pytest.raises(errors.InvalidValueError, match=r"broken_nets:net cannot be imported: ZeroDivisionError: no$"):
        open_network("broken_nets:net")


def test_a_description_may_not_name_a_web_address(tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text(json.dumps({"source": "https://example.org/net.pt"}))
    with pytest.raises(errors.InvalidValueError, match="is a web address"):
        open_network(tmp_path / "net.json")
    with pytest.raises(errors.MissingFileError):
        read_metadata(tmp_path / "none.safetensors")
