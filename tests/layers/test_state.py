"""State dictionaries: torch's keys and weights, loading all or nothing, and the errors about what does not fit."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal.errors import StateError

MODELS: dict[str, Callable[[Any], Any]] = {
    "mlp": lambda nn: nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 2)),
    "lenet": lambda nn: nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
        nn.Sequential(nn.Flatten(), nn.Linear(8, 3)),
    ),
    "transformer": lambda nn: nn.ModuleDict(
        {"embed": nn.Embedding(9, 4), "attend": nn.MultiheadAttention(4, 2, add_bias_kv=True), "norm": nn.LayerNorm(4)}
    ),
    "cross attention": lambda nn: nn.MultiheadAttention(4, 2, kdim=3, vdim=5, bias=False),
    "recurrent": lambda nn: nn.ModuleList([nn.LSTM(3, 4, 2, bidirectional=True), nn.GRU(3, 4), nn.RNNCell(2, 3)]),
    "norms": lambda nn: nn.ModuleList(
        [
            nn.GroupNorm(2, 4),
            nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
            nn.RMSNorm(3),
            nn.BatchNorm1d(3, affine=False),
        ]
    ),
    "loss weights": lambda nn: nn.ModuleList([nn.CrossEntropyLoss(), nn.PReLU(3), nn.Bilinear(2, 3, 4)]),
    "parameters": lambda nn: nn.ModuleList(
        [nn.ParameterList([nn.Linear(2, 2).weight]), nn.ParameterDict({"a": nn.Linear(1, 1).bias})]
    ),
}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_keys_shapes_and_dtypes_are_torchs(torch: ModuleType, build: Callable[[Any], Any]) -> None:
    ours, theirs = build(nn).state_dict(), build(torch.nn).state_dict()
    assert [(k, v.shape, v.dtype.name) for k, v in ours.items()] == [
        (k, tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in theirs.items()
    ]


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_torchs_weights_load_and_ours_load_into_torch(torch: ModuleType, build: Callable[[Any], Any]) -> None:
    ours, theirs = build(nn), build(torch.nn)
    result = ours.load_state_dict(theirs.state_dict())
    assert repr(result) == "<All keys matched successfully>"
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[key].numpy(), value.numpy())
    other = build(torch.nn)
    other.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    assert all((other.state_dict()[k] == v).all() for k, v in theirs.state_dict().items())


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


def numbers(module: nn.Module) -> dict[str, Any]:
    return {k: v.cpu().numpy().copy() for k, v in module.state_dict().items()}


def test_a_state_shares_memory_and_has_no_history() -> None:
    layer = nn.Linear(2, 2)
    state = layer.state_dict()
    assert not state["weight"].requires_grad
    state["weight"].fill_(5)
    assert layer.weight.tolist() == [[5, 5], [5, 5]]
    assert layer.state_dict(keep_vars=True)["weight"] is layer.weight
    assert list(layer.state_dict(prefix="a.")) == ["a.weight", "a.bias"]


def test_loading_copies_casts_and_moves(each_device: hal.Device) -> None:
    source, target = net(), net()
    state = {k: v.to("cpu").double() if v.dtype is hal.float32 else v for k, v in source.state_dict().items()}
    parameter = target[0].weight
    target.load_state_dict(state)
    assert target[0].weight is parameter
    assert parameter.dtype is hal.float32
    assert parameter.device == each_device
    assert all((numbers(target)[k] == v).all() for k, v in numbers(source).items())
    state["0.weight"].fill_(9)
    assert (target[0].weight != 9).all()


def test_loading_with_assign_takes_the_tensors_themselves() -> None:
    target, state = net(), net().double().state_dict()
    target.load_state_dict(state, assign=True)
    assert target[0].weight.dtype is hal.float64
    assert isinstance(target[0].weight, nn.Parameter)
    state["0.weight"].fill_(9)
    assert (target[0].weight == 9).all()


def test_loading_what_is_there_says_what_was_not() -> None:
    target = net()
    state = {"0.weight": hal.ones(4, 3), "extra": hal.ones(1)}
    result = target.load_state_dict(state, strict=False)
    missing = ["0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "2.weight"]
    assert result == (missing, ["extra"])
    assert result.missing_keys == missing
    assert target[0].weight.tolist() == [[1, 1, 1]] * 4


def test_a_tie_stays_a_tie() -> None:
    target = net()
    target.twin = nn.Linear(3, 4)
    target.twin.weight = target[0].weight
    target.load_state_dict(target.state_dict() | {"0.weight": hal.ones(4, 3), "twin.weight": hal.ones(4, 3)})
    assert target.twin.weight is target[0].weight


ERRORS: list[tuple[str, Callable[[dict[str, Any]], Any], type[Exception], list[str]]] = [
    ("missing", lambda s: s.pop("0.bias"), StateError, ["nothing was loaded", 'missing keys: "0.bias"']),
    (
        "near",
        lambda s: s.update({"0.biases": s.pop("0.bias")}),
        StateError,
        ['missing keys: "0.bias" (the state has "0.biases")', 'unexpected keys: "0.biases" (the module has "0.bias")'],
    ),
    ("unexpected", lambda s: s.update(extra=hal.ones(1)), StateError, ['unexpected keys: "extra"']),
    (
        "shape",
        lambda s: s.update({"0.weight": hal.ones(3, 4)}),
        StateError,
        ['size mismatch for "0.weight": the state has shape (3, 4), the module has (4, 3)'],
    ),
    (
        "all at once",
        lambda s: s.update({"0.weight": hal.ones(3, 4), "2.weight": hal.ones(1), "x": hal.ones(1)}),
        StateError,
        ['"0.weight"', '"2.weight"', 'unexpected keys: "x"'],
    ),
    (
        "no tensor",
        lambda s: s.update({"0.weight": "w"}),
        StateError,
        ['a str under "0.weight", where a tensor was needed'],
    ),
]


@pytest.mark.parametrize(("spoil", "error", "texts"), [e[1:] for e in ERRORS], ids=[e[0] for e in ERRORS])
def test_nothing_is_loaded_if_anything_is_wrong(
    spoil: Callable[[dict[str, Any]], Any], error: type[Exception], texts: list[str]
) -> None:
    target = net()
    before = numbers(target)
    state = dict(net().state_dict())
    spoil(state)

    with pytest.raises(error) as caught:
        target.load_state_dict(state)

    for text in texts:
        assert text in str(caught.value)
    assert all((numbers(target)[k] == v).all() for k, v in before.items())


def test_a_file_name_is_no_state() -> None:
    with pytest.raises(TypeError, match=r"needs a dictionary of tensors, got str: use hal.load"):
        net().load_state_dict("net.safetensors")


def test_a_state_survives_a_file(tmp_path: Path, each_device: hal.Device) -> None:
    source, target = net(), net()
    hal.save(source.state_dict(), tmp_path / "net.params")
    target.load_state_dict(hal.load(tmp_path / "net.params"))
    assert all((numbers(target)[k] == v).all() for k, v in numbers(source).items())


def test_files_from_before_batches_were_counted_load() -> None:
    state = dict(net().state_dict())
    del state["1.num_batches_tracked"]
    assert net().load_state_dict(state) == ([], [])


def test_a_prefix_that_all_names_have_is_named_alone() -> None:
    inner = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    outer = nn.ModuleDict({"module": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))})
    cures = []
    for target, source in ((inner, outer), (outer, inner)):
        with pytest.raises(StateError, match='begin with "module\\."') as caught:
            target.load_state_dict(source.state_dict())
        assert "missing" not in str(caught.value)
        cures.append(str(caught.value).partition("load ")[2])
        state = source.state_dict()
        assert target.load_state_dict(eval(cures[-1], {"state": state})) == ([], [])
    assert cures[0].startswith("{k.removeprefix('module.'): v")


class Counted(nn.Module):
    """A layer with something to keep besides tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.words = ["a"]

    def get_extra_state(self) -> list[str]:
        return self.words

    def set_extra_state(self, state: list[str]) -> None:
        self.words = state


def test_a_module_may_keep_more_than_tensors(torch: ModuleType) -> None:
    source, target = nn.Sequential(Counted()), nn.Sequential(Counted())
    source[0].words = ["a", "b"]
    state = source.state_dict()
    assert list(state) == ["0._extra_state", "0.linear.weight", "0.linear.bias"]
    target.load_state_dict(state)
    assert target[0].words == ["a", "b"]
    del state["0._extra_state"]
    assert target.load_state_dict(state, strict=False).missing_keys == ["0._extra_state"]


def hooked(kit: Any) -> tuple[Any, list[Any]]:
    """A network whose hooks tell when they are called."""
    told: list[Any] = []
    model = kit.Sequential(kit.Linear(2, 2), kit.Linear(2, 1))
    for name, part in model.named_modules():
        part.register_state_dict_pre_hook(lambda m, prefix, keep, name=name: told.append(("save", name, prefix, keep)))
        part.register_state_dict_post_hook(lambda m, s, prefix, meta: told.append(("saved", prefix, sorted(s))))
        part.register_load_state_dict_pre_hook(
            lambda m, s, prefix, meta, strict, *lists: told.append(("load", prefix, strict, lists))
        )
        part.register_load_state_dict_post_hook(lambda m, keys: told.append(("loaded", type(m).__name__, tuple(keys))))
    return model, told


def test_hooks_are_called_as_in_torch(torch: ModuleType) -> None:
    (ours, told), (theirs, wanted) = hooked(nn), hooked(torch.nn)
    for model in (ours, theirs):
        model.load_state_dict(model.state_dict())
    by_kind = [[sorted(map(repr, (e for e in events if e[0] == kind))) for kind in ("load", "loaded")]
               for events in (told, wanted)]  # fmt: skip
    assert by_kind[0] == by_kind[1]
    assert [e for e in told if e[0].startswith("save")] == [e for e in wanted if e[0].startswith("save")]


def test_hooks_rename_what_was_called_otherwise_and_forgive() -> None:
    model, old = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2)).state_dict()
    old["0.kernel"] = old.pop("0.weight")
    old["0.rest"] = hal.ones(1)

    def rename(module: Any, state: Any, prefix: str, *rest: Any) -> None:
        state[prefix + "weight"] = state.pop(prefix + "kernel")

    handle = model[0].register_load_state_dict_pre_hook(rename)
    with pytest.raises(StateError, match=r"nothing was loaded[^$]*0\.rest"):
        model.load_state_dict(old)
    assert not (model[0].weight == old["0.kernel"]).all()
    model.register_load_state_dict_post_hook(lambda module, keys: keys.unexpected_keys.clear())
    assert model.load_state_dict(old) == ([], [])
    assert (model[0].weight == old["0.kernel"]).all()
    assert "0.kernel" in old
    handle.remove()
    with pytest.raises(StateError, match="missing keys"):
        model.load_state_dict(old)


def test_state_hooks_give_nothing_back() -> None:
    model = nn.Linear(2, 2)
    model.register_state_dict_post_hook(lambda module, state, prefix, meta: state)
    with pytest.raises(TypeError, match="returns None"):
        model.state_dict()


def test_to_empty_makes_room_on_a_device() -> None:
    model = nn.BatchNorm1d(3)
    state, weight = {k: v.numpy().copy() for k, v in model.state_dict().items()}, model.weight
    assert model.to_empty(device="cpu") is model
    assert model.weight is weight
    model.load_state_dict(state)
    assert all((model.state_dict()[k].numpy() == v).all() for k, v in state.items())
