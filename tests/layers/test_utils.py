"""Helpers around parameters: vectors of them, and gradients that are clipped."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
import nn


def params() -> list[nn.Parameter]:
    return [nn.Parameter(hal.arange(6.0).reshape(2, 3)), nn.Parameter(hal.tensor([7.0, 8.0]))]


def test_parameters_become_a_vector_and_come_back() -> None:
    ps = params()
    vector = nn.utils.parameters_to_vector(ps)
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 7, 8]
    nn.utils.vector_to_parameters(vector.detach() * 2, ps)
    assert ps[1].tolist() == [14, 16]
    assert ps[0].shape == (2, 3)
    assert ps[0].requires_grad
    with pytest.raises(ValueError, match=r"a vector of 8 elements, got shape \(7,\)"):
        nn.utils.vector_to_parameters(vector[:7], ps)


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_gradients_are_clipped_by_their_norm(torch: ModuleType, max_norm: float, norm_type: float) -> None:
    rng = np.random.default_rng(0)
    ours: list[Any] = params()
    theirs = [torch.nn.Parameter(torch.tensor(p.detach().numpy())) for p in ours]
    for a, b in zip(ours, theirs, strict=True):
        g = rng.normal(size=a.shape).astype(np.float32)
        a.grad, b.grad = hal.tensor(g), torch.tensor(g)

    got = nn.utils.clip_grad_norm_(ours, max_norm, norm_type)
    want = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)

    assert got.item() == pytest.approx(want.item(), rel=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-5)


def test_gradients_are_clipped_by_value() -> None:
    ps = params()
    ps[1].grad = kept = hal.tensor([-3.0, 0.2])
    nn.utils.clip_grad_value_(ps, 0.5)
    assert ps[1].grad is kept
    np.testing.assert_allclose(kept.tolist(), [-0.5, 0.2], rtol=1e-6)
    assert ps[0].grad is None


def test_no_gradients_have_no_norm() -> None:
    assert nn.utils.clip_grad_norm_(params(), 1.0).item() == 0


def test_a_norm_that_is_not_finite_can_be_an_error() -> None:
    p = nn.Parameter(hal.ones(2))
    p.grad = hal.tensor([float("nan"), 1.0])
    with pytest.raises(ValueError, match="the norm of the gradients is nan"):
        nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)


def test_gradients_are_clipped_by_a_norm_that_is_known() -> None:
    parameter = nn.Parameter(hal.zeros(2))
    parameter.grad = hal.tensor([3.0, 4.0])
    nn.utils.clip_grads_with_norm_(parameter, 1.0, nn.utils.get_total_norm([parameter.grad]))
    np.testing.assert_allclose(parameter.grad.numpy(), [0.6, 0.8], rtol=1e-5)


FUSED: list[tuple[nn.Module, nn.Module, tuple[int, ...]]] = [
    (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    (nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6, affine=False), (2, 4, 5)),
    (nn.ConvTranspose2d(4, 6, 3), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    (nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
    (nn.Linear(4, 6), nn.BatchNorm1d(6), (7, 4)),
]


@pytest.mark.parametrize(("layer", "norm", "shape"), FUSED, ids=str)
def test_batch_norms_are_folded_into_the_layer_before(
    layer: nn.Module, norm: nn.Module, shape: tuple[int, ...]
) -> None:
    hal.manual_seed(0)
    x = hal.randn(*shape)
    for _ in range(3):
        norm(layer(hal.randn(*shape) * 2 + 1))
    if norm.weight is not None:
        nn.init.uniform_(norm.weight)
        nn.init.uniform_(norm.bias)
    fuse = nn.utils.fuse_linear_bn_eval if isinstance(layer, nn.Linear) else nn.utils.fuse_conv_bn_eval
    with pytest.raises(TypeError, match="both modules in eval mode"):
        fuse(layer, norm)

    fused = fuse(layer.eval(), norm.eval())

    assert type(fused) is type(layer)
    np.testing.assert_allclose(fused(x).detach().numpy(), norm(layer(x)).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_only_a_norm_with_statistics_can_be_folded() -> None:
    with pytest.raises(TypeError, match="with running statistics, got LayerNorm"):
        nn.utils.fuse_linear_bn_eval(nn.Linear(2, 3).eval(), nn.LayerNorm(3).eval())


def test_norms_of_weights_by_their_older_names() -> None:
    layer = nn.utils.weight_norm(nn.Linear(3, 2), dim=None)
    assert "parametrizations.weight.original0" in layer.state_dict()
    assert list(nn.utils.remove_weight_norm(layer).state_dict()) == ["bias", "weight"]
    layer = nn.utils.spectral_norm(nn.Linear(3, 2), n_power_iterations=9)
    assert np.linalg.svd(layer.weight.detach().numpy())[1][0] == pytest.approx(1, abs=1e-3)
    assert list(nn.utils.remove_spectral_norm(layer).state_dict()) == ["bias", "weight"]
