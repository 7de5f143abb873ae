"""`pspc-rs train`."""

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pspc_rs as pspc
from command_line import fail, names, start, succeed
from pspc_rs.networks import read_metadata, read_network
from training_runs import log, losses, stripes

SMALL = ["--arch", "dit-b4", "--channels", 16, "--blocks", 1, "--heads", 2, "--patch", 4, "--device", "cpu"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    images = stripes()
    np.savez(path, images=images.images, labels=np.asarray(images.labels))
    return path


def test_a_preset_shrunk_to_a_minute_of_work(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    options = ["--data", data, "--outdir", out, "--steps", 4, "--batch", 8, "--num-samples", 4, "--sample-every", 32]
    options += ["--evaluate-images", 8]
    path = Path(succeed("train", *SMALL, *options, "--cond").strip())
    assert path == out / "network.safetensors"
    expected = ["checkpoints", "evaluation.jsonl", "log.jsonl", "network.safetensors", "samples", "settings.json"]
    assert names(out) == expected
    with Image.open(out / "samples" / f"{32:012d}.png") as picture:
        assert picture.size == (2 * 10 + 2, 2 * 10 + 2)
    described = read_metadata(path)
    assert described["preconditioner_kwargs"]["label_dim"] == 4
    assert described["architecture_kwargs"]["hidden_size"] == 16
    assert described["architecture_kwargs"]["dropout"] == 0.12
    settings = described["metadata"]["settings"]
    assert (settings["learning_rate"], settings["augment"], settings["images"]) == (1e-4, 0.12, 32)
    assert pspc.Network(read_network(path))(np.zeros((1, 1, 8, 8), np.float32), 1.0).shape == (1, 1, 8, 8)
    written = path.stat().st_mtime_ns
    assert succeed("train", *SMALL, *options, "--cond").strip() == str(path)
    assert path.stat().st_mtime_ns == written
    assert "conditional was true, is false" in fail(1, "train", *SMALL, *options)
    assert names(out) == expected


def test_every_kind_of_network(tmp_path: Path, data: Path) -> None:
    run = ["--channels", 16, "--blocks", 1, "--steps", 2, "--batch", 4, "--lr-ramp", 0, "--ema", 9]
    run += ["--num-samples", 0, "--evaluate-images", 0]
    shapes: dict[str, list[object]] = {
        "ncsnpp": ["--channel-mult", "1,2", "--attn-resolutions", "4"],
        "adm": ["--channel-mult", "1,1", "--process", "vp", "--label-dropout", 0.1],
    }
    for arch, shape in shapes.items():
        out = tmp_path / arch
        succeed("train", "--arch", arch, "--data", data, "--outdir", out, "--max-size", 50, *run, *shape)
        assert len(log(out)) == 2
        read_network(out / "network.safetensors")
    assert json.loads((tmp_path / "adm" / "settings.json").read_text())["data"]["num_stored"] == 50


def test_usage_errors(tmp_path: Path, data: Path) -> None:
    common = ["--data", data, "--outdir", tmp_path / "out"]
    assert "--patch is not for --arch ddpmpp" in fail(2, "train", "--arch", "ddpmpp", *common, "--patch", 2)
    assert "give one of them" in fail(2, "train", *SMALL, *common, "--steps", 2, "--images", 5)
    assert "no comma list" in fail(2, "train", "--arch", "adm", *common, "--channel-mult", "1,x")
    assert "device is 'tpu'" in fail(1, "train", *SMALL, *common, "--device", "tpu")
    assert "must be a multiple of 3" in fail(1, "train", *SMALL, *common, "--patch", 3)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_leaves_a_checkpoint_and_code_130(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    length = ["--images", 4_000_000, "--batch", 8, "--num-samples", 0, "--log-every", 8, "--lr-ramp", 64]
    length += ["--evaluate-images", 0]
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)  # one started in the background ignores it
    try:
        process = start("train", *SMALL, "--data", data, "--outdir", out, *length)
    finally:
        signal.signal(signal.SIGINT, earlier)
    with process:
        end = time.monotonic() + 120
        while not (out / "log.jsonl").exists() or len(log(out)) < 3:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stderr.strip().splitlines()[-1].startswith("Interrupted; ")
    assert "Traceback" not in stderr
    assert not (out / "network.safetensors").exists()
    (checkpoint,) = (out / "checkpoints").iterdir()
    done = len(losses(out))
    assert int(checkpoint.name) == 8 * done
    longer = ["--images", 8 * (done + 2), *length[2:]]
    succeed("train", *SMALL, "--data", data, "--outdir", out, *longer)
    succeed("train", *SMALL, "--data", data, "--outdir", tmp_path / "whole", *longer)
    assert losses(out) == losses(tmp_path / "whole")
