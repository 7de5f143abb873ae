"""U-ViT: its arithmetic, its tensors' names, its weights alone as a denoiser, and a short training run."""

import ast
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from command_line import fail, succeed
from pspc_rs.errors import DataError, InvalidValueError, MissingFileError, ShapeError
from pspc_rs.networks import build_network, describe_network, open_network, read_weights
from pspc_rs.networks.uvit import UViT
from pspc_rs.training import RunOptions, preset, train
from training_runs import log, settings, stripes

SMALL: dict[str, Any] = {"patch_size": 2, "hidden_size": 16, "depth": 4, "num_heads": 2}
QUICK = RunOptions("cpu", log_every=1, num_samples=0, evaluate_images=0)
SHARED = {"img_resolution": 8, "in_channels": 3, "out_channels": 3}
ADAPTED = {"prediction": "eps", "process": "vp-sde", "time_scale": 999}


def small(**changes: Any) -> UViT:
    torch.manual_seed(0)
    return UViT(**{**SHARED, **SMALL, **changes}).eval()


def test_the_cifar10_network_has_44_million_parameters() -> None:
    with torch.device("meta"):
        net = UViT(32, 3, 3)
    state = net.state_dict()
    assert sum(parameter.numel() for parameter in net.parameters()) == 44_255_328
    assert len(state) == 164
    assert list(state["pos_embed"].shape) == [1, 257, 512]
    assert list(state["out_blocks.5.skip_linear.weight"].shape) == [512, 1024]
    settings = preset("uvit-s2")
    assert (settings.learning_rate, settings.weight_decay, settings.betas) == (2e-4, 0.03, (0.99, 0.999))
    assert (settings.num_steps, settings.ramp) == (500_000, 2500 * 128)
    with torch.device("meta"):
        trained: Any = build_network(settings.description(stripes(4, 3, 32), augment_dim=0))
    assert {name: value.shape for name, value in trained.model.state_dict().items()} == {
        name: value.shape for name, value in state.items()
    }


def test_a_case_computed_by_hand() -> None:
    """Two pixels of width 2: attention averages the normalised tokens, and the last block adds its twin's output."""
    net = UViT((1, 2), 1, 1, patch_size=1, hidden_size=2, depth=2, num_heads=1, conv=False)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.fill_(1.0 if "norm" in name and "weight" in name else 0.0)
        net.patch_embed.proj.weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
        attention: Any = net.mid_block.attn
        attention.qkv.weight[4:] = torch.eye(2)  # values; queries and keys are 0, so the attention is uniform
        attention.proj.weight.copy_(torch.eye(2))
        last: Any = net.out_blocks[0]
        last.skip_linear.weight.copy_(torch.cat([torch.eye(2), torch.eye(2)], 1))
        last_layer: Any = net.decoder_pred
        last_layer.weight.copy_(torch.tensor([[1.0, 3.0]]))
        last_layer.bias.copy_(torch.tensor([0.5]))
    seen: list[Tensor] = []
    net.norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        out = net(torch.tensor([3.0, 5.0]).view(1, 1, 1, 2), torch.zeros(1))
    # Tokens [cos 0, sin 0], [3, 6], [5, 10]; normalised [1, -1], [-1, 1], [-1, 1]; their mean is [-1, 1] / 3.
    wanted = [[2 - 1 / 3, 1 / 3], [6 - 1 / 3, 12 + 1 / 3], [10 - 1 / 3, 20 + 1 / 3]]
    np.testing.assert_allclose(seen[0][0].numpy(), wanted, rtol=1e-4)
    np.testing.assert_allclose(out.numpy().ravel(), [2.5, 2.5], rtol=1e-4)  # 1 (-1) + 3 (1) + .5


@pytest.mark.parametrize("name", ["uncond", "cond_mlptime_bias", "no_conv"])
def test_outputs_are_those_of_the_published_program(name: str, test_data: Path) -> None:
    with np.load(test_data / "uvit-vectors.npz") as file:
        one = {key.removeprefix(f"{name}/"): file[key] for key in file.files if key.startswith(f"{name}/")}
    config = ast.literal_eval(str(one["config"]))
    classes = max(config.pop("num_classes"), 0)
    side, channels = config.pop("img_size"), config.pop("in_chans")
    net = UViT(side, channels, channels, classes, hidden_size=config.pop("embed_dim"), **config)
    state = {key.removeprefix("state/"): torch.tensor(value) for key, value in one.items() if key.startswith("state/")}
    net.load_state_dict(state, strict=True)
    for wide, tolerance in ((net.double().eval(), 1e-6), (net.float(), 1e-4)):
        dtype = wide.pos_embed.dtype
        labels = torch.eye(classes, dtype=dtype)[torch.tensor(one["y"])] if classes else None
        with torch.no_grad():
            out = wide(torch.tensor(one["x"]).to(dtype), torch.tensor(one["t"]).to(dtype), labels).double().numpy()
        np.testing.assert_allclose(out, one["out"], rtol=0, atol=tolerance * np.abs(one["out"]).max())


def test_the_published_checkpoints_names(test_data: Path) -> None:
    with np.load(test_data / "uvit-vectors.npz") as file:
        published = dict(str(line).split("\t") for line in file["cifar10_small/names"])
    with torch.device("meta"):
        state = UViT(32, 3, 3).state_dict()
    assert {name: ",".join(map(str, value.shape)) for name, value in state.items()} == published


@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 2, 3]), st.integers(1, 3), st.integers(0, 3))
def test_shapes(rows: int, columns: int, patch: int, channels: int, classes: int) -> None:
    sides = (rows * patch, columns * patch)
    net = UViT(sides, channels, channels + 1, classes, patch_size=patch, hidden_size=6, depth=2, num_heads=3)
    labels = torch.eye(classes)[:1] if classes else None
    assert net(torch.randn(2, channels, *sides), torch.zeros(2), labels).shape == (2, channels + 1, *sides)
    assert net(torch.randn(2, channels, *sides), torch.zeros(1)).shape == (2, channels + 1, *sides)


def test_every_pixel_and_every_condition_counts() -> None:
    net = small(label_dim=3, augment_dim=9, mlp_time_embed=True, qkv_bias=True)
    inputs = [torch.randn(1, 3, 8, 8), torch.ones(1), torch.ones(1, 3), torch.ones(1, 9)]
    for one in inputs:
        one.requires_grad_()
    gradients = torch.autograd.grad(net(*inputs)[0, 0, 0, 0], inputs)
    assert all(bool((gradient != 0).all()) for gradient in gradients)


def test_dropout_only_in_training() -> None:
    net = small(dropout=0.5, label_dim=2, label_dropout=0.5)
    x, t = torch.randn(2, 3, 8, 8), torch.zeros(2)
    assert torch.equal(net(x, t), net(x, t))
    net.train()
    assert not torch.equal(net(x, t), net(x, t))


def test_bad_arguments() -> None:
    with pytest.raises(InvalidValueError, match="depth is 3; it must be a multiple of 2"):
        small(depth=3)
    with pytest.raises(InvalidValueError, match="hidden_size is 16; it must be a multiple of 3"):
        small(num_heads=3)
    with pytest.raises(InvalidValueError, match="img_resolution is 8; it must be a multiple of 3"):
        small(patch_size=3)
    with pytest.raises(InvalidValueError, match="allowed are a side, or height and width"):
        small(img_resolution=[8, 8, 8])
    with pytest.raises(ShapeError, match=r"allowed is \[batch, 3, 8, 8\]"):
        small()(torch.zeros(1, 3, 8, 6), torch.zeros(1))


def described(folder: Path, source: str, **changes: Any) -> Path:
    entries = {"source": source, "architecture": "UViT", "architecture_kwargs": {**SHARED, **SMALL}, **ADAPTED}
    path = folder / "uvit.json"
    path.write_text(json.dumps({**entries, **changes}))
    return path


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_weights_alone_become_a_denoiser(tmp_path: Path, kind: str) -> None:
    net = small()
    if kind == "safetensors":
        save_file(net.state_dict(), tmp_path / "net.pth")
    else:
        torch.save(net.state_dict(), tmp_path / "net.pth", _use_new_zipfile_serialization=kind == "zip")
    D = open_network(described(tmp_path, "net.pth"))
    z, sigma = torch.randn(2, 3, 8, 8), torch.tensor([0.5, 3.0])
    # Equation 13 of the PSPC paper: x = z - sigma eps(z / sqrt(1 + sigma^2), 999 t).
    t = ((0.1**2 + 2 * 19.9 * torch.log(1 + sigma.double() ** 2)).sqrt() - 0.1) / 19.9
    scale = (1 + sigma**2).rsqrt().view(-1, 1, 1, 1)
    with torch.no_grad():
        wanted = z - sigma.view(-1, 1, 1, 1) * net(scale * z, (999 * t).float())
    torch.testing.assert_close(torch.as_tensor(D(z, sigma)), wanted, rtol=1e-5, atol=1e-5)
    assert D.sigma_max == pytest.approx(math.sqrt(math.exp(10.05) - 1), rel=1e-6)


def test_tensors_that_do_not_belong_are_named(tmp_path: Path) -> None:
    def saved(content: Any) -> Path:
        torch.save(content, tmp_path / "net.pth")
        return tmp_path / "net.pth"

    state, kwargs = dict(small().state_dict()), {**SHARED, **SMALL}
    with pytest.raises(DataError, match=r"lacks the tensor mid_block\.attn\.proj\.bias"):
        read_weights(saved({k: v for k, v in state.items() if k != "mid_block.attn.proj.bias"}), "UViT", kwargs)
    with pytest.raises(DataError, match="has a tensor 'extra'"):
        read_weights(saved({**state, "extra": torch.zeros(1)}), "UViT", kwargs)
    with pytest.raises(DataError, match="pos_embed has shape"):
        read_weights(saved({**state, "pos_embed": torch.zeros(1, 2, 3)}), "UViT", kwargs)
    with pytest.raises(DataError, match=r"norm\.bias holds NaN"):
        read_weights(saved({**state, "norm.bias": torch.full((16,), math.nan)}), "UViT", kwargs)
    with pytest.raises(DataError, match=r"'norm\.bias' is a .* tensor of torch\.int64; allowed are real numbers"):
        read_weights(saved({**state, "norm.bias": torch.zeros(16, dtype=torch.int64)}), "UViT", kwargs)
    with pytest.raises(DataError, match="'model' is a dict; allowed is a state_dict"):
        read_weights(saved({"model": state}), "UViT", kwargs)
    with pytest.raises(DataError, match="holds a list; allowed is a state_dict"):
        read_weights(saved([1]), "UViT", kwargs)
    with pytest.raises(DataError, match="cannot be read as weights"):
        read_weights(saved({"path": Path("a")}), "UViT", kwargs)


def test_descriptions_that_name_no_network_of_ours(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "net.pth")
    with pytest.raises(DataError, match=r"name it in a \.json file"):
        open_network(tmp_path / "net.pth")
    with pytest.raises(InvalidValueError, match="architecture is 'VAE'; allowed are SongUNet, DhariwalUNet, DiT, UViT"):
        open_network(described(tmp_path, "net.pth", architecture="VAE"))
    with pytest.raises(InvalidValueError, match="architecture is None"):
        open_network(described(tmp_path, "net.pth", architecture=None))
    with pytest.raises(InvalidValueError, match="architecture_kwargs lacks in_channels"):
        open_network(described(tmp_path, "net.pth", architecture_kwargs={"img_resolution": 8}))
    with pytest.raises(InvalidValueError, match="architecture_kwargs has 'width'"):
        open_network(described(tmp_path, "net.pth", architecture_kwargs={**SHARED, "width": 8}))
    with pytest.raises(MissingFileError, match="gone"):
        open_network(described(tmp_path, "gone.pth"))
    (tmp_path / "noise.pth").write_bytes(b"noise")
    with pytest.raises(DataError):
        open_network(described(tmp_path, "noise.pth"))


def test_a_training_run(tmp_path: Path) -> None:
    run = settings("UViT", {**SMALL, "depth": 2}, process="vp", weight_decay=0.03, betas=(0.99, 0.999), augment=0.5)
    path = train(stripes(), tmp_path / "run", run, QUICK)
    lines = log(tmp_path / "run")
    assert lines[-1]["loss"] < lines[0]["loss"]
    net: Any = open_network(path).net
    assert describe_network(net)["architecture_kwargs"]["augment_dim"] == 9
    again = train(
        stripes(), tmp_path / "other", settings("UViT", {**SMALL, "depth": 2}, process="vp", augment=0.5), QUICK
    )
    without: Any = open_network(again).net
    assert without.model.pos_embed.abs().sum() != net.model.pos_embed.abs().sum()


def test_the_command(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, x=np.random.default_rng(0).integers(0, 256, (16, 3, 8, 8), dtype=np.uint8))
    options = ["train", "--arch", "uvit-s2", "--data", data, "--channels", 16, "--blocks", 2, "--heads", 2]
    options += ["--steps", 2, "--batch", 4, "--num-samples", 0, "--evaluate-images", 0, "--weight-decay", 0.1]
    succeed(*options, "--outdir", tmp_path / "run")
    saved = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (saved["architecture"], saved["weight_decay"], saved["process"]) == ("UViT", 0.1, "vp")
    assert "--channel-mult is not for --arch uvit-s2" in fail(
        2, *options, "--channel-mult", "1,2", "--outdir", tmp_path
    )
