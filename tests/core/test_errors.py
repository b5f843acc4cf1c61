"""The texts of the errors for bad input: each says who, what was needed, what came, and where it can, the cure.

One row for each mistake: what is done, the class of the error, and its message, where `…` stands for what does not
matter. Two things hold for all rows: the error comes from hal and is of the class that Python or NumPy would raise,
and nothing that went in has changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal import ops
from hal.errors import (
    ConfigError,
    CopyError,
    DataError,
    DeviceError,
    DTypeError,
    FallbackError,
    GradientError,
    HalError,
    OutOfMemoryError,
    SettingError,
    ShapeError,
    StateError,
)
from hal.testing.fake import Fake
from nn import functional as F
from nn import optim

Row = tuple[Callable[[], Any], type[Exception], str]

X = hal.ones(2, 3)
V = hal.ones(4)
YES = hal.tensor([True, False])
IMAGE = hal.ones(1, 3, 8, 8)
LEAF = hal.ones(2, requires_grad=True)


def ones(*shape: int) -> hal.Tensor:
    return hal.ones(*shape)


def put(target: hal.Tensor, index: Any, value: Any) -> None:
    target[index] = value


# fmt: off
SHAPES: list[Row] = [
    (lambda: ops.matmul(X, X), ShapeError,
     "matmul needs (..., m, k) @ (..., k, n), or a vector of k for either, got (2, 3) @ (2, 3): 3 and 2 should"),
    (lambda: X @ V, ShapeError, "matmul needs … got (2, 3) @ (4,): 3 and 4 should be equal, so transpose or reshape"),
    (lambda: hal.tensor(1.0) @ X, ShapeError, "matmul needs … got () @ (2, 3): use * for a single value"),
    (lambda: ones(5, 2, 3) @ ones(4, 3, 2), ShapeError,
     "matmul needs shapes that broadcast, got (5,) and (4,): axis -1 has sizes 5 and 4; make them equal, or one of"),
    (lambda: hal.mm(X, ones(3)), ShapeError,
     "mm needs tensors of 2 axes and 2 axes, got shapes (2, 3) and (3,); matmul takes"),
    (lambda: hal.bmm(X, X), ShapeError, "bmm needs tensors of 3 axes and 3 axes, got shapes (2, 3) and (2, 3)"),
    (lambda: hal.dot(X, X), ShapeError, "dot needs tensors of 1 axis and 1 axis, got shapes (2, 3) and (2, 3)"),
    (lambda: F.linear(X, ones(4, 2)), ShapeError,
     "linear needs an input (..., in_features) and a weight (out_features, in_features), got (2, 3) and (4, 2): the"),
    (lambda: F.linear(X, ones(4, 3), ones(3)), ShapeError,
     "linear needs a bias of 4 elements, one for each row … got (3,)"),
    (lambda: hal.einsum("ij,jk->ik", X, X), ShapeError,
     "einsum('ij,jk->ik') needs one size for all axes 'j', which have 3 and 2, got operands of shapes (2, 3), (2, 3)"),
    (lambda: hal.einsum("ij,jk", X), ShapeError, "einsum('ij,jk') names 2 operands, got operands of shapes (2, 3)"),
    (lambda: hal.tensordot(X, X, 1), ShapeError,
     "tensordot needs equal sizes along axes=1, got shapes (2, 3) and (2, 3)"),
    (lambda: X + V, ShapeError,
     "add needs shapes that broadcast, got (2, 3) and (4,): axis -1 has sizes 3 and 4; make them equal, or one"),
    (lambda: X * ones(3, 2), ShapeError,
     "mul needs shapes that broadcast, got (2, 3) and (3, 2): axis -1 has sizes 3 and 2"),
    (lambda: ones(7) == X, ShapeError, "equal needs shapes that broadcast, got (7,) and (2, 3)"),
    (lambda: hal.where(X > 0, V, X), ShapeError, "where needs shapes that broadcast, got (2, 3) and (4,) and (2, 3)"),
    (lambda: hal.broadcast_to(X, (2, 4)), ShapeError,
     "broadcast_to needs a shape that (2, 3) broadcasts to, got (2, 4)"),
    (lambda: X.expand(5), ShapeError,
     "expand of (2, 3) needs a size for each axis, -1 only for those there are, got (5,)"),
    (lambda: X.reshape(4), ShapeError, "reshape needs a shape of 6 elements, as (2, 3) has, got (4,): 4 of them"),
    (lambda: X.reshape(-1, -1), ShapeError,
     "reshape of 6 elements to (-1, -1): needs at most one -1, and a size that fits"),
    (lambda: X.reshape(-1, 4), ShapeError,
     "reshape of 6 elements to (-1, 4): needs at most one -1, and a size that fits"),
    (lambda: hal.cat([X, ones(2, 4)], dim=0), ShapeError,
     "concat needs equal shapes except along axis 0, got (2, 3) first and (2, 4) at position 1"),
    (lambda: hal.cat([X, X], dim=2), ShapeError, "concat got axis 2, but its input has 2 axes: use -2 to 1"),
    (lambda: hal.cat([]), ShapeError, "concat needs one tensor or more, got none"),
    (lambda: hal.stack([X, ones(2, 4)]), ShapeError,
     "stack needs equal shapes, got (2, 3) first and (2, 4) at position 1"),
    (lambda: X.split(0), ShapeError, "split needs parts of one element or more, got 0 for axis 0 of size 2"),
    (lambda: X.split([1, 1], dim=1), ShapeError, "split needs sizes that add up to 3, the size of axis 1, got [1, 1]"),
    (lambda: hal.chunk(X, 0), SettingError, "chunk needs one part or more, got 0"),
    (lambda: X.permute(0, 1, 2), ShapeError, "permute needs each of the 2 axes of (2, 3) once, got axes=(0, 1, 2)"),
    (lambda: X.transpose(0, 5), ShapeError, "transpose got axis 5, but its input has 2 axes: use -2 to 1"),
    (lambda: X.unsqueeze(9), ShapeError, "unsqueeze got axis 9, but its input has 3 axes: use -3 to 2"),
    (lambda: X.sum(dim=4), ShapeError, "sum got axis 4, but its input has 2 axes: use -2 to 1"),
    (lambda: X.mean(dim=-3), ShapeError, "mean got axis -3, but its input has 2 axes: use -2 to 1"),
    (lambda: X.softmax(5), ShapeError, "softmax got axis 5, but its input has 2 axes: use -2 to 1"),
    (lambda: X.sum(dim=(0, 0)), ShapeError, "sum got axis (0, 0), which names an axis of its 2-axis input twice"),
    (lambda: ones(0, 3).max(), ShapeError,
     "max needs at least one element … got shape (0, 3) with axis=None: … check for"),
    (lambda: ones(0, 3).argmax(dim=0), ShapeError,
     "argmax needs at least one element along its axis, got shape (0, 3)"),
    (lambda: hal.topk(X, 9), ShapeError, "topk got k=9, but axis -1 of (2, 3) has 3 elements: take 0 to that many"),
    (lambda: hal.tril(V), ShapeError, "tril needs matrices, two axes or more, got shape (4,)"),
    (lambda: hal.tile(X, (-1,)), ShapeError, "tile needs sizes of zero or more, got (-1,)"),
    (lambda: hal.zeros(-1), ShapeError, "zeros needs sizes of 0 or more, got (-1,)"),
    (lambda: hal.zeros(2.5), ShapeError, "zeros needs whole numbers as sizes, got 2.5 in (2.5,)"),
    (lambda: hal.eye(-2), ShapeError, "eye needs sizes of 0 or more, got (-2, -2)"),
    (lambda: hal.linspace(0, 1, -1), ShapeError, "linspace needs sizes of 0 or more, got (-1,)"),
    (lambda: hal.arange(0, 3, 0), ShapeError, "arange needs a step that is not 0"),
    (lambda: hal.tensor([[1, 2], [3]]), ShapeError, "hal.tensor needs nested lists of equal lengths, got ragged data"),
    (lambda: X.item(), ShapeError,
     "item() needs a tensor with one element, got shape (2, 3): index it, or use .tolist()"),
    (lambda: bool(X), ShapeError, "bool() needs a tensor with one element, got shape (2, 3): use .any() or .all()"),
    (lambda: X.add_(ones(5, 2, 3)), ShapeError,
     "add gives shape (5, 2, 3), which cannot be put into a tensor of shape (2, 3) in place; …"),
    (lambda: X.copy_(ones(5)), ShapeError, "broadcast_to needs a shape that (5,) broadcasts to, got (2, 3)"),
    (lambda: put(X, 0, V), ShapeError,
     "x[...] = value needs a value that broadcasts to (3,), the shape of x[...], got (4,)"),
]

LAYERS: list[Row] = [
    (lambda: F.conv2d(ones(8, 8), ones(4, 3, 3, 3)), ShapeError,
     "conv2d needs an input of layout (N, C, H, W), got (8, 8) with 2 axes"),
    (lambda: F.conv2d(IMAGE, ones(4, 2, 3, 3)), ShapeError,
     "conv2d got an input (N, C, H, W) of (1, 3, 8, 8) with 3 channels, but its weights (4, 2, 3, 3) … are for 2"),
    (lambda: F.conv2d(IMAGE, ones(4, 3, 9, 9)), ShapeError,
     "conv2d has a window of (9, 9) … which does not fit into an input … make the input or the padding larger, or the"),
    (lambda: F.conv2d(IMAGE, ones(4, 3, 3, 3), groups=2), ShapeError,
     "conv2d with groups=2 needs input_channels in a multiple of 2, got 3"),
    (lambda: F.conv2d(IMAGE, ones(4, 3, 3, 3), ones(5)), ShapeError,
     "conv2d needs one bias for each of its 4 output channels, (4,); got (5,)"),
    (lambda: F.conv2d(IMAGE, ones(4, 3, 3, 3), stride=0), SettingError,
     "conv2d needs stride= of 1 or more, got (0, 0)"),
    (lambda: F.conv2d(IMAGE, ones(4, 3, 3, 3), padding="sane"), SettingError,
     "conv2d needs padding= as numbers, 'same' or 'valid', got 'sane'"),
    (lambda: F.conv2d(IMAGE, ones(4, 3, 3, 3), stride=(1, 2, 3)), SettingError,
     "conv2d needs stride= as a whole number or 2 of them, got (1, 2, 3)"),
    (lambda: F.max_pool2d(IMAGE, 9), ShapeError, "max_pool2d has a window of (9, 9) … which does not fit"),
    (lambda: F.max_pool2d(IMAGE, 2, padding=2), SettingError,
     "max_pool2d needs padding= of at most half its kernel (2, 2)"),
    (lambda: F.layer_norm(X, (4,)), ShapeError,
     "layer_norm over (4,) needs an input whose last axes are (4,), got (2, 3)"),
    (lambda: F.batch_norm(X, ones(2), ones(2)), ShapeError,
     "batch_norm needs mean with one number for each of the 3 channels of its input (N, C, ...) (2, 3), so of shape"),
    (lambda: F.batch_norm(ones(1, 3), None, None, training=True), ShapeError,
     "batch_norm in training needs more than one value per channel, got (1, 3): use a larger batch, or eval()"),
    (lambda: F.group_norm(IMAGE, 2), ShapeError, "group_norm with groups=2 needs channels in a multiple of 2, got 3"),
    (lambda: F.cross_entropy(X, hal.tensor([0, 1, 2])), ShapeError,
     "cross_entropy needs class indices of shape (2,) for scores of shape (2, 3), whose axis 1 lists … got (3,)"),
    (lambda: F.cross_entropy(X, hal.tensor([0.5, 1.0])), ShapeError,
     "cross_entropy with probabilities needs a target of the scores' shape (2, 3), got (2,); … convert it to int64"),
    (lambda: F.cross_entropy(X, hal.tensor([0, 3])), IndexError,
     "target 3 is no class: a loss of 3 classes takes 0 to 2, and ignore_index=-100 for what does not count"),
    (lambda: F.nll_loss(X, hal.tensor([0]), reduction="avg"), SettingError,
     "nll_loss needs reduction= one of mean, sum, none, got 'avg'"),
    (lambda: F.binary_cross_entropy(X, ones(3)), ShapeError,
     "binary_cross_entropy needs a target of the input's shape (2, 3), got (3,): reshape it"),
    (lambda: F.embedding(hal.tensor([0, 9]), ones(4, 2)), IndexError,
     "embedding got an index outside its table of 4 rows"),
    (lambda: F.dropout(X, 1.5), SettingError, "dropout needs p= between 0 and 1, got 1.5"),
    (lambda: F.scaled_dot_product_attention(ones(1, 2, 3), ones(1, 2, 4), ones(1, 2, 4)), ShapeError,
     "attention needs queries (..., n, d), keys (..., m, d) and values (..., m, e), got (1, 2, 3), (1, 2, 4) and"),
    (lambda: nn.Linear(2, 3)(ones(4, 5)), ShapeError,
     "linear needs an input (..., in_features) … got (4, 5) and (3, 2)"),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), ShapeError, "Conv2d needs in_channels that groups=2 divides, got 3"),
    (lambda: nn.MultiheadAttention(5, 2), SettingError,
     "MultiheadAttention needs embed_dim that num_heads divides, got 5"),
]

DTYPES: list[Row] = [
    (lambda: X & X, DTypeError,
     "bitwise_and takes bool, int, uint elements, got float32; convert with .to(dtype) or hal.astype first"),
    (lambda: X << 1, DTypeError, "bitwise_left_shift takes int, uint elements, got float32; convert with"),
    (lambda: YES - YES, DTypeError, "sub takes int, uint, float, complex elements, got bool; convert with"),
    (lambda: F.embedding(hal.tensor([0.5]), X), DTypeError,
     "embedding needs integer indices, got float32; convert them with"),
    (lambda: X.masked_fill_(ones(2, 3), 1), DTypeError,
     "masked_fill needs a mask of bool, got float32: compare, or use .bool()"),
    (lambda: hal.bincount(X), DTypeError, "bincount needs a vector of integers, got shape (2, 3) of float32"),
    (lambda: hal.tensor([1.5], dtype="float31"), DTypeError,
     "a dtype was needed, got 'float31'; the dtypes are bool, int8,"),
    (lambda: hal.tensor([1], dtype=list), DTypeError,
     "a dtype was needed, got <class 'list'>; the dtypes are bool, int8,"),
    (lambda: hal.tensor("abc"), DTypeError, "hal.tensor needs numbers, got str with text in it"),
    (lambda: hal.tensor([1, "a"]), DTypeError, "hal.tensor needs numbers, got list with text in it"),
    (lambda: hal.tensor(object()), DTypeError, "hal.tensor needs numbers, got object with objects in it"),
    (lambda: hal.full((2,), "a"), DTypeError, "full needs a number to fill with, got 'a'"),
    (lambda: hal.from_numpy([1, 2]), DTypeError, "hal.from_numpy needs a NumPy array, got list: use hal.tensor"),
    (lambda: hal.from_numpy(np.array(["a"])), DTypeError, "hal has no dtype like NumPy's <U1; it has bool, int8,"),
    (lambda: hal.exp("a"), DTypeError,
     "exp takes tensors and Python numbers by position, got str: make a tensor of it with"),
    (lambda: X + None, TypeError, "unsupported operand type(s) for +: 'Tensor' and 'NoneType'"),
    (lambda: hal.finfo(hal.int32), DTypeError, "finfo takes floating-point types, got int32: use iinfo"),
    (lambda: hal.iinfo(hal.float32), DTypeError, "iinfo takes integer types, got float32: use finfo"),
    (lambda: hal.tensor([1], requires_grad=True), GradientError,
     "only floating-point tensors can require gradients, this one is int64"),
    (lambda: hal.arange(3, requires_grad=True), GradientError,
     "only floating-point tensors can require gradients, this one is int64"),
]

SETTINGS: list[Row] = [
    (lambda: ops.exp(X, base=2), SettingError, "exp has no setting base; it takes exp(x)"),
    (lambda: ops.exp(X, X), SettingError, "exp got 2 inputs; it takes exp(x)"),
    (lambda: ops.sum(X, axes=0), SettingError, "sum has no setting axes; it takes sum(x, axis=None, keepdims=False)"),
    (lambda: ops.cast(X), SettingError, "cast needs dtype=; it takes cast(x, dtype=)"),
    (lambda: ops.pad(X, padding=((0, 0),)), ShapeError,
     "pad needs a pair (before, after) of sizes >= 0 for each of the 2 axes"),
    (lambda: X.reshape("a"), SettingError, "reshape needs a whole number, got 'a'"),
    (lambda: hal.norm(X, p="foo"), SettingError, "norm takes a number or 'fro' as p, got 'foo'"),
    (lambda: hal.randint(5, 5, (2,)), SettingError, "randint needs low < high, … got low=5 and high=5"),
    (lambda: hal.normal(0.0, 1.0), SettingError, "normal needs size= where mean and std are numbers"),
    (lambda: hal.manual_seed(2**65), SettingError, "a seed is an integer of 64 bits, got 36893488147419103232"),
    (lambda: hal.manual_seed("a"), SettingError, "a seed is an integer of 64 bits, got 'a'"),
    (lambda: hal.fallback("wran"), ConfigError,
     "hal.fallback takes warn, allow, error, got 'wran'; did you mean warn?"),
    (lambda: hal.copies("foo"), ConfigError, "hal.copies takes allow, error, got 'foo'"),
    (lambda: optim.SGD([], lr=0.1), ValueError, "SGD got no parameters: pass net.parameters(), once and not used up"),
    (lambda: optim.SGD([X], lr=-1), ValueError, "SGD needs lr= of 0 or more, got -1"),
    (lambda: optim.SGD(X, lr=0.1), TypeError,
     "SGD needs an iterable of parameters, got one tensor: put it into a list"),
    (lambda: nn.data.DataLoader([1, 2], batch_size=0), ValueError, "a batch size must be a positive integer, got 0"),
    (lambda: nn.Module()(1), NotImplementedError,
     "Module has no forward: write `def forward(self, x)` in class Module"),
    (lambda: nn.Sequential(3), TypeError, "add_module('0') needs an nn.Module or None, got int"),
]

INDICES: list[Row] = [
    (lambda: X[5], IndexError, "index 5 is out of range for axis 0 of size 2"),
    (lambda: X[:, None, None, 4], IndexError, "index 4 is out of range for axis 1 of size 3"),
    (lambda: X[0, 0, 0], IndexError, "too many indices: 3 for a tensor with 2 axes, of shape (2, 3)"),
    (lambda: X[hal.tensor([7])], IndexError, "index 7 is out of range for axis 0 of size 2"),
    (lambda: X["a"], IndexError,
     "an index is made of integers, slices, ..., None, and tensors or lists of bool or integers, got str"),
    (lambda: X[1.5], IndexError, "an index is made of integers, …, got float"),
    (lambda: X[hal.tensor([True, False, True])], IndexError,
     "a mask of shape (3,) does not fit axes 0 to 0 of a tensor of shape (2, 3), whose sizes are (2,)"),
    (lambda: X[::0], IndexError, "a slice takes whole numbers, and a step that is not 0, got slice(None, None, 0)"),
    (lambda: hal.gather(X, 0, hal.tensor([[5]])), IndexError,
     "gather got index 5 into axis 0 of shape (2, 3): use -2 to 1"),
    (lambda: hal.index_select(X, 0, hal.tensor([7])), IndexError,
     "take got index 7 into axis 0 of shape (2, 3): use -2 to 1"),
    (lambda: X.scatter_(0, hal.tensor([[9, 0, 0]]), 1.0), IndexError,
     "scatter got index 9 into axis 0 of shape (2, 3)"),
    (lambda: nn.Sequential(nn.ReLU())[4], IndexError, "Sequential has 1 modules, there is no number 4"),
    (lambda: len(hal.tensor(1.0)), TypeError, "len() of a tensor without axes: it is a single value"),
]

DEVICES: list[Row] = [
    (lambda: hal.device("cpuu"), DeviceError,
     "there is no backend 'cpuu'; there are cpu, …; did you mean cpu? … pip install"),
    (lambda: hal.device("cpu:3"), DeviceError, "there is no device 'cpu:3'; backend 'cpu' has cpu"),
    (lambda: hal.device(3), DeviceError, "a device is asked for by name, such as 'cpu' or 'name:1', got 3"),
    (lambda: hal.zeros(2, device="cupy"), DeviceError, "there is no backend 'cupy'; there are cpu, "),
    (lambda: X.to(3), SettingError, "to() takes a device by name, got the number 3: write 'name:3'"),
    (lambda: hal.devices("cpuu"), DeviceError, "there is no backend 'cpuu'; there are cpu, "),
    (lambda: hal.ones(2, device="fake", dtype=hal.float64), DTypeError, "fake … float64"),
]

GRADIENTS: list[Row] = [
    (lambda: X.backward(), GradientError,
     "backward() starts from a tensor that does not require a gradient: … (set requires_grad=True on them"),
    (lambda: (LEAF * 2).backward(), GradientError,
     "backward() without a gradient needs a single number, got shape (2,): sum() it, or pass one"),
    (lambda: LEAF.add_(1), GradientError,
     "add would change in place a leaf tensor that requires a gradient; do it under hal.no_grad(), or on its .data"),
    (lambda: LEAF.numpy(), GradientError,
     "numpy() of a tensor that requires a gradient would lose it: use .detach().numpy()"),
]

STATES: list[Row] = [
    (lambda: nn.Linear(2, 3).load_state_dict({}), StateError,
     "the state does not fit Linear, and nothing was loaded:…missing keys: \"weight\", \"bias\""),
    (lambda: nn.Linear(2, 3).load_state_dict({"weight": ones(3, 3), "bias": ones(3), "extra": ones(1)}), StateError,
     "unexpected keys: \"extra\"…size mismatch for \"weight\": the state has shape (3, 3), the module has (3, 2)"),
    (lambda: nn.Linear(2, 3).load_state_dict([1]), TypeError,
     "load_state_dict needs a dictionary of tensors, got list: use hal.load(file) first"),
    (lambda: optim.SGD([ones(2)], lr=0.1).load_state_dict({}), StateError,
     "SGD.load_state_dict needs 'state' and 'param_groups', got []"),
    (lambda: optim.SGD([ones(2)], lr=0.1).load_state_dict({"state": {}, "param_groups": []}), StateError,
     "SGD has groups of [1] parameters, the state has groups of []"),
]
# fmt: on

TABLE = {
    "shapes": SHAPES, "layers": LAYERS, "dtypes": DTYPES, "settings": SETTINGS, "indices": INDICES, "devices": DEVICES,
    "gradients": GRADIENTS, "states": STATES,
}  # fmt: skip


def said(error: BaseException, form: str) -> bool:
    """Whether the message has what the row says, part by part."""
    wanted = ".*".join(re.escape(part.strip()) for part in form.split("…"))
    return re.search(wanted, str(error), re.DOTALL) is not None


@pytest.mark.parametrize(
    ("call", "kind", "form"),
    [pytest.param(*row, id=f"{group}-{i}") for group, rows in TABLE.items() for i, row in enumerate(rows)],
)
def test_a_mistake_is_told_with_its_cure(call: Callable[[], Any], kind: type[Exception], form: str) -> None:
    with pytest.raises(kind) as raised:
        call()
    assert raised.type is kind
    assert said(raised.value, form), str(raised.value)
    assert X.tolist() == [[1.0] * 3] * 2
    assert LEAF.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("ours", "pythons"),
    [
        (ShapeError, ValueError), (DTypeError, TypeError), (SettingError, TypeError), (DeviceError, RuntimeError),
        (GradientError, RuntimeError), (ConfigError, ValueError), (DataError, ValueError), (StateError, RuntimeError),
        (FallbackError, DeviceError), (CopyError, DeviceError), (OutOfMemoryError, DeviceError),
    ],
)  # fmt: skip
def test_an_error_of_hal_is_caught_as_pythons_own(ours: type[Exception], pythons: type[Exception]) -> None:
    assert issubclass(ours, HalError)
    assert issubclass(ours, pythons)


# Files.


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    hal.save({"weight": hal.ones(30)}, folder / "whole")
    whole = (folder / "whole").read_bytes()
    (folder / "cut").write_bytes(whole[:-7])
    (folder / "damaged").write_bytes(b"\xff" + whole[1:])
    (folder / "empty").write_bytes(b"")
    (folder / "pickle").write_bytes(b"\x80\x04K\x01.")
    (folder / "zip").write_bytes(b"PK\x03\x04" + b"\0" * 20)
    return folder


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("none", "{}/none cannot be read: No such file or directory; check the path"),
        ("", "{} cannot be read: Is a directory; check the path"),
        (
            "cut",
            "{}/cut should be a whole safetensors file, but its … bytes are not … it was cut off, damaged, or is of",
        ),
        ("damaged", "{}/damaged should be a whole safetensors file, but its … bytes are not"),
        ("empty", "{}/empty should be a whole safetensors file, but its 0 bytes are not"),
        (
            "pickle",
            "{}/pickle should be a safetensors file, but begins like a pickle … which can run any code when read",
        ),
        ("zip", "{}/zip should be a safetensors file, but begins like a pickle or a file of torch.save"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named(files: Path, name: str, form: str) -> None:
    with pytest.raises(DataError) as raised:
        hal.load(files / name)
    assert said(raised.value, form.format(files)), str(raised.value)


@pytest.mark.parametrize(
    ("value", "where", "kind", "form"),
    [
        (
            object(),
            "new",
            DTypeError,
            "save takes tensors, arrays, numbers, strings, None, and lists, tuples and dictionaries",
        ),
        ({"a": [X, {1, 2}]}, "new", DTypeError, "save takes … got set in a.1"),
        ({1.5: X}, "new", DTypeError, "save takes dictionaries with str and int keys, got 1.5 in the object"),
        (X, "no/such/folder", DataError, "{}/no/such/folder cannot be written: … check that the folder exists"),
    ],
)
def test_what_cannot_be_saved_leaves_no_file(
    files: Path, value: Any, where: str, kind: type[Exception], form: str
) -> None:
    before = sorted(files.iterdir())
    with pytest.raises(kind) as raised:
        hal.save(value, files / where)
    assert said(raised.value, form.format(files)), str(raised.value)
    assert sorted(files.iterdir()) == before


def test_missing_data_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        nn.data.MNIST(tmp_path)
    form = (
        "MNIST needs the files train-images-idx3-ubyte, … not found in {0} or {0}/MNIST/raw: put them into {0}, or pass"
    )
    assert said(raised.value, form.format(tmp_path)), str(raised.value)


# Devices with limits, and the variables that choose among them.


@pytest.mark.parametrize(
    ("fake", "call", "kind", "form"),
    [
        (Fake("chip", memory=1000), lambda: hal.zeros(1000, device="chip"), OutOfMemoryError,
         "chip has 1,000 bytes of memory, … in use by …; a buffer of 4,000 bytes does not fit: free tensors, or use"),
        (Fake("chip", training=False), lambda: LEAF.to("chip") * 2, DeviceError, "chip … only infer"),
        (Fake("chip", dtypes=[hal.int32]), lambda: hal.ones(2, device="chip"), DTypeError, "chip … float32"),
        (Fake("chip", fail_after=0), lambda: hal.ones(2, device="chip").exp(), DeviceError,
         "chip failed at …: it was declared to fail after 0 calls"),
        (Fake("chip", count=2), lambda: hal.device("chip:2"), DeviceError,
         "there is no device 'chip:2'; backend 'chip' has chip:0, chip:1"),
    ],
)  # fmt: skip
def test_a_device_says_what_it_cannot_do(fake: Fake, call: Callable[[], Any], kind: type[Exception], form: str) -> None:
    with fake.registered(), pytest.raises(kind) as raised:
        call()
    assert said(raised.value, form), str(raised.value)


def test_a_forbidden_fallback_names_the_op_and_the_reason() -> None:
    with Fake("chip", only=["add"]).registered():
        x = hal.ones(2, device="chip")
        with hal.fallback("error"), pytest.raises(FallbackError) as raised:
            ops.sin(x)
    assert said(raised.value, "sin … chip"), str(raised.value)
    assert "HAL_FALLBACK" in str(raised.value) or "fallback" in str(raised.value)


def test_a_forbidden_copy_names_each_argument_and_where_the_odd_one_came_from() -> None:
    with Fake("chip").registered():
        here, there = hal.ones(2), hal.ones(2, device="chip")
        with hal.copies("error"), pytest.raises(CopyError) as raised:
            ops.add(here, there)
    text = str(raised.value)
    assert all(part in text for part in ("add", "cpu", "chip", "test_errors.py")), text


@pytest.mark.parametrize(
    ("name", "value", "form"),
    [
        ("HAL_BACKEND", "cpuu", "HAL_BACKEND=cpuu: there is no backend 'cpuu'; … did you mean cpu?"),
        ("HAL_BACKEND", "cpu:9", "HAL_BACKEND=cpu:9: there is no device 'cpu:9'; backend 'cpu' has cpu"),
        ("HAL_COPIES", "maybe", "HAL_COPIES must be one of allow, error, got 'maybe'"),
        (
            "HAL_LOG",
            "copys",
            "HAL_LOG takes a comma list of placement, copies, kernels, plugins, got 'copys'; did you mean",
        ),
    ],
)
def test_a_variable_that_means_nothing_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, form: str
) -> None:
    with Fake("chip").registered():
        there = hal.ones(2, device="chip")
        here = hal.ones(2)
        monkeypatch.setenv(name, value)
        with pytest.raises((ConfigError, DeviceError)) as raised:
            ops.add(hal.ones(2) if name == "HAL_BACKEND" else here, there)
    assert said(raised.value, form), str(raised.value)
