"""Reports of simulated machines: numbers that add up, files that open, and `hal sim MODEL`."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import hal
import hal_systolic
import nn
from hal.errors import ConfigError
from hal_systolic.cli import sim
from hal_systolic.counters import COLUMNS
from hal_systolic.stream import UNITS
from hal_systolic.text import si


def _step(device: str) -> hal_systolic.Report:
    """A step of training of a small network, recorded."""
    hal.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10)
    ).to(device=device)
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)
    x = hal.tensor(np.random.default_rng(0).random((8, 1, 8, 8), np.float32), device=device)
    y = hal.tensor(np.arange(8), device=device)
    with hal_systolic.report() as r:
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return r


@pytest.fixture(scope="module")
def training() -> hal_systolic.Report:
    return _step("systolic:tpu-v2-core")


@pytest.fixture(scope="module")
def small() -> hal_systolic.Report:
    return _step("systolic:eyeriss-like")


def test_the_parts_add_up_to_the_whole(training: hal_systolic.Report) -> None:
    r = training
    assert r.machines == ["tpu-v2-core"]
    conv, linear = 8 * 36 * 9 * 4, 8 * 36 * 10
    assert r.total.macs == 2 * conv + 3 * linear  # the images need no gradient
    assert sum(c.macs for c in r.layers.values()) == r.total.macs
    assert sum(c.total_cycles for c in r.layers.values()) == pytest.approx(r.cycles)
    found = r.as_dict()
    assert sum(found["total"]["columns_pct"].values()) == pytest.approx(100)
    assert set(found["total"]["columns"]) == set(COLUMNS)
    assert sum(found["total"]["energy_j"].values()) == pytest.approx(r.joules)
    assert found["machine"]["rows"] == 128
    assert r.seconds == pytest.approx(r.cycles / 700e6)


def test_layers_have_the_names_of_modules_and_ops(training: hal_systolic.Report) -> None:
    layers = list(training.layers)
    assert layers[:4] == ["0 Conv2d", "1 BatchNorm2d", "2 ReLU", "3 MaxPool2d"]
    assert {"5 Linear (backward)", "0 Conv2d (backward)", "cross_entropy", "sgd_step"} <= set(layers)


def test_the_text_has_a_row_for_each_layer(training: hal_systolic.Report) -> None:
    text = str(training)
    assert text.startswith("machine       tpu-v2-core")
    row = next(line for line in text.splitlines() if line.startswith("5 Linear (backward)"))
    assert re.search(r"\d+%.*(compute|memory)$", row)
    lanes = {line.split()[0]: line for line in text.splitlines() if line.endswith("|")}
    assert {"matrix", "vector", "loader"} <= set(lanes)
    for unit, line in lanes.items():
        first = min(i.start for i in training.simulation.intervals() if i.unit == unit and i.end > i.start)
        drawn = line[line.index("|") + 1 : -1]
        assert len(drawn) - len(drawn.lstrip()) == int(100 * first / training.cycles)


def test_the_trace_is_one_that_perfetto_reads(training: hal_systolic.Report, tmp_path: Path) -> None:
    training.to_trace(tmp_path / "trace.json")
    found = json.loads((tmp_path / "trace.json").read_text())
    names = {e["tid"]: e["args"]["name"] for e in found["traceEvents"] if e["name"] == "thread_name"}
    assert list(names.values()) == list(UNITS)
    events = [e for e in found["traceEvents"] if e["ph"] == "X"]
    assert len(events) == len(training.simulation.program.commands)
    assert max(e["ts"] + e["dur"] for e in events) == pytest.approx(1e6 * training.seconds, rel=0.01)
    for unit in names:
        mine = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e["tid"] == unit)
        assert all(end <= start + 1e-6 for (_, end), (start, _) in pairwise(mine))


class _Page(HTMLParser):
    """Counts elements, and sees to it that all that is opened is closed."""

    EMPTY = ("meta", "input", "th", "td", "tr")  # may be left open

    def __init__(self, text: str) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def test_the_page_stands_alone_and_draws_what_there_is(small: hal_systolic.Report, tmp_path: Path) -> None:
    small.to_html(tmp_path / "page.html", "<one> step")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    assert "<h1>&lt;one&gt; step</h1>" in text
    page = _Page(text)
    assert page.open == []
    drawn = [c for c in small.layers.values() if c.macs and (c.bytes_at("dram read") + c.bytes_at("dram written"))]
    assert page.count["circle"] == len(drawn) + 1  # and the total
    assert page.count["rect"] > 20
    products = json.loads(re.search(r"id='products'>(.*?)</script>", text).group(1))
    assert (products["rows"], products["cols"]) == (12, 14)
    assert all(1 <= p["rows"] <= 12 and 1 <= p["cols"] <= 14 for p in products["products"])
    linear = next(p for p in products["products"] if p["layer"] == "5 Linear")
    assert (linear["m"], linear["rows"], linear["cols"]) == (8, 12, 10)


def test_a_large_array_is_not_drawn(training: hal_systolic.Report, tmp_path: Path) -> None:
    training.to_html(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "id='array'" not in text
    assert "16,384" in text


def test_what_is_asked_of_no_machine_or_several_is_an_error() -> None:
    with hal_systolic.report() as nothing:
        hal.ones(2) + 1
    with pytest.raises(ConfigError, match="put the tensors on 'systolic'"):
        _ = nothing.cycles
    with hal_systolic.report() as both:
        for name in ("tpu-v1", "edge-8"):
            hal.ones(2, device=f"systolic:{name}") + 1
    with pytest.raises(ConfigError, match=r"2 machines.*tpu-v1, edge-8"):
        _ = both.cycles
    assert both.of("edge-8").cycles > 0
    with pytest.raises(ConfigError, match="nothing ran on 'tpu-v9'; there is tpu-v1, edge-8"):
        both.of("tpu-v9")


def test_a_report_can_be_read_while_it_is_open() -> None:
    with hal_systolic.report() as r:
        x = hal.ones(4, 4, device="systolic")
        first = r.total.macs
        x @ x
        assert (first, r.total.macs) == (0, 64)


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (999, "999 B"), (1.5e9, "1.5 GB"), (2.5e-5, "25 µB")])
def test_numbers_with_prefixes(value: float, text: str) -> None:
    assert si(value, "B") == text


# The command.

NET = """
import hal, nn
hal.manual_seed(0)
class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
"""


def _sim(*arguments: str) -> Any:
    result = CliRunner().invoke(sim, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:Net"


def test_a_network_of_a_file(net: str, tmp_path: Path) -> None:
    files = [tmp_path / "page.html", tmp_path / "trace.json"]
    result = _sim(net, "--batch", "3", "--input", "2,8", "--html", str(files[0]), "--trace", str(files[1]))
    assert "tpu-v3-core" in result.output
    assert "1 Linear" in result.output
    assert all(f.stat().st_size > 1000 for f in files)


def test_training_and_changes_in_json(net: str) -> None:
    found = json.loads(
        _sim(net, "--train", "--batch", "3", "--set", "rows=64", "--set", "dram.latency=7", "--json").output
    )
    assert found["machine"]["rows"] == 64
    assert found["machine"]["dram"]["latency"] == 7
    assert found["total"]["macs"] == 3 * (2 * 16 * 8 + 3 * 8 * 4)
    assert "3 Linear (backward)" in found["layers"]
    more = json.loads(_sim(net, "--train", "--batch", "3", "--passes", "highest", "--json").output)
    assert more["total"]["columns"]["active"] > 5 * found["total"]["columns"]["active"]


def test_a_chip_that_infers_gets_integers(net: str) -> None:
    result = _sim(net, "--preset", "gemmini-16", "--dump")
    assert "MATMUL   int8" in result.output
    with pytest.raises(ConfigError, match="only infers"):
        _sim(net, "--preset", "gemmini-16", "--train")


def test_a_script_runs_on_the_machine(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys, hal\nx = hal.ones(int(sys.argv[1]), 5)\nprint(x.device)\nx @ x.T\n")
    result = _sim(str(script), "--preset", "edge-8", "--set", "rates.bfloat16=1", "--json", "3")
    first, _, rest = result.output.partition("\n")
    assert first == "systolic:edge-8"
    assert json.loads(rest)["total"]["macs"] == 45


@pytest.mark.parametrize(("arguments", "problem"), [
    (("Nothing",), "no 'Nothing' in nn.models"),
    (("nowhere.py:Net",), "no file nowhere.py"),
    (("not_a_module:Net",), "cannot be imported"),
    (("LeNet5", "--preset", "tpu-v11"), "no machine 'tpu-v11'.*did you mean tpu-v1"),
    (("LeNet5", "--set", "rows"), "field=value"),
    (("LeNet5", "--set", "rows=0"), "rows"),
])  # fmt: skip
def test_what_cannot_be_simulated(arguments: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        _sim(*arguments)
