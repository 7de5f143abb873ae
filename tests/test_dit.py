"""The diffusion transformer."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edm_vectors import built
from pspc_rs.errors import DTypeError, InvalidValueError, ShapeError
from pspc_rs.networks import describe_network
from pspc_rs.networks.dit import DiT, from_patches, grid_positions, to_patches
from pspc_rs.training import preset
from training_runs import stripes


def shaken(net: DiT) -> DiT:
    """The network with no parameter at zero, in evaluation mode."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval()


def tiny(**changes: object) -> DiT:
    torch.manual_seed(0)
    arguments = {"patch_size": 2, "hidden_size": 16, "depth": 2, "num_heads": 2, **changes}
    return DiT(8, 3, 3, arguments.pop("label_dim", 0), **arguments)  # type: ignore[arg-type]


def test_table_2_has_the_size_of_dit_b4() -> None:
    settings = preset("dit-b4")
    with torch.device("meta"):
        net = built(settings.description(stripes(4, 3, 32), augment_dim=9))
    hidden, depth = 768, 12
    block = hidden * 6 * hidden + 6 * hidden + 12 * hidden**2 + 9 * hidden  # modulation, attention and MLP
    frame = 256 * hidden + hidden**2 + 2 * hidden + 9 * hidden + 48 * hidden + hidden
    last = hidden * 2 * hidden + 2 * hidden + hidden * 48 + 48
    assert sum(parameter.numel() for parameter in net.parameters()) == depth * block + frame + last
    assert (settings.batch, settings.learning_rate, settings.betas, settings.eps) == (512, 1e-4, (0.9, 0.999), 1e-8)
    assert (settings.augment, settings.images) == (0.12, 200_000_000)
    assert describe_network(net)["architecture_kwargs"] == {
        "augment_dim": 9,
        "patch_size": 4,
        "hidden_size": 768,
        "depth": 12,
        "num_heads": 12,
        "mlp_ratio": 4.0,
        "dropout": 0.12,
        "label_dropout": 0.0,
    }


def test_it_is_zero_before_training() -> None:
    net = tiny()
    assert torch.equal(net(torch.randn(2, 3, 8, 8), torch.zeros(2)), torch.zeros(2, 3, 8, 8))
    gates = [parameter for name, parameter in net.named_parameters() if "modulation" in name]
    assert len(gates) == 6
    assert not any(bool(parameter.any()) for parameter in gates)


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 2, 3]), st.integers(1, 3))
def test_any_sides_that_are_multiples_of_the_patch(rows: int, columns: int, patch: int, channels: int) -> None:
    x = torch.randn(2, channels, rows * patch, columns * patch)
    patches = to_patches(x, patch)
    assert patches.shape == (2, rows * columns, channels * patch**2)
    assert torch.equal(from_patches(patches, rows, columns, patch), x)
    net = shaken(DiT(patch, channels, channels, patch_size=patch, hidden_size=8, depth=1, num_heads=2))
    assert net(x, torch.zeros(2)).shape == x.shape


def test_every_pixel_and_every_condition_counts() -> None:
    net = shaken(tiny(label_dim=3, augment_dim=9))
    x = torch.randn(1, 3, 8, 8).requires_grad_()
    conditions = [torch.zeros(1), torch.zeros(1, 3), torch.zeros(1, 9)]
    for condition in conditions:
        condition.requires_grad_()
    out = net(x, *conditions)
    gradients = torch.autograd.grad(out[0, 0, 0, 0], [x, *conditions])
    assert all(bool((gradient != 0).all()) for gradient in gradients)


def test_positions_tell_places_apart_and_tokens_do_not() -> None:
    net = shaken(tiny())
    same = net(torch.ones(1, 3, 8, 8), torch.zeros(1))
    patches = to_patches(same, 2)[0]
    assert len({tuple(row) for row in patches.tolist()}) == 16
    places = grid_positions(3, 5, 16, torch.zeros(1))
    assert torch.equal(places[0, :4], torch.ones(4))  # cosines of row 0
    assert places[5, 4] == pytest.approx(math.sin(1.0))
    assert torch.equal(places[1, :8], places[0, :8])  # same row
    assert torch.equal(places[1, 8:], places[6, 8:])  # same column


def test_dropout_only_in_training() -> None:
    net = shaken(tiny(dropout=0.5))
    x, t = torch.randn(2, 3, 8, 8), torch.zeros(2)
    assert torch.equal(net(x, t), net(x, t))
    net.train()
    assert not torch.equal(net(x, t), net(x, t))


def test_it_compiles_without_a_break() -> None:
    net = shaken(tiny(augment_dim=9))
    x, t, told = torch.randn(2, 3, 8, 8), torch.zeros(2), torch.randn(2, 9)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x, t, None, told), net(x, t, None, told), atol=1e-6)


def test_bad_arguments() -> None:
    with pytest.raises(InvalidValueError, match="hidden_size is 20; it must be a multiple of 3"):
        tiny(hidden_size=20, num_heads=3)
    with pytest.raises(InvalidValueError, match="img_resolution is 8; it must be a multiple of 3"):
        tiny(patch_size=3)
    with pytest.raises(DTypeError, match=r"depth is 1\.5"):
        tiny(depth=1.5)
    with pytest.raises(ShapeError, match="height and width must be multiples of 2"):
        tiny()(torch.zeros(1, 3, 8, 7), torch.zeros(1))
    with pytest.raises(ShapeError, match="class_labels have shape"):
        tiny(label_dim=3)(torch.zeros(1, 3, 8, 8), torch.zeros(1), torch.zeros(1, 4))
