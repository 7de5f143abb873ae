"""EDM pickles: the networks in them, and everything else that may be in such a file."""

import os
import pickle
import pickletools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from edm_pickles import Embedded, dumped, edm_pickle, embedded
from edm_vectors import built, network, relative_error, tensor, vectors
from pspc_rs.errors import DataError, MissingFileError, PspcError
from pspc_rs.networks import describe_network, read_edm_pickle
from pspc_rs.networks.edm_pickle.objects import EmbeddedObject, read_objects
from pspc_rs.networks.edm_pickle.read import read_edm_snapshot
from pspc_rs.pickles import PickleMachine

WORDS = "the file"


def small(preconditioner: str = "EDMPrecond", architecture: str = "SongUNet", **kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    net = built(
        {
            "preconditioner": preconditioner,
            "preconditioner_kwargs": {"img_resolution": 4, "img_channels": 1, "label_dim": 2},
            "architecture": architecture,
            "architecture_kwargs": {"model_channels": 4, "channel_mult": [1, 1], "num_blocks": 1, **kwargs},
        }
    )
    return net.eval()


SMALL = {protocol: edm_pickle(small(), protocol) for protocol in (2, 4)}


def read(folder: Path, data: bytes) -> nn.Module:
    # A new file each time: Windows cannot rewrite one that a traceback still maps.
    path = Path(tempfile.mkdtemp(dir=folder), "net.pkl")
    path.write_bytes(data)
    return read_edm_pickle(path)


def refused(folder: Path, data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read(folder, data)
    assert "net.pkl" in str(caught.value)


@pytest.mark.parametrize(("pickled", "name"), [("ncsnpp_edm_torch1", "ncsnpp_edm"), ("ddpmpp_vp_torch2", "ddpmpp_vp")])
def test_published_pickles(test_data: Path, pickled: str, name: str) -> None:
    path = test_data / "edm-vectors" / f"sample_nosource_{pickled}.pkl"
    snapshot = read_edm_snapshot(path)
    wanted = network(test_data, name)
    assert describe_network(snapshot.network) == describe_network(wanted)
    found, expected = snapshot.network.state_dict(), wanted.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert not snapshot.network.training
    assert not any(parameter.requires_grad for parameter in snapshot.network.parameters())
    assert snapshot.dataset_kwargs["resolution"] == 16
    numbers = vectors(test_data, name)
    x, sigma = tensor(numbers["case1/x"]), tensor(numbers["case1/sigma"])
    assert relative_error(snapshot.network(x, sigma), numbers["case1/D"]) < 2e-5


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("preconditioner", "architecture", "kwargs"),
    [
        ("EDMPrecond", "SongUNet", {"augment_dim": 9}),
        ("VPPrecond", "SongUNet", {"embedding_type": "fourier", "encoder_type": "residual"}),
        ("VEPrecond", "SongUNet", {"encoder_type": "skip", "decoder_type": "skip", "resample_filter": [1, 3, 3, 1]}),
        ("iDDPMPrecond", "DhariwalUNet", {"attn_resolutions": [4]}),
    ],
)
def test_every_network_and_protocol(
    tmp_path: Path, preconditioner: str, architecture: str, kwargs: dict[str, Any], protocol: int
) -> None:
    net = small(preconditioner, architecture, **kwargs)
    again = read(tmp_path, edm_pickle(net, protocol))
    assert describe_network(again) == describe_network(net)
    x, labels = torch.randn(3, 1, 4, 4), torch.eye(2)[[0, 1, 1]]
    assert torch.equal(again(x, torch.tensor([0.1, 1.0, 10.0]), labels), net(x, torch.tensor([0.1, 1.0, 10.0]), labels))


def test_tensors_may_be_parts_of_storages_and_half_precision(tmp_path: Path) -> None:
    net = small()
    weight = net.get_parameter("model.map_layer0.weight")
    parts = torch.zeros(5, 40)
    parts[1:3] = 7.0
    values = torch.arange(64.0).reshape(4, 16) / 64

    def change(top: Embedded) -> None:
        table = top.child("model.map_layer0").state["_parameters"]
        assert table["weight"].shape == (16, 4)
        table["weight"] = nn.Parameter(values.T, requires_grad=False)
        table["bias"] = nn.Parameter(parts[1:3].flatten()[::5], requires_grad=False).half()

    again = read(tmp_path, edm_pickle(net, change=change))
    assert torch.equal(again.get_parameter("model.map_layer0.weight"), values.T)
    assert torch.equal(again.get_parameter("model.map_layer0.bias"), torch.full((16,), 7.0))
    assert again.get_parameter("model.map_layer0.bias").dtype == weight.dtype == torch.float32


class Hostile:
    """Writes a file when it is unpickled by ordinary means."""

    def __init__(self, trace: Path, function: Callable[..., object] = os.system) -> None:
        self.trace = trace
        self.function = function

    def __reduce__(self) -> tuple[Any, ...]:
        if self.function is os.system:
            return os.system, (f"touch '{self.trace}'",)
        return self.function, (f"open({str(self.trace)!r}, 'w').close()",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("function", [os.system, exec, eval])
@pytest.mark.parametrize("place", ["top", "loss_fn", "attribute", "parameter", "kwargs", "source"])
def test_hostile_objects_run_nothing(
    tmp_path: Path, function: Callable[..., object], place: str, protocol: int
) -> None:
    trace = tmp_path / "trace"
    hostile = Hostile(trace, function)
    top = embedded(small())
    snapshot: dict[str, Any] = {"ema": top, "loss_fn": None}
    layer = top.child("model.map_layer0")
    match place:
        case "top" | "loss_fn":
            snapshot["ema" if place == "top" else "loss_fn"] = hostile
        case "attribute":
            layer.state["in_features"] = hostile
        case "parameter":
            layer.state["_parameters"]["bias"] = hostile
        case "kwargs":
            top.child("model").state["_init_kwargs"]["dropout"] = hostile
        case "source":
            top.meta["module_src"] = hostile
    name = rf"asks for '(posix|nt|builtins|__builtin__)\.{function.__name__}', which was not run"
    refused(tmp_path, dumped(snapshot, protocol), name)
    assert not trace.exists()


def test_the_source_code_in_a_file_is_not_run_nor_kept(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    source = f"open({str(trace)!r}, 'w').close()"
    data = edm_pickle(small(), change=lambda top: top.meta.update(module_src=source))
    net = read(tmp_path, data)
    assert source.encode() in data
    assert not trace.exists()
    assert source not in repr(vars(net))


def test_a_hostile_file_of_tensors_inside_a_tensor_is_not_run(tmp_path: Path) -> None:
    """The bytes of a storage are a pickle of their own, which torch's function would run."""
    trace = tmp_path / "trace"
    inner = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(Hostile(trace), 2)
    data = edm_pickle(small())
    original = _first_storage(data)
    assert data.count(original) >= 1
    spoiled = data.replace(_counted(original), _counted(inner))
    assert spoiled != data
    refused(tmp_path, spoiled, r"a tensor in .*(REDUCE|asks for)")
    assert not trace.exists()


def _first_storage(data: bytes) -> bytes:
    """The bytes of the first storage in a snapshot."""
    long = [argument for _, argument, _ in pickletools.genops(data) if isinstance(argument, bytes)]
    return max(long, key=len)


def _counted(content: bytes) -> bytes:
    return b"B" + len(content).to_bytes(4, "little") + content


RECONSTRUCT = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (b"cos\nsystem\n(X\x04\x00\x00\x00truetR.", "os.system"),
        (b"cbuiltins\neval\n.", "builtins.eval"),
        (b"ctypes\nCodeType\n.", "types.CodeType"),
        (b"cmarshal\nloads\n.", "marshal.loads"),
        (b"ctorch_utils.persistence\nimport_hook\n.", "torch_utils.persistence.import_hook"),
        (b"ctorch.storage\n_load_from_bytes.x\n.", "_load_from_bytes.x"),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"ctorch._utils\n_rebuild_tensor\n.", "torch._utils._rebuild_tensor"),
        (b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93.", "os.system"),
        (b"ccollections\n" + b"O" * 300 + b"\n.", "no name of at most 256 letters"),
        (b"(X\x04\x00\x00\x00trueios\nsystem\n.", "operation INST"),
        (b"(cnumpy\ndtype\no.", "operation OBJ"),
        (b"\x82\x01.", "operation EXT1"),
        (b"Pname\n.", "operation PERSID"),
        (b"K\x01Q.", "operation BINPERSID"),
        (b"cnumpy\ndtype\n)}\x92.", "operation NEWOBJ_EX"),
        (b"K\x010.", "operation POP"),
        (b"\x8b\xff\xff\xff\x7f.", "operation LONG4"),
        (b"I7\n.", "operation INT"),
        (b"\x97.", "operation NEXT_BUFFER"),
        (b"\xff.", "operation 0xff"),
        (b"\x80\x01.", "protocol 1"),
        (b"\x80\x09.", "protocol 9"),
        (RECONSTRUCT + b"}b.", "changes torch_utils.persistence._reconstruct_persistent_obj"),
        (RECONSTRUCT + b"K\x01K\x02s.", "a _Symbol is used as a dict"),
        (RECONSTRUCT + b"}R.", "calls torch_utils.persistence._reconstruct_persistent_obj"),
        (RECONSTRUCT + b")R.", "calls torch_utils.persistence._reconstruct_persistent_obj"),
        (RECONSTRUCT + b"}\x85R.", "not of version 6"),
        (RECONSTRUCT + b"K\x01\x85R.", "not of version 6"),
        (RECONSTRUCT + b")\x81.", "makes torch_utils.persistence._reconstruct_persistent_obj"),
        (b"ctorch.nn.modules.container\nModuleDict\n}\x85\x81.", "makes torch.nn.modules.container.ModuleDict"),
        (b"ctorch.nn.modules.container\nModuleDict\n)R.", "calls torch.nn.modules.container.ModuleDict"),
        (b"ctorch.nn.modules.container\nModuleDict\n)\x81K\x01b.", "changes StoredModuleDict"),
        (b"ctorch.nn.modules.container\nModuleDict\n)\x81}K\x01K\x02sb}K\x01K\x02sb.", "changes StoredModuleDict"),
        (b"ctorch.nn.modules.container\nModuleDict\n)\x81K\x01K\x02s.", "StoredModuleDict is used as a dict"),
        (b"ccollections\nOrderedDict\n]\x85R.", "calls collections.OrderedDict"),
        (b"K\x01)R.", "calls int"),
        (b"X\x02\x00\x00\x00os)R.", "calls str"),
        (b"}}b.", "changes dict"),
        (b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R.", "calls numpy.dtype"),
        (b"cnumpy\ndtype\nX\x02\x00\x00\x00f8\x89\x88\x87R)b.", "changes _ScalarType"),
        (
            b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00f8\x89\x88\x87RC\x04abcd\x86R.",
            "a number of 4 bytes; needed are 8",
        ),
        (
            b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00f8\x89\x88\x87RC\x08\0\0\0\0\0\0\xf8\x7f\x86R.",
            "a number that is nan",
        ),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf-8\x86R.", "calls _codecs.encode"),
        (b"cbuiltins\nset\n])e\x85R.", "(?s)."),
        (b"cbuiltins\nset\n](]e\x85R.", "a set in the pickle"),
        (b"}(]K\x01u.", "a dict in the pickle"),
        (b"ctorch.storage\n_load_from_bytes\nX\x01\x00\x00\x00a\x85R.", "calls torch.storage._load_from_bytes"),
        (b"ctorch.storage\n_load_from_bytes\nC\x00\x85R.", "ends after 0 bytes"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00))\x89}tR.", "calls torch._utils._rebuild_tensor_v2"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "(?s)."),
        (b"ctorch._utils\n_rebuild_parameter\nK\x01\x89}\x87R.", "calls torch._utils._rebuild_parameter"),
        (b"K\x01.K\x02.", "goes on after the end of its pickle, at byte 3 of 6"),
        (b"K\x01", "ends after 2 bytes"),
        (b"B\xff\xff\xff\x7fab.", "in the middle of BINBYTES"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "in the middle of BINBYTES8"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "."),
        (b"G\x00\x00", "in the middle of BINFLOAT"),
        (b"", "ends after 0 bytes"),
    ],
)
def test_what_a_pickle_may_not_do(tmp_path: Path, code: bytes, words: str) -> None:
    with pytest.raises((DataError, ValueError, LookupError), match=words):
        read_objects(memoryview(code), WORDS)
    # Whatever the machine stumbles over is named once a file is read.
    with pytest.raises(DataError, match=r"net\.pkl"):
        read(tmp_path, b"\x80\x04" + code)


@pytest.mark.parametrize("ending", [b"\0", b"\x80\x04N.", b"#" * 1000])
def test_trailing_bytes_are_refused(tmp_path: Path, ending: bytes) -> None:
    refused(tmp_path, edm_pickle(small()) + ending, "goes on after the end of its pickle")


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PickleMachine.max_operations <= 1 << 20
    monkeypatch.setattr(PickleMachine, "max_operations", 1 << 14)
    for many in (b"N" * (1 << 14), b"}" * (1 << 14), b"(" * (1 << 14), b"]\x94" * (1 << 13)):
        refused(tmp_path, b"\x80\x04" + many + b".", "more than 16384 operations")
    # Ten lists, each of which holds the one before a hundred times, are 10^20 entries.
    nested: Any = "boom"
    for _ in range(10):
        nested = [nested] * 100
    refused(tmp_path, edm_pickle(small(), change=_init("dropout", nested)), "too many values")
    refused(tmp_path, edm_pickle(small(), change=_init("num_blocks", 1 << 60)), "num_blocks is 1152921504606846976")
    refused(tmp_path, edm_pickle(small(), change=_init("num_blocks", 1 << 600)), "a number of 601 bits")
    refused(tmp_path, edm_pickle(small(), change=_init("dropout", "a" * 5000)), "a string of 5000 letters")
    # A string of 1000 letters, decoded more often than the file has bytes.
    text = b"X" + (1000).to_bytes(4, "little") + b"a" * 1000
    code = b"c_codecs\nencode\n\x94" + text + b"\x94X\x06\0\0\0latin1\x94" + b"h\0h\1h\2\x86R" * 9 + b"."
    with pytest.raises(DataError, match="unfolds into more than it holds"):
        read_objects(memoryview(code), WORDS)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    deep = b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b"."
    refused(tmp_path, deep, "no EDM snapshot")
    nested: Any = []
    for _ in range(200):
        nested = [nested]
    refused(tmp_path, edm_pickle(small(), change=_init("dropout", nested)), "too deeply nested")


def test_modules_that_contain_themselves_are_refused(tmp_path: Path) -> None:
    def change(top: Embedded) -> None:
        blocks = top.child("model").state["_modules"]
        vars(blocks["dec"])["_modules"]["again"] = blocks["dec"]

    refused(tmp_path, edm_pickle(small(), change=change), "that contain themselves")

    def wide(top: Embedded) -> None:
        child = Embedded("Linear", {"_parameters": {}, "_buffers": {}, "_modules": {}})
        for _ in range(5):
            child = Embedded("Linear", {**child.state, "_modules": {f"m{i}": child for i in range(50)}})
        top.child("model").state["_modules"]["wide"] = child

    refused(tmp_path, edm_pickle(small(), change=wide), "more than 32768 modules")


def test_a_list_that_contains_itself_is_refused(tmp_path: Path) -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    refused(tmp_path, edm_pickle(small(), change=_init("dropout", cycle)), "deeply nested")


def _init(name: str, value: object) -> Callable[[Embedded], None]:
    return lambda top: top.child("model").state["_init_kwargs"].update({name: value})


def _state(path: str, **values: object) -> Callable[[Embedded], None]:
    return lambda top: (top.child(path) if path else top).state.update(values)


def _without(path: str, *keys: str) -> Callable[[Embedded], None]:
    def change(top: Embedded) -> None:
        table: Any = (top.child(path) if path else top).state
        for key in keys[:-1]:
            table = table[key]
        del table[keys[-1]]

    return change


def _weight(path: str, value: Tensor | None) -> Callable[[Embedded], None]:
    table = "_buffers" if path.endswith("resample_filter") else "_parameters"
    module, _, name = path.rpartition(".")
    return lambda top: top.child(module).state[table].update({name: value})


def _reordered(top: Embedded) -> None:
    table = vars(top.child("model").state["_modules"]["enc"])
    table["_modules"] = dict(reversed(table["_modules"].items()))


BLOCK = "model.enc.4x4_block0"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_state(BLOCK, num_heads=1), rf"{BLOCK}.num_heads is 1; in its architecture it is 0"),
        (_state(BLOCK, skip_scale=1.0), rf"{BLOCK}.skip_scale is 1.0"),
        (_state(BLOCK, adaptive_scale=True), rf"{BLOCK}.adaptive_scale is True"),
        (_state(BLOCK + ".norm0", eps=1e-5), "norm0.eps is 1e-05; in its architecture it is 1e-06"),
        (_state(BLOCK + ".norm0", num_groups=2), "norm0.num_groups is 2"),
        (_state(BLOCK + ".conv0", up=True), "conv0.up is True"),
        (_state(BLOCK + ".conv0", fused_resample=True), "conv0.fused_resample is True"),
        (_state(BLOCK + ".conv0", in_channels=[4]), r"conv0.in_channels is \[4\]"),
        (_state("model.map_noise", endpoint=False), "map_noise.endpoint is False"),
        (_state("model.map_noise", max_positions=100), "map_noise.max_positions is 100"),
        (_without(BLOCK, "num_heads"), "num_heads is None"),
        (_without("", "_modules"), "the network has no _modules"),
        (_without(BLOCK, "_buffers"), "4x4_block0 has no _buffers"),
        (_without("", "_modules", "model"), "has nothing for a model"),
        (_without(BLOCK, "_modules", "norm1"), "has the module"),
        (_without("model.map_layer1", "_parameters", "bias"), "lacks the tensor model.map_layer1.bias"),
        (_reordered, "has the module"),
        (_weight("model.map_layer0.weight", torch.zeros(4, 16)), r"map_layer0.weight has shape \[4, 16\]"),
        (_weight("model.map_layer0.weight", torch.full((16, 4), np.nan)), "map_layer0.weight holds NaN"),
        (_weight("model.map_layer0.extra", torch.zeros(2)), "'model.map_layer0.extra'"),
        (_weight("model.map_layer0.weight", torch.zeros(16, 4).double()), "asks for 'torch.DoubleStorage'"),
        (_weight("model.map_layer0.weight", torch.zeros(16, 4).long()), "asks for 'torch.LongStorage'"),
        (_weight("model.enc.2x2_down.conv0.resample_filter", torch.ones(1, 1, 2, 2)), "is not the filter of"),
        (_state("model.map_layer0", _parameters={"weight": 3}), "map_layer0.weight is a int; needed is a StoredTensor"),
        (_state("model.map_layer0", _parameters={"a.b": None}), "names are no plain strings"),
        (_state("model.map_layer0", _forward_hooks={0: 1}), "has _forward_hooks, which cannot be read"),
        (_state("model.map_layer0", _new_kind_of_hooks=[1]), "has _new_kind_of_hooks"),
        (_state("model", _modules={"map_noise": 3}), "map_noise is a int; allowed are modules"),
        (_init("channel_mult", [1]), "has the module"),
        (_init("encoder_type", "skip"), "has the module"),
        (_init("encoder_type", "deep"), "encoder_type is 'deep'; allowed are"),
        (_init("depth", 3), "'depth'; SongUNet takes"),
        (_init("label_dim", 3), "the model has label_dim 3, the preconditioner 2"),
        (_init("in_channels", 3), "the model has in_channels 3, the preconditioner 1"),
        (_init("attn_resolutions", [4]), "num_heads is 0; in its architecture it is 1"),
        (_state("", img_resolution="large"), "img_resolution 4, the preconditioner 'large'"),
        (_state("", sigma_max=3.0), "."),
        (_state("", sigma_data=-1.0), "sigma_data is -1"),
        (_state("model", _init_args=(4,)), "model was made with arguments that have no names"),
        (_state("model", _init_kwargs=None), "arguments of model is a NoneType; needed is a dict"),
        (lambda top: top.state["_init_kwargs"].update(model_type="DhariwalUNet"), "another type than SongUNet"),
        (lambda top: top.meta.update(class_name="Precond"), "class 'Precond'; allowed are"),
        (lambda top: top.meta.update(class_name=["EDMPrecond"]), "class a list"),
        (lambda top: top.meta.update(class_name="Linear"), "has a Linear for a network; allowed are EDMPrecond"),
        (lambda top: top.meta.update(version=5), "not of version 6"),
        (lambda top: top.meta.update(type="function"), "not of version 6"),
        (lambda top: top.meta.update(state=[1]), "EDMPrecond without a dict of attributes"),
        (lambda top: top.child("model").meta.update(class_name="Linear"), "has Linear for a model"),
        (
            lambda top: top.child(BLOCK).meta.update(class_name="Linear"),
            "is a Linear; in its architecture it is a UNet",
        ),
    ],
)
def test_a_network_that_is_not_what_it_claims_is_refused(
    tmp_path: Path, change: Callable[[Embedded], None], words: str
) -> None:
    if words == ".":
        assert read(tmp_path, edm_pickle(small(), change=change)).sigma_max == 3.0
        return
    refused(tmp_path, edm_pickle(small(), change=change), words)


def test_limits_of_the_vp_process_are_compared(tmp_path: Path) -> None:
    data = edm_pickle(small("VPPrecond"), change=_state("", sigma_max=80.0))
    refused(tmp_path, data, "sigma_max is 80.0; that of its network is 152.167")


def test_a_spoiled_noise_table_is_refused(tmp_path: Path) -> None:
    net = small("iDDPMPrecond")
    data = edm_pickle(net, change=lambda top: top.state["_buffers"].update(u=net.get_buffer("u").flip(0)))
    refused(tmp_path, data, "u is not a table of falling noise levels")


def test_numbers_that_are_there_only_once_do_not_count_often(tmp_path: Path) -> None:
    """Strides of zero would turn one number into a network of any size."""
    wide = built(
        {
            "preconditioner": "EDMPrecond",
            "preconditioner_kwargs": {"img_resolution": 4, "img_channels": 1},
            "architecture": "SongUNet",
            "architecture_kwargs": {"model_channels": 128, "channel_mult": [1], "num_blocks": 1},
        }
    )
    for module in wide.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                vars(module)["_parameters"][name] = torch.zeros(1).expand(parameter.shape)
    refused(tmp_path, edm_pickle(wide), "too few for the")


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        ({"ema": None}, "has a NoneType for a network"),
        ({"loss_fn": None}, "no dict with an entry 'ema'"),
        ([1, 2], "no dict with an entry 'ema'"),
        (None, "no dict with an entry 'ema'"),
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, snapshot: Any, words: str) -> None:
    refused(tmp_path, dumped(snapshot), words)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        read_edm_pickle(tmp_path / "none.pkl")
    with pytest.raises(DataError, match="damaged"):
        read_edm_pickle(tmp_path)
    refused(tmp_path, b"", "cannot be read")
    refused(tmp_path, b"PK\x03\x04 and so on", "is no pickle: it begins with b'PK")


def _cuts(data: bytes, number: int) -> list[int]:
    """Places before, in and after operations, and within the bytes of storages."""
    places = [place for _, _, place in pickletools.genops(data) if place is not None]
    step = 6 * len(places) // number
    return sorted(
        {place + shift for place in places[::step] for shift in (0, 1, 2, 5, 60, 300)} & set(range(len(data)))
    )


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    for protocol in (2, 4):
        for place in _cuts(SMALL[protocol], 40):
            with pytest.raises(DataError):
                read_objects(memoryview(SMALL[protocol])[:place], WORDS)
        for place in _cuts(SMALL[protocol], 6):
            refused(tmp_path, SMALL[protocol][:place], ".")


@given(st.lists(st.tuples(st.integers(0, len(SMALL[4]) - 1), st.binary(max_size=4), st.integers(0, 8)), max_size=4))
@example([(len(SMALL[4]) - 1, b"", 1)])
@example([(0, b"\x80\x04N.", len(SMALL[4]))])
def test_spoiled_bytes_give_a_network_or_our_error(changes: list[tuple[int, bytes, int]]) -> None:
    data = SMALL[4]
    for place, inserted, removed in changes:
        data = data[:place] + inserted + data[place + removed :]
    with tempfile.TemporaryDirectory() as folder:
        try:
            net = read(Path(folder), data)
        except PspcError as error:
            assert isinstance(error, DataError), repr(error)
        else:
            assert all(bool(value.isfinite().all()) for value in net.state_dict().values())


@given(st.binary(max_size=60))
def test_random_bytes_are_no_pickle_that_escapes(code: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.raises(DataError):
        read(Path(folder), b"\x80\x04(" + code + b".")


def test_reading_imports_and_calls_nothing(tmp_path: Path) -> None:
    """Python reports imports, compilation, commands and globals of pickles to those who ask."""
    (tmp_path / "net.pkl").write_bytes(SMALL[4])
    read_edm_pickle(tmp_path / "net.pkl")
    words = ("import", "compile", "exec", "os.system", "subprocess", "pickle.find_class", "marshal", "socket")
    seen: list[str] = []
    watching = [True]
    sys.addaudithook(lambda event, _: seen.append(event) if watching and event.startswith(words) else None)
    read_edm_pickle(tmp_path / "net.pkl")
    eval("1")  # so that an empty list would be seen to mean something
    watching.clear()
    assert set(seen) == {"compile", "exec"}
    assert len(seen) == 2


def test_long_bytes_are_views_of_the_file() -> None:
    data = memoryview(SMALL[4])
    objects = read_objects(data, WORDS)
    network = objects["ema"]
    assert isinstance(network, EmbeddedObject)
    weight = network.state["_modules"]["model"].state["_modules"]["map_layer0"].state["_parameters"]["weight"]
    assert weight.storage.raw.obj is data.obj
