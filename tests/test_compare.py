"""MSE curves: numbers, keys, runs that are killed and resumed, the command."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pspc_rs as pspc
from command_line import fail, names, random_data, start, succeed
from pspc_rs import errors
from pspc_rs.experiments import METRICS, cfdm_mse, compare, forward_noisy, metric_figure, mse_figure, reverse_noisy
from pspc_rs.experiments.results import Row

DATA = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (40, 1, 6, 6), dtype=np.uint8), xflip=True)
SIGMAS = [8.0, 1.0, 0.4]


def shrink(z: Any, sigma: Any) -> Any:
    return z / (1 + np.asarray(sigma).reshape(-1, 1, 1, 1) ** 2)


def zero(z: Any, sigma: Any) -> Any:
    return 0 * z


def family() -> dict[str, Any]:
    return {
        "empirical": pspc.Empirical(DATA),
        "pspc_sq": pspc.PSPCSquare(DATA, patch_sizes=3),
        "gaussian": pspc.Gaussian(DATA, cache=False),
    }


def run(outdir: Path, denoisers: Any = None, targets: Any = None, **options: Any) -> list[Row]:
    """`compare` with little work, unless told otherwise."""
    chosen = {"sigmas": SIGMAS, "n": 5, "batch": 3, **options}
    return compare(DATA, targets or {"net": shrink}, denoisers or family(), outdir, **chosen)


def table_bytes(outdir: Path) -> bytes:
    return (outdir / "mse.csv").read_bytes()


def test_rows_are_the_mse_and_its_standard_error(tmp_path: Path) -> None:
    rows = run(tmp_path, seed=3)
    assert len(rows) == 2 * 3 * 3
    start = pspc.samplers.initial_noise(5, DATA.shape, SIGMAS[0], seed=3)
    reverse = reverse_noisy(shrink, start, SIGMAS)
    for row in rows:
        level = int(row["level"])
        assert row["sigma"] == SIGMAS[level] and row["n"] == 5 and row["target"] == "net"
        z = forward_noisy(DATA, 5, SIGMAS[level], seed=3) if row["process"] == "forward" else reverse[level]
        D = family()[str(row["denoiser"])]
        each = np.square(np.asarray(D(z, SIGMAS[level]), float) - shrink(z, SIGMAS[level])).mean(axis=(1, 2, 3))
        assert row["mse"] == pytest.approx(each.mean(), rel=1e-5)
        assert row["standard_error"] == pytest.approx(each.std(ddof=1) / 5**0.5, rel=1e-4)
    assert [row["process"] for row in rows] == ["forward"] * 9 + ["reverse"] * 9


def test_files_of_a_run_and_what_they_tell(tmp_path: Path) -> None:
    rows = run(tmp_path)
    kept = ["image_errors", "mse.csv", "noisy", "paired.csv", "results.sqlite", "settings.json", "times.csv"]
    assert names(tmp_path) == kept
    behind = json.loads((tmp_path / "settings.json").read_text())
    assert set(behind) == {row["settings"] for row in rows}
    one = behind[next(row["settings"] for row in rows if row["denoiser"] == "pspc_sq" and row["process"] == "reverse")]
    assert one["denoiser"]["schedule"]["patch_sizes"] == [3]
    assert one["sampler"] == "heun" and one["n"] == 5 and one["sigmas"] == SIGMAS
    assert one["target"]["denoiser"].endswith("test_compare.shrink")
    assert one["data"]["fingerprint"] == DATA.fingerprint
    assert one["made_with"]["versions"]["numpy"] == np.__version__
    lines = (tmp_path / "times.csv").read_text().splitlines()
    assert lines[0] == "process,target,denoiser,settings,level,seconds" and len(lines) == 19


def test_a_second_run_adds_rows_and_computes_only_them(tmp_path: Path) -> None:
    asked: list[float] = []

    def counting(z: Any, sigma: Any) -> Any:
        asked.append(sigma[0])
        return zero(z, sigma)

    few = {"empirical": pspc.Empirical(DATA)}
    run(tmp_path, few, {"net": counting}, processes=["forward"])
    assert sorted(set(asked)) == sorted(SIGMAS)
    asked.clear()
    run(tmp_path, few, {"net": counting}, processes=["forward"])
    assert asked == []
    both = run(tmp_path, {**few, "cfdm": pspc.CFDM(DATA, 0.2, 2)}, {"net": counting}, processes=["forward"])
    assert [row["denoiser"] for row in both] == ["cfdm"] * 3 + ["empirical"] * 3
    for other in ({"n": 6}, {"seed": 1}, {"sigmas": SIGMAS[1:]}):
        assert len(run(tmp_path, few, {"net": counting}, processes=["forward"], **other)) in (2, 3)
    assert len(table_bytes(tmp_path).splitlines()) == 1 + 6 + 3 + 3 + 2
    assert len(run(tmp_path, {"cfdm": pspc.CFDM(DATA, 0.3, 2)}, {"net": counting}, processes=["forward"])) == 3
    renamed = run(tmp_path, {"optimal": few["empirical"]}, {"net": counting}, processes=["forward"])
    assert [row["denoiser"] for row in renamed] == ["optimal"] * 3


def test_targets_share_forward_images_and_have_their_own_trajectories(tmp_path: Path) -> None:
    calls: list[int] = []

    class Counting(pspc.Empirical):
        def _denoise(self, *arguments: Any) -> Any:
            calls.append(1)
            return super()._denoise(*arguments)

    targets = {"shrink": shrink, "zero": zero}
    rows = run(tmp_path, {"own": Counting(DATA)}, targets, batch=5)
    assert len(calls) == 3 * (1 + 2)
    assert len(rows) == 3 * 2 * 2
    assert len(list((tmp_path / "noisy").glob("*.npy"))) == 2
    alone = run(tmp_path / "alone", {"own": pspc.Empirical(DATA)}, {"zero": zero}, batch=5)
    assert [row["mse"] for row in rows if row["target"] == "zero"] == [row["mse"] for row in alone]


def test_a_network_compared_with_itself_is_0_away(tmp_path: Path) -> None:
    rows = run(tmp_path, {"net": shrink, "other": zero}, {"net": shrink})
    assert all((row["mse"] == 0) == (row["denoiser"] == "net") for row in rows)
    mse_figure(rows)
    with pytest.raises(errors.InvalidValueError, match="'net' names both"):
        run(tmp_path, {"net": zero}, {"net": shrink})


def test_the_closer_denoiser_has_the_smaller_error(tmp_path: Path) -> None:
    target = {"pspc3": pspc.PSPCSquare(DATA, patch_sizes=3)}
    denoisers = {f"side{side}": pspc.PSPCSquare(DATA, patch_sizes=side) for side in (3, 4, 5)}
    rows = run(tmp_path, {**denoisers, "empirical": pspc.Empirical(DATA)}, target, n=8, sigmas=[2.0, 0.5])
    for process in ("forward", "reverse"):
        for level in (0, 1):
            mse = {r["denoiser"]: float(r["mse"]) for r in rows if (r["process"], r["level"]) == (process, level)}
            assert mse["side3"] == 0 < mse["side4"] < mse["side5"] < mse["empirical"]


def test_differences_to_the_best_are_those_of_the_images(tmp_path: Path) -> None:
    target = {"sq": pspc.PSPCSquare(DATA, patch_sizes=3)}
    rows = run(tmp_path, {**family(), "sq": target["sq"]}, target, n=6)
    z = {"forward": [forward_noisy(DATA, 6, sigma) for sigma in SIGMAS]}
    for level, sigma in enumerate(SIGMAS):
        each = {
            name: np.square(np.asarray(D(z["forward"][level], sigma)) - target["sq"](z["forward"][level], sigma))
            for name, D in family().items()
        }
        means = {name: own.mean(axis=(1, 2, 3), dtype=np.float64) for name, own in each.items()}
        best = min((name for name in means if name != "pspc_sq"), key=lambda name: float(means[name].mean()))
        for row in rows:
            if (row["process"], row["level"]) != ("forward", level) or row["denoiser"] not in means:
                continue
            assert row["reference"] == best  # the target itself is not compared with, under whatever name
            difference = means[str(row["denoiser"])] - means[best]
            assert row["difference"] == pytest.approx(difference.mean(), rel=1e-4, abs=1e-9)
            assert row["difference_error"] == pytest.approx(difference.std(ddof=1) / 6**0.5, rel=1e-3, abs=1e-9)
    lines = (tmp_path / "paired.csv").read_text().splitlines()
    assert len(lines) == 1 + len(rows)
    assert run(tmp_path, {**family(), "sq": target["sq"]}, target, n=6) == rows
    assert (tmp_path / "paired.csv").read_text().splitlines() == lines


def test_rows_of_earlier_versions_have_no_differences(tmp_path: Path) -> None:
    rows = run(tmp_path, processes=["forward"])
    assert all("difference" in row for row in rows)
    shutil.rmtree(tmp_path / "image_errors")
    again = run(tmp_path, processes=["forward"])
    assert [row["mse"] for row in again] == [row["mse"] for row in rows]
    assert not any("difference" in row for row in again)


def test_held_out_images_and_files_of_z(tmp_path: Path) -> None:
    held = pspc.ImageSet(np.random.default_rng(9).integers(0, 256, (12, 1, 6, 6), dtype=np.uint8))
    rows = run(tmp_path / "held", noise_data=held, start="data")
    reverse = reverse_noisy(shrink, forward_noisy(held, 5, SIGMAS[0]), SIGMAS)
    for row in rows:
        level = int(row["level"])
        z = forward_noisy(held, 5, SIGMAS[level]) if row["process"] == "forward" else reverse[level]
        expected = np.square(np.asarray(family()[str(row["denoiser"])](z, SIGMAS[level])) - shrink(z, SIGMAS[level]))
        assert row["mse"] == pytest.approx(expected.mean(dtype=np.float64), rel=1e-4)
    np.save(tmp_path / "z.npy", reverse)
    filed = run(tmp_path / "held", z=tmp_path / "z.npy")
    assert {row["process"] for row in filed} == {"file"}
    assert [row["mse"] for row in filed] == [row["mse"] for row in rows if row["process"] == "reverse"]
    same = run(tmp_path / "same", noise_data=DATA, processes=["forward"])
    assert same == run(tmp_path / "same", processes=["forward"])  # the data themselves are no other images
    wrong = pspc.ImageSet(np.zeros((3, 1, 5, 6), np.uint8))
    for options, message in (
        ({"noise_data": held, "leave_one_out": True, "processes": ["forward"]}, "z are made of other images"),
        ({"z": tmp_path / "z.npy", "processes": ["forward"]}, "give one of them"),
        ({"z": tmp_path / "z.npy", "noise_data": held}, "give one of them"),
        ({"z": tmp_path / "z.npy", "n": 6}, "holds 5 images per level"),
    ):
        with pytest.raises(errors.InvalidValueError, match=message):
            run(tmp_path / "none", **options)
    with pytest.raises(errors.ShapeError, match="noise_data has images of shape"):
        run(tmp_path / "none", noise_data=wrong)
    assert not (tmp_path / "none").exists()


def test_levels_outside_the_range_are_left_out(tmp_path: Path) -> None:
    rows = run(tmp_path / "noise", sigma_range=(0.5, 2.0))
    assert {row["level"] for row in rows} == {1}
    z = reverse_noisy(shrink, pspc.samplers.initial_noise(5, DATA.shape, 8.0), SIGMAS)
    (stored,) = (tmp_path / "noise" / "noisy").glob("*.npy")
    assert np.array_equal(np.load(stored), z[:2])
    run(tmp_path / "data", sigma_range=(0.0, 2.0), start="data")
    (stored,) = (tmp_path / "data" / "noisy").glob("*.npy")
    assert np.array_equal(np.load(stored)[0], forward_noisy(DATA, 5, 1.0))
    whole = run(tmp_path / "noise")
    assert len(whole) == 18 and [row for row in whole if row["level"] == 1] == rows


class StoppedError(Exception):
    """What ends a run in these tests."""


@settings(max_examples=8)
@given(st.lists(st.integers(1, 25), min_size=1, max_size=6))
def test_however_often_a_run_is_stopped_the_table_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, undisturbed: bytes, stops: list[int]
) -> None:
    outdir = tmp_path_factory.mktemp("stopped")
    stopped = False
    for stop in stops:
        left = [stop]

        def progress(done: int, total: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise StoppedError

        try:
            run(outdir, progress=progress)
        except StoppedError:
            stopped = True
    assert stopped or max(stops) > 20
    run(outdir)
    assert table_bytes(outdir) == undisturbed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    outdir = tmp_path_factory.mktemp("undisturbed")
    run(outdir)
    return table_bytes(outdir)


def test_progress_ends_at_its_total(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    run(tmp_path, progress=lambda done, total: told.append((done, total)))
    done, total = told[-1]
    assert done == total == 5 * 2 * 3 * 4
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 1}, "n is 1"),
        ({"batch": 0}, "batch is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"processes": ["sideways"]}, "processes are"),
        ({"processes": []}, "processes are"),
        ({"processes": "forward"}, "processes are"),
        ({"sampler": "edm"}, "sampler is 'edm'"),
        ({"start": "nowhere"}, "start is 'nowhere'"),
        ({"sigma_range": (2.0, 5.0)}, "no level of the grid lies in the range 2 to 5"),
        ({"sigmas": [1.0, 2.0]}, "sigmas are"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.InvalidValueError, match=message):
        run(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_bad_models_are_refused(tmp_path: Path) -> None:
    for models in ({"denoisers": {"bad": lambda z, s: z * np.nan}}, {"targets": {"bad": lambda z, s: z * np.inf}}):
        with pytest.raises(errors.InvalidValueError, match="the output of bad at sigma 8 holds"):
            run(tmp_path, processes=["forward"], **models)
    with pytest.raises(errors.ShapeError, match=r"bad returned shape \[3, 1, 6, 5\]"):
        run(tmp_path, {"bad": lambda z, s: z[..., 1:]}, processes=["forward"])
    with pytest.raises(errors.InvalidValueError, match="no denoisers"):
        compare(DATA, {"net": zero}, {}, tmp_path)


def test_a_folder_with_another_table_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mse.csv").write_text("my,own,table\n1,2,3\n")
    with pytest.raises(errors.DataError, match="has the columns my, own, table"):
        run(tmp_path)
    assert names(tmp_path) == ["mse.csv"]


def test_cfdm_errors_are_those_of_cfdm(tmp_path: Path) -> None:
    z = [forward_noisy(DATA, 4, sigma) for sigma in (1.0, 0.3)]
    target = pspc.CFDM(DATA, 0.4, 3, seed=2)
    errors_ = cfdm_mse(DATA, target, z, [1.0, 0.3], smoothings=[0.0, 0.4], num_noises=[1, 3], seed=2, batch=3)
    assert errors_.best == (0.4, 3)
    assert (errors_.mse[1, 1] < 1e-12).all()
    same = {"sigmas": [1.0, 0.3], "n": 4, "processes": ["forward"]}
    rows = run(tmp_path, {"cfdm": pspc.CFDM(DATA, 0.4, 1, 2)}, {"target": target}, **same)
    np.testing.assert_allclose(errors_.mse[1, 0], [float(row["mse"]) for row in rows], rtol=1e-5)
    np.testing.assert_allclose(errors_.standard_error[1, 0], [float(row["standard_error"]) for row in rows], rtol=1e-4)
    with pytest.raises(errors.InvalidValueError, match="1 sets of z, 2 levels"):
        cfdm_mse(DATA, target, z[:1], [1.0, 0.3], smoothings=[0.1])


NETWORK = """
def half(z, sigma):
    return z / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

def zero(z, sigma):
    return 0 * z
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A comparison with two networks in the current folder."""
    (tmp_path / "compare_networks.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    data = random_data(tmp_path / "data.npy", 30, 1, 8, 8)
    return ["compare", "--data", data, "--n-steps", 4, "--n", 4, "--batch", 3]


def test_the_command_writes_table_figure_and_record(tmp_path: Path, command: list[object]) -> None:
    out = tmp_path / "out"
    sides = ["--patch-sizes", "8,5,3,3", "--smoothing", 0.2, "--num-noises", 2, "--num-draws", 8]
    targets = ["--target", "compare_networks:half,compare_networks:zero"]
    printed = succeed(
        *command, *targets, "--denoisers", "empirical,cfdm,snis", "--denoisers", "sq=pspc-sq", *sides, "--outdir", out
    )
    figures, tables = ["mse.pdf", "mse.png"], ["mse.csv", "paired.csv", "results.sqlite", "settings.json"]
    assert names(out) == sorted(["compare.json", "image_errors", "noisy", "times.csv", *figures, *tables])
    lines = (out / "mse.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 2 * 4 * 4
    assert printed.splitlines()[-3:] == [str(out / name) for name in ("mse.csv", "mse.png", "mse.pdf")]
    assert "reverse, against zero" in printed and "sq" in printed
    data = pspc.load(tmp_path / "data.npy", xflip=True)
    expected = compare(
        data,
        {"half": __import__("compare_networks").half},
        {"sq": pspc.PSPCSquare(data, patch_sizes=[8, 5, 3, 3])},
        tmp_path / "api",
        sigmas=pspc.edm_sigmas(4),
        n=4,
        batch=3,
    )
    rows = [line.split(",") for line in lines[1:] if ",half,sq," in line]
    assert [(row[0], row[4]) for row in rows] == [(row["process"], str(row["level"])) for row in expected]
    assert [float(row[7]) for row in rows] == pytest.approx([float(row["mse"]) for row in expected], rel=1e-5)
    record = json.loads((out / "compare.json").read_text())
    assert record["options"]["denoisers"] == ["empirical", "cfdm", "snis", "sq=pspc-sq"]
    assert record["data"]["fingerprint"] == data.fingerprint


def test_the_command_keeps_to_a_range_and_a_process(tmp_path: Path, command: list[object]) -> None:
    options = ["--target", "n=compare_networks:half", "--process", "forward", "--sigma-to", 15, "--sigma-from", 0.01]
    succeed(*command, *options, "--denoisers", "gaussian", "--outdir", tmp_path / "out")
    rows = [line.split(",") for line in (tmp_path / "out" / "mse.csv").read_text().splitlines()[1:]]
    assert [(row[0], row[1], row[4]) for row in rows] == [("forward", "n", "1"), ("forward", "n", "2")]
    assert not (tmp_path / "out" / "noisy").exists()


def test_the_command_takes_held_out_images_and_a_file(tmp_path: Path, command: list[object]) -> None:
    held = random_data(tmp_path / "held.npy", 9, 1, 8, 8)
    options = [*command, "--target", "compare_networks:half", "--denoisers", "gaussian,empirical"]
    out = tmp_path / "out"
    printed = succeed(*options, "--process", "forward", "--noise-data", held, "--outdir", out)
    assert "MSE less that of the best denoiser" in printed and "best" in printed
    grid = ["--n-steps", 4, "--n", 4]
    succeed("noise", "forward", "--data", tmp_path / "data.npy", "--noise-data", held, *grid, "--outdir", tmp_path)
    succeed(*options, "--z", tmp_path / "forward_z.npy", "--outdir", out)
    rows = [line.split(",") for line in (out / "mse.csv").read_text().splitlines()[1:]]
    forward, filed = ([(row[2], row[4], row[7]) for row in rows if row[0] == one] for one in ("forward", "file"))
    assert forward == filed and len(filed) == 8
    both = [*options, "--z", tmp_path / "forward_z.npy", "--noise-data", held, "--outdir", tmp_path / "none"]
    assert "give one of them" in fail(2, *both)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--target", "compare_networks:half", "--denoisers", "pspc"],
            "'pspc' is not a denoiser; allowed are empirical",
        ),
        (["--target", "net.safetensors"], "there is no file or folder net.safetensors; allowed are empirical"),
        (["--target", "compare_networks:none"], "cannot be imported"),
        (["--target", "compare_networks:half", "--denoisers", "empirical,empirical"], "is empty or taken"),
        (["--target", "compare_networks:half", "--denoisers", "pspc_flex"], "needs --heatmaps"),
        (["--target", "compare_networks:half", "--process", "sideways"], "allowed are forward, reverse"),
        (["--target", "compare_networks:half", "--denoisers", "pspc_sq"], "give --patch-sizes"),
        ([], "Missing option"),
    ],
)
def test_bad_options_end_in_one_line(tmp_path: Path, command: list[object], options: list[str], message: str) -> None:
    code = 1 if "patch-sizes" in message or "imported" in message else 2
    assert message in fail(code, *command, "--outdir", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_command_goes_on_to_the_same_table(tmp_path: Path, command: list[object]) -> None:
    chosen = ["--denoisers", "empirical,pspc_sq,cfdm", "--patch-sizes", 3, "--target", "compare_networks:half"]
    slow = [*command, *chosen, "--n", 30]
    slow[2] = random_data(tmp_path / "large.npy", 1500, 3, 12, 12)
    with start(*slow, "--outdir", tmp_path / "killed") as process:
        wait_for_rows(tmp_path / "killed" / "mse.csv", process, random.Random(time.time()).randint(1, 20))
        process.kill()
    assert process.returncode == -signal.SIGKILL
    printed = succeed(*slow, "--outdir", tmp_path / "killed")
    succeed(*slow, "--outdir", tmp_path / "undisturbed")
    assert "reverse" in printed
    assert table_bytes(tmp_path / "killed") == table_bytes(tmp_path / "undisturbed")
    assert names(tmp_path / "killed") == names(tmp_path / "undisturbed")


def test_two_commands_at_once_in_one_folder_lose_nothing(tmp_path: Path, command: list[object]) -> None:
    shared = [*command, "--target", "compare_networks:half,compare_networks:zero", "--process", "forward"]
    shared += ["--n-steps", 8, "--num-noises", 2, "--num-draws", 8, "--patch-sizes", 3]
    denoisers = ["empirical,cfdm", "empirical,snis,pspc_sq"]
    processes = [start(*shared, "--denoisers", one, "--outdir", tmp_path / "both") for one in denoisers]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    for one in denoisers:
        succeed(*shared, "--denoisers", one, "--outdir", tmp_path / "in_turn")
    assert table_bytes(tmp_path / "both") == table_bytes(tmp_path / "in_turn")
    both, in_turn = ((tmp_path / name / "settings.json").read_bytes() for name in ("both", "in_turn"))
    assert both == in_turn
    assert len((tmp_path / "both" / "times.csv").read_text().splitlines()) == 1 + 2 * 4 * 8


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_in_one_line_that_says_how_to_go_on(tmp_path: Path, command: list[object]) -> None:
    slow = [*command, "--denoisers", "empirical", "--target", "compare_networks:half", "--n", 4000]
    slow[2] = random_data(tmp_path / "large.npy", 2000, 3, 12, 12)
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = start(*slow, "--outdir", tmp_path / "out")
    finally:
        signal.signal(signal.SIGINT, earlier)
    with process:
        wait_for_rows(tmp_path / "out" / "mse.csv", process, 1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=10)
    assert process.returncode == 130
    assert stderr.strip().splitlines()[-1] == "Interrupted; what is done is kept, run the same command to continue"


def wait_for_rows(table: Path, process: "subprocess.Popen[str]", count: int) -> None:
    end = time.monotonic() + 60
    while not table.exists() or len(table.read_bytes().splitlines()) <= count:
        assert process.poll() is None, "the run ended before it could be disturbed"
        assert time.monotonic() < end
        time.sleep(0.005)


def test_further_metrics_are_those_of_the_outputs(tmp_path: Path) -> None:
    wanted = ["mse01", "r2", "pearson_r"]
    rows = run(tmp_path, metrics=wanted, processes=["forward"])
    assert len(rows) == 9
    for row in rows:
        z = forward_noisy(DATA, 5, float(row["sigma"]))
        ours, theirs = (
            np.asarray(D(z, float(row["sigma"])), np.float32) for D in (family()[str(row["denoiser"])], shrink)
        )
        for name in wanted:
            value, error = METRICS[name].compute(ours, theirs)
            assert row[name] == pytest.approx(value, rel=1e-5)
            assert row[f"{name}_error"] == pytest.approx(error, rel=1e-4)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "process,target,denoiser,settings,level,metric,sigma,n,value,standard_error"
    assert len(lines) == 1 + 9 * 3
    assert metric_figure(rows, "r2").axes[0].get_ylabel() == "r2 (unbiased variance), mean over images"


def test_metrics_add_rows_to_a_table_without_them(tmp_path: Path) -> None:
    calls: list[float] = []

    def counted(z: Any, sigma: Any) -> Any:
        calls.append(float(np.max(sigma)))
        return 0.5 * z

    denoisers = {"counted": counted}
    first = run(tmp_path, denoisers, processes=["forward"])
    table, number = table_bytes(tmp_path), len(calls)
    assert not (tmp_path / "metrics.csv").exists() and "r2" not in first[0]
    with pytest.raises(errors.InvalidValueError, match=r"some rows have no r2; call compare with metrics=\['r2'\]"):
        metric_figure(first, "r2")
    again = run(tmp_path, denoisers, processes=["forward"], metrics=["r2", "mse"])
    assert len(calls) == 2 * number and table_bytes(tmp_path) == table
    assert run(tmp_path, denoisers, processes=["forward"], metrics=["r2"]) == again
    assert run(tmp_path, denoisers, processes=["forward"]) == first
    assert len(calls) == 2 * number
    # Another metric is computed from the same outputs, which are not kept.
    run(tmp_path, denoisers, processes=["forward"], metrics=["pixel_r2"])
    assert len(calls) == 3 * number


def test_unknown_metrics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidValueError, match="a metric is 'R2'; allowed are mse, mse01, sse01, r2"):
        run(tmp_path, metrics=["R2"])
    with pytest.raises(errors.DTypeError, match="metrics are 'r2'; allowed are lists of mse"):
        run(tmp_path, metrics="r2")


def test_the_command_names_its_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net_of_metrics.py").write_text("def half(z, sigma):\n    return z / 2\n")
    data = random_data(tmp_path / "data.npy", 20, 1, 4, 4)
    options = ["--data", data, "--outdir", "run", "--target", "net_of_metrics:half", "--denoisers", "empirical"]
    options += ["--process", "forward", "--n", 3, "--n-steps", 3]
    text = succeed("compare", *options, "--metrics", "r2,sse01")
    for title in (
        "MSE per value, [-1, 1] pixels",
        "r2 (unbiased variance), mean over images",
        "squared error per image, [0, 1] pixels",
    ):
        assert title in text
    assert {"mse.png", "r2.png", "sse01.png", "metrics.csv"} <= set(names(tmp_path / "run"))
    assert json.loads(Path("run/compare.json").read_text())["options"]["metrics"] == ["mse", "r2", "sse01"]
    assert "allowed are mse, mse01" in fail(2, "compare", *options, "--metrics", "ssim")
