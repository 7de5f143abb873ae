"""The EDM networks and preconditioners, against the published ones."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edm_vectors import NETWORKS, built, description, meta, network, relative_error, tensor, vectors
from pspc_rs.errors import DTypeError, InvalidValueError, ShapeError
from pspc_rs.networks import build_network, describe_network
from pspc_rs.networks.edm.layers import Conv2d, GroupNorm
from pspc_rs.networks.edm.preconditioners import IDDPMPrecond, VPPrecond
from pspc_rs.networks.edm.unet import UNetBlock
from pspc_rs.samplers.design_space import noise_table

TINY = {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}


def tiny(preconditioner: str = "EDMPrecond", architecture: str = "SongUNet", **kwargs: Any) -> dict[str, Any]:
    frame = {"img_resolution": 8, "img_channels": 3, "label_dim": kwargs.pop("label_dim", 0)}
    return {
        "preconditioner": preconditioner,
        "preconditioner_kwargs": frame,
        "architecture": architecture,
        "architecture_kwargs": {**TINY, **kwargs},
    }


def cases(folder: Path, name: str, dtype: torch.dtype) -> Iterator[tuple[str, dict[str, Tensor | None]]]:
    numbers = vectors(folder, name)
    for case in meta(folder, name)["cases"]:
        names = ("x", "sigma", "class_labels", "augment_labels")
        given = {one: numbers.get(f"{case['name']}/{one}") for one in names}
        yield case["name"], {one: None if array is None else tensor(array, dtype) for one, array in given.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_the_published_numbers(test_data: Path, name: str) -> None:
    numbers = vectors(test_data, name)
    for dtype, wanted in ((torch.float32, "D"), (torch.float64, "D_f64")):
        net = network(test_data, name, dtype)
        bound = 1e-12 if dtype == torch.float64 else 2e-5 if name == "ddpmpp_vp" else 5e-6
        for case, given in cases(test_data, name, dtype):
            found = net(**given)
            assert found.dtype == dtype
            assert relative_error(found, numbers[f"{case}/{wanted}"]) < bound, (case, dtype)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_the_published_numbers_inside(test_data: Path, name: str) -> None:
    numbers = vectors(test_data, name)
    net = network(test_data, name)
    seen: dict[str, Tensor] = {}
    for key, module in net.named_modules():
        module.register_forward_hook(lambda module, given, output, key=key: seen.update({key: output}))
    net.model.get_submodule("map_layer0").register_forward_pre_hook(lambda module, given: seen.update(emb_in=given[0]))
    net.model.register_forward_pre_hook(lambda module, given: seen.update(net_in=given[0], c_noise=given[1]))
    for case, given in cases(test_data, name, torch.float32):
        net(**given)
        seen["F"] = seen["model"]
        for one in ("net_in", "c_noise", "F", "emb_in"):
            bound = 2e-5 if name == "ddpmpp_vp" else 5e-6
            if one == "emb_in" and name.startswith("ncsnpp"):
                # CPUs differ in the last bit of c_noise, a logarithm; random frequencies of some hundreds magnify it.
                turns = net.model.get_buffer("map_noise.freqs").abs().max() * seen["c_noise"].abs().max()
                bound += 2.0**-23 * 2 * np.pi * float(turns)
            assert relative_error(seen[one], numbers[f"{case}/{one}"]) < bound, (case, one)
        if case == "case0":
            check_trace(numbers, {key.removeprefix("model."): output for key, output in seen.items()})


def check_trace(numbers: dict[str, Any], seen: dict[str, Tensor]) -> None:
    columns = (numbers[f"case0/trace_{column}"] for column in ("name", "shape", "mean", "std", "head"))
    for key, shape, mean, std, head in zip(*columns, strict=True):
        output = seen[str(key)]
        assert "x".join(map(str, output.shape)) == shape
        scale = float(std) + abs(float(mean))
        assert abs(float(output.double().mean()) - mean) < 2e-5 * scale, key
        assert abs(float(output.double().std(correction=0)) - std) < 2e-5 * scale, key
        np.testing.assert_allclose(output.flatten()[:8], head, rtol=0, atol=3e-5 * scale, err_msg=str(key))


@pytest.mark.parametrize("name", ["EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond"])
def test_coefficients(test_data: Path, name: str) -> None:
    numbers = vectors(test_data, "precond")
    about = meta(test_data, "precond")["items"][name]
    net = built(tiny(name))
    if isinstance(net, IDDPMPrecond):
        # The published table was computed in float32, ours in float64.
        assert relative_error(net.u, numbers[f"{name}/u"]) < 1e-6
        np.testing.assert_allclose(net.u[:-1], numbers[f"{name}/u"][:-1], rtol=1e-3)
        net.u.copy_(tensor(numbers[f"{name}/u"]))
    assert (net.sigma_min, net.sigma_max) == (float(about["sigma_min"]), float(about["sigma_max"]))
    for dtype, ending in ((torch.float32, ""), (torch.float64, "_f64")):
        sigma = tensor(numbers["sigma"]).to(dtype)
        for one, found in net.coefficients(sigma)._asdict().items():
            assert found.dtype == dtype
            wanted = numbers[f"{name}/{one}{ending}"]
            rtol, atol = (1e-6, 0.0) if dtype == torch.float32 else (1e-13, 0.0)
            if (name, one, dtype) == ("VPPrecond", "c_noise", torch.float32):
                # 999 t with t = (root - 0.1) / 19.9: CPUs differ in the last bit of the root, which is near 0.1.
                atol = 2 * 999 * 2.0**-27 / 19.9
            np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol, err_msg=one)
    assert torch.equal(net.round_sigma(tensor(numbers["sigma"])), tensor(numbers[f"{name}/round_sigma"]))


def test_time_of_the_vp_process(test_data: Path) -> None:
    numbers = vectors(test_data, "precond")
    net = built(tiny("VPPrecond"))
    assert isinstance(net, VPPrecond)
    t = tensor(numbers["VPPrecond/t"], torch.float64)
    np.testing.assert_allclose(net.sigma(t), numbers["VPPrecond/sigma_of_t"], rtol=1e-13)
    found = net.time(tensor(numbers["VPPrecond/sigma_of_t"], torch.float64))
    np.testing.assert_allclose(found, numbers["VPPrecond/t_of_sigma"], rtol=1e-13)


def test_the_noise_table_is_kept_and_rounded_to() -> None:
    net = built(tiny("iDDPMPrecond"))
    levels = np.array(noise_table(1000, 0.001, 0.008))
    assert net.round_sigma(float(levels[500]) * 1.0001) == pytest.approx(levels[500], rel=1e-6)
    rounded = net.round_sigma(np.array([1e9, 0.0, 1.0]))
    assert isinstance(rounded, np.ndarray)
    np.testing.assert_allclose(rounded[:2], [levels[0], 0.0], rtol=1e-6)
    assert net.round_sigma(torch.tensor([[1.0, 2.0]])).shape == (1, 2)
    raw = net.model(torch.zeros(1, 3, 8, 8), torch.zeros(1))
    assert raw.shape == (1, 6, 8, 8)


CONFIGURATIONS: dict[str, tuple[dict[str, Any], int]] = {
    "cifar10_32_uncond_ddpmpp_edm": ({"channel_mult": [2, 2, 2], "augment_dim": 9}, 55_733_891),
    "cifar10_32_cond_ddpmpp_edm": ({"channel_mult": [2, 2, 2], "augment_dim": 9, "label_dim": 10}, 55_735_299),
    "cifar10_32_uncond_ncsnpp_edm": ({"channel_mult": [2, 2, 2], "augment_dim": 9, "ncsnpp": True}, 56_397_827),
    "ffhq_afhqv2_64_uncond_ddpmpp_edm": ({"augment_dim": 9}, 61_805_571),
    "ffhq_afhqv2_64_uncond_ncsnpp_edm": ({"augment_dim": 9, "ncsnpp": True}, 62_761_091),
    "songunet_class_defaults_32_vpprecond": ({}, 61_804_419),
    "imagenet_64_cond_adm_edm": ({"label_dim": 1000}, 295_899_267),
}
NCSNPP = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}


def official(name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    kwargs = dict(kwargs)
    side = 64 if "_64_" in name else 32
    frame = {"img_resolution": side, "img_channels": 3, "label_dim": kwargs.pop("label_dim", 0)}
    return {
        "preconditioner": "VPPrecond" if name.endswith("vpprecond") else "EDMPrecond",
        "preconditioner_kwargs": frame,
        "architecture": "DhariwalUNet" if "_adm_" in name else "SongUNet",
        "architecture_kwargs": kwargs | (NCSNPP if kwargs.pop("ncsnpp", False) else {}),
    }


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder.parent / "design" / "edm-names" / name).open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_names_shapes_and_wiring_of_the_released_networks(test_data: Path, name: str) -> None:
    if not (test_data.parent / "design" / "edm-names").is_dir():
        pytest.skip("the lists of tensor names are not beside PSPC_TEST_DATA")
    kwargs, count = CONFIGURATIONS[name]
    with torch.device("meta"):
        net = built(official(name, kwargs))
    assert sum(parameter.numel() for parameter in net.parameters()) == count
    rows = table(test_data, f"{name}.names.tsv")
    parameters = dict(net.named_parameters())
    found = [(key, tuple(value.shape), key in parameters) for key, value in net.state_dict().items()]
    assert found == [(row["name"], shape_of(row["shape"]), row["kind"] == "parameter") for row in rows]
    modules = dict(net.model.named_modules())
    for row in table(test_data, f"{name}.wiring.tsv"):
        check_wiring(modules[row["module_under_model"]], row)


def shape_of(text: str) -> tuple[int, ...]:
    return tuple(int(side) for side in text.split("x"))


def check_wiring(module: nn.Module, row: dict[str, str]) -> None:
    if isinstance(module, GroupNorm):
        assert row["groups"] == str(module.num_groups)
        return
    assert isinstance(module, UNetBlock | Conv2d)
    assert (str(module.in_channels), str(module.out_channels)) == (row["in_channels"], row["out_channels"])
    first = module.conv0 if isinstance(module, UNetBlock) else module
    assert ("up" if first.up else "down" if first.down else "-") == row["resample"]
    if isinstance(module, UNetBlock):
        assert str(module.num_heads) == row["attention_heads"]
        assert f"{module.norm0.num_groups},{module.norm1.num_groups}" == row["groups"]
        skip = module.skip
        path = "identity" if skip is None else "conv1x1" if skip.kernel else "resample_only"
        assert path == row["skip_path"]


def bound_of(law: str, weight: Tensor | None, bias_of: Tensor | None) -> float:
    """The limit of a uniform law."""
    base, _, factor = law.partition("*")
    shaped = weight if bias_of is None else bias_of
    assert shaped is not None
    area = int(np.prod(shaped.shape[2:]))
    fan_in, fan_out = shaped.shape[1] * area, shaped.shape[0] * area
    limit = (6 / (fan_in + fan_out)) ** 0.5 if base == "xavier_uniform" else (3 / fan_in) ** 0.5
    factors = {"": 1.0, "1e-5": 1e-5, "sqrt(0.2)": 0.2**0.5, "sqrt(1/3)": 3**-0.5}
    return float(limit * factors[factor])


LAWS = {
    "song": {"conv1": "xavier_uniform*1e-5", "proj": "xavier_uniform*1e-5", "aux_conv": "xavier_uniform*1e-5"}
    | {"qkv": "xavier_uniform*sqrt(0.2)", "": "xavier_uniform"},
    "adm": {"": "kaiming_uniform*sqrt(1/3)"},
}


@pytest.mark.parametrize("architecture", ["SongUNet", "DhariwalUNet"])
def test_initial_values(architecture: str) -> None:
    torch.manual_seed(0)
    adm = architecture == "DhariwalUNet"
    kwargs: dict[str, Any] = {"model_channels": 64, "augment_dim": 9, "label_dim": 10}
    net = built(tiny(architecture=architecture, **kwargs))
    state = dict(net.named_parameters())
    zero = ("conv1", "proj", "out_conv", "map_augment") if adm else ()
    for name, value in state.items():
        module, _, kind = name.rpartition(".")
        law = next(law for key, law in LAWS["adm" if adm else "song"].items() if module.endswith(key))
        if "norm" in module.rpartition(".")[2]:
            assert torch.equal(value, torch.full_like(value, 1.0 if kind == "weight" else 0.0)), name
        elif module.endswith(zero) or (not adm and kind == "bias"):
            assert not value.any(), name
        elif adm and module.endswith("map_label"):
            assert float(value.detach().std()) == pytest.approx(1, abs=0.1)
        else:
            limit = bound_of(law, value, state[f"{module}.weight"] if kind == "bias" else None)
            largest = float(value.detach().abs().max())
            assert 0.8 * limit < largest <= limit * (1 + 1e-6), (name, law)


def test_initial_laws_of_the_released_configuration(test_data: Path) -> None:
    """What the list says of each tensor is what ``LAWS`` says."""
    if not (test_data.parent / "design" / "edm-names").is_dir():
        pytest.skip("the lists of tensor names are not beside PSPC_TEST_DATA")
    for row in table(test_data, "cifar10_32_cond_ddpmpp_edm.names.tsv"):
        module, _, kind = row["name"].rpartition(".")
        if kind == "weight" and "norm" not in module:
            law = next(law for key, law in LAWS["song"].items() if module.endswith(key))
            assert row["initial_value"].replace(" ", "") == law, row


@pytest.mark.parametrize("architecture", ["SongUNet", "DhariwalUNet"])
def test_labels(architecture: str) -> None:
    torch.manual_seed(0)
    net = built(tiny(architecture=architecture, label_dim=3, label_dropout=0.5, dropout=0.0))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, 3, 8, 8).expand(64, -1, -1, -1)
    labels = torch.eye(3)[1].expand(64, -1)
    net.eval()
    with torch.no_grad():
        given, missing = net(x[:1], 1.0, labels[:1]), net(x[:1], 1.0)
        apart = float((given - missing).abs().max())
        assert apart > 1e-3
        torch.testing.assert_close(net(x[:1], 1.0, torch.zeros(1, 3)), missing)
        net.train()
        outputs = net(x, 1.0, labels)
    close = [[float((one - kind[0]).abs().max()) < 0.05 * apart for kind in (given, missing)] for one in outputs]
    assert sorted(set(map(tuple, close))) == [(False, True), (True, False)]
    assert 16 < sum(kept for kept, _ in close) < 48
    with pytest.raises(ShapeError, match=r"class_labels have shape \[1, 2\]; allowed is \[batch, 3\]"):
        net(x[:1], 1.0, torch.zeros(1, 2))


def test_classes_are_ignored_by_a_network_without_them() -> None:
    net = built(tiny()).eval()
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(net(x, 1.0), net(x, 1.0, torch.ones(1, 10), augment_labels=torch.ones(1, 9)))


@pytest.mark.parametrize("shape", [(), (1,), (2,), (2, 1, 1, 1)])
def test_shapes_of_sigma(shape: tuple[int, ...]) -> None:
    net = built(tiny()).eval()
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(net(x, torch.full(shape, 0.5)), net(x, 0.5))


def test_wrong_inputs_are_named() -> None:
    net = built(tiny())
    with pytest.raises(ShapeError, match=r"x has shape \[1, 3, 4, 4\]; allowed is \[batch, 3, 8, 8\]"):
        net(torch.zeros(1, 3, 4, 4), 1.0)
    with pytest.raises(ShapeError, match="sigma has 3 entries for a batch of 2"):
        net(torch.zeros(2, 3, 8, 8), torch.ones(3))


@pytest.mark.parametrize("name", ["EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond"])
def test_float64_inputs_of_a_float32_network_are_rounded_once(name: str) -> None:
    net = built(tiny(name)).eval()
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(net(x.double(), torch.tensor([1.0, 2.0]).double()), net(x, torch.tensor([1.0, 2.0])))
    assert net(x.half(), 1.0).dtype == torch.float32


@pytest.mark.parametrize("name", NETWORKS)
def test_a_description_gives_the_same_network_again(test_data: Path, name: str) -> None:
    net = network(test_data, name)
    again = build_network(describe_network(net))
    assert describe_network(again) == describe_network(net)
    again.load_state_dict(net.state_dict(), strict=True)
    given = description(test_data, name)
    described = describe_network(net)
    assert given["architecture_kwargs"].items() <= described["architecture_kwargs"].items()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"architecture": "UNet"}, InvalidValueError, "architecture is 'UNet'; allowed are SongUNet"),
        ({"preconditioner": 3}, InvalidValueError, "preconditioner is 3; allowed are EDMPrecond"),
        ({"extra": 3}, InvalidValueError, "entry 'extra'"),
        ({"architecture_kwargs": [1]}, DTypeError, "architecture_kwargs is a list"),
        ({"architecture_kwargs": {"depth": 3}}, InvalidValueError, "'depth'; SongUNet takes augment_dim"),
        ({"architecture_kwargs": {"in_channels": 3}}, InvalidValueError, "'in_channels'"),
        ({"preconditioner_kwargs": {"img_channels": 3}}, InvalidValueError, "lacks img_resolution"),
        ({"preconditioner_kwargs": {"model": 3}}, InvalidValueError, "'model'"),
        ({"architecture_kwargs": {"model_channels": 1e3}}, DTypeError, "model_channels"),
        ({"architecture_kwargs": {"model_channels": 1 << 40}}, InvalidValueError, "model_channels is 1099511627776"),
        ({"architecture_kwargs": {"num_blocks": 10**9}}, InvalidValueError, "num_blocks"),
        ({"architecture_kwargs": {"channel_mult": [1] * 9}}, InvalidValueError, "channel_mult has 9 entries"),
        ({"architecture_kwargs": {"channel_mult": "12"}}, DTypeError, "channel_mult is '12'"),
        ({"architecture_kwargs": {"channel_mult": [1] * 5}}, InvalidValueError, "must be a multiple of 16"),
        ({"architecture_kwargs": {"dropout": 1}}, InvalidValueError, "dropout is 1;"),
        ({"architecture_kwargs": {"encoder_type": "deep"}}, InvalidValueError, "allowed are standard, skip, residual"),
        ({"architecture_kwargs": {"resample_filter": [1, 2, 1]}}, InvalidValueError, "resample_filter is 3; it must"),
        ({"architecture_kwargs": {"model_channels": 9}}, InvalidValueError, "must be even"),
    ],
)
def test_descriptions_are_checked(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words.replace("[", r"\[")):
        build_network(tiny() | change)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("EDMPrecond", {"sigma_min": 3, "sigma_max": 2}),
        ("EDMPrecond", {"sigma_data": 0}),
        ("EDMPrecond", {"sigma_data": float("nan")}),
        ("EDMPrecond", {"use_fp16": 1}),
        ("VEPrecond", {"sigma_max": -1}),
        ("VPPrecond", {"beta_d": 0}),
        ("VPPrecond", {"M": 0}),
        ("iDDPMPrecond", {"C_1": 0}),
        ("iDDPMPrecond", {"M": 10**9}),
        ("iDDPMPrecond", {"img_channels": 0}),
    ],
)
def test_arguments_of_preconditioners_are_checked(name: str, kwargs: dict[str, Any]) -> None:
    description = tiny(name)
    description["preconditioner_kwargs"] |= kwargs
    with pytest.raises((InvalidValueError, DTypeError), match=next(iter(kwargs))):
        build_network(description)


def test_only_our_networks_can_be_described() -> None:
    with pytest.raises(DTypeError, match="a Linear is none of EDMPrecond"):
        describe_network(nn.Linear(2, 2))
    with pytest.raises(DTypeError, match="a dict"):
        build_network([("preconditioner", "EDMPrecond")])  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="half precision needs CUDA")
def test_half_precision_on_cuda() -> None:
    description = tiny()
    description["preconditioner_kwargs"]["use_fp16"] = True
    net = build_network(description).eval().cuda()
    x = torch.randn(2, 3, 8, 8, device="cuda")
    halved, exact = net(x, 1.0), net(x, 1.0, force_fp32=True)
    assert halved.dtype == exact.dtype == torch.float32
    assert not torch.equal(halved, exact)
    assert relative_error(halved.cpu().detach(), exact.cpu().detach()) < 1e-2
