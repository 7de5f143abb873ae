"""Training: it learns, it can be stopped anywhere, and it does not matter how the work is cut."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pspc_rs as pspc
from command_line import SCRIPT
from pspc_rs.data import ImageSet
from pspc_rs.errors import DataError, InvalidValueError, OutputError
from pspc_rs.networks import describe_network, read_metadata, read_network
from pspc_rs.training import RunOptions, TrainSettings, loss_per_sigma, train
from pspc_rs.training.checkpoint import checkpoints
from training_runs import DDPMPP, DIT, log, losses, settings, stripes

QUICK = RunOptions("cpu", log_every=1, num_samples=0, evaluate_images=0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def stop_at(images: int) -> Any:
    """A progress callback that is a Ctrl-C at that moment."""

    def interrupt(done: int, total: int) -> None:
        if done == images:
            raise KeyboardInterrupt

    return interrupt


@pytest.mark.parametrize(
    ("run", "factor"),
    [
        (settings(images=3200, batch=16, learning_rate=4e-3), 0.75),
        (settings("SongUNet", DDPMPP, images=3200, batch=16, learning_rate=4e-3), 0.7),
    ],
    ids=["dit", "ddpmpp"],
)
def test_the_loss_falls_and_the_network_denoises_and_samples(tmp_path: Path, run: TrainSettings, factor: float) -> None:
    data = stripes()
    tenth, half = run.images // 10, run.images // 2
    options = RunOptions(
        "cpu", None, log_every=tenth, checkpoint_every=half, sample_every=half, num_samples=4, sample_steps=4
    )
    path = train(data, tmp_path, run, options)
    first, *_, last = losses(tmp_path)
    assert last < factor * first
    net = read_network(path)
    assert describe_network(net)["architecture"] == run.architecture
    # The averaged network must beat the best estimate without an image: the mean of the data.
    mse = loss_per_sigma(net, data, [0.1, 0.5], num=64)
    assert mse[0] < 0.1**2
    assert mse[1] < 0.5 * float(data.images.std() / 127.5) ** 2
    D = pspc.Network(net, shape=data.shape)
    x = pspc.sample(D, 8, sampler="heun", num_steps=8, seed=1)
    # Samples are dark below and bright above, as the images are.
    assert x[:, :, 0].mean() > 0.3
    assert x[:, :, -1].mean() < -0.3
    assert [path.name for path in sorted((tmp_path / "samples").iterdir())] == [
        f"{half:012d}.png",
        f"{run.images:012d}.png",
    ]
    evaluation = log(tmp_path, "evaluation.jsonl")[-1]
    assert evaluation["images"] == run.images
    assert evaluation["mse"][2] == pytest.approx(mse[0], rel=0.2)
    told = read_metadata(path)["metadata"]
    assert told["data"]["fingerprint"] == data.fingerprint
    assert told["settings"]["learning_rate"] == run.learning_rate


def test_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    data, run = stripes(), settings(conditional=True)
    train(data, tmp_path / "whole", run, QUICK)
    for moment in (8, 40):
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "parts", run, QUICK, progress=stop_at(moment))
        assert [path.name for path in checkpoints(tmp_path / "parts" / "checkpoints")][-1] == f"{moment:012d}"
    train(data, tmp_path / "parts", run, QUICK)
    assert log(tmp_path / "parts") == log(tmp_path / "whole")
    assert len(log(tmp_path / "whole")) == 12
    same_tensors(tmp_path / "whole", tmp_path / "parts")


def same_tensors(a: Path, b: Path) -> None:
    from safetensors.numpy import load_file

    for name in ("network.safetensors", "checkpoints/000000000096/tensors.safetensors"):
        one, other = load_file(a / name), load_file(b / name)
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one), name


def test_progress_counts_images_and_is_told_the_loss(tmp_path: Path) -> None:
    class Seen:
        def __init__(self) -> None:
            self.counts: list[tuple[int, int]] = []
            self.words: list[str] = []

        def __call__(self, done: int, total: int) -> None:
            self.counts.append((done, total))

        def describe(self, what: str) -> None:
            self.words.append(what)

    seen, losses_seen = Seen(), []
    train(stripes(), tmp_path / "a", settings(images=24), QUICK, progress=seen)
    assert seen.counts == [(0, 24), (8, 24), (16, 24), (24, 24)]
    assert seen.words == [f"DiT, loss {loss:.4f}" for loss in losses(tmp_path / "a")]
    with pytest.warns(DeprecationWarning, match=r"write progress\(images, all_images\)"):
        train(
            stripes(),
            tmp_path / "b",
            settings(images=24),
            QUICK,
            progress=lambda done, total, loss: losses_seen.append(loss),
        )
    assert losses_seen == [None, *losses(tmp_path / "b")]


def test_a_log_between_checkpoints_goes_on_where_it_was(tmp_path: Path) -> None:
    options = RunOptions("cpu", log_every=32, checkpoint_every=24, num_samples=0, evaluate_images=0)
    data, run = stripes(), settings()
    train(data, tmp_path / "whole", run, options)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "parts", run, options, progress=stop_at(56))
    # As after a power cut: what came after the checkpoint is lost.
    kept = checkpoints(tmp_path / "parts" / "checkpoints")
    assert [path.name for path in kept] == [f"{48:012d}", f"{56:012d}"]
    shutil.rmtree(kept[1])
    with (tmp_path / "parts" / "log.jsonl").open("a") as lines:
        lines.write('{"images": 64, "loss": 9}\n{"images": 9')
    train(data, tmp_path / "parts", run, options)
    assert log(tmp_path / "parts") == log(tmp_path / "whole")
    assert [line["images"] for line in log(tmp_path / "parts")] == [32, 64, 96]
    same_tensors(tmp_path / "whole", tmp_path / "parts")


def test_it_does_not_matter_how_a_batch_is_cut(tmp_path: Path) -> None:
    run = settings("SongUNet", {**DDPMPP, "dropout": 0.0}, batch=12, images=120)
    train(stripes(), tmp_path / "whole", run, QUICK)
    train(stripes(), tmp_path / "parts", run, RunOptions("cpu", 5, log_every=1, num_samples=0, evaluate_images=0))
    np.testing.assert_allclose(losses(tmp_path / "parts"), losses(tmp_path / "whole"), rtol=1e-4)


def test_two_processes_are_as_one(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", stripes().images)
    shape = ["--channels", 32, "--blocks", 2, "--heads", 2, "--patch", 2, "--dropout", 0]
    length = ["--images", 80, "--batch", 10, "--lr", 0.002, "--lr-ramp", 16, "--log-every", 1, "--num-samples", 0]
    length += ["--evaluate-images", 0]
    command = ["train", "--arch", "dit-s2", "--data", tmp_path / "data.npy", *shape, *length, "--device", "cpu"]
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    environment["MASTER_PORT"] = str(free_port())
    arguments = [*SCRIPT, *map(str, command), "--outdir", str(tmp_path / "two"), "--micro-batch", "3"]
    running = [
        subprocess.Popen(arguments, env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in (0, 1)
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    recorded = json.loads((tmp_path / "two" / "settings.json").read_text())
    run = TrainSettings(
        recorded["architecture"],
        recorded["architecture_kwargs"],
        images=80,
        batch=10,
        learning_rate=0.002,
        learning_rate_ramp=16,
    )
    train(pspc.load(tmp_path / "data.npy", xflip=True), tmp_path / "one", run, QUICK)
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-4)
    counts = [sum(row["images"] for row in line["per_sigma"]) for line in log(tmp_path / "two")]
    assert counts == [10] * 8


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_bf16_and_torch_compile_give_nearly_the_same_losses(tmp_path: Path) -> None:
    still = {**DIT, "dropout": 0.0}
    plain = settings(kwargs=still, images=64)
    train(stripes(), tmp_path / "plain", plain, QUICK)
    compiled = RunOptions("cpu", compile="eager", log_every=1, num_samples=0, evaluate_images=0)
    train(stripes(), tmp_path / "compiled", plain, compiled)
    train(stripes(), tmp_path / "bf16", settings(kwargs=still, images=64, precision="bf16"), QUICK)
    np.testing.assert_allclose(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), rtol=1e-4)
    np.testing.assert_allclose(losses(tmp_path / "bf16"), losses(tmp_path / "plain"), rtol=0.03)
    assert losses(tmp_path / "bf16") != losses(tmp_path / "plain")


@pytest.mark.parametrize("process", ["vp", "ve"])
def test_other_processes_train_too(tmp_path: Path, process: Any) -> None:
    run = settings("SongUNet", DDPMPP, process=process, images=640, batch=16)
    options = RunOptions(
        "cpu", log_every=160, checkpoint_every=640, sample_every=640, num_samples=2, sample_steps=3, evaluate_images=8
    )
    train(stripes(), tmp_path, run, options)
    first, *_, last = losses(tmp_path)
    assert last < 0.8 * first


def test_images_that_are_not_square(tmp_path: Path) -> None:
    data = ImageSet(stripes(32).images[:, :, :, :6], name="narrow")
    run = settings(images=32)
    path = train(data, tmp_path, run, RunOptions("cpu", num_samples=2, sample_steps=2, evaluate_images=4))
    assert pspc.sample(pspc.Network(read_network(path), shape=data.shape), 2, num_steps=2).shape == (2, 1, 8, 6)


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path: Path) -> None:
    train(stripes(), tmp_path, settings(images=16), QUICK)
    train(stripes(), tmp_path, settings(images=32), QUICK)
    assert [line["images"] for line in log(tmp_path)] == [8, 16, 24, 32]


def test_a_finished_run_is_left_as_it_is_and_rubbish_of_a_killed_one_removed(tmp_path: Path) -> None:
    path = train(stripes(), tmp_path, settings(images=16), QUICK)
    before, rubbish = path.read_bytes(), tmp_path / "checkpoints" / ".000000000024.1.tmp"
    rubbish.mkdir()
    assert train(stripes(), tmp_path, settings(images=16), QUICK) == path
    assert path.read_bytes() == before
    assert not rubbish.exists()


def test_a_run_is_neither_overwritten_nor_resumed_with_other_settings(tmp_path: Path) -> None:
    train(stripes(), tmp_path, settings(images=16), QUICK)
    before = (tmp_path / "network.safetensors").read_bytes()
    with (
        pytest.warns(DeprecationWarning, match="a run in the folder is always continued"),
        pytest.raises(OutputError, match="holds a run already"),
    ):
        train(stripes(), tmp_path, settings(images=16), QUICK, resume=False)
    with pytest.raises(OutputError, match=r"learning_rate was 0.002, is 0.1$"):
        train(stripes(), tmp_path, settings(images=16, learning_rate=0.1), QUICK)
    with pytest.raises(OutputError, match=r"data\.num_stored was 256, is 200"):
        train(stripes(200), tmp_path, settings(images=16), QUICK)
    assert (tmp_path / "network.safetensors").read_bytes() == before


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    train(stripes(), tmp_path, settings(images=16), QUICK)
    latest = checkpoints(tmp_path / "checkpoints")[-1]
    file = latest / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(DataError, match="cannot be read"):
        train(stripes(), tmp_path, settings(images=32), QUICK)
    (latest / "state.json").write_text('{"format": 99}')
    with pytest.raises(DataError, match="no checkpoint of format 1"):
        train(stripes(), tmp_path, settings(images=32), QUICK)


def test_divergence_is_an_error_and_leaves_no_network(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="training diverged"):
        train(stripes(), tmp_path, settings(learning_rate=1e30, learning_rate_ramp=0, images=400), QUICK)
    assert not (tmp_path / "network.safetensors").exists()


def test_labels_are_needed_to_tell_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no labels"):
        train(ImageSet(stripes().images), tmp_path, settings(conditional=True), QUICK)


def test_a_small_network_file(tmp_path: Path) -> None:
    run, options = settings(images=16), RunOptions("cpu", num_samples=0, evaluate_images=0, half_precision=True)
    half = train(stripes(), tmp_path / "half", run, options)
    full = train(stripes(), tmp_path / "full", run, QUICK)
    assert half.stat().st_size < 0.65 * full.stat().st_size
    x = torch.randn(2, 1, 8, 8)
    assert torch.allclose(read_network(half)(x, 1.0), read_network(full)(x, 1.0), atol=1e-3)
