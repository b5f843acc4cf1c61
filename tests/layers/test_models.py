"""The model zoo: sizes as published, weights and results of torchvision and of a GPT in torch; and `summary`."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal.errors import ShapeError
from nn import functional as F
from nn import models, optim

# Parameters and state entries of torchvision's models, from its documentation and source.
PUBLISHED: list[Any] = [
    ("resnet18", 11_689_512, 122),
    ("resnet34", 21_797_672, 218),
    pytest.param("resnet50", 25_557_032, 320, marks=pytest.mark.slow),
    ("mobilenet_v2", 3_504_872, 314),
    pytest.param("vit_b_16", 86_567_656, 152, marks=pytest.mark.slow),
]
IMAGES = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)


@pytest.mark.parametrize(("name", "parameters", "entries"), PUBLISHED)
def test_the_published_size(name: str, parameters: int, entries: int) -> None:
    net = getattr(models, name)()
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert len(net.state_dict()) == entries


@pytest.fixture(scope="session")
def torchvision(torch: ModuleType) -> Any:
    """torchvision's models; its own kernels, which they do not need, are only named where they cannot be loaded."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    why = "needs torchvision: pip install 'hal-runtime[oracles]'"
    return pytest.importorskip("torchvision", exc_type=ImportError, reason=why).models, library


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "vgg11", "vit_b_16"])
def test_the_weights_of_torchvision_load_and_give_the_same(torch: ModuleType, torchvision: Any, name: str) -> None:
    torch.manual_seed(0)
    settings = {"image_size": 64} if name == "vit_b_16" else {}
    theirs = getattr(torchvision[0], name)(num_classes=10, **settings)
    if name == "vit_b_16":
        torch.nn.init.normal_(theirs.heads.head.weight)  # it begins with zeros, which would agree with anything
    ours = getattr(models, name)(num_classes=10, **settings)
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict({key: value.numpy() for key, value in state.items()})
    for mode in (True, False):
        if mode and name not in ("resnet18", "resnet50"):
            continue  # dropout draws other numbers
        ours.train(mode)
        theirs.train(mode)
        with hal.no_grad(), torch.no_grad():
            got, want = ours(hal.tensor(IMAGES)).numpy(), theirs(torch.tensor(IMAGES)).numpy()
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())


def torch_gpt(torch: ModuleType, vocab: int, block: int, layers: int, heads: int, width: int) -> Any:
    """A GPT in torch, from its own layers, with GPT-2's names."""

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1 = torch.nn.LayerNorm(width)
            self.attn = torch.nn.ModuleDict({
                "c_attn": torch.nn.Linear(width, 3 * width), "c_proj": torch.nn.Linear(width, width),
            })  # fmt: skip
            self.ln_2 = torch.nn.LayerNorm(width)
            self.mlp = torch.nn.ModuleDict({
                "c_fc": torch.nn.Linear(width, 4 * width), "c_proj": torch.nn.Linear(4 * width, width),
            })  # fmt: skip

        def forward(self, x: Any) -> Any:
            q, k, v = self.attn["c_attn"](self.ln_1(x)).chunk(3, -1)
            q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.attn["c_proj"](y.transpose(1, 2).flatten(2))
            inner = torch.nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh")
            return x + self.mlp["c_proj"](inner)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = torch.nn.ModuleDict({
                "wte": torch.nn.Embedding(vocab, width), "wpe": torch.nn.Embedding(block, width),
                "h": torch.nn.ModuleList([Block() for _ in range(layers)]), "ln_f": torch.nn.LayerNorm(width),
            })  # fmt: skip
            self.lm_head = torch.nn.Linear(width, vocab, bias=False)
            self.lm_head.weight = self.transformer["wte"].weight

        def forward(self, tokens: Any) -> Any:
            x = self.transformer["wte"](tokens) + self.transformer["wpe"](torch.arange(tokens.shape[1]))
            for layer in self.transformer["h"]:
                x = layer(x)
            return self.lm_head(self.transformer["ln_f"](x))

    return Net()


def test_a_gpt_of_torch_loads_gives_the_same_and_trains_alike(torch: ModuleType) -> None:
    torch.manual_seed(0)
    theirs = torch_gpt(torch, 11, 8, 2, 2, 12)
    ours = models.GPT(11, block_size=8, n_layer=2, n_head=2, n_embd=12)
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict({key: value.numpy() for key, value in state.items()})
    assert ours.lm_head.weight is ours.transformer["wte"].weight
    tokens = np.random.default_rng(0).integers(0, 11, size=(3, 9))
    a, b = optim.AdamW(ours.parameters(), lr=1e-2), torch.optim.AdamW(theirs.parameters(), lr=1e-2)
    for _ in range(5):
        a.zero_grad()
        b.zero_grad()
        x, y = hal.tensor(tokens), torch.tensor(tokens)
        mine = F.cross_entropy(ours(x[:, :-1]).reshape(-1, 11), x[:, 1:].reshape(-1))
        loss = torch.nn.functional.cross_entropy(theirs(y[:, :-1]).reshape(-1, 11), y[:, 1:].reshape(-1))
        assert mine.item() == pytest.approx(loss.item(), rel=1e-4)
        mine.backward()
        loss.backward()
        a.step()
        b.step()


def test_a_gpt_learns_a_pattern_and_goes_on_with_it() -> None:
    hal.manual_seed(0)
    net = models.GPT(4, block_size=8, n_layer=1, n_head=2, n_embd=16)
    optimizer = optim.AdamW(net.parameters(), lr=1e-2)
    tokens = hal.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 0], [2, 3, 0, 1, 2, 3, 0, 1, 2]])
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(tokens[:, :-1]).reshape(-1, 4), tokens[:, 1:].reshape(-1)).backward()
        optimizer.step()
    wanted = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]
    assert net.generate(hal.tensor([[0, 1]]), 10, temperature=0)[0].tolist() == wanted
    assert net.generate(hal.tensor([[0, 1]]), 10, temperature=0.1, top_k=2)[0].tolist() == wanted


NETWORKS: list[tuple[Any, Any, tuple[int, ...]]] = [
    (lambda: models.MLP([12, 8, 3], dropout=0.1), (2, 3, 4), (2, 3)),
    (models.LeNet5, (2, 1, 28, 28), (2, 10)),
    (lambda: models.LeNet5(classic=True, padding=0), (2, 1, 32, 32), (2, 10)),
    (lambda: models.TutorialCNN(size=8), (2, 3, 8, 8), (2, 10)),
    (lambda: models.VisionTransformer(16, 8, 2, 2, 12, 24, 5), (2, 3, 16, 16), (2, 5)),
    (lambda: models.MobileNetV2(5, width_mult=0.1), (2, 3, 32, 32), (2, 5)),
]


@pytest.mark.parametrize(("make", "size", "out"), NETWORKS)
def test_a_network_runs_and_every_parameter_gets_a_gradient(make: Any, size: Any, out: Any) -> None:
    hal.manual_seed(0)
    net = make()
    scores = net(hal.randn(*size))
    assert scores.shape == out
    (scores * scores).sum().backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None]
    assert not missing


def test_the_tutorial_network_is_that_of_the_tutorial() -> None:
    net = models.TutorialCNN()
    assert sum(p.numel() for p in net.parameters()) == 1_068_298  # 5*5*3*64+64 + 5*5*64*64+64 + 2304*384+384 + ...
    assert net.conv2.bias.tolist() == [pytest.approx(0.1)] * 64
    assert float(net.conv1.weight.abs().max()) <= 0.1


def test_a_language_model_hands_its_state_on() -> None:
    hal.manual_seed(0)
    net = models.LSTMLanguageModel(7, 6, 6, tie_weights=True)
    tokens = hal.randint(0, 7, (5, 2))
    whole, _ = net(tokens)
    first, state = net(tokens[:3])
    second, _ = net(tokens[3:], state)
    np.testing.assert_allclose(hal.cat([first, second]).detach().numpy(), whole.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert len(list(net.parameters())) == len(list(models.LSTMLanguageModel(7, 6, 6).parameters())) - 1


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: models.MLP([3]), ValueError, r"sizes of the input and the output at least, got \[3\]"),
    (lambda: models.GPT(5, n_head=3, n_embd=8), ValueError, "n_head= that divides n_embd= 8, got 3"),
    (
        lambda: models.GPT(5, 4, 1, 1, 8)(hal.zeros(1, 5, dtype=hal.int64)),
        ShapeError,
        "up to block_size= 4 tokens, got 5",
    ),
    (lambda: models.LSTMLanguageModel(5, 4, 8, tie_weights=True), ValueError, "to be equal, got 4 and 8"),
    (lambda: models.VisionTransformer(10, 4, 1, 1, 4, 4), ValueError, "patches that fill 10 pixels, got 4"),
    (lambda: nn.summary(nn.Linear(2, 2)), ValueError, "input_size="),
    (lambda: nn.summary(nn.Linear(2, 2), (1, 2)), ValueError, r"got the shape \(1, 2\): write input_size=\(1, 2\)"),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[e[2][:24] for e in ERRORS])
def test_error(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_summary_counts_what_is_there(each_device: hal.Device) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(), nn.Flatten()))
    net.append(nn.Linear(4 * 36, 10))
    net[1].eval()
    net[3].bias.requires_grad_(False)
    found = nn.summary(net, input_size=(2, 3, 8, 8))
    assert [r.path for r in found.rows] == ["", "0", "1", "2", "2.0", "2.1", "3"]
    by_path = {row.path: row for row in found.rows}
    assert by_path["0"].shape == (2, 4, 6, 6)
    assert by_path["0"].parameters == 108
    assert found.parameters == 108 + 8 + 1450
    assert found.parameters - found.trainable == 10
    assert found.parameter_bytes == 4 * found.parameters
    assert found.device == str(each_device)
    assert by_path["0"].bytes == 2 * 4 * 36 * 4
    if each_device.type == "cpu":
        assert by_path["0"].flops == 2 * 2 * 36 * 4 * 27
        assert by_path["3"].flops == pytest.approx(2 * 2 * 144 * 10, rel=0.05)
    assert found.flops == sum(row.flops for row in found.rows[1:]) > 0
    short = nn.summary(net, input_size=(2, 3, 8, 8), depth=1)
    assert [r.path for r in short.rows] == ["", "0", "1", "2", "3"]
    assert short.flops == sum(row.flops for row in short.rows[1:])
    assert net.training
    assert not net[1].training
    assert "1,566 parameters" in str(found)
    assert found.to_dict()["rows"][1]["path"] == "0"


def test_a_summary_shows_what_was_called_twice_and_what_was_not() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: hal.Tensor) -> hal.Tensor:
            out: hal.Tensor = self.used(self.used(x))
            return out

    rows = {row.path: row for row in nn.summary(Net(), hal.ones(1, 2)).rows}
    assert (rows["used"].calls, rows["spare"].calls) == (2, 0)
    text = str(nn.summary(Net(), hal.ones(1, 2)))
    assert "(1, 2) x 2" in text
    assert "not called" in text
