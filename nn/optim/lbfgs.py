"""L-BFGS: a quasi-Newton method for few parameters and whole batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hal
from hal import tracing
from hal.tensor import Tensor
from nn.optim.line_search import strong_wolfe
from nn.optim.optimizer import Closure, Optimizer, Params, check
from nn.utils import parameters_to_vector, vector_to_parameters


class LBFGS(Optimizer):
    """Steps along the gradient, bent by what the last gradients tell about the curvature.

    All parameters are one vector here, in one group. `step` needs a closure, and calls it several times.

    Args:
        lr: the length of a step, or, with a line search, of the first that is tried.
        max_iter: the most iterations of one `step`.
        max_eval: the most calls of the closure in one `step`; by default max_iter * 5 / 4.
        tolerance_grad: a `step` ends when no element of the gradient is larger.
        tolerance_change: a `step` ends when parameters or loss change by less.
        history_size: how many steps are remembered.
        line_search_fn: None, or "strong_wolfe".

    Raises:
        ValueError: several groups, a setting out of its range, or a step without a closure.

    Source: torch.optim.LBFGS; Nocedal, Wright, "Numerical Optimization", 2006, algorithms 7.4 and 7.5.
    """

    def __init__(
        self, params: Params, lr: float = 1, max_iter: int = 20, max_eval: int | None = None,
        tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:  # fmt: skip
        check(
            "LBFGS",
            lr=(lr >= 0, lr, "of 0 or more"),
            line_search_fn=(line_search_fn in (None, "strong_wolfe"), line_search_fn, "None or 'strong_wolfe'"),
        )
        super().__init__(params, {
            "lr": lr, "max_iter": max_iter, "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change, "history_size": history_size,
            "line_search_fn": line_search_fn,
        })  # fmt: skip
        if len(self.param_groups) != 1:
            raise ValueError(f"LBFGS takes one group of parameters, got {len(self.param_groups)}")

    def _gradient(self) -> Tensor:
        params = self.param_groups[0]["params"]
        return parameters_to_vector(hal.zeros_like(p) if p.grad is None else p.grad.detach() for p in params)

    def step(self, closure: Closure | None = None) -> Any:
        """Go several steps.

        Args:
            closure: computes the loss and its gradients again; called several times.

        Returns:
            The loss where the first of them began.

        Raises:
            GraphError: it is traced. What it calls may be compiled.
        """
        if closure is None:
            raise ValueError(
                "LBFGS.step needs a closure that zeroes the gradients, computes the loss and calls backward"
            )
        tracing.refuse("LBFGS.step", "compile the closure that it calls, or use hal.compile(..., fallback=True)")
        with hal.no_grad():
            return self._search(closure)

    def _search(self, closure: Closure) -> Any:
        group = self.param_groups[0]
        params = group["params"]
        state = self.state[params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        start = state["func_evals"]

        def evaluate(at: Tensor | None = None) -> tuple[Any, float, Tensor]:
            if at is not None:
                vector_to_parameters(at, params)
            with hal.enable_grad():
                loss = closure()
            state["func_evals"] += 1
            return loss, float(loss), self._gradient()

        first, loss, gradient = evaluate()
        if _largest(gradient) <= group["tolerance_grad"]:
            return first
        for iteration in range(group["max_iter"]):
            state["n_iter"] += 1
            direction = self._direction(state, gradient, group["history_size"])
            state["prev_flat_grad"], before = gradient, loss
            slope = float(gradient.dot(direction))
            if slope > -group["tolerance_change"]:
                break
            length = group["lr"]
            if state["n_iter"] == 1:
                length *= min(1.0, 1.0 / float(gradient.abs().sum()))
            here = parameters_to_vector(p.detach() for p in params).clone()
            if group["line_search_fn"] is None:
                vector_to_parameters(here + direction * length, params)
                if iteration + 1 < group["max_iter"]:
                    _, loss, gradient = evaluate()
            else:

                def along(t: float, here: Tensor = here, direction: Tensor = direction) -> tuple[float, Tensor, float]:
                    _, value, slope_there = evaluate(here + direction * t)
                    return value, slope_there, float(slope_there.dot(direction))

                loss, gradient, length = strong_wolfe(
                    along, loss, gradient, slope, length, _largest(direction), group["tolerance_change"]
                )
                vector_to_parameters(here + direction * length, params)
            state["d"], state["t"] = direction, length
            used = state["func_evals"] - start
            if used >= group["max_eval"] or _largest(gradient) <= group["tolerance_grad"]:
                break
            if _largest(direction) * length <= group["tolerance_change"]:
                break
            if abs(loss - before) < group["tolerance_change"]:
                break
        return first

    def _direction(self, state: dict[str, Any], gradient: Tensor, history: int) -> Tensor:
        """Minus the gradient, times the inverse of the Hessian as far as the last steps tell it."""
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], H_diag=1.0)
            return -gradient
        change = gradient - state["prev_flat_grad"]
        step = state["d"] * state["t"]
        curvature = float(change.dot(step))
        if curvature > 1e-10:
            state["old_dirs"] = [*state["old_dirs"], change][-history:]
            state["old_stps"] = [*state["old_stps"], step][-history:]
            state["H_diag"] = curvature / float(change.dot(change))
        direction = -gradient
        pairs = list(zip(state["old_dirs"], state["old_stps"], strict=True))
        factors = []
        for y, s in reversed(pairs):
            rho = 1.0 / float(y.dot(s))
            factors.append((rho, rho * float(s.dot(direction))))
            direction = direction - y * factors[-1][1]
        direction = direction * state["H_diag"]
        for (y, s), (rho, alpha) in zip(pairs, reversed(factors), strict=True):
            direction = direction + s * (alpha - rho * float(y.dot(direction)))
        return direction

    def state_dict(self) -> dict[str, Any]:
        """The settings, and what is kept of the last steps."""
        kept = dict(self.state[self.param_groups[0]["params"][0]])
        groups = [{**g, "params": list(range(len(g["params"])))} for g in self.param_groups]
        return {"state": {0: kept} if kept else {}, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the settings and the last steps of an optimizer of parameters of the same shapes."""
        super().load_state_dict({**state_dict, "state": {}})
        self.state[self.param_groups[0]["params"][0]] = dict(state_dict["state"].get(0, {}))


def _largest(x: Tensor) -> float:
    return float(x.abs().max())
