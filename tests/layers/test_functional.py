"""Functions of nn.functional beside torch's where no layer has tried them already, and what they refuse."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
from hal.errors import ShapeError
from nn import functional as F

RNG = np.random.default_rng(0)


def draw(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


X = draw(2, 4, 6, 5)
Q, K, V, MASK = draw(2, 3, 4, 8), draw(2, 3, 5, 8), draw(2, 3, 5, 6), draw(4, 5)

# fmt: off
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("relu", (X,), {}),
    ("softmax", (X,), {"dim": 1}),
    ("softmax", (X,), {"dim": -1, "dtype": "float64"}),
    ("log_softmax", (X,), {"dim": 2}),
    ("softmin", (X,), {"dim": 0}),
    ("linear", (draw(3, 4), draw(2, 4)), {}),
    ("linear", (draw(3, 4), draw(2, 4), draw(2)), {}),
    ("bilinear", (draw(3, 4), draw(3, 5), draw(2, 4, 5), draw(2)), {}),
    ("conv2d", (X, draw(3, 4, 2, 2), draw(3)), {"stride": 2, "padding": (1, 0)}),
    ("conv2d", (X, draw(3, 4, 2, 2)), {"padding": "same"}),
    ("conv_transpose2d", (X, draw(4, 3, 2, 2), draw(3)), {"stride": 2}),
    ("max_pool2d", (X, 2), {}),
    ("max_pool2d", (X, (3, 2)), {"stride": 1, "padding": 1}),
    ("avg_pool2d", (X, 2), {}),
    ("adaptive_avg_pool2d", (X, (3, None)), {}),
    ("layer_norm", (X, (5,)), {}),
    ("layer_norm", (X, (6, 5), draw(6, 5), draw(6, 5)), {"eps": 1e-3}),
    ("layer_norm", (X, (5,)), {"bias": draw(5)}),
    ("rms_norm", (X, (5,), draw(5)), {}),
    ("group_norm", (X, 2), {}),
    ("batch_norm", (X, None, None), {"training": True}),
    ("batch_norm", (X, None, None), {"training": True, "bias": draw(4)}),
    ("instance_norm", (X,), {}),
    ("local_response_norm", (X, 3), {}),
    ("normalize", (X,), {}),
    ("normalize", (X,), {"p": 1.0, "dim": -1}),
    ("normalize", (X,), {"p": 3.0, "dim": 2}),
    ("normalize", (X,), {"p": float("inf"), "dim": 2}),
    ("pad", (X, (1, 2)), {}),
    ("pad", (X, (1, 2, 0, 3)), {"value": 2.5}),
    ("pad", (X, (-1, 2, 3, -2)), {}),
    ("pad", (X, (2, 1, 1, 3)), {"mode": "reflect"}),
    ("pad", (X, (2, 1, 1, 3)), {"mode": "replicate"}),
    ("pad", (X, (-X.shape[-1], 2, 3, -1)), {"mode": "replicate"}),
    ("pad", (X, (2, 1, 1, 3)), {"mode": "circular"}),
    ("pixel_shuffle", (X, 2), {}),
    ("channel_shuffle", (X, 2), {}),
    ("interpolate", (X,), {"size": (3, 9), "mode": "bilinear", "antialias": True}),
    ("interpolate", (X,), {"size": (3, 9), "mode": "bicubic", "antialias": True}),
    ("unfold", (X, 2), {}),
    ("fold", (draw(2, 12, 12), (4, 5), 2), {}),
    ("lp_pool2d", (X, 2.0, 2), {}),
    ("max_pool2d", (X, 3, 2, 1, 1, True), {}),
    ("pairwise_distance", (draw(4, 3), draw(4, 3)), {"keepdim": True}),
    ("cosine_similarity", (draw(4, 3, 2), draw(3, 2)), {"dim": -1}),
    ("pdist", (draw(5, 3),), {}),
    ("pdist", (draw(5, 3), 1.0), {}),
    ("embedding_bag", (np.array([[1, 0], [2, 2]]), draw(3, 4)), {}),
    ("rrelu", (X, 0.1, 0.3), {}),
    ("affine_grid", (draw(2, 2, 3), (2, 3, 4, 5)), {"align_corners": False}),
    ("affine_grid", (draw(2, 3, 4), (2, 3, 4, 5, 2)), {"align_corners": True}),
    ("embedding", (np.array([[1, 0], [2, 2]]), draw(3, 4)), {}),
    ("one_hot", (np.array([[1, 0], [2, 2]]), 5), {}),
    ("one_hot", (np.array([[1, 0], [2, 2]]),), {}),
    ("scaled_dot_product_attention", (Q, K, V), {}),
    ("scaled_dot_product_attention", (Q, K, V), {"scale": 0.3, "is_causal": True}),
    ("scaled_dot_product_attention", (Q, K, V, MASK), {}),
    ("scaled_dot_product_attention", (Q, K, V, MASK > -1), {}),
    ("glu", (draw(3, 4), 1), {}),
    ("prelu", (X, np.array([0.1], np.float32)), {}),
    ("hardtanh", (X, -0.5, 0.5), {}),
    ("gelu", (X,), {"approximate": "tanh"}),
]
# fmt: on


GRIDS = (
    RNG.uniform(-1.4, 1.4, (2, 3, 4, 2)).astype(np.float32),
    RNG.uniform(-1.4, 1.4, (2, 2, 3, 2, 3)).astype(np.float32),
)
CALLS += [
    ("grid_sample", (image, grid), {"mode": mode, "padding_mode": padding, "align_corners": corners})
    for image, grid in ((X, GRIDS[0]), (draw(2, 2, 3, 4, 5), GRIDS[1]))
    for mode in ("bilinear", "bicubic")
    for padding in ("zeros", "border", "reflection")
    for corners in (False, True)
    if mode == "bilinear" or image is X
]


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize(("name", "args", "settings"), CALLS, ids=[c[0] for c in CALLS])
def test_function(torch: ModuleType, name: str, args: Any, settings: dict[str, Any]) -> None:
    def call(function: Callable[..., Any], library: Any) -> tuple[Any, list[Any]]:
        leaves = []

        def make(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                leaves.append(library.tensor(value))
                leaves[-1].requires_grad = value.dtype == np.float32
                return leaves[-1]
            return library.float64 if isinstance(value, str) and value == "float64" else value

        out = function(*map(make, args), **{name: make(value) for name, value in settings.items()})
        if out.requires_grad:
            (out * out).sum().backward()
        return out, [leaf.grad for leaf in leaves]

    got, got_grads = call(getattr(F, name), hal)
    want, want_grads = call(getattr(torch.nn.functional, name), torch)

    assert got.dtype.name == want.detach().numpy().dtype.name
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=2e-5, atol=2e-5)
    for a, b in zip(got_grads, want_grads, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Implicit dimension choice:UserWarning")
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (2, 3, 4, 5)])
def test_softmax_without_an_axis_takes_torchs(torch: ModuleType, shape: tuple[int, ...]) -> None:
    x = draw(*shape)
    want = torch.nn.functional.softmax(torch.tensor(x)).numpy()
    np.testing.assert_allclose(F.softmax(hal.tensor(x)).numpy(), want, rtol=1e-5)


# Dropout.


def test_dropout_keeps_the_mean_and_drops_as_often_as_told() -> None:
    hal.manual_seed(3)
    x = hal.ones(100, 100, requires_grad=True)

    y = F.dropout(x, 0.3)

    dropped = (y == 0).sum().item() / 10_000
    assert abs(dropped - 0.3) < 0.02
    assert set(np.unique(y.detach().numpy())) == {0.0, np.float32(1 / 0.7)}
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())


def test_dropout_repeats_with_the_seed_and_goes_on_without() -> None:
    x = hal.ones(64)
    hal.manual_seed(5)
    first, second = F.dropout(x), F.dropout(x)
    hal.manual_seed(5)
    assert F.dropout(x).tolist() == first.tolist()
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize(("function", "axes"), [(F.dropout1d, 1), (F.dropout2d, 2), (F.dropout3d, 3)])
def test_channel_dropout_drops_whole_channels(function: Callable[..., Any], axes: int) -> None:
    hal.manual_seed(0)
    y = function(hal.ones(8, 16, *[3] * axes), 0.5).numpy().reshape(128, -1)
    assert (y == y[:, :1]).all()
    assert 30 < (y[:, 0] == 0).sum() < 98
    assert set(np.unique(y)) == {0.0, 2.0}


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    hal.manual_seed(0)
    y = F.alpha_dropout(hal.randn(200, 200), 0.4, training=True)
    assert abs(y.mean().item()) < 0.03
    assert abs(y.std().item() - 1) < 0.03


@pytest.mark.parametrize("function", [F.dropout, F.dropout1d, F.dropout2d, F.alpha_dropout])
def test_dropout_does_nothing_in_eval(function: Callable[..., Any]) -> None:
    x = hal.ones(2, 3, 4)
    assert function(x, 0.5, training=False) is x


def test_dropout_in_place() -> None:
    x = hal.ones(50)
    assert F.dropout(x, 0.5, inplace=True) is x
    assert set(x.tolist()) == {0.0, 2.0}


def test_attention_with_dropout_averages_to_attention() -> None:
    hal.manual_seed(0)
    q, k, v = (hal.tensor(a[:1]) for a in (Q, K, V))
    exact = F.scaled_dot_product_attention(q, k, v).numpy()
    many = [F.scaled_dot_product_attention(q, k, v, dropout_p=0.2).numpy() for _ in range(300)]
    assert not np.allclose(many[0], exact)
    np.testing.assert_allclose(np.mean(many, axis=0), exact, atol=0.15)


def test_running_statistics_move_in_place() -> None:
    mean, var = hal.zeros(4), hal.ones(4)
    F.batch_norm(hal.tensor(X), mean, var, training=True, momentum=0.5)
    np.testing.assert_allclose(mean.numpy(), X.mean((0, 2, 3)) / 2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(var.numpy(), (1 + X.var((0, 2, 3), ddof=1)) / 2, rtol=1e-4)


def test_upsample_is_interpolate() -> None:
    x = hal.tensor(X)
    assert F.upsample(x, scale_factor=2).tolist() == F.interpolate(x, scale_factor=2).tolist()


def test_nearest_samples_of_a_grid(torch: ModuleType) -> None:
    for padding in ("zeros", "border", "reflection"):
        want = torch.nn.functional.grid_sample(torch.tensor(X), torch.tensor(GRIDS[0]), "nearest", padding, False)
        got = F.grid_sample(hal.tensor(X), hal.tensor(GRIDS[0]), "nearest", padding, False)
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-6)


# Chance.


def test_rrelu_draws_slopes() -> None:
    hal.manual_seed(0)
    y = F.rrelu(-hal.ones(1000), 0.1, 0.5, training=True).numpy()
    assert -0.5 <= y.min() < -0.45
    assert -0.15 < y.max() <= -0.1
    assert abs(y.mean() + 0.3) < 0.02
    assert F.rrelu(hal.ones(3), training=True).tolist() == [1, 1, 1]


def test_gumbel_softmax_draws_as_often_as_the_logits_say() -> None:
    hal.manual_seed(0)
    logits = hal.tensor([[0.0, 1.0, 2.0]]).requires_grad_()
    many = hal.broadcast_to(logits, (4000, 3))
    hard = F.gumbel_softmax(many, tau=0.5, hard=True)
    assert set(np.unique(hard.detach().numpy())) == {0, 1}
    np.testing.assert_allclose(hard.detach().numpy().mean(0), np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum(), atol=0.03)
    (hard * hal.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert logits.grad is not None
    assert np.isfinite(logits.grad.numpy()).all()
    assert np.abs(logits.grad.numpy()).max() > 1
    soft = F.gumbel_softmax(many, tau=5.0, dim=1)
    np.testing.assert_allclose(soft.detach().numpy().sum(1), 1, rtol=1e-5)


def test_feature_alpha_dropout_drops_whole_channels() -> None:
    hal.manual_seed(0)
    y = F.feature_alpha_dropout(hal.ones(8, 16, 3, 3), 0.5, training=True).numpy().reshape(128, -1)
    assert (y == y[:, :1]).all()
    assert len(np.unique(y)) == 2


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "selu", "celu", "hardtanh", "rrelu"])
def test_names_with_an_underscore_work_in_place(name: str) -> None:
    x = hal.tensor(draw(3, 4))
    want = getattr(F, name)(x).tolist()
    assert getattr(F, f"{name}_")(x) is x
    assert x.tolist() == want
    assert F.threshold_(hal.tensor([0.1, 2.0]), 1.0, 5.0).tolist() == [5.0, 2.0]


# What is refused.

ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: F.conv2d(hal.zeros(1, 2, 5, 5), hal.zeros(3, 2, 3, 3), padding="half"),
        TypeError,
        "'same' or 'valid', got 'half'",
    ),
    (
        lambda: F.conv2d(hal.zeros(1, 2, 5, 5), hal.zeros(3, 2, 3, 3), stride=2, padding="same"),
        TypeError,
        "needs stride=1",
    ),
    (
        lambda: F.conv2d(hal.zeros(1, 2, 5, 5), hal.zeros(3, 2, 3, 3), stride=(1, 2, 3)),
        TypeError,
        r"2 of them, got \(1, 2, 3\)",
    ),
    (lambda: F.conv2d(hal.zeros(1, 4, 5, 5), hal.zeros(3, 2, 3, 3)), ValueError, "conv2d"),
    (lambda: F.max_pool2d(hal.zeros(1, 2, 5, 5), 6), ValueError, "does not fit"),
    (lambda: F.layer_norm(hal.zeros(2, 5), (4,)), ValueError, r"last axes are \(4,\), got \(2, 5\)"),
    (lambda: F.batch_norm(hal.zeros(1, 5), None, None, training=True), ValueError, "more than one value per channel"),
    (lambda: F.batch_norm(hal.zeros(2, 5), None, None), ValueError, "running_mean and running_var"),
    (lambda: F.dropout(hal.zeros(3), 1.5), TypeError, "between 0 and 1, got 1.5"),
    (lambda: F.interpolate(hal.zeros(1, 1, 4, 4)), TypeError, "either size= or scale_factor="),
    (lambda: F.interpolate(hal.zeros(1, 1, 4, 4), 2, mode="cubic"), TypeError, "nearest.*got 'cubic'"),
    (lambda: F.interpolate(hal.zeros(1, 1, 4, 4), 2, mode="linear"), ValueError, r"for \(1,\) spatial axes, got shape"),
    (
        lambda: F.interpolate(hal.zeros(1, 1, 4), 2, align_corners=True),
        TypeError,
        "align_corners= for linear and cubic",
    ),
    (lambda: F.interpolate(hal.zeros(1, 1, 4), scale_factor=0.1), ValueError, "leaves nothing of shape"),
    (lambda: F.unfold(hal.zeros(1, 1, 4, 4), 5), ValueError, "does not fit"),
    (lambda: F.unfold(hal.zeros(1, 1, 4, 4), 2, stride=0), TypeError, "stride= of 1 or more"),
    (lambda: F.fold(hal.zeros(1, 5, 9), 4, 2), ValueError, r"columns \(N, C x 4, 9\), got \(1, 5, 9\)"),
    (
        lambda: F.max_unpool2d(hal.zeros(1, 1, 2, 2), hal.zeros(1, 1, 2, 2, dtype=hal.int64), 2, output_size=(9, 4)),
        ValueError,
        r"within \(2, 2\) of \(4, 4\), got \(9, 4\)",
    ),
    (lambda: F.embedding_bag(hal.tensor([0]), hal.zeros(2, 2)), ValueError, "needs offsets="),
    (
        lambda: F.embedding_bag(hal.tensor([0]), hal.zeros(2, 2), hal.tensor([0, 2])),
        ValueError,
        r"end within 1, got \[0, 2\]",
    ),
    (lambda: F.embedding_bag(hal.tensor([[0]]), hal.zeros(2, 2), mode="min"), TypeError, "sum, mean, max, got 'min'"),
    (lambda: F.grid_sample(hal.zeros(1, 1, 2, 2), hal.zeros(2, 1, 1, 2)), ValueError, "grid_sample needs an input"),
    (lambda: F.affine_grid(hal.zeros(1, 2, 2), (1, 1, 2, 2)), ValueError, r"needs maps \(1, 2, 3\)"),
    (lambda: F.rrelu(hal.zeros(1), 0.5, 0.2), TypeError, "lower= of at most upper="),
    (lambda: F.rotary_positions(hal.zeros(2, 3)), ValueError, "an even number of features, got 3"),
    (lambda: F.channel_shuffle(hal.zeros(1, 3, 2), 2), ValueError, "that groups=2 divides"),
    (lambda: F.pad(hal.zeros(3), (1, 2, 3)), TypeError, "a pair"),
    (lambda: F.pad(hal.zeros(3), (1, 2), mode="mirror"), TypeError, "constant, reflect, replicate, circular"),
    (lambda: F.pad(hal.zeros(3), (3, 0), mode="reflect"), ShapeError, "at most 2"),
    (lambda: F.pad(hal.zeros(3), (-2, -2)), ShapeError, "take away more"),
    (lambda: F.gelu(hal.zeros(3), approximate="exp"), TypeError, "'none' or 'tanh'"),
    (lambda: F.one_hot(hal.zeros(0, dtype=hal.int64)), TypeError, "num_classes"),
    (lambda: F.pixel_shuffle(hal.zeros(1, 3, 2, 2), 2), ValueError, "that 4 divides"),
    (lambda: F.embedding(hal.zeros(2), hal.zeros(3, 4)), TypeError, "integer indices"),
    (lambda: F.avg_pool2d(hal.zeros(1, 1, 4, 4), 2, divisor_override=0), TypeError, "divisor_override"),
    (lambda: F.adaptive_avg_pool2d(hal.zeros(1, 1, 4, 4), (1, 2, 3)), TypeError, "2 of them"),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[e[2][:24] for e in ERRORS])
def test_error(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
