"""The benchmark's arithmetic on made-up numbers: a verdict nobody can trust is worth nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from bench.arena import Plan, rounds_of
from bench.chart import Bar, Panel, draw, panel
from bench.figures import Better, Spread, Verdict, best, judge, number, ratios, spread
from bench.load import REPORT, Meter, VoidError, Wrk, read_report
from bench.processes import ServerProcess, alive, birth, cpu_seconds, family
from bench.results import Outcome, RowResult
from bench.rows import BEST, ROWS, Figure, Target, quicker
from bench.servers import SERVERS, Certificate, Place
from bench.table import render

PLAINTEXT = next(row for row in ROWS if row.name == "plaintext")
MEMORY = next(row for row in ROWS if row.name == "memory")
ECHO = next(row for row in ROWS if row.name == "ws-echo")
HELD = next(row for row in ROWS if row.name == "ws-idle-4000")
DJANGO = next(row for row in ROWS if row.name == "django")


def outcome(server: str, *cpu: float, key: str = "cpu_us") -> Outcome:
    samples = [{key: value, "rate": 1e6 / value, "busy": 0.99} for value in cpu]
    return Outcome(server, SERVERS[server].ours, list(samples))


def result(*outcomes: Outcome, row=PLAINTEXT, eager: bool = True) -> RowResult:
    return RowResult(row, list(outcomes), eager)


# --- medians, quartiles, ratios


def test_the_median_lies_between_the_quartiles_of_the_values_themselves():
    assert spread([5, 1, 4, 2, 3]) == Spread(2, 3, 4)


def test_an_even_number_of_rounds_takes_the_mean_of_the_middle_two():
    assert spread([10, 20, 30, 100]).middle == 25


def test_one_round_has_no_spread():
    assert spread([7.5]) == Spread(7.5, 7.5, 7.5)


def test_no_round_has_no_median():
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_ratios_pair_the_rounds():
    # The machine was slow in the second round, for both: the ratio does not show it.
    assert ratios([6, 12, 6], [10, 20, 10]) == [0.6, 0.6, 0.6]


def test_ratios_of_unequal_runs_are_refused():
    with pytest.raises(ValueError):
        ratios([1, 2], [1])


def test_the_median_of_the_ratios_is_not_the_ratio_of_the_medians():
    ours, theirs = outcome("tidegate", 6, 30, 8), outcome("uvicorn", 10, 40, 20)
    compared = result(ours, theirs).comparisons()["uvicorn"]
    assert compared.value.middle == 0.6  # of 0.6, 0.75, 0.4; the medians' ratio is 8 / 20


# --- verdicts


@pytest.mark.parametrize(
    ("value", "better", "verdict"),
    [
        (Spread(0.58, 0.60, 0.61), Better.LOWER, Verdict.REACHED),
        (Spread(0.58, 0.60, 0.62), Better.LOWER, Verdict.REACHED),
        (Spread(0.58, 0.61, 0.63), Better.LOWER, Verdict.UNDECIDED),
        (Spread(0.61, 0.63, 0.66), Better.LOWER, Verdict.UNDECIDED),
        (Spread(0.62, 0.63, 0.66), Better.LOWER, Verdict.MISSED),
        (Spread(0.62, 0.62, 0.62), Better.LOWER, Verdict.REACHED),
        (Spread(0.70, 0.80, 0.90), Better.HIGHER, Verdict.REACHED),
        (Spread(0.50, 0.55, 0.60), Better.HIGHER, Verdict.MISSED),
        (Spread(0.50, 0.65, 0.70), Better.HIGHER, Verdict.UNDECIDED),
    ],
)
def test_a_limit_between_the_quartiles_is_undecided(value, better, verdict):
    assert judge(value, 0.62, better) is verdict


def test_inside_the_spread_can_be_declared_a_tie_but_a_clear_miss_cannot():
    assert judge(Spread(0.9, 1.01, 1.1), 1.0, Better.LOWER, tie=True) is Verdict.TIE
    assert judge(Spread(1.1, 1.2, 1.3), 1.0, Better.LOWER, tie=True) is Verdict.MISSED


def test_the_best_is_the_least_cost_or_the_highest_rate():
    assert best({"a": 3.0, "b": 2.0}, Better.LOWER) == "b"
    assert best({"a": 3.0, "b": 2.0}, Better.HIGHER) == "a"
    assert best({}, Better.LOWER) is None


# --- a row's comparisons


def test_targets_are_judged_against_the_server_they_name():
    made = result(
        outcome("tidegate", 9, 9, 9), outcome("uvicorn", 15, 15, 15), outcome("granian", 15, 15, 15)
    ).comparisons()
    assert made["uvicorn"].verdict is Verdict.REACHED  # 0.60 <= 0.62
    assert made["granian"].verdict is Verdict.MISSED  # 0.60 > 0.58


def test_python_3_11_has_its_own_limit():
    rounds = outcome("tidegate", 9, 9, 9), outcome("granian", 10, 10, 10)
    assert result(*rounds).comparisons()["granian"].verdict is Verdict.MISSED
    older = result(*rounds, eager=False).comparisons()["granian"]
    assert (older.limit, older.verdict) == (1.0, Verdict.REACHED)


def test_a_target_without_peer_bounds_the_figure_itself():
    made = result(
        outcome("tidegate", 25.0, 27.0, 29.0, key="worker_mb"),
        outcome("uvicorn", 34.0, 34.0, 34.0, key="worker_mb"),
        row=MEMORY,
    ).comparisons()
    assert made["tidegate"].value.middle == 27.0
    assert made["tidegate"].verdict is Verdict.MISSED
    assert made["uvicorn"].verdict is None


def test_the_best_peer_is_found_and_no_variant_of_ours_is_a_peer():
    assert DJANGO.targets == (Target(1.0, BEST, tie=True),)
    made = result(
        outcome("tidegate", 100, 101, 99),
        outcome("tidegate-reader", 50, 50, 50),
        outcome("uvicorn", 100, 100, 100),
        outcome("granian", 120, 120, 120),
        row=DJANGO,
    ).comparisons()
    assert made["uvicorn"].verdict is Verdict.TIE
    assert made["granian"].verdict is None
    assert made["tidegate-reader"].verdict is None


def test_a_void_server_is_compared_with_nobody():
    broken = outcome("uvicorn", 1, 1, 1)
    broken.void = "3 read errors"
    made = result(outcome("tidegate", 9, 9, 9), broken, outcome("granian", 18, 18, 18))
    assert set(made.comparisons()) == {"granian"}


def test_where_ours_is_void_no_peer_takes_its_place():
    ours = Outcome("tidegate", ours=True, void="did not start")
    made = result(ours, outcome("uvicorn", 15, 15))
    assert made.subject() is None
    assert made.comparisons() == {}


def test_without_ours_the_first_peer_is_the_subject_and_has_no_targets():
    made = result(outcome("uvicorn", 15, 15), outcome("granian", 30, 30)).comparisons()
    assert made["granian"].value.middle == 0.5
    assert made["granian"].verdict is None


# --- wrk's report


def report(**changes: int) -> str:
    told = {"requests": 100, "duration_us": 500_000, "bytes": 20_000, "p50_us": 9, "p99_us": 20}
    told |= {"connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0} | changes
    return f"Running 1s test\n  1 threads\n{REPORT}{json.dumps(told)}\n"


def test_a_clean_report_is_read():
    told = read_report(report(), 13)
    assert (told.requests, told.seconds, told.p50_us) == (100, 0.5, 9)


@pytest.mark.parametrize("kind", ["connect", "read", "write", "status", "timeout"])
def test_one_error_of_any_kind_voids_the_row(kind):
    with pytest.raises(VoidError, match=r"^1 .* beside 100 answers"):
        read_report(report(**{kind: 1}), 13)


def test_a_round_without_answers_is_void():
    with pytest.raises(VoidError, match="no answer"):
        read_report(report(requests=0), 13)


def test_answers_too_short_to_hold_the_body_are_void():
    with pytest.raises(VoidError, match="held only"):
        read_report(report(bytes=1299), 13)


def test_a_generator_that_died_is_void():
    with pytest.raises(VoidError, match="unable to connect"):
        read_report("unable to connect to 127.0.0.1", 13)


# --- table and chart


def mixed() -> RowResult:
    broken = Outcome("daphne", ours=False, void="did not start: <ended> & gone", output="No module")
    return result(outcome("tidegate", 9, 10, 11), outcome("uvicorn", 15, 16, 17.5), broken)


def test_the_table_has_a_line_a_server_with_ratio_target_and_verdict():
    lines = render(mixed()).splitlines()
    uvicorn = next(line for line in lines if line.startswith("  uvicorn"))
    assert uvicorn.split() == (
        [
            "uvicorn",
            "16.0",
            "15.5",
            "-",
            "16.8",
            "62,500",
            "99%",
            "0.625",
            "0.613",
            "-",
            "0.627",
            "<=",
            "0.62",
            "undecided",
        ]
    )
    assert any("ROUNDS=15" in line for line in lines)


def test_the_table_says_why_a_server_is_void_and_shows_its_last_words():
    text = render(mixed())
    assert "daphne is void here: did not start: <ended> & gone" in text
    assert "    | No module" in text


def test_the_table_says_when_a_server_did_not_have_its_core():
    assert "whole core" not in render(mixed())
    starved = result(outcome("tidegate", 9, 10, 11))
    starved.outcomes[0].samples = [{**s, "busy": 0.25} for s in starved.outcomes[0].samples]
    assert "1 had not the whole core (least: 25%)" in render(starved)


def test_a_column_with_nothing_in_it_is_left_out():
    row = next(row for row in ROWS if row.name == "startup")
    one = Outcome("tidegate", ours=True, samples=[{"start_ms": 200.0}])
    head = render(result(one, row=row)).splitlines()[3]
    assert head.split() == ["server", "ms", "quartiles"]


def echoed(server: str, *, load: float = 0.4, agreed: str = "") -> Outcome:
    one = outcome(server, 10, 10)
    one.samples = [{**sample, "load_busy": load} for sample in one.samples]
    one.negotiated = agreed
    return one


def test_a_row_may_count_something_else_and_show_further_figures():
    lines = render(result(echoed("tidegate", load=0.437), row=ECHO)).splitlines()
    assert lines[3].split() == ["server", "µs", "quartiles", "msg/s", "busy", "load"]
    assert lines[4].split()[-3:] == ["100,000", "99%", "44%"]


def test_a_void_server_has_as_many_cells_as_the_others():
    broken = Outcome("daphne", ours=False, void="closed by the server with 1002")
    lines = render(result(echoed("tidegate"), broken, row=ECHO)).splitlines()
    assert lines[5].split() == ["daphne", "void"]


def test_the_table_says_where_the_load_generator_was_exhausted():
    assert "no time left" not in render(result(echoed("tidegate", load=0.95), row=ECHO))
    text = render(result(echoed("tidegate"), echoed("socketify", load=0.99), row=ECHO))
    assert "no time left with socketify" in text


def test_the_table_says_what_was_agreed_on_where_that_differs():
    alike = result(echoed("tidegate", agreed="deflate"), echoed("uvicorn", agreed="deflate"))
    assert "deflate" not in render(alike)
    differs = result(
        echoed("tidegate", agreed="deflate"),
        echoed("uvicorn", agreed="deflate"),
        echoed("granian", agreed="uncompressed"),
    )
    assert "  tidegate, uvicorn: deflate" in render(differs)
    assert "  granian: uncompressed" in render(differs)


def test_a_rate_to_reach_is_a_cpu_time_to_stay_below():
    assert quicker(1.25, "socketify") == Target(0.8, "socketify")
    made = result(outcome("tidegate", 8, 8), outcome("uvicorn", 10, 10), row=ECHO).comparisons()
    assert made["uvicorn"].limit == 0.667
    assert made["uvicorn"].verdict is Verdict.MISSED  # 1.25 times as many, and 1.5 are wanted


@pytest.mark.parametrize(
    ("row", "asked", "played"),
    [(PLAINTEXT, 2, [0, 1, 2]), (HELD, 2, [1, 2]), (HELD, 15, [1, 2, 3])],
)
def test_rounds_are_bounded_where_one_is_as_good_as_the_next(row, asked, played):
    plan = Plan(asked, 1.0, 0, None, lambda _: None)
    assert list(rounds_of(row, plan)) == played


def test_the_meter_reads_before_and_after():
    readings = iter([2.0, 2.5])
    meter = Meter(lambda: next(readings), lambda: None)
    with meter:
        pass
    assert meter.used == 0.5


def test_columns_are_aligned():
    lines = render(mixed()).splitlines()
    head = next(line for line in lines if line.startswith("  server  "))
    end = head.index("req/s") + len("req/s")
    for name in ("tidegate", "uvicorn"):
        line = next(line for line in lines if line.startswith(f"  {name}"))
        assert line[:end].rstrip()[-1].isdigit()
        assert line[end] == " "


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.6154, "0.615"), (9.123, "9.12"), (14.94, "14.9"), (2156.4, "2,156"), (0, "0.000")],
)
def test_numbers_keep_three_digits_that_matter(value, text):
    assert number(value) == text


SVG = "{http://www.w3.org/2000/svg}"


def test_the_chart_is_well_formed_and_escapes_what_a_server_said():
    root = ElementTree.fromstring(draw([panel(mixed())], "a machine & a date"))
    words = [node.text for node in root.iter(f"{SVG}text")]
    assert "void: did not start: <ended> & gone" in words
    assert "a machine & a date" in words


def test_the_bars_are_to_scale_and_the_best_comes_first():
    root = ElementTree.fromstring(draw([panel(mixed())], ""))
    _paper, *bars = root.iter(f"{SVG}rect")
    widths = [float(bar.get("width", "0")) for bar in bars]
    assert widths == sorted(widths)
    assert widths[0] / widths[1] == pytest.approx(10 / 16, abs=0.01)
    assert bars[0].get("fill") != bars[1].get("fill")


def test_where_higher_is_better_the_highest_comes_first():
    row = replace(PLAINTEXT, figure=Figure.RATE)
    drawn = panel(result(outcome("tidegate", 20, 20), outcome("uvicorn", 10, 10), row=row))
    assert [bar.name for bar in drawn.bars] == ["uvicorn", "tidegate"]


def test_nothing_leaves_the_paper():
    wide = Bar("a", ours=True, value=Spread(1, 5, 1000), remark="tidegate 0.50 x this")
    root = ElementTree.fromstring(draw([Panel("t", "s", "us", [wide] * 8)], "f"))
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    for node in root.iter(f"{SVG}text"):
        assert 0 <= float(node.get("x", "-1")) <= width
        assert 0 <= float(node.get("y", "-1")) <= height


# --- rows, servers, processes


def test_every_row_is_about_servers_that_exist_and_each_target_about_one_that_takes_part():
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert set(row.servers) <= set(SERVERS)
        assert row.servers[0] == "tidegate"
        for target in row.targets:
            assert target.peer in {*row.servers, BEST, ""}


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_is_told_application_port_and_certificate(name):
    place = Place("bench.apps:plaintext", 4711, Certificate("here.crt", "here.key"))
    command = " ".join(SERVERS[name].command(place))
    for part in (place.app, "4711", "here.crt", "here.key"):
        assert part in command


def test_every_script_of_a_load_exists():
    from bench.load import LUA

    loads = [row.load for row in ROWS if isinstance(row.load, Wrk)]
    assert loads
    for load in loads:
        for name in ("report", *load.scripts):
            assert (LUA / f"{name}.lua").is_file()


FORKS = """
import os, sys, time
if os.fork() == 0:
    while time.process_time() < 0.05: pass
    print("worked", flush=True)
    time.sleep(60)
time.sleep(60)
"""


@pytest.fixture
def forked():
    core = min(os.sched_getaffinity(0))
    with ServerProcess([sys.executable, "-c", FORKS], {}, core) as process:
        deadline = time.monotonic() + 20
        while "worked" not in process.output() and time.monotonic() < deadline:
            os.sched_yield()
        yield process


def test_the_cpu_time_of_children_counts_and_the_worker_is_the_one_that_worked(forked):
    assert "worked" in forked.output()
    worker = forked.worker()
    assert cpu_seconds(worker) >= 0.05
    assert forked.cpu() >= cpu_seconds(worker)
    assert forked.total_mb() > 1


def test_stop_ends_the_whole_family_even_when_frozen(forked):
    members = [(pid, birth(pid)) for pid in family(forked.pid)]
    assert len(members) == 2
    forked.freeze()
    forked.stop()
    assert forked.ended is not None
    assert not any(alive(pid, born) for pid, born in members)


WRITES = """
import os
for number in range(20000):
    os.write(1, b"%d " % (number % 10))
"""


def test_reading_what_a_server_writes_leaves_its_place_in_the_file_alone():
    core = min(os.sched_getaffinity(0))
    with ServerProcess([sys.executable, "-c", WRITES], {}, core) as process:
        while process.ended is None:
            process.output()
        assert process.output().split() == list("0123456789" * 2000)


def test_an_unknown_row_or_server_is_named_with_those_there_are():
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--only", "plaintextt"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no such row: plaintextt" in done.stderr
    assert "plaintext, browser" in done.stderr
