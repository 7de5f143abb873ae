"""The page of an explanation and the command: what it shows, its files, browsers, options."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pspc_rs as pspc
from command_line import fail, invoke, names, random_data, succeed
from pspc_rs.errors import InvalidValueError, MissingDependencyError, ShapeError
from pspc_rs.experiments import Subject, explain, explain_trajectory, forward_noisy, nearest_images, save_explanations
from pspc_rs.experiments.explained import Explained
from pspc_rs.experiments.mask_paths import bounding_box, outline, veil
from pspc_rs.experiments.noisy_sets import drawn_indices
from pspc_rs.samplers import initial_noise
from test_report import BROWSER, HARNESS, browse

RANDOM = np.random.default_rng(0)
LABELS = np.arange(30) % 3
DATA = pspc.ImageSet(
    RANDOM.integers(0, 256, (30, 3, 8, 8), dtype=np.uint8), labels=LABELS, xflip=True, name="<b>data</b>"
)
SQUARE = pspc.PSPCSquare(DATA, patch_sizes=3)
Z = DATA.batch([3, 40]) + 0.05 * RANDOM.standard_normal((2, 3, 8, 8)).astype(np.float32)
EXAMPLES = ["explain.html", "explain.json", "explain.npz"]


def write(folder: Path) -> str:
    levels = [explain(SQUARE, Z, sigma, at=[(4, 4), (1, 6)]) for sigma in (1.0, 0.05)]
    clean = DATA.batch([3, 40])
    subjects = [Subject("<i>first</i>", clean[0]), Subject("second", clean[1])]
    near = nearest_images(DATA, clean)
    files = save_explanations(folder, DATA, levels, subjects=subjects, nearest=near, options={"seed": 1}, what="a test")
    assert sorted(path.name for path in files) == EXAMPLES == names(folder)
    return (folder / "explain.html").read_text(encoding="utf-8")


def test_the_page_shows_every_image_once_and_is_self_contained(tmp_path: Path) -> None:
    text = write(tmp_path)
    assert "<script" not in text and "url(" not in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:image/png;base64,|#)""", text)
    assert "<b>data" not in text and "&lt;b&gt;data" in text and "<i>first" not in text and "&lt;i&gt;first" in text
    pictures = re.findall(r'<image id="(\w[\w-]*)"', text)
    masks = re.findall(r'<path id="(m[\w-]*)"', text)
    assert len(pictures) == len(set(pictures)) and len(masks) == len(set(masks)) == 4
    used = set(re.findall(r'<use[^>]* href="#([\w-]+)"', text))
    assert used == {*pictures, *masks}
    anchors = re.findall(r'<a href="#([\w-]+)"', text)
    assert anchors == ["overview", "image-0", "image-1", "settings"] and all(f'id="{one}"' in text for one in anchors)
    rows = json.loads((tmp_path / "explain.json").read_text())["explained"]
    assert text.count('class="copy"') == sum(row["is_copy"] for row in rows) >= 4


def test_numbers_and_record_are_those_of_the_explanations(tmp_path: Path) -> None:
    write(tmp_path)
    large, small = (explain(SQUARE, Z, sigma, at=[(4, 4), (1, 6)]) for sigma in (1.0, 0.05))
    with np.load(tmp_path / "explain.npz") as numbers:
        arrays = dict(numbers)
    assert arrays["sigmas"].tolist() == [1.0, 0.05] and arrays["num_components"].tolist() == [36, 36]
    for name in ("effective_images", "variance", "attribution", "denoised", "masks", "top_index", "top_weight"):
        np.testing.assert_array_equal(arrays[name], np.stack([getattr(large, name), getattr(small, name)]))
    np.testing.assert_array_equal(arrays["nearest_ratio"][1], small.nearest.ratio)
    np.testing.assert_array_equal(arrays["clean"], DATA.batch([3, 40]))
    assert arrays["clean_nearest_index"][:, 0].tolist() == [3, 10]
    record = json.loads((tmp_path / "explain.json").read_text())
    assert record["options"] == {"seed": 1} and record["what"] == "a test"
    assert record["data"]["fingerprint"] == DATA.fingerprint
    rows = record["explained"]
    assert [(row["image"], row["kind"], row["sigma"]) for row in rows[:3]] == [
        (0, "clean", 0), (0, "denoised", 1), (0, "denoised", 0.05)
    ]  # fmt: skip
    row = rows[5]
    assert row["what"] == "second" and row["is_copy"] and row["nearest"][0] == 10
    assert row["largest_share"] == small.attribution[1].max()
    assert row["of_training_image"] == small.attribution[1].argmax()
    assert row["median_effective_images"] == np.median(small.effective_images[1])


def test_the_same_explanations_give_the_same_page_but_for_the_record(tmp_path: Path) -> None:
    first, second = (re.sub(r"(?s)<section aria-labelledby=.settings.*", "", write(tmp_path)) for _ in range(2))
    assert first == second


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    found = explain(SQUARE, Z, 0.3)
    with pytest.raises(InvalidValueError, match="no levels"):
        save_explanations(tmp_path, DATA, [])
    with pytest.raises(InvalidValueError, match="1 subjects for 2 images"):
        save_explanations(tmp_path, DATA, [found], subjects=[Subject("one")])
    with pytest.raises(ShapeError, match="needed are those of the first level"):
        save_explanations(tmp_path, DATA, [found, explain(SQUARE, Z, 0.1, top=3)])
    with pytest.raises(ShapeError, match="30 training images"):
        save_explanations(tmp_path, DATA.subset(slice(9)), [found])
    assert names(tmp_path) == []


def test_a_page_without_jinja2_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = explain(SQUARE, Z, 0.3)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"pspc-rs\[report\]"):
        save_explanations(tmp_path / "out", DATA, [found])
    assert not (tmp_path / "out").exists()
    message = fail(1, "explain", "--data", "no such data", "--outdir", tmp_path / "out")
    assert "pspc-rs[report]" in message, "it is found out before data are read"


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_images_of_any_number_of_channels_are_shown(tmp_path: Path, channels: int) -> None:
    data = pspc.ImageSet(RANDOM.integers(0, 256, (1, channels, 4, 6), dtype=np.uint8), channels_last=False)
    masks = np.stack([np.tri(4, 6, dtype=bool), ~np.tri(4, 6, k=-2, dtype=bool)])
    D = pspc.PSPCFlex(data, masks=masks)
    save_explanations(tmp_path, data, [explain(D, np.zeros((1, channels, 4, 6)), 1.0)])
    text = (tmp_path / "explain.html").read_text()
    assert "2 masks" in text and 'class="veil"' in text and "no second image" not in text
    assert Explained([explain(D, np.zeros((1, channels, 4, 6)), 1.0)]).lines()[0].endswith("no second image")


def test_paths_of_masks_are_their_pixels() -> None:
    mask = RANDOM.random((6, 7)) < 0.4
    mask[2, 3] = True
    top, left, height, width = bounding_box(mask)
    assert mask.sum() == mask[top : top + height, left : left + width].sum()
    outside = np.zeros_like(mask)
    for x, y, length in re.findall(r"M(\d+) (\d+)h(\d+)v1", veil(mask)):
        outside[int(y), int(x) : int(x) + int(length)] = True
    box = np.zeros_like(mask)
    box[top : top + height, left : left + width] = True
    assert np.array_equal(outside, box & ~mask)
    edges = sum(int(length) for length in re.findall(r"[hv](\d+)", outline(mask)))
    padded = np.pad(mask, 1).astype(int)
    assert edges == sum(int(np.abs(np.diff(padded, axis=axis)).sum()) for axis in (0, 1))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the page with")
def test_a_browser_shows_the_page_on_a_phones_width_without_complaint(tmp_path: Path) -> None:
    way = explain_trajectory(SQUARE, initial_noise(1, DATA.shape, 4.0), [4.0, 0.5, 0.0], shown=[0, 1])
    save_explanations(tmp_path, DATA, way.levels, way=way)
    (tmp_path / "harness.html").write_text(HARNESS.format(page=(tmp_path / "explain.html").as_uri()))
    profile, harness = f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "harness.html").as_uri()
    done = browse(profile, "--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom", harness)
    assert "CONSOLE" not in done.stderr
    seen: Any = json.loads(re.findall(r"<pre>(.*)</pre>", done.stdout)[0])
    assert seen["scroll"] <= seen["client"] <= 390
    picture = tmp_path / "page.png"
    done = browse(profile, f"--screenshot={picture}", "--window-size=1200,2400", (tmp_path / "explain.html").as_uri())
    assert "CONSOLE" not in done.stderr
    from PIL import Image

    with Image.open(picture) as image:
        colours = image.convert("RGB").getcolors(1 << 24) or []
    assert len(colours) > 300, "training images are shown"


PAGE = Path(__file__).parents[1] / "docs" / "explain.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="tests without the rest of the repository")
def test_the_python_of_the_tutorial_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for snippet in snippets:
        exec(snippet, {})
    assert len(snippets) == 1 and names(tmp_path / "out") == EXAMPLES


def stored(folder: Path) -> dict[str, Any]:
    with np.load(folder / "explain.npz") as numbers:
        return dict(numbers)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", images=DATA.images[:, :1], labels=LABELS)
    return tmp_path / "data.npz"


def test_the_command_explains_images_of_the_data(tmp_path: Path, data: Path) -> None:
    out, images = tmp_path / "out", pspc.load(data, xflip=True)
    run = ["explain", "--data", data, "--denoiser", "pspc_sq", "--patch-sizes", 3, "--outdir", out, "--n", 3]
    printed = succeed(*run, "--sigmas", "0.5,2", "--at", "4,4", "--top", 2, "--seed", 5)
    assert printed.count("effective images") == 6 and names(out) == EXAMPLES
    numbers, D = stored(out), pspc.PSPCSquare(images, patch_sizes=3)
    for level, sigma in enumerate((0.5, 2.0)):
        z = forward_noisy(images, 3, sigma, seed=5)
        expected = explain(D, z, sigma, at=[(4, 4)], top=2)
        for name in ("z", "denoised", "attribution", "top_index", "effective_images"):
            np.testing.assert_array_equal(numbers[name][level], getattr(expected, name))
    assert "clean_nearest_index" not in numbers
    chosen = drawn_indices(images, 3, 5)
    succeed(*run, "--sigmas", "0.5", "--seed", 5, "--leave-one-out")
    numbers = stored(out)
    behind = chosen % images.num_stored
    assert numbers["attribution"].shape == (1, 3, 30)
    assert not numbers["attribution"][0, np.arange(3), behind].any()
    assert not (numbers["clean_nearest_index"] == behind[:, None]).any()
    text = (out / "explain.html").read_text()
    assert f"training image {behind[0]}, class {LABELS[behind[0]]}" in text and "left out" in text
    succeed(*run[:-2], "--sigmas", "0.5", "--indices", "7,37")
    np.testing.assert_array_equal(stored(out)["clean"], images.batch([7, 37]))
    succeed(*run[:-2], "--sigmas", "0.5", "--indices", "-1", "--leave-one-out")
    numbers = stored(out)
    np.testing.assert_array_equal(numbers["clean"], images.batch([59]))
    assert numbers["attribution"][0, 0, 29] == 0, "the last flip is image 29"


def test_the_command_explains_samples_noisy_files_and_trajectories(tmp_path: Path, data: Path) -> None:
    out, images = tmp_path / "out", pspc.load(data, xflip=True)
    denoiser = ["--data", data, "--outdir", out, "--denoiser", "pspc_sq", "--patch-sizes", 3]
    grid = ["--n-steps", 4, "--t-max", 5, "--t-min", 0.1]
    succeed("sample", *denoiser, *grid, "--n", 2, "--sampler", "heun")
    samples = np.load(out / "pspc_sq_samples.npy")
    succeed("explain", *denoiser, "--images", out / "pspc_sq_samples.npy", "--sigmas", "0.2")
    numbers = stored(out)
    np.testing.assert_array_equal(numbers["clean"], samples)
    np.testing.assert_array_equal(numbers["clean_nearest_distance"], nearest_images(images, samples).distance)
    succeed("explain", *denoiser, *grid, "--n", 2, "--trajectory", "--sigmas", "2,0.1")
    numbers = stored(out)
    np.testing.assert_array_equal(numbers["way_samples"], samples)
    assert numbers["sigmas"].tolist() == pspc.edm_sigmas(4, 0.1, 5.0)[[1, 3]].tolist()
    np.testing.assert_allclose(numbers["way_attribution"].sum(axis=1), 4)
    z = numbers["z"]
    np.save(tmp_path / "z.npy", z)
    np.save(tmp_path / "one.npy", z[0])
    np.save(tmp_path / "start.npy", numbers["way_denoised"][0])
    sigmas = ",".join(map(repr, numbers["sigmas"].tolist()))
    succeed("explain", *denoiser, "--n", 2, "--z", tmp_path / "z.npy", "--sigmas", sigmas)
    np.testing.assert_array_equal(stored(out)["attribution"], numbers["attribution"])
    succeed("explain", *denoiser, "--n", 2, "--z", tmp_path / "one.npy", "--sigmas", sigmas.split(",")[0])
    np.testing.assert_array_equal(stored(out)["attribution"], numbers["attribution"][:1])
    succeed("explain", *denoiser, *grid, "--n", 2, "--trajectory", "--z-init", tmp_path / "start.npy", "--class", 1)
    assert not stored(out)["way_attribution"][:, images.labels != 1].any()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--denoiser", "gaussian"], 2, "'gaussian' is not one of 'empirical', 'pspc-sq', 'pspc-flex'"),
        (["--sigmas", "1,0"], 2, "comma list of positive numbers"),
        (["--at", "8,1"], 1, "at holds the pixel (8, 1)"),
        (["--top", "99"], 2, "1<=x<=64"),
        (["--indices", "99"], 1, "99"),
        (["--trajectory", "--leave-one-out"], 2, "--trajectory and --leave-one-out name different images"),
        (["--images", "digits", "--leave-one-out"], 2, "--images and --leave-one-out name different images"),
        (["--sampler", "heun"], 2, "--sampler is for --trajectory"),
        (["--images-split", "test"], 2, "--images-split is for --images"),
        (["--class", "5"], 1, "--class is 5, which no image of data has; its labels are 0, 1, 2"),
    ],
)
def test_bad_options_end_in_one_line(tmp_path: Path, data: Path, options: list[str], code: int, message: str) -> None:
    out = tmp_path / "out"
    assert message in fail(code, "explain", "--data", data, "--outdir", out, *options)
    assert not out.exists() or names(out) == []


def test_other_bad_images_are_named(tmp_path: Path, data: Path) -> None:
    run = ["explain", "--data", data, "--outdir", tmp_path / "out"]
    wide = random_data(tmp_path / "wide.npy", 3, 1, 8, 9)
    assert "--images has images of shape [1, 8, 9]" in fail(1, *run, "--images", wide)
    np.save(tmp_path / "z.npy", np.zeros((3, 2, 1, 8, 8), np.float32))
    assert "needed is [2, N, 1, 8, 8]" in fail(1, *run, "--z", tmp_path / "z.npy", "--sigmas", "1,2")
    few = ["--z", tmp_path / "z.npy", "--sigmas", "1,2,3"]
    assert "holds 2 images" in fail(1, *run, *few, "--n", 3)
    small = random_data(tmp_path / "small.npy", 3, 1, 8, 8)
    assert "--images holds 3 images" in fail(1, *run, "--images", small, "--n", 4)
    assert "both say how many images" in fail(2, *run, "--indices", "1", "--n", 4)
    succeed(*run, *few)
    assert stored(tmp_path / "out")["z"].shape == (3, 2, 1, 8, 8)


def test_class_and_temperature_of_denoise_and_sample(tmp_path: Path, data: Path) -> None:
    images = pspc.load(data, xflip=True)
    grid = ["--n-steps", 3, "--t-max", 3, "--t-min", 0.3, "--n", 3, "--batch", 2]

    def outputs(name: str, *options: object) -> Any:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        succeed(
            name, "--data", data, "--outdir", folder, *grid, *(["--t-idx", 1] if name == "denoise" else []), *options
        )
        (path,) = folder.glob("*.npy")
        return np.load(path), json.loads(path.with_suffix(".json").read_text())["settings"]

    sigma = float(pspc.edm_sigmas(3, 0.3, 3.0)[1])
    z, start = forward_noisy(images, 3, sigma), initial_noise(3, images.shape, 3.0)
    plain, settings = outputs("denoise")
    assert "temperature" not in settings and "class_label" not in settings
    warm, settings = outputs("denoise", "--temperature", 2.5, "--class", 1)
    assert settings["temperature"] == 2.5 and settings["class_label"] == 1
    D = pspc.Empirical(images, temperature=2.5)
    np.testing.assert_array_equal(warm, D(z, sigma, class_labels=[1] * 3))
    assert not np.allclose(warm, plain)
    for denoiser in ("cfdm", "snis"):
        of_class, _ = outputs("denoise", "--denoiser", denoiser, "--class", 2)
        made: Any = pspc.CFDM(images) if denoiser == "cfdm" else pspc.SNIS(images)
        np.testing.assert_allclose(of_class, made(z, sigma, class_labels=[2] * 3), atol=1e-6)
    square = ["--denoiser", "pspc_sq", "--patch-sizes", 3]
    samples, _ = outputs("sample", *square, "--temperature", 1.5, "--class", 0)
    S = pspc.PSPCSquare(images, patch_sizes=3, temperature=1.5)
    given = {"class_labels": np.zeros(3, int)}
    expected = pspc.samplers.sample_euler(S, start, pspc.edm_sigmas(3, 0.3, 3.0), extra_args=given)
    np.testing.assert_allclose(samples, expected, atol=1e-6)


def test_class_of_a_network_and_who_has_neither(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conditional.py").write_text(
        "class Net:\n"
        "    label_dim = 4\n"
        "    def __call__(self, z, sigma, class_labels=None):\n"
        "        return 0 * z + (0 if class_labels is None else class_labels.argmax(1).reshape(-1, 1, 1, 1))\n"
        "net = Net()\n"
        "def plain(z, sigma):\n"
        "    return z\n"
    )
    run = ["denoise", "--data", data, "--outdir", tmp_path / "out", "--t-idx", 1, "--n", 3, "--batch", 2, "--overwrite"]
    succeed(*run, "--denoiser", "network", "--network", "conditional:net", "--class", 3)
    (path,) = (tmp_path / "out").glob("*.npy")
    assert np.load(path).tolist() == np.full((3, 1, 8, 8), 3.0).tolist()
    network = [*run, "--denoiser", "network", "--network"]
    assert "--class is 4; allowed are 0 to 3" in fail(1, *network, "conditional:net", "--class", 4)
    assert "--class is 1; the network has no classes" in fail(1, *network, "conditional:plain", "--class", 1)
    assert "--class is not for --denoiser gaussian" in fail(2, *run, "--denoiser", "gaussian", "--class", 1)
    message = fail(2, *run, "--denoiser", "gaussian", "--temperature", 2)
    assert "--temperature is for --denoiser empirical, pspc_sq, pspc_flex, ls, els, bbels, soft, pca" in message
    np.save(tmp_path / "bare.npy", DATA.images[:, :1])
    bare = ["denoise", "--data", tmp_path / "bare.npy", *run[3:], "--class", 1]
    assert "which no image of bare has; it has no labels" in fail(1, *bare)
    assert invoke("compare", "--temperature", 2).exit_code == 2, "compare has no such option"
