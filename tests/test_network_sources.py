"""Networks from files, folders and import paths, and how they are run."""

import json
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pspc_rs as pspc
from command_line import fail, succeed
from pspc_rs import errors
from pspc_rs.denoisers.batches import in_parts
from pspc_rs.networks import (
    Adapter,
    DiscreteVP,
    VarianceExploding,
    build_network,
    load_network,
    open_network,
    save_network,
)

TINY = {
    "preconditioner": "EDMPrecond",
    "preconditioner_kwargs": {"img_resolution": 8, "img_channels": 1},
    "architecture": "SongUNet",
    "architecture_kwargs": {"model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []},
}


class Noise(nn.Module):
    """A network that predicts noise at integer steps."""

    abar: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("abar", torch.linspace(0.99, 0.01, 10))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.weight * x * (1 + t.reshape(-1, 1, 1, 1) / 10)


def images(n: int = 3, side: int = 8) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((n, 1, side, side)).astype(np.float32)


@pytest.fixture
def scripted(tmp_path: Path) -> Path:
    path = tmp_path / "noise.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Noise()), path)
    return path


def test_safetensors(tmp_path: Path) -> None:
    net = build_network(TINY).eval()
    save_network(net, tmp_path / "net.safetensors")
    D = open_network(tmp_path / "net.safetensors", shape=(1, 8, 8))
    z = images()
    found = D(z, 0.5)
    assert isinstance(found, np.ndarray)
    with torch.no_grad():
        np.testing.assert_array_equal(found, net(torch.from_numpy(z), torch.full((3,), 0.5)).numpy())
    with pytest.raises(errors.ShapeError, match=r"\[1, 8, 8\], not \[3, 8, 8\]"):
        open_network(tmp_path / "net.safetensors", shape=(3, 8, 8))


def test_torchscript_and_its_description(scripted: Path) -> None:
    adapter = {"prediction": "eps", "process": {"name": "vp-table", "alphas_cumprod": "abar"}}
    (scripted.parent / "noise.json").write_text(json.dumps({"source": "noise.pt", **adapter}))
    z, sigma = images(), [0.2, 1.0, 5.0]
    expected = Adapter(Noise(), "eps", DiscreteVP(Noise().abar.tolist()))
    described = open_network(scripted.parent / "noise.json", trust=True)
    for D in (open_network(scripted, adapter=adapter, trust=True), described):
        np.testing.assert_allclose(
            D(z, sigma), expected(torch.from_numpy(z), torch.tensor(sigma)).detach().numpy(), rtol=1e-6
        )
        assert (D.sigma_min, D.sigma_max) == pytest.approx((0.1005, 9.95), rel=1e-3)
        with pytest.raises(errors.InvalidValueError, match=r"sigma is 80; this network is good for 0\.1\d* to 9\.9\d*"):
            D(z, 80.0)


def test_commands_take_descriptions(scripted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path / "cache"))
    np.savez(tmp_path / "data.npz", images=np.zeros((4, 8, 8), np.uint8))
    described = tmp_path / "noise.json"
    described.write_text(json.dumps({"source": "noise.pt", "prediction": "x0", "process": "ve", "sigma_min": 0.1}))
    options = ["--data", tmp_path / "data.npz", "--denoiser", "network", "--network", described, "--n-samples", 2]
    succeed("sample", *options, "--n-steps", 3, "--t-min", 0.1, "--outdir", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "network_samples.json").read_text())
    assert record["network"]["prediction"] == "x0" and len(record["network"]["weights_sha256"]) == 64
    assert "good for 0.1 to" in fail(1, "sample", *options, "--outdir", tmp_path / "out2")
    assert "there is no network" in fail(1, "sample", *options[:4], "--network", "gone.pt", "--outdir", tmp_path)
    both = ["--network-pkl", scripted]
    assert "give one of them" in fail(2, "sample", *options, *both, "--outdir", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "holds no network"),
        (b"", "holds no network"),
        (b"\x80\x02cos\nsystem\n", "os"),
        (b"PK\x03\x04 damaged", "net"),
    ],
)
def test_files_that_hold_no_network(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "net").write_bytes(content)
    with pytest.raises(errors.DataError, match=message):
        open_network(tmp_path / "net")


def test_weights_alone_are_no_network(tmp_path: Path) -> None:
    torch.save(Noise().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(errors.DataError, match=r"torch\.jit\.save"):
        open_network(tmp_path / "weights.pt")


def test_damaged_torchscript(scripted: Path) -> None:
    with zipfile.ZipFile(scripted) as archive, zipfile.ZipFile(scripted.with_name("half.pt"), "w") as half:
        for name in archive.namelist():
            if not name.endswith("data.pkl"):
                half.writestr(name, archive.read(name))
    with pytest.raises(errors.DataError, match="TorchScript"):
        open_network(scripted.with_name("half.pt"), trust=True)


def test_descriptions_that_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "b.json").write_text(json.dumps({"source": "torch:sigmoid", "parameterisation": "eps"}))
    (tmp_path / "c.json").write_text(json.dumps({"source": "c.json"}))
    with pytest.raises(errors.DataError, match="'source'"):
        open_network(tmp_path / "a.json")
    with pytest.raises(errors.DataError, match="not descriptions"):
        open_network(tmp_path / "c.json")
    with pytest.raises(errors.InvalidValueError, match="'parameterisation'"):
        open_network(tmp_path / "b.json", trust=True)


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("gone.pt", errors.MissingFileError, "there is no network"),
        ("torch:nothing", errors.InvalidValueError, "cannot be imported"),
        ("nothing_of_that_name:f", errors.InvalidValueError, "cannot be imported"),
        ("torch.nn:Identity", errors.InvalidValueError, "is a class"),
        ("torch:pi", errors.InvalidValueError, "is a float"),
        (3, errors.DTypeError, "int"),
    ],
)
def test_what_names_no_network(source: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        open_network(source)


def write_diffusers(folder: Path, **scheduler: Any) -> Any:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        add_attention=False,
    )
    scheme = diffusers.DDPMScheduler(**scheduler)
    diffusers.DDPMPipeline(unet=unet, scheduler=scheme).save_pretrained(folder, safe_serialization=True)
    return unet.eval(), scheme


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "scheduler",
    [
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.012, "num_train_timesteps": 100},
        {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
        {"trained_betas": np.linspace(0.01, 0.2, 20).tolist(), "num_train_timesteps": 20, "prediction_type": "sample"},
    ],
)
def test_diffusers_pipelines(tmp_path: Path, scheduler: dict[str, Any]) -> None:
    unet, scheme = write_diffusers(tmp_path, **scheduler)
    step = len(scheme.alphas_cumprod) // 2
    abar = scheme.alphas_cumprod[step].double()
    alpha, s = abar.sqrt(), (1 - abar).sqrt()
    z = torch.from_numpy(images())
    with torch.no_grad():
        raw = unet(alpha.float() * z, step).sample
    kind = scheduler.get("prediction_type", "epsilon")
    expected = {"epsilon": z - s / alpha * raw, "v_prediction": alpha**2 * z - s * raw, "sample": raw}[kind]
    for folder in (tmp_path, tmp_path / "unet"):
        D = open_network(folder, shape=(1, 8, 8))
        torch.testing.assert_close(D(z, float(s / alpha)), expected.float(), rtol=0, atol=2e-5)
        ends = [float(((1 - one) / one) ** 0.5) for one in scheme.alphas_cumprod[[0, -1]].double()]
        assert (D.sigma_min, D.sigma_max) == pytest.approx(tuple(ends), rel=1e-2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_diffusers_folders_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(errors.DataError, match="neither model_index"):
        open_network(tmp_path)
    write_diffusers(tmp_path)
    config = tmp_path / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({"_class_name": "ScoreSdeVeScheduler"}))
    with pytest.raises(errors.DataError, match="ScoreSdeVe"):
        open_network(tmp_path)
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    with pytest.raises(errors.DataError, match="AutoencoderKL"):
        open_network(tmp_path)


def test_diffusers_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(errors.MissingDependencyError, match=r"pspc-rs\[diffusers\]"):
        open_network(tmp_path)


class Hungry(nn.Module):
    """Has no memory for more than two images."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        self.seen.append(len(x))
        if len(x) > 2:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return x + (0 if class_labels is None else class_labels[:, None, None, None])


def test_batches_that_do_not_fit_are_halved_and_the_size_is_remembered() -> None:
    net = Hungry()
    D = pspc.Network(net)
    z = images(7)
    np.testing.assert_array_equal(D(z, 1.0, np.arange(7)), z + np.arange(7, dtype=np.float32)[:, None, None, None])
    assert net.seen == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    net.seen.clear()
    D(z, 1.0)
    assert max(net.seen) <= 2


def test_what_never_fits_is_told() -> None:
    def starving(part: slice) -> int:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        in_parts(starving, 4, 4)


def test_types_of_the_caller_are_kept() -> None:
    net = nn.Conv2d(1, 1, 3, padding=1)
    D = pspc.Network(lambda x, sigma: net(x))
    module = pspc.Network(Adapter(lambda x, t: net(x), "x0", VarianceExploding()))
    z = torch.from_numpy(images())
    wide = module(z.double(), 1.0)
    assert wide.dtype == torch.float64 and not wide.requires_grad
    torch.testing.assert_close(wide.float(), D(z, 1.0))
    assert module(z.half(), 1.0).dtype == torch.float16
    assert module(np.asarray(z.double()), 1.0).dtype == np.float64


def test_half_precision_is_on_request() -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(1, 1, 3, padding=1)
    seen: list[torch.dtype] = []

    class Seeing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            y: Tensor = self.inner(x)
            seen.append(y.dtype)
            return y

    z = images()
    exact, rounded = (pspc.Network(Seeing(), dtype=dtype)(z, 1.0) for dtype in ("float32", "bfloat16"))
    assert seen == [torch.float32, torch.bfloat16]
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(rounded, exact, atol=0.05)
    assert not np.array_equal(rounded, exact)


def test_ends_of_a_range_may_be_rounded() -> None:
    D = pspc.Network(Adapter(lambda x_t, t: x_t, "eps", DiscreteVP.linear()))
    assert np.isfinite(D(images(2), [0.01, 157.5])).all()
    for sigma in (0.0099, 158.0):
        with pytest.raises(errors.InvalidValueError, match=r"good for 0\.0100005 to 157\.407"):
            D(images(1), sigma)


def test_devices_and_types_that_are_none() -> None:
    with pytest.raises(errors.InvalidValueError, match="device is 'nowhere'"):
        pspc.Network(nn.Identity(), device="nowhere")
    with pytest.raises(errors.InvalidValueError, match="float64"):
        pspc.Network(nn.Identity(), dtype="float64")
    if not torch.cuda.is_available():
        with pytest.raises(errors.InvalidValueError, match="device is 'cuda'"):
            pspc.Network(nn.Identity(), device="cuda")


def test_load_network_says_what_to_write(tmp_path: Path) -> None:
    save_network(build_network(TINY), tmp_path / "net.safetensors")
    with pytest.warns(DeprecationWarning, match=r"write open_network\(source\)\.net"):
        net = load_network(tmp_path / "net.safetensors")
    z, sigma = torch.from_numpy(images()), torch.tensor([0.5])
    torch.testing.assert_close(net(z, sigma), open_network(tmp_path / "net.safetensors").net(z, sigma))


def test_reprs_say_what_an_object_is(tmp_path: Path) -> None:
    save_network(build_network(TINY), tmp_path / "net.safetensors")
    D = open_network(tmp_path / "net.safetensors")
    assert repr(D) == (
        "Network(pspc_rs.networks.edm.preconditioners.EDMPrecond, images of [1, 8, 8], sigma from 0 to inf)"
    )
    shown = repr(D.net)
    assert shown.startswith("EDMPrecond(\n  shape=[1, 8, 8], label_dim=0, sigma=0 to inf\n  (model): SongUNet(")
    assert "(8x8_block0): UNetBlock(\n        8, 8, num_heads=0" in shown
    assert "(conv0): Conv2d(8, 8, kernel=3)" in shown
    assert "(norm0): GroupNorm(2 groups of 8 channels, eps=1e-06)" in shown
    adapter = Adapter(nn.Identity(), "eps", DiscreteVP.linear(10))
    assert repr(adapter).startswith("Adapter(\n  eps, DiscreteVP(10 steps from sigma 0.01")


def test_numpy_functions_need_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    D = open_network("numpy:multiply")
    np.testing.assert_array_equal(D(np.ones((1, 1, 1, 1)), 2.0), [[[[2.0]]]])


@pytest.fixture(autouse=True)
def _same_seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield
