"""Single layers of the EDM networks, against the numbers of the published ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edm_vectors import meta, relative_error, tensor, vectors
from pspc_rs.networks.edm.layers import (
    Conv2d,
    FourierEmbedding,
    GroupNorm,
    Initial,
    Linear,
    PositionalEmbedding,
    attend,
    attention_weights,
    initial_values,
    resample_kernel,
)
from pspc_rs.networks.edm.unet import BlockStyle, UNetBlock


def block(kwargs: dict[str, Any]) -> UNetBlock:
    law = Initial("kaiming_normal")
    style = BlockStyle(
        kwargs["emb_channels"],
        law,
        law,
        law,
        dropout=0.1,
        skip_scale=kwargs["skip_scale"],
        eps=kwargs["eps"],
        taps=kwargs.get("resample_filter", (1, 1)),
        resample_skip=kwargs["resample_proj"],
        adaptive_scale=kwargs["adaptive_scale"],
        channels_per_head=kwargs.get("channels_per_head"),
    )
    flags = {name: kwargs.get(name, False) for name in ("up", "down", "attention")}
    return UNetBlock(kwargs["in_channels"], kwargs["out_channels"], style, **flags)


def layer(item: dict[str, Any]) -> nn.Module:
    match item["kind"]:
        case "groupnorm":
            return GroupNorm(item["channels"], eps=item["eps"])
        case "conv2d":
            resampling = {"up": item["mode"] == "up", "down": item["mode"] == "down"}
            return Conv2d(
                item["in_channels"],
                item["out_channels"],
                item["kernel"],
                taps=item["filter"],
                fused=item["fused_resample"],
                **resampling,
            )
        case "positional_embedding":
            return PositionalEmbedding(item["num_channels"], endpoint=item["endpoint"])
        case "fourier_embedding":
            return FourierEmbedding(item["num_channels"], scale=item["scale"])
        case "unet_block":
            return block(item["kwargs"])
        case kind:
            raise AssertionError(kind)


def test_every_layer_gives_the_published_numbers(test_data: Path) -> None:
    numbers = vectors(test_data, "ops")
    items = meta(test_data, "ops")["items"]
    assert len(items) == 60
    for item in items:
        own = {key.split("/", 1)[1]: array for key, array in numbers.items() if key.startswith(item["name"] + "/")}
        x, wanted, exact = tensor(own.pop("x")), own.pop("out"), own.pop("out_f64", None)
        if item["kind"] == "attention_weights":
            assert relative_error(attention_weights(x, tensor(own["k"])), wanted) < 1e-6
            continue
        others = [tensor(own.pop("emb"))] if "emb" in own else []
        made = layer(item).eval().requires_grad_(False)
        filters = {key: value.clone() for key, value in made.state_dict().items() if key.endswith("resample_filter")}
        made.load_state_dict({key.removeprefix("state."): tensor(value) for key, value in own.items()}, strict=True)
        for key, value in made.state_dict().items():
            assert key not in filters or torch.equal(value, filters[key]), (item["name"], key)
        if "groups" in item:
            assert made.num_groups == item["groups"]
        if "num_heads_effective" in item:
            assert made.num_heads == item["num_heads_effective"]
        assert relative_error(made(x, *others), wanted) < 2e-6, item["name"]
        if exact is not None:
            made.double()
            assert relative_error(made(x.double(), *(one.double() for one in others)), exact) < 1e-12, item["name"]


@given(st.sampled_from([1, 2, 3]), st.integers(1, 3), st.integers(2, 6), st.integers(2, 6), st.booleans())
def test_attention_is_a_weighted_mean_of_values_head_by_head(
    heads: int, per_head: int, height: int, width: int, half: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    channels = heads * per_head
    qkv = torch.randn(2, channels * 3, height, width, generator=generator, dtype=torch.float64)
    q, k, v = qkv.reshape(2, channels, 3, height * width).unbind(2)
    wanted = torch.empty(2, channels, height * width, dtype=torch.float64)
    for head in range(heads):
        own = slice(head * per_head, (head + 1) * per_head)
        scores = torch.exp(q[:, own].transpose(1, 2) @ k[:, own] / per_head**0.5)
        wanted[:, own] = v[:, own] @ (scores / scores.sum(2, keepdim=True)).transpose(1, 2)
    found = attend(qkv.half() if half else qkv, heads)
    assert found.dtype == (torch.float16 if half else torch.float64)
    torch.testing.assert_close(found.double().reshape(wanted.shape), wanted, rtol=0, atol=2e-2 if half else 1e-12)


def test_half_precision_meets_float32_weights_layer_by_layer() -> None:
    made = block(
        {"in_channels": 8, "out_channels": 16, "emb_channels": 4, "skip_scale": 1, "eps": 1e-5, "attention": True}
        | {"resample_proj": True, "adaptive_scale": True, "down": True, "resample_filter": [1, 3, 3, 1]}
    )
    x, emb = torch.randn(2, 8, 8, 8), torch.randn(2, 4)
    exact, halved = made.eval()(x, emb), made(x.half(), emb)
    assert halved.dtype == torch.float16
    assert all(parameter.dtype == torch.float32 for parameter in made.parameters())
    assert relative_error(halved.float().detach(), exact.detach()) < 1e-2


@pytest.mark.parametrize(
    ("law", "spread"),
    [
        ("xavier_uniform", (6 / 700) ** 0.5 / 3**0.5),
        ("xavier_normal", (2 / 700) ** 0.5),
        ("kaiming_uniform", (3 / 300) ** 0.5 / 3**0.5),
        ("kaiming_normal", (1 / 300) ** 0.5),
    ],
)
def test_laws_of_initial_values(law: Any, spread: float) -> None:
    torch.manual_seed(0)
    values = initial_values(law, (400, 300), 300, 400, 2.0)
    assert float(values.std()) == pytest.approx(2 * spread, rel=0.02)
    assert float(values.mean()) == pytest.approx(0, abs=0.02 * spread)
    if law.endswith("uniform"):
        assert float(values.abs().max()) == pytest.approx(2 * spread * 3**0.5, rel=1e-3)


def test_layers_without_a_bias_or_weights_have_none() -> None:
    assert Linear(3, 4, bias=False).bias is None
    assert [name for name, _ in Conv2d(3, 3, 0, up=True).named_parameters()] == []
    assert Conv2d(3, 3, 1).resample_filter is None
    np.testing.assert_allclose(resample_kernel([1, 3, 3, 1]).sum(), 1)
