"""Convolutions, poolings and norms that cannot work say who needed what, what came, and the cure."""

from __future__ import annotations

from typing import Any

import pytest

import hal
from hal import ops
from hal.errors import DTypeError, HalError, SettingError, ShapeError
from hal.op import Op

ROWS = [
    # op, shapes, settings, error, words that must be in its message
    (ops.conv2d, [(3, 5, 5), (4, 3, 3, 3)], {}, ShapeError, ["(N, C, H, W)", "(3, 5, 5)", "unsqueeze(0)"]),
    (ops.conv2d, [(5, 5), (4, 3, 3, 3)], {}, ShapeError, ["(N, C, H, W)", "2 axes"]),
    (ops.conv2d, [(1, 3, 5, 5), (4, 3, 3)], {}, ShapeError, ["C_out, C_in / groups, kH, kW"]),
    (ops.conv2d, [(1, 3, 5, 5), (4, 2, 3, 3)], {}, ShapeError, ["3 channels", "are for 2"]),
    (ops.conv2d, [(1, 4, 5, 5), (4, 4, 3, 3)], {"groups": 3}, ShapeError, ["groups=3", "input_channels"]),
    (ops.conv2d, [(1, 4, 5, 5), (3, 2, 3, 3)], {"groups": 2}, ShapeError, ["groups=2", "output_channels", "3"]),
    (ops.conv2d, [(1, 3, 5, 5), (4, 3, 3, 3), (3,)], {}, ShapeError, ["one bias for each of its 4", "(3,)"]),
    (ops.conv2d, [(1, 3, 2, 5), (4, 3, 3, 3)], {}, ShapeError, ["does not fit", "(2, 5)", "padding"]),
    (ops.conv2d, [(1, 3, 5, 5), (4, 3, 3, 3)], {"stride": 2}, SettingError, ["stride=", "write (2, 2)"]),
    (ops.conv2d, [(1, 3, 5, 5), (4, 3, 3, 3)], {"stride": (0, 1)}, SettingError, ["stride= of 1 or more"]),
    (ops.conv2d, [(1, 3, 5, 5), (4, 3, 3, 3)], {"padding": (-1, 1)}, SettingError, ["padding= of 0 or more"]),
    (ops.conv2d, [(1, 3, 5, 5), (4, 3, 3, 3)], {"groups": 0}, SettingError, ["groups="]),
    (ops.conv1d, [(1, 3, 5), (4, 3, 3)], {"stride": 2}, SettingError, ["write (2,)"]),
    (
        ops.conv2d_weight_gradient,
        [(1, 3, 5, 5), (1, 4, 2, 3)],
        {"weight_shape": (4, 3, 3, 3)},
        ShapeError,
        ["(1, 4, 3, 3)"],
    ),
    (ops.conv_transpose2d, [(1, 3, 5, 5), (4, 3, 3, 3)], {}, ShapeError, ["C_in, C_out / groups", "are for 4"]),
    (
        ops.conv_transpose2d,
        [(1, 3, 5, 5), (3, 4, 3, 3)],
        {"output_padding": (1, 1)},
        SettingError,
        ["smaller than the stride"],
    ),
    (ops.conv_transpose2d, [(1, 3, 1, 1), (3, 4, 3, 3)], {"padding": (2, 2)}, ShapeError, ["(-1, -1)"]),
    (ops.max_pool2d, [(1, 3, 1, 5)], {"kernel": (2, 2), "stride": (2, 2)}, ShapeError, ["does not fit"]),
    (ops.max_pool2d, [(1, 3, 5, 5)], {"kernel": (2, 2), "stride": (2, 2), "padding": (2, 0)}, SettingError, ["half"]),
    (ops.avg_pool2d, [(3, 5, 5)], {"kernel": (2, 2), "stride": (2, 2)}, ShapeError, ["(N, C, H, W)"]),
    (ops.adaptive_avg_pool2d, [(1, 3, 0, 5)], {"output": (2, 2)}, ShapeError, ["at least one element"]),
    (ops.adaptive_max_pool1d, [(1, 3, 5)], {"output": (0,)}, SettingError, ["output= of 1 or more"]),
    (ops.batch_norm, [(2, 3), (3,), (4,)], {}, ShapeError, ["var", "(3,)", "(4,)"]),
    (ops.batch_norm_train, [(3,)], {}, ShapeError, ["(N, C, ...)"]),
    (ops.layer_norm, [(2, 3), (2,)], {"dims": 1}, ShapeError, ["weight", "(3,)", "(2,)"]),
    (ops.layer_norm, [(2, 3)], {"dims": 3}, ShapeError, ["last 3 axes", "(2, 3)"]),
    (ops.layer_norm, [(2, 3)], {"dims": 0}, SettingError, ["dims="]),
    (ops.group_norm, [(2, 4, 3)], {"groups": 3}, ShapeError, ["groups=3", "channels"]),
    (ops.local_response_norm, [(2, 4)], {"size": 3}, ShapeError, ["(N, C, ...)"]),
]


@pytest.mark.parametrize(("op", "shapes", "settings", "error", "words"), ROWS)
def test_says_what_was_needed(
    op: Op, shapes: list[tuple[int, ...]], settings: dict[str, Any], error: type[HalError], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        op(*(hal.zeros(shape) for shape in shapes), **settings)
    message = str(caught.value)
    assert op.name in message
    assert all(word in message for word in words), message


def test_pooling_wants_numbers() -> None:
    with pytest.raises(DTypeError, match="max_pool1d takes int, uint, float elements, got bool"):
        ops.max_pool1d(hal.zeros((1, 1, 4), dtype=hal.bool_), kernel=(2,), stride=(2,))
