"""The counters of a worker."""

import ast
import inspect

from tidegate.observe import counters as module
from tidegate.observe.counters import Counters


def test_snapshot_names_every_number_and_is_a_copy():
    counters = Counters()
    counters.connections = 3
    counters.requests = 5
    before = counters.snapshot()
    counters.requests += 1
    assert before == {"connections": 3, "requests": 5}


def test_fired_limits_are_counted_by_name():
    counters = Counters()
    counters.fire("timeout_head")
    counters.fire("limit_header_size")
    counters.fire("timeout_head")
    assert counters.fired == {"timeout_head": 2, "limit_header_size": 1}
    assert counters.snapshot()["fired_timeout_head"] == 2


def test_two_workers_share_nothing():
    first, second = Counters(), Counters()
    first.fire("timeout_head")
    assert second.fired == {}


def test_counters_import_nothing():
    tree = ast.parse(inspect.getsource(module))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_a_misspelt_counter_is_an_error():
    counters = Counters()
    try:
        counters.request = 1
    except AttributeError:
        return
    raise AssertionError("a misspelt name was taken silently")
