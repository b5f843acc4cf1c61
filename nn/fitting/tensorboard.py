"""Summaries for TensorBoard: figures, histograms of weights and gradients, images, and the model's graph."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import hal
from hal.dispatch import watching
from hal.errors import HalError
from hal.op import Op
from hal.tensor import Tensor
from nn.fitting.callback import Callback
from nn.fitting.history import Row
from nn.module import Module

if TYPE_CHECKING:
    from nn.fitting.loop import Fit


class TensorBoard(Callback):
    """Writes event files that TensorBoard shows; needs tensorboardX (`pip install hal-runtime[tensorboard]`).

    Args:
        folder: for the event files.
        histograms: whether weights and gradients are written, at the end of each epoch.
        every: also write the loss of every so many steps; 0 for none. Each waits for the device.
        images: a batch (N, C, H, W) with values from 0 to 1 to be shown, of which the first eight are.

    Raises:
        HalError: tensorboardX is not installed.
    """

    def __init__(self, folder: str | Path, histograms: bool = True, every: int = 0, images: Any = None) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise HalError("TensorBoard needs tensorboardX: pip install 'hal-runtime[tensorboard]'") from error
        self.writer = SummaryWriter(str(folder))
        self.histograms, self.every, self.images = histograms, every, images
        self._drawn = False
        self._gradients: dict[str, Tensor] = {}  # of the last step

    def begin(self, fit: Fit) -> None:
        if self.images is not None:
            self.writer.add_images("images", np.asarray(self.images.cpu().numpy())[:8], fit.steps)

    def step(self, fit: Fit) -> None:
        if not self._drawn:
            self._drawn = True
            self._graph(fit)
        if self.histograms:
            self._gradients = {n: p.grad.detach() for n, p in fit.model.named_parameters() if p.grad is not None}
        if self.every and fit.steps % self.every == 0:
            self.writer.add_scalar("step/loss", float(fit.loss), fit.steps)

    def epoch(self, fit: Fit, row: Row) -> None:
        for name, value in row.items():
            if isinstance(value, (int, float)):
                place = f"validation/{name[4:]}" if name.startswith("val_") else f"training/{name}"
                self.writer.add_scalar(place, value, row["epoch"])
        if self.histograms:
            for name, param in fit.model.named_parameters():
                self.writer.add_histogram(f"weights/{name}", param.detach().cpu().numpy(), row["epoch"])
            for name, gradient in self._gradients.items():
                self.writer.add_histogram(f"gradients/{name}", gradient.cpu().numpy(), row["epoch"])
        self.writer.flush()

    def end(self, fit: Fit) -> None:
        self.writer.close()

    def _graph(self, fit: Fit) -> None:
        """The ops of one forward pass, each a node under the path of its module, joined by the tensors between them."""
        event, graph, node, versions = (
            import_module(f"tensorboardX.proto.{name}_pb2") for name in ("event", "graph", "node_def", "versions")
        )
        nodes = [node.NodeDef(name=name, op=op, input=inputs) for name, op, inputs in graph_of(fit.model, fit.inputs)]
        drawn = graph.GraphDef(node=nodes, versions=versions.VersionDef(producer=22))
        assert self.writer.file_writer is not None
        self.writer.file_writer.add_event(event.Event(graph_def=drawn.SerializeToString()))


def graph_of(model: Module, inputs: Any) -> list[tuple[str, str, list[str]]]:
    """The ops of one forward pass: their names, under the paths of their modules, their kinds, and their inputs."""
    nodes: list[tuple[str, str, list[str]]] = []
    makers: dict[int, str] = {}  # which node made the tensor with this id
    kept: list[Any] = []  # so that no id is used twice
    inside: list[str] = []
    paths = {id(module): path.replace(".", "/") for path, module in model.named_modules()}
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for path, tensor in named:
            makers[id(tensor)] = path.replace(".", "/")
            nodes.append((makers[id(tensor)], kind, []))

    def count(op: Op, args: tuple[Tensor, ...], settings: dict[str, Any], outs: tuple[Tensor, ...]) -> None:
        name = "/".join(filter(None, [inside[-1] if inside else "", f"{op.name}_{len(nodes)}"]))
        sources = []
        for x in args:
            if id(x) not in makers:
                makers[id(x)] = f"input_{len(nodes)}"
                nodes.append((makers[id(x)], "input", []))
                kept.append(x)
            sources.append(makers[id(x)])
        nodes.append((name, op.name, sources))
        for out in outs:
            makers[id(out)] = name
        kept.extend(outs)

    handles = []
    for module in model.modules():
        handles += [
            module.register_forward_pre_hook(lambda module, args: inside.append(paths[id(module)])),
            module.register_forward_hook(lambda module, args, out: (inside.pop(), None)[1]),
        ]
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with watching(count), hal.no_grad():
            model(inputs)
    finally:
        for module in training:
            module.training = True
        for handle in handles:
            handle.remove()
    return nodes
