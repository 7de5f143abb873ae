"""Parts of training: streams, learning rate, averages, gradients, logs, settings."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pspc_rs.errors import DTypeError, InvalidValueError
from pspc_rs.training import PRESETS, RunOptions, TrainSettings, preset
from pspc_rs.training.augment import AugmentPipe
from pspc_rs.training.batches import Batches, Prefetcher, ShuffledOrder, dropout_seed
from pspc_rs.training.checkpoint import Interruptions
from pspc_rs.training.evaluation import LineLog, LossSums
from pspc_rs.training.optimise import clean_gradients, ema_beta, learning_rate, update_average
from pspc_rs.training.ranks import Rank, find_device
from training_runs import stripes

CPU = torch.device("cpu")


@given(st.integers(1, 30), st.integers(0, 100), st.integers(0, 50), st.integers(0, 2**64 - 1))
def test_the_order_is_one_whatever_is_asked_of_it(num: int, start: int, count: int, seed: int) -> None:
    whole = ShuffledOrder(num, seed).indices(0, start + count)
    assert np.array_equal(ShuffledOrder(num, seed).indices(start, count), whole[start:])
    for epoch in range((start + count) // num):
        assert sorted(whole[epoch * num : (epoch + 1) * num].tolist()) == list(range(num))


def test_every_epoch_has_its_own_order() -> None:
    order = ShuffledOrder(50, 0)
    assert not np.array_equal(order.indices(0, 50), order.indices(50, 50))
    assert not np.array_equal(order.indices(0, 50), ShuffledOrder(50, 1).indices(0, 50))


def test_an_image_of_the_run_is_the_same_in_any_batch() -> None:
    def batches() -> Batches:
        return Batches(stripes(40), 7, normal=True, label_dim=4, augment=AugmentPipe(0.5))

    whole, part = batches().batch(0, 60), batches().batch(33, 10)
    assert torch.equal(part.images, whole.images[33:43])
    assert torch.equal(part.noise, whole.noise[33:43])
    assert torch.equal(part.number, whole.number[33:43])
    assert part.augmentation is not None
    assert whole.augmentation is not None
    assert torch.equal(part.augmentation.labels, whole.augmentation.labels[33:43])
    assert part.class_labels is not None
    assert whole.class_labels is not None
    assert torch.equal(part.class_labels, whole.class_labels[33:43])
    assert part.class_labels.sum(1).tolist() == [1.0] * 10


def test_noise_is_standard_normal_and_differs_between_images_and_epochs() -> None:
    batch = Batches(stripes(8), 0, normal=False).batch(0, 400)
    assert batch.noise.mean() == pytest.approx(0, abs=0.02)
    assert batch.noise.std() == pytest.approx(1, abs=0.02)
    assert len(torch.unique(batch.noise[:, 0, 0, 0])) == 400
    assert batch.number.mean() == pytest.approx(0.5, abs=0.05)
    assert (batch.number.min() >= 0) and (batch.number.max() < 1)
    assert batch.augmentation is None


def test_dropout_seeds_differ() -> None:
    seeds = {dropout_seed(seed, first) for seed in (0, 1, 2**64 - 1) for first in range(0, 1000, 10)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_batches_made_ahead_are_those_asked_for() -> None:
    with Prefetcher(lambda first, count: (first, count)) as prefetcher:
        assert prefetcher.get((0, 2), (2, 2)) == (0, 2)
        assert prefetcher.get((7, 1), (8, 1)) == (7, 1)  # not what was announced
        assert prefetcher.get((8, 1), (9, 1)) == (8, 1)


def test_published_values_of_learning_rate_and_average() -> None:
    peak, ramp, half_life = 1e-3, 10_000_000, 500_000
    assert [learning_rate(peak, n, ramp) for n in (0, 512, 5_120_000, 10_000_000, 10**9)] == pytest.approx(
        [0, 5.12e-8, 5.12e-4, 1e-3, 1e-3]
    )
    assert [ema_beta(n, 512, half_life, 0.05) for n in (0, 512, 5_120_000, 10_000_000)] == pytest.approx(
        [0, 9.5367e-7, 0.998614666, 0.999290469], rel=1e-5
    )
    assert ema_beta(0, 512, half_life, None) == pytest.approx(0.999290469)
    assert learning_rate(peak, 0, 0) == peak


def test_the_average_moves_by_its_share() -> None:
    old, new = nn.Linear(3, 2), nn.Linear(3, 2)
    expected = 0.9 * old.weight.detach() + 0.1 * new.weight.detach()
    update_average(old, new, 0.9)
    assert torch.allclose(old.weight, expected)


def test_gradients_are_made_finite_and_counted() -> None:
    layers = [
        torch.zeros(3, requires_grad=True),
        torch.zeros(2, requires_grad=True),
        torch.zeros(1, requires_grad=True),
    ]
    layers[0].grad = torch.tensor([float("nan"), float("inf"), 2.0])
    layers[1].grad = torch.tensor([-float("inf"), 1e30])
    assert int(clean_gradients(layers)) == 3
    assert layers[0].grad.tolist() == [0.0, 1e5, 2.0]
    assert layers[1].grad.tolist() == [-1e5, pytest.approx(1e30)]


def test_sums_leave_out_what_is_not_finite() -> None:
    sums = LossSums(CPU)
    sigma, mse = torch.tensor([1e-9, 0.5, 0.5, 1e9]), torch.tensor([1.0, 2.0, float("nan"), 4.0])
    sums.add(sums.of(sigma, mse, 3 * mse), replaced=5)
    rows = list(sums.rows())
    assert [(row["images"], row["mse"], row["loss"]) for row in rows] == [(1, 1, 3), (1, 2, 6), (1, 4, 12)]
    assert rows[0]["sigma"] == [0.0, pytest.approx(1e-3)]
    assert rows[1]["sigma"][0] < 0.5 < rows[1]["sigma"][1]
    assert rows[2]["sigma"] == [pytest.approx(1e3), None]
    assert sums.loss() == pytest.approx(7)
    assert sums.nonfinite.tolist() == [1, 5]
    sums.reset()
    assert sums.loss() is None


def test_a_log_forgets_what_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.jsonl"
    first = LineLog(path, 0)
    for images in (1, 2, 3):
        first.write({"images": images})
    assert [line["images"] for line in LineLog(path, 2).read()] == [1, 2]
    assert path.read_text() == '{"images": 1}\n{"images": 2}\n'


def test_signals_wait_for_the_end_of_a_step() -> None:
    interruptions, reached = Interruptions(), []
    with pytest.raises(KeyboardInterrupt), interruptions.handled(), interruptions.deferred():
        signal.raise_signal(signal.SIGINT)
        reached.append("after")
    assert reached == ["after"]
    assert interruptions.received == signal.SIGINT
    with pytest.raises(KeyboardInterrupt), Interruptions().handled():
        signal.raise_signal(signal.SIGTERM)
        reached.append("never")
    assert reached == ["after"]


@given(st.integers(1, 40), st.integers(1, 9))
def test_shares_of_ranks_make_up_the_batch(batch: int, count: int) -> None:
    if batch < count:
        with pytest.raises(InvalidValueError, match=f"batch is {batch}"):
            Rank(0, count, CPU).share(batch)
        return
    shares = [Rank(rank, count, CPU).share(batch) for rank in range(count)]
    assert [image for share in shares for image in share] == list(range(batch))


def test_reprs_say_what_an_object_is(tmp_path: Path) -> None:
    data, sums = stripes(8), LossSums(CPU)
    sums.add(sums.of(torch.tensor([0.5]), torch.tensor([0.1]), torch.tensor([0.25])))
    assert repr(sums) == "LossSums(1 images, loss 0.25)"
    assert repr(Batches(data, 3, normal=True)) == f"Batches({data!r}, seed=3)"
    assert repr(ShuffledOrder(8, 3)) == "ShuffledOrder(8, seed=3)"
    assert repr(LineLog(tmp_path / "log.jsonl", 0)).endswith("log.jsonl')")
    assert repr(Interruptions()) == "Interruptions(received=None)"
    assert repr(AugmentPipe(0.5, xflip=0, yflip=0, aniso=0)) == "AugmentPipe(p=0.5, scale, rotate, translate)"


def test_devices() -> None:
    assert find_device("cpu") == CPU
    with pytest.raises(InvalidValueError, match="device is 'tpu'; allowed are auto, cpu"):
        find_device("tpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"process": "ddim"}, "process is 'ddim'; allowed are edm, vp, ve"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"images": 0}, "images is 0"),
        ({"seed": 2**64}, "seed is"),
        ({"learning_rate": 0.0}, "learning_rate is 0; allowed are numbers above 0"),
        ({"betas": (0.9, 1.0)}, "beta2 is 1; allowed are numbers from 0 and below 1"),
        ({"augment": 1.1}, "augment is 1.1"),
        ({"ema_ramp": -1.0}, "ema_ramp is -1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_settings_that_are_none(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        TrainSettings(**changes)  # type: ignore[arg-type]


def test_settings_of_other_types() -> None:
    with pytest.raises(DTypeError, match=r"batch is 1.5"):
        TrainSettings(batch=1.5)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="process is 3"):
        TrainSettings(process=3)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="log_every is 0"):
        RunOptions(log_every=0)


def test_presets() -> None:
    assert {"dit-b4", "dit-xl2", "ddpmpp", "ncsnpp", "ddpmpp-ffhq", "ncsnpp-afhq", "adm"} <= PRESETS.keys()
    afhq = preset("ddpmpp-afhq")
    assert (afhq.batch, afhq.learning_rate, afhq.augment) == (256, 2e-4, 0.15)
    assert (afhq.architecture_kwargs["dropout"], afhq.architecture_kwargs["channel_mult"]) == (0.25, [1, 2, 2, 2])
    assert preset("adm").conditional
    assert TrainSettings().ramp == 10_000_000
    assert json.dumps({name: dict(one.architecture_kwargs) for name, one in PRESETS.items()})
    with pytest.raises(InvalidValueError, match="preset is 'dit-b3'; allowed are dit-s2"):
        preset("dit-b3")
