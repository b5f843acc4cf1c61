"""Training in float16: the loss is scaled up, so that small gradients do not vanish, as far as it can be."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import hal
from hal import ops, tracing
from hal.autocast import autocast
from hal.errors import SettingError
from hal.tensor import Tensor
from nn.optim.optimizer import Optimizer

__all__ = ["GradScaler", "autocast"]


class GradScaler:
    """Scales a loss up and its gradients down again; a step whose gradients overflowed is left out.

        scaler = nn.amp.GradScaler()
        with hal.autocast(dtype=hal.float16):
            loss = loss_fn(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    bfloat16 has the range of float32 and needs none of this. A step that is compiled is split where it is
    decided whether it is left out: `hal.compile(step, split=True)`.

    Args:
        device: taken for torch's sake.
        init_scale: the factor to begin with.
        growth_factor: what it is multiplied with after `growth_interval` steps without an overflow.
        backoff_factor: what it is multiplied with after an overflow.
        enabled: False does nothing at all, so that one program serves both.

    Raises:
        SettingError: factors on the wrong side of 1.

    Source: torch.amp.GradScaler; Micikevicius and others, "Mixed Precision Training", 2018, section 3.2.
    """

    def __init__(
        self, device: Any = None, init_scale: float = 65536.0, growth_factor: float = 2.0, backoff_factor: float = 0.5,
        growth_interval: int = 2000, enabled: bool = True,
    ) -> None:  # fmt: skip
        if not (growth_factor > 1 > backoff_factor > 0 and init_scale > 0):
            raise SettingError(
                "GradScaler needs init_scale= above 0, growth_factor= above 1 and backoff_factor= between 0 and 1, "
                f"got {init_scale}, {growth_factor}, {backoff_factor}"
            )
        self._scale, self._growth, self._backoff = init_scale, growth_factor, backoff_factor
        self._interval, self._enabled = growth_interval, enabled
        self._good = 0  # steps since the last overflow or growth
        self._found: dict[Optimizer, bool] = {}  # which optimizers' gradients are unscaled, and whether one overflowed
        self._traced: tuple[Any, dict[Optimizer, bool]] = (None, {})  # the same in a trace

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def get_scale(self) -> float:
        """The present factor; 1 if it does nothing."""
        return self._scale if self._enabled else 1.0

    def _judged(self) -> dict[Optimizer, bool]:
        tracer = tracing.active()
        if tracer is None:
            return self._found
        if self._traced[0] is not tracer:
            self._traced = (tracer, {})
        return self._traced[1]

    def _number(self, like: Tensor, formula: Callable[[float], float], name: str) -> Any:
        """A number that follows from the factor, which changes from call to call."""
        if tracing.active() is None:
            return formula(self._scale)
        return tracing.number(lambda: formula(self._scale), like.dtype, like.device, (id(self), name))

    def scale(self, outputs: Tensor) -> Tensor:
        """The loss times the factor."""
        if not self._enabled:
            return outputs
        wide = outputs if outputs.dtype is not hal.float16 else ops.cast(outputs, dtype=hal.float32)
        return wide * self._number(wide, lambda scale: scale, "scale")

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of an optimizer by the factor, to look at them or clip them before its step.

        Raises:
            RuntimeError: they are unscaled already.
        """
        if not self._enabled:
            return
        judged = self._judged()
        if optimizer in judged:
            raise RuntimeError("GradScaler.unscale_ was called already for this optimizer since the last update()")
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        with hal.no_grad():
            finite: Tensor | None = None
            for gradient in gradients:
                gradient.mul_(self._number(gradient, lambda scale: 1.0 / scale, "unscale"))
                here = hal.isfinite(gradient).all().to(gradients[0].device)
                finite = here if finite is None else finite & here
        judged[optimizer] = finite is not None and not bool(finite)

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """Unscale the gradients, if that is not done, and let the optimizer make a step, unless one overflowed."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if optimizer not in self._judged():
            self.unscale_(optimizer)
        return None if self._judged()[optimizer] else optimizer.step(*args, **kwargs)

    def update(self, new_scale: float | None = None) -> None:
        """Make the factor smaller if there was an overflow, and larger if there was none for long.

        Raises:
            RuntimeError: no gradients were looked at since the last time.
        """
        if not self._enabled:
            return
        judged = self._judged()
        if new_scale is None and not judged:
            raise RuntimeError("GradScaler.update needs a step or unscale_ first, so that there is something to judge")
        tracing.on_success(partial(self._go_on, any(judged.values()), new_scale))
        judged.clear()

    def _go_on(self, overflow: bool, new_scale: float | None) -> None:
        """Change the factor after a step."""
        if new_scale is not None:
            self._scale = float(new_scale)
        elif overflow:
            self._scale *= self._backoff
            self._good = 0
        else:
            self._good += 1
            if self._good == self._interval:
                self._scale *= self._growth
                self._good = 0

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how it goes on; empty if it does nothing."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale, "growth_factor": self._growth, "backoff_factor": self._backoff,
            "growth_interval": self._interval, "_growth_tracker": self._good,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        if not self._enabled:
            return
        self._scale, self._growth = state_dict["scale"], state_dict["growth_factor"]
        self._backoff, self._interval = state_dict["backoff_factor"], state_dict["growth_interval"]
        self._good = state_dict["_growth_tracker"]
