"""Every layer beside torch's, from the same weights: names, printed form, result, gradients and running statistics."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
import nn

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning"),
]

IMAGE, SIGNAL, VOLUME = (2, 4, 9, 8), (2, 4, 11), (2, 4, 5, 6, 7)

# fmt: off
LAYERS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Identity", (), {}, (2, 3)),
    ("Linear", (3, 4), {}, (2, 3)),
    ("Linear", (3, 4), {"bias": False}, (5, 2, 3)),
    ("Linear", (3, 4), {}, (3,)),
    ("Linear", (3, 4), {}, (0, 3)),
    ("Flatten", (), {}, IMAGE),
    ("Flatten", (2, 3), {}, IMAGE),
    ("Flatten", (0,), {}, IMAGE),
    ("Unflatten", (1, (2, 2)), {}, IMAGE),
    ("Unflatten", (-1, (4, -1)), {}, IMAGE),
    ("Conv1d", (4, 6, 3), {}, SIGNAL),
    ("Conv1d", (4, 6, 4), {"padding": "same", "dilation": 2}, SIGNAL),
    ("Conv1d", (4, 6, 3), {"padding": 2, "padding_mode": "circular"}, SIGNAL),
    ("Conv1d", (4, 6, 3), {}, SIGNAL[1:]),
    ("Conv2d", (4, 6, 3), {}, IMAGE),
    ("Conv2d", (4, 6, (3, 2)), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}, IMAGE),
    ("Conv2d", (4, 6, 3), {"groups": 2, "bias": False}, IMAGE),
    ("Conv2d", (4, 4, 3), {"groups": 4, "padding": 1}, IMAGE),
    ("Conv2d", (4, 6, 4), {"padding": "same"}, IMAGE),
    ("Conv2d", (4, 6, 4), {"padding": "valid"}, IMAGE),
    ("Conv2d", (4, 6, 3), {"padding": 1, "padding_mode": "reflect"}, IMAGE),
    ("Conv2d", (4, 6, (2, 3)), {"padding": "same", "padding_mode": "replicate"}, IMAGE),
    ("Conv2d", (4, 6, 3), {}, IMAGE[1:]),
    ("Conv3d", (4, 2, 3), {"padding": 1}, VOLUME),
    ("Conv3d", (4, 2, (1, 2, 3)), {"stride": 2}, VOLUME),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2}, SIGNAL),
    ("ConvTranspose2d", (4, 6, 3), {}, IMAGE),
    ("ConvTranspose2d", (4, 6, (3, 4)), {"stride": 2, "padding": 1, "output_padding": (1, 0), "groups": 2}, IMAGE),
    ("ConvTranspose2d", (4, 6, 3), {"dilation": 2, "bias": False}, IMAGE[1:]),
    ("ConvTranspose3d", (4, 2, 2), {"stride": 2}, VOLUME),
    ("MaxPool1d", (2,), {}, SIGNAL),
    ("MaxPool1d", (3, 1, 1), {"dilation": 2}, SIGNAL),
    ("MaxPool2d", (2,), {}, IMAGE),
    ("MaxPool2d", ((3, 2),), {"stride": (2, 1), "padding": 1, "ceil_mode": True}, IMAGE),
    ("MaxPool2d", (2,), {}, IMAGE[1:]),
    ("MaxPool3d", (2,), {}, VOLUME),
    ("MaxPool1d", (2,), {"return_indices": True}, SIGNAL),
    ("MaxPool2d", ((3, 2), (2, 1), 1, (1, 2), True), {"ceil_mode": True}, IMAGE),
    ("MaxPool3d", (2,), {"return_indices": True}, VOLUME[1:]),
    ("AdaptiveMaxPool1d", (4, True), {}, SIGNAL),
    ("AdaptiveMaxPool2d", ((4, None), True), {}, IMAGE),
    ("AdaptiveMaxPool3d", (2,), {"return_indices": True}, VOLUME),
    ("LPPool1d", (2, 3), {}, SIGNAL),
    ("LPPool2d", (2, (2, 3)), {"stride": (1, 2), "ceil_mode": True}, IMAGE),
    ("LPPool3d", (4, 2), {}, VOLUME),
    ("AvgPool1d", (3,), {"stride": 2, "padding": 1}, SIGNAL),
    ("AvgPool2d", (2,), {}, IMAGE),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "count_include_pad": False}, IMAGE),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, IMAGE),
    ("AvgPool2d", ((2, 3),), {"divisor_override": 5}, IMAGE),
    ("AvgPool2d", (4, 3, 1), {"divisor_override": 5, "ceil_mode": True}, IMAGE),
    ("AvgPool3d", (2,), {}, VOLUME),
    ("AdaptiveAvgPool1d", (3,), {}, SIGNAL),
    ("AdaptiveAvgPool2d", (1,), {}, IMAGE),
    ("AdaptiveAvgPool2d", ((4, None),), {}, IMAGE),
    ("AdaptiveAvgPool2d", ((2, 3),), {}, IMAGE[1:]),
    ("AdaptiveAvgPool3d", (2,), {}, VOLUME),
    ("AdaptiveMaxPool1d", (3,), {}, SIGNAL),
    ("AdaptiveMaxPool2d", ((2, 3),), {}, IMAGE),
    ("AdaptiveMaxPool3d", (2,), {}, VOLUME),
    ("BatchNorm1d", (4,), {}, (5, 4)),
    ("BatchNorm1d", (4,), {"momentum": None}, SIGNAL),
    ("BatchNorm2d", (4,), {}, IMAGE),
    ("BatchNorm2d", (4,), {"eps": 1e-3, "momentum": 0.3}, IMAGE),
    ("BatchNorm2d", (4,), {"affine": False}, IMAGE),
    ("BatchNorm2d", (4,), {"bias": False}, IMAGE),
    ("BatchNorm2d", (4,), {"track_running_stats": False}, IMAGE),
    ("BatchNorm3d", (4,), {}, VOLUME),
    ("InstanceNorm1d", (4,), {}, SIGNAL),
    ("InstanceNorm2d", (4,), {"affine": True, "track_running_stats": True}, IMAGE),
    ("InstanceNorm2d", (4,), {"affine": True}, IMAGE[1:]),
    ("InstanceNorm3d", (4,), {}, VOLUME),
    ("LayerNorm", (8,), {}, IMAGE),
    ("LayerNorm", ((9, 8),), {"eps": 1e-3}, IMAGE),
    ("LayerNorm", (8,), {"elementwise_affine": False}, IMAGE),
    ("LayerNorm", (8,), {"bias": False}, IMAGE),
    ("RMSNorm", (8,), {}, IMAGE),
    ("RMSNorm", ((9, 8),), {"eps": 1e-3, "elementwise_affine": False}, IMAGE),
    ("GroupNorm", (2, 4), {}, IMAGE),
    ("GroupNorm", (4, 4), {"affine": False}, SIGNAL),
    ("GroupNorm", (1, 4), {"bias": False}, (2, 4)),
    ("LocalResponseNorm", (3,), {"alpha": 0.1}, IMAGE),
    ("Sigmoid", (), {}, (3, 4)),
    ("LogSigmoid", (), {}, (3, 4)),
    ("Tanh", (), {}, (3, 4)),
    ("Tanhshrink", (), {}, (3, 4)),
    ("Softsign", (), {}, (3, 4)),
    ("ReLU", (), {}, (3, 4)),
    ("ReLU6", (), {}, (3, 4)),
    ("SELU", (), {}, (3, 4)),
    ("SiLU", (), {}, (3, 4)),
    ("Mish", (), {}, (3, 4)),
    ("Hardswish", (), {}, (3, 4)),
    ("Hardsigmoid", (), {}, (3, 4)),
    ("LeakyReLU", (0.2,), {}, (3, 4)),
    ("ELU", (0.7,), {}, (3, 4)),
    ("CELU", (0.7,), {}, (3, 4)),
    ("GELU", (), {}, (3, 4)),
    ("GELU", ("tanh",), {}, (3, 4)),
    ("PReLU", (), {}, (3, 4)),
    ("PReLU", (4,), {"init": 0.1}, IMAGE),
    ("Hardtanh", (-0.5, 0.8), {}, (3, 4)),
    ("Softplus", (2, 1.5), {}, (3, 4)),
    ("Hardshrink", (), {}, (3, 4)),
    ("Softshrink", (0.3,), {}, (3, 4)),
    ("Threshold", (0.1, -2.0), {}, (3, 4)),
    ("GLU", (), {}, (3, 4)),
    ("GLU", (1,), {}, IMAGE),
    ("Softmax", (1,), {}, (3, 4)),
    ("Softmin", (0,), {}, (3, 4)),
    ("LogSoftmax", (-1,), {}, (3, 4)),
    ("Softmax2d", (), {}, IMAGE),
    ("ZeroPad1d", (2,), {}, SIGNAL),
    ("ZeroPad2d", ((1, 2, 0, 3),), {}, IMAGE),
    ("ZeroPad2d", ((-1, 2, 0, -3),), {}, IMAGE),
    ("ZeroPad3d", (1,), {}, VOLUME),
    ("ConstantPad1d", (1, 3.5), {}, SIGNAL),
    ("ConstantPad2d", (1, 3.5), {}, IMAGE),
    ("ConstantPad3d", (1, 3.5), {}, VOLUME),
    ("ReflectionPad1d", (3,), {}, SIGNAL),
    ("ReflectionPad2d", ((1, 2, 3, 0),), {}, IMAGE),
    ("ReplicationPad1d", ((0, 4),), {}, SIGNAL),
    ("ReplicationPad2d", (2,), {}, IMAGE),
    ("CircularPad1d", (3,), {}, SIGNAL),
    ("CircularPad2d", ((1, 2, 3, 4),), {}, IMAGE),
    ("ReflectionPad3d", ((1, 2, 3, 0, 1, 1),), {}, VOLUME),
    ("ReplicationPad3d", (2,), {}, VOLUME),
    ("CircularPad3d", ((1, 2, 0, 1, 2, 0),), {}, VOLUME),
    ("PixelShuffle", (2,), {}, IMAGE),
    ("PixelUnshuffle", (2,), {}, (2, 3, 4, 6)),
    ("ChannelShuffle", (2,), {}, IMAGE),
    ("Unfold", (3,), {}, IMAGE),
    ("Unfold", ((3, 2),), {"dilation": (1, 2), "padding": (1, 0), "stride": 2}, IMAGE),
    ("Unfold", (2,), {}, IMAGE[1:]),
    ("Fold", ((5, 4), (2, 3)), {"padding": 1}, (2, 12, 24)),
    ("Fold", ((6, 5), 3), {"dilation": (1, 2), "padding": 1, "stride": (2, 1)}, (2, 18, 9)),
    ("Fold", (4, 2), {"stride": 2}, (8, 4)),
    ("Upsample", ((11, 5),), {}, IMAGE),
    ("Upsample", (), {"scale_factor": 2}, SIGNAL),
    ("Upsample", (), {"scale_factor": (1.5, 0.7, 2)}, VOLUME),
    ("Upsample", (), {"scale_factor": 1.7, "mode": "nearest-exact"}, IMAGE),
    ("Upsample", (17,), {"mode": "linear"}, SIGNAL),
    ("Upsample", (), {"scale_factor": (2, 0.6), "mode": "bilinear"}, IMAGE),
    ("Upsample", (), {"scale_factor": 1.3, "mode": "bilinear", "recompute_scale_factor": True}, IMAGE),
    ("Upsample", ((13, 1),), {"mode": "bilinear", "align_corners": True}, IMAGE),
    ("Upsample", ((13, 4),), {"mode": "bicubic"}, IMAGE),
    ("Upsample", ((4, 13),), {"mode": "bicubic", "align_corners": True}, IMAGE),
    ("Upsample", ((3, 8, 9),), {"mode": "trilinear"}, VOLUME),
    ("Upsample", ((3, 8),), {"mode": "area"}, IMAGE),
    ("UpsamplingNearest2d", ((3, 8),), {}, IMAGE),
    ("UpsamplingBilinear2d", (), {"scale_factor": 2}, IMAGE),
    ("AlphaDropout", (0.0,), {}, (3, 4)),
    ("FeatureAlphaDropout", (0.0,), {}, (3, 4)),
    ("RReLU", (0.2, 0.2), {}, (3, 4)),
    ("Dropout", (0.0,), {}, (3, 4)),
    ("Dropout1d", (0.0,), {}, SIGNAL),
    ("Dropout2d", (0.0,), {}, IMAGE),
    ("Dropout3d", (0.0,), {}, VOLUME),
    ("RNNCell", (3, 5), {}, (2, 3)),
    ("RNNCell", (3, 5), {"nonlinearity": "relu", "bias": False}, (2, 3)),
    ("GRUCell", (3, 5), {}, (2, 3)),
    ("LSTMCell", (3, 5), {}, (2, 3)),
    ("LSTMCell", (3, 5), {}, (3,)),
    ("RNN", (3, 5), {}, (4, 2, 3)),
    ("RNN", (3, 5), {"num_layers": 2, "nonlinearity": "relu"}, (4, 2, 3)),
    ("GRU", (3, 5), {"batch_first": True, "bidirectional": True}, (2, 4, 3)),
    ("GRU", (3, 5), {"bias": False}, (4, 3)),
    ("LSTM", (3, 5), {}, (4, 2, 3)),
    ("LSTM", (3, 5), {"num_layers": 2, "bidirectional": True, "batch_first": True}, (2, 4, 3)),
    ("LSTM", (3, 5, 2), {"bias": False}, (4, 3)),
    ("LSTM", (3, 5), {"proj_size": 2}, (4, 2, 3)),
    ("LSTM", (3, 5, 2), {"proj_size": 4, "bias": False, "bidirectional": True}, (4, 2, 3)),
]
# fmt: on


def name_of(row: Any) -> str | None:
    return row if isinstance(row, str) else None


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("name", "args", "settings", "shape"), LAYERS, ids=name_of)
def test_layer(
    torch: ModuleType, parity: Callable[..., None], name: str, args: Any, settings: Any, shape: Any, training: bool
) -> None:
    ours = getattr(nn, name)(*args, **settings).train(training)
    theirs = getattr(torch.nn, name)(*args, **settings).train(training)
    if hasattr(theirs, "running_var") and theirs.running_var is not None:
        theirs.running_var.mul_(1.7)
        theirs.running_mean.add_(0.3)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32) * 2

    assert repr(ours) == repr(theirs)
    parity(ours, theirs, x)


@pytest.mark.parametrize("name", ["Linear", "Conv2d", "BatchNorm2d", "LayerNorm", "LSTM"])
def test_layer_in_float64(torch: ModuleType, parity: Callable[..., None], name: str) -> None:
    args = {"Linear": (8, 3), "Conv2d": (4, 2, 3), "BatchNorm2d": (4,), "LayerNorm": (8,), "LSTM": (8, 3)}[name]
    shape = (5, 3, 8) if name == "LSTM" else IMAGE
    x = np.random.default_rng(0).normal(size=shape)

    parity(
        getattr(nn, name)(*args, dtype=hal.float64),
        getattr(torch.nn, name)(*args, dtype=torch.float64),
        x,
        tolerance=1e-12,
    )


INPLACE = ["ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "CELU", "SiLU", "Mish", "Hardtanh", "Hardswish", "Hardsigmoid"]


@pytest.mark.parametrize("name", [*INPLACE, "Dropout"])
def test_inplace_activations_change_their_input(torch: ModuleType, name: str) -> None:
    settings = {"p": 0.0} if name == "Dropout" else {}
    ours, theirs = getattr(nn, name)(inplace=True, **settings), getattr(torch.nn, name)(inplace=True, **settings)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    a, b = hal.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    between_a, between_b = a * 1.5, b * 1.5

    out_a, out_b = ours(between_a), theirs(between_b)

    assert repr(ours) == repr(theirs)
    assert out_a is between_a
    (out_a * between_a).sum().backward()
    (out_b * between_b).sum().backward()
    np.testing.assert_allclose(between_a.detach().numpy(), between_b.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_bilinear(torch: ModuleType, parity: Callable[..., None]) -> None:
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(5, 2, n)).astype(np.float32) for n in (3, 4)]
    parity(nn.Bilinear(3, 4, 6), torch.nn.Bilinear(3, 4, 6), *inputs)
    parity(nn.Bilinear(3, 4, 6, bias=False), torch.nn.Bilinear(3, 4, 6, bias=False), *inputs)


@pytest.mark.parametrize(
    "settings", [{}, {"padding_idx": 2}, {"padding_idx": -1}, {"max_norm": 1.0}, {"scale_grad_by_freq": True}], ids=str
)
def test_embedding(torch: ModuleType, parity: Callable[..., None], settings: dict[str, Any]) -> None:
    indices = np.array([[0, 2, 6], [2, 5, 6]])
    ours, theirs = nn.Embedding(7, 3, **settings), torch.nn.Embedding(7, 3, **settings)
    assert repr(ours) == repr(theirs)
    if "max_norm" in settings:
        theirs.weight.requires_grad_(False)
        ours.weight.requires_grad_(False)
    parity(ours, theirs, indices)


def test_embedding_begins_with_zeros_for_padding_and_can_be_made_of_vectors() -> None:
    assert nn.Embedding(4, 3, padding_idx=1).weight[1].tolist() == [0, 0, 0]
    vectors = hal.rand(4, 3)
    frozen = nn.Embedding.from_pretrained(vectors)
    assert not frozen.weight.requires_grad
    assert frozen(hal.tensor([2])).tolist() == [vectors[2].tolist()]


def test_transposed_convolution_gives_the_size_asked_for(torch: ModuleType) -> None:
    ours, theirs = nn.ConvTranspose2d(2, 3, 3, stride=2), torch.nn.ConvTranspose2d(2, 3, 3, stride=2)
    x = np.zeros((1, 2, 5, 5), np.float32)
    want = theirs(torch.tensor(x), output_size=(12, 11)).shape
    assert ours(hal.tensor(x), output_size=(12, 11)).shape == tuple(want)
    assert ours(hal.tensor(x), output_size=(1, 3, 12, 11)).shape == tuple(want)


def test_recurrent_layers_go_on_from_a_state(torch: ModuleType, parity: Callable[..., None]) -> None:
    rng = np.random.default_rng(0)
    x, h, c = (rng.normal(size=s).astype(np.float32) for s in ((4, 2, 3), (2, 2, 5), (2, 2, 5)))
    parity(nn.GRU(3, 5, 2), torch.nn.GRU(3, 5, 2), x, h)
    ours, theirs = nn.LSTM(3, 5, 2), torch.nn.LSTM(3, 5, 2)
    ours.load_state_dict(theirs.state_dict())
    got, (h1, c1) = ours(hal.tensor(x), (hal.tensor(h), hal.tensor(c)))
    want, (h2, c2) = theirs(torch.tensor(x), (torch.tensor(h), torch.tensor(c)))
    for a, b in ((got, want), (h1, h2), (c1, c2)):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("settings", [{}, {"padding_idx": 2}, {"include_last_offset": True}], ids=str)
def test_embedding_bag(torch: ModuleType, parity: Callable[..., None], mode: str, settings: dict[str, Any]) -> None:
    ours, theirs = (kit.EmbeddingBag(7, 3, mode=mode, **settings) for kit in (nn, torch.nn))
    assert repr(ours) == repr(theirs)
    indices = np.array([0, 2, 6, 2, 5, 6, 1, 2])
    offsets = np.array([0, 3, 3, 7, 8] if settings.get("include_last_offset") else [0, 3, 3, 7])
    parity(ours, theirs, indices, offsets)
    parity(*(kit.EmbeddingBag(7, 3, mode=mode, padding_idx=2) for kit in (nn, torch.nn)), indices.reshape(2, 4))


def test_embedding_bag_with_weights_and_from_vectors(torch: ModuleType) -> None:
    rng = np.random.default_rng(0)
    table, indices = rng.normal(size=(5, 3)).astype(np.float32), np.array([[0, 4, 1], [2, 2, 3]])
    weights = rng.normal(size=(2, 3)).astype(np.float32)
    results = []
    for kit, make in ((nn, hal.tensor), (torch.nn, torch.tensor)):
        layer = kit.EmbeddingBag(5, 3, mode="sum", _weight=make(table), max_norm=1.0)
        layer.weight.requires_grad_(False)
        given = make(weights)
        given.requires_grad = True
        out = layer(make(indices), per_sample_weights=given)
        (out * out).sum().backward()
        results.append((out.detach().numpy(), given.grad.numpy(), layer.weight.detach().numpy()))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert not nn.EmbeddingBag.from_pretrained(hal.tensor(table)).weight.requires_grad


@pytest.mark.parametrize("name", ["MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"])
@pytest.mark.parametrize("odd", [False, True])
def test_unpooling_puts_maxima_back(torch: ModuleType, parity: Callable[..., None], name: str, odd: bool) -> None:
    n = int(name[-2])

    def both(kit: Any) -> Any:
        class Both(kit.Module):
            def __init__(self) -> None:
                super().__init__()
                self.pool = getattr(kit, f"MaxPool{n}d")(2, return_indices=True)
                self.unpool = getattr(kit, name)(2)

            def forward(self, x: Any) -> Any:
                y, indices = self.pool(x)
                return self.unpool(y, indices, output_size=x.shape[-n:]) if odd else self.unpool(y, indices)

        return Both()

    ours, theirs = both(nn), both(torch.nn)
    assert repr(ours.unpool) == repr(theirs.unpool)
    x = np.random.default_rng(0).normal(size=(2, 3, *[5 if odd else 6] * n)).astype(np.float32)
    parity(ours, theirs, x)
    parity(ours, theirs, x[0])


def test_similarity_layers(torch: ModuleType, parity: Callable[..., None]) -> None:
    a, b = (np.random.default_rng(i).normal(size=(4, 3, 5)).astype(np.float32) for i in (0, 1))
    for name, settings in (
        ("CosineSimilarity", {}),
        ("CosineSimilarity", {"dim": -1}),
        ("PairwiseDistance", {}),
        ("PairwiseDistance", {"p": 1.0, "keepdim": True}),
    ):
        ours, theirs = getattr(nn, name)(**settings), getattr(torch.nn, name)(**settings)
        assert repr(ours) == repr(theirs)
        parity(ours, theirs, a, b)


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_recurrent_layers_have_second_derivatives(torch: ModuleType, name: str) -> None:
    x = np.random.default_rng(0).normal(size=(4, 2, 3))
    theirs = getattr(torch.nn, name)(3, 5, dtype=torch.float64)
    ours = getattr(nn, name)(3, 5, dtype=hal.float64)
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    found = []
    for library, layer, grad in ((hal, ours, hal.grad), (torch, theirs, torch.autograd.grad)):
        given = library.tensor(x, requires_grad=True)
        (slope,) = grad((layer(given)[0] ** 2).sum(), given, create_graph=True)
        (slope**2).sum().backward()
        found.append([given.grad.numpy(), *(p.grad.numpy() for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "shape", "kernel", "settings"),
    [
        ("FractionalMaxPool2d", (2, 3, 9, 8), (2, 3), {"output_size": (4, 3)}),
        ("FractionalMaxPool2d", (2, 3, 9, 8), 2, {"output_ratio": (0.6, 0.3)}),
        ("FractionalMaxPool2d", (3, 9, 8), 3, {"output_size": 1, "return_indices": True}),
        ("FractionalMaxPool3d", (2, 3, 7, 8, 9), (2, 1, 3), {"output_size": (3, 4, 5), "return_indices": True}),
        ("FractionalMaxPool3d", (3, 7, 8, 9), 2, {"output_ratio": 0.5}),
    ],
    ids=str,
)
def test_fractional_max_pooling(
    torch: ModuleType, name: str, shape: tuple[int, ...], kernel: Any, settings: dict[str, Any]
) -> None:
    n, rng = int(name[-2]), np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    samples = rng.random((*(shape[:2] if len(shape) == n + 2 else (1, shape[0])), n), np.float32)
    ours = getattr(nn, name)(kernel, **settings, _random_samples=hal.tensor(samples))
    theirs = getattr(torch.nn, name)(kernel, **settings, _random_samples=torch.tensor(samples))
    assert repr(ours) == repr(theirs)
    a, b = hal.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    got, want = ours(a), theirs(b)
    if "return_indices" in settings:
        (got, indices), (want, places) = got, want
        np.testing.assert_array_equal(indices.numpy(), places.numpy())
    np.testing.assert_array_equal(got.detach().numpy(), want.detach().numpy())
    (got * got).sum().backward()
    (want * want).sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-6)


def test_fractional_max_pooling_draws_its_windows() -> None:
    layer, x = nn.FractionalMaxPool2d(2, output_ratio=0.6), hal.arange(400.0).reshape(1, 1, 20, 20)
    hal.manual_seed(0)
    drawn = [layer(x) for _ in range(8)]
    assert {y.shape for y in drawn} == {(1, 1, 12, 12)}
    assert len({tuple(y.flatten().tolist()) for y in drawn}) > 1
    with pytest.raises(hal.errors.ShapeError, match="place of its own"):
        nn.FractionalMaxPool2d(3, output_size=19)(x)
    with pytest.raises(hal.errors.SettingError, match="one of them"):
        nn.FractionalMaxPool2d(3)
