"""What all optimizers have in common: parameter groups, state, and saving and loading it in torch's layout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import hal
from hal import tracing
from hal.errors import StateError
from hal.tensor import Tensor

Group = dict[str, Any]
Closure = Callable[[], Any]
Params = Iterable[Any]
_MOST_NUMBERS = 64


def _rate(lr: float, step: float) -> float:
    return lr


def _add_one(state: dict[str, Any]) -> None:
    state["step"] += 1


def check(who: str, **rules: tuple[bool, Any, str]) -> None:
    """Raise ValueError for the first setting whose rule (holds, value, what was needed) does not hold."""
    for name, (holds, value, needed) in rules.items():
        if not holds:
            raise ValueError(f"{who} needs {name}= {needed}, got {value}")


class Optimizer:
    """Changes parameters in place, by what their `.grad` says. A subclass gives `_update`.

    Args:
        params: parameters, (name, parameter) pairs, or groups: dictionaries with `params` and settings of their own.
        defaults: the settings of groups that do not say otherwise.

    Attributes:
        param_groups: the groups; changing a setting there (such as `lr`) counts from the next step on.
        state: what is kept for each parameter.

    Raises:
        TypeError: something else than tensors.
        ValueError: no parameters, one that is in two groups, or one that was computed.

    Source: torch.optim.Optimizer.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError(
                f"{type(self).__name__} needs an iterable of parameters, got one tensor: put it into a list"
            )
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self._numbers: dict[tuple[Any, ...], Tensor] = {}
        given = list(params)
        if not given:
            raise ValueError(f"{type(self).__name__} got no parameters: pass net.parameters(), once and not used up")
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: Group) -> None:
        """Add parameters with settings of their own, such as layers that are unfrozen during training.

        Raises:
            TypeError, ValueError: as when the optimizer is made.
        """
        who = type(self).__name__
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise TypeError(
                f"{who} needs a parameter group as a dictionary with 'params', got {type(param_group).__name__}"
            )
        given = param_group["params"]
        entries = [given] if isinstance(given, Tensor) else list(given)
        names = [entry[0] for entry in entries if isinstance(entry, tuple)]
        params = [entry[1] if isinstance(entry, tuple) else entry for entry in entries]
        if names and len(names) != len(params):
            raise ValueError(f"{who} needs names for all parameters of a group or for none")
        known = {param for group in self.param_groups for param in group["params"]}
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(f"{who} can only change tensors, got {type(param).__name__}")
            if not param.is_leaf:
                raise ValueError(
                    f"{who} can only change leaf tensors, this one was computed: optimize what it was computed from"
                )
            if param in known:
                raise ValueError(f"{who} got a parameter twice: each may be in one group, once")
            known.add(param)
        extra = {"param_names": names} if names else {}
        self.param_groups.append({**self.defaults, **param_group, **extra, "params": params})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or set them to zero."""
        for group in self.param_groups:
            for param in group["params"]:
                if set_to_none:
                    param.grad = None
                elif param.grad is not None:
                    param.grad = param.grad.detach().zero_()

    def step(self, closure: Closure | None = None) -> Any:
        """Change every parameter that has a gradient.

        Args:
            closure: computes the loss and its gradients again; called first.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with hal.enable_grad():
                loss = closure()
        tracing.guard(self._settings)
        with hal.no_grad():
            for group in self.param_groups:
                for param in group["params"]:
                    if param.grad is not None:
                        self._update(param, param.grad, self.state[param], group)
        return loss

    def _update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: Group) -> None:
        """Change one parameter and its state in place."""
        raise NotImplementedError(f"{type(self).__name__} has no _update: write what a step does to one parameter")

    def _settings(self) -> tuple[Any, ...]:
        """What a compiled step takes for given: all but the learning rate and the number of the step."""
        rest = (
            (k, tuple(v) if isinstance(v, list) else v)
            for group in self.param_groups
            for k, v in group.items()
            if k not in ("params", "param_names", "lr", "initial_lr")
        )
        return (id(self.state), *(len(group["params"]) for group in self.param_groups), *rest)

    def _start(self, state: dict[str, Any], **values: Callable[[], Any]) -> None:
        """Let the state of a parameter begin with these values, unless there are some. In a trace, they are real."""
        for name, value in values.items():
            if name not in state:
                state[name] = tracing.once(value)

    def _count(self, state: dict[str, Any]) -> None:
        """Count a step; a compiled one is counted each time that it has succeeded."""
        if tracing.active() is None:
            state["step"] += 1
        else:
            tracing.on_success(partial(_add_one, state))

    def _number(
        self, name: str, param: Tensor, group: Group, formula: Callable[[float, float], float] = _rate,
        step: Mapping[str, Any] | None = None, dtype: Any = None,
    ) -> Tensor:  # fmt: skip
        """A 0-d tensor beside `param` with formula(learning rate, number of the step), which changes from call to call.

        Args:
            name: tells formulas apart.
            step: the parameter's state, if the formula needs the number of the step; it was counted already.
        """
        dtype = dtype or (hal.float64 if param.dtype is hal.float64 else hal.float32)
        if tracing.active() is not None:
            number = 0.0 if step is None else step["step"]

            def compute() -> float:
                return formula(float(group["lr"]), 0.0 if step is None else step["step"] + 1)

            return tracing.number(compute, dtype, param.device, (id(self), id(group), name, number))
        value = formula(float(group["lr"]), 0.0 if step is None else step["step"])
        key = (value, dtype, param.device)
        found = self._numbers.get(key)
        if found is None:
            if len(self._numbers) >= _MOST_NUMBERS:  # all parameters ask for the same few
                self._numbers.clear()
            found = self._numbers[key] = hal.tensor(value, dtype=dtype, device=param.device)
        return found

    def state_dict(self) -> dict[str, Any]:
        """The settings of all groups and what is kept for each parameter, which is called by its number."""
        numbers: dict[Tensor, int] = {}
        groups = []
        for group in self.param_groups:
            for param in group["params"]:
                numbers[param] = len(numbers)
            groups.append({**group, "params": [numbers[param] for param in group["params"]]})
        state = {
            numbers[param]: {k: hal.tensor(float(v)) if k == "step" else v for k, v in kept.items()}
            for param, kept in self.state.items()
            if kept
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the settings and state of an optimizer with the same groups of the same parameters.

        Raises:
            StateError: groups or shapes differ; nothing has been changed then.
        """
        who = type(self).__name__
        if not {"state", "param_groups"} <= state_dict.keys():
            raise StateError(
                f"{who}.load_state_dict needs 'state' and 'param_groups', got {sorted(map(str, state_dict))}"
            )
        groups = state_dict["param_groups"]
        have, got = ([len(g["params"]) for g in gs] for gs in (self.param_groups, groups))
        if have != got:
            raise StateError(f"{who} has groups of {have} parameters, the state has groups of {got}")
        saved = [number for group in groups for number in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        by_number = dict(zip(map(int, saved), params, strict=True))
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for number, kept in state_dict["state"].items():
            param = by_number.get(int(number))
            if param is None:
                raise StateError(f"{who} has no parameter number {number}, which the state has something for")
            state[param] = {name: _fitted(who, int(number), name, value, param) for name, value in kept.items()}
        self.param_groups = [
            {**deepcopy({k: v for k, v in new.items() if k != "params"}), "params": old["params"]}
            for old, new in zip(self.param_groups, groups, strict=True)
        ]
        self.state = state

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


def _fitted(who: str, number: int, name: str, value: Any, param: Tensor) -> Any:
    """A copy of what was kept for a parameter, on its device."""
    if name == "step":
        return float(value)
    if not isinstance(value, Tensor):
        return deepcopy(value)
    if value.shape != param.shape:
        raise StateError(
            f"{who}: the state's {name} of parameter {number} has shape {value.shape}, the parameter {param.shape}"
        )
    return value.detach().clone().to(param.dtype).to(param.device)
