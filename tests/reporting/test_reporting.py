from __future__ import annotations

import io
import json
import os
import re
import time
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli.report import report as print_reports
from synth_core.errors import UsageError
from synth_core.operators.catalog import CATALOG
from synth_core.providers.budget import Spending
from synth_core.providers.call import Reply
from synth_core.providers.cost_ledger import CallLedger
from synth_core.records import (
    Candidate,
    Category,
    Completion,
    Graph,
    Outcome,
    Program,
    Specification,
    Stage,
    Telemetry,
    Tier,
    Usage,
    Verdict,
)
from synth_core.reporting import ALL_RUNS, Report, print_report, summarise, write_html, write_report
from synth_core.reporting.proportion import wilson
from synth_core.reporting.terminal import duration, money, one_line
from synth_core.settings import Settings
from synth_core.store import Run, RunState, append_ledger, finish_run, plan_run, save_run, scan_ledger

TRACEBACK = "4x8 and 9x2\nat line 7"
HOSTILE = "</script><img src=x onerror=alert(1)> & 'x'"


def candidate(
    index: int, *operators: str, attempt: int = 0, strategy: str = "a", cost: float | None = None
) -> Candidate:
    source = f"class P{index}:\n    '''{HOSTILE}'''\n"
    return Candidate(
        index=index,
        attempt=attempt,
        parent_id=f"{index:07d}.{attempt - 1}" if attempt else "",
        specification=Specification(
            operators=operators, strategy=strategy, seed=1, provider="p", prompt="ordered", temperature=0.0
        ),
        completion=Completion(outcome=Outcome.OK, text=source, requested_model="model-1"),
        program=Program.of(f"P{index}", source),
        graph=Graph(nodes=(), operators=operators),
        telemetry=Telemetry(
            usage=Usage(input_tokens=10, output_tokens=5, cost_usd=cost),
            calls=1,
            seconds={"llm": 2.0, "filter": 0.5},
        ),
    )


def accepted(one: Candidate) -> Candidate:
    one = one.judged(Verdict.ok(Stage.VALIDATE_COMPILE, tier=Tier.A, warnings=("buffers",)))
    return one.judged(Verdict.ok(Stage.PERSIST))


def failed(one: Candidate, stage: Stage, category: Category, detail: str, check: str = "") -> Candidate:
    return one.judged(Verdict.fail(stage, category, detail, check=check))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = save_run(plan_run(Settings(output_dir=str(tmp_path), seed=3, strategy="mixed")))
    first = [
        accepted(candidate(0, "Conv2d", "ReLU", cost=0.5)),
        failed(candidate(1, "Conv2d", "GELU"), Stage.VALIDATE_EAGER, Category.SHAPE_ERROR, TRACEBACK),
        failed(candidate(2, "ReLU", strategy="b"), Stage.LLM, Category.REFUSAL, HOSTILE),
        failed(
            candidate(3, "Conv2d", "Mish", strategy="b"),
            Stage.FILTER,
            Category.DUPLICATE,
            "as P0",
            "duplicate-graph",
        ),
    ]
    again = [accepted(candidate(1, "Conv2d", "GELU", attempt=1))]
    append_ledger(run, first, round=0, batch=0)
    append_ledger(run, again, round=1, batch=0)
    return finish_run(run, RunState.COMPLETED)


@pytest.fixture
def report(run: Run) -> Report:
    return summarise(run.output_dir, run.run_id)


def test_yield_overall_by_strategy_and_by_attempt(report: Report) -> None:
    assert (report.attempted, report.candidates, report.accepted, report.first_try) == (5, 4, 2, 1)
    assert report.rate == pytest.approx(2 / 5)
    assert {row.name: (row.attempted, row.accepted) for row in report.strategies} == {
        "a": (3, 2),
        "b": (2, 0),
    }
    assert {row.name: (row.attempted, row.accepted) for row in report.attempts} == {"0": (4, 1), "1": (1, 1)}


def test_yield_with_and_without_repair(tmp_path: Path) -> None:
    run = save_run(plan_run(Settings(output_dir=str(tmp_path), seed=3, on_failure="repair")))
    broken = failed(candidate(0, "ReLU"), Stage.EXTRACT, Category.SYNTAX_ERROR, "line 1")
    append_ledger(run, [broken, accepted(candidate(1, "GELU"))], round=0, batch=0)
    append_ledger(run, [accepted(candidate(0, "ReLU", attempt=1))], round=1, batch=0)
    report = summarise(tmp_path, run.run_id)
    assert (report.first_yield, report.final_yield) == (0.5, 1.0)
    assert report.rate == pytest.approx(2 / 3)
    out = io.StringIO()
    print_report(report, Console(file=out, width=200))
    assert "50.0% at the first attempt, 100.0% with repair" in out.getvalue()
    repaired = scan_ledger(tmp_path).filter(attempt=1).collect()
    assert repaired["parent_id"].to_list() == ["0000000.0"]


def test_every_stage_says_who_came_and_who_went_on(report: Report) -> None:
    stages = {row.stage: row for row in report.stages}
    assert [row.entered for row in report.stages] == [5, 5, 5, 4, 4, 3, 3, 2]
    assert stages["llm"].dropped == {"REFUSAL": 1}
    assert stages["llm"].total_s == pytest.approx(10.0)
    assert stages["llm"].median_s == pytest.approx(2.0)
    assert stages["persist"].left == 2
    assert all(
        before.left == after.entered for before, after in zip(report.stages, report.stages[1:], strict=False)
    )


def test_failures_carry_category_check_and_detail(report: Report) -> None:
    rows = {row.category: row for row in report.failures}
    assert rows["SHAPE_ERROR"].detail == TRACEBACK
    assert rows["SHAPE_ERROR"].candidates == ("0000001.0",)
    assert report.rejected == {"DUPLICATE": 1, "REFUSAL": 1, "SHAPE_ERROR": 1}
    assert report.filtered == {"duplicate-graph": 1}


def test_an_operator_answers_only_for_judged_code(report: Report) -> None:
    rows = {row.name: row for row in report.operators}
    assert (rows["Conv2d"].judged, rows["Conv2d"].sound, rows["Conv2d"].realised) == (4, 3, 2)
    assert (rows["ReLU"].judged, rows["ReLU"].sound) == (1, 1)  # the refusal says nothing of ReLU
    assert rows["Conv2d"].group == "core"
    assert "GELU" not in report.never_realised
    assert "Mish" in report.never_realised


def test_wilson_gives_the_published_interval() -> None:
    assert wilson(15, 100) == pytest.approx((0.0931, 0.2328), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(7, 7)[1] == 1.0


def _called(run: Run, *calls: tuple[str, Outcome | None, float | None]) -> None:
    """A session of calls in the run's ledger: whose, how each ended (None: never), and its cost."""
    ledger = CallLedger(run.folder)
    for who, outcome, cost in calls:
        number = ledger.start(who, "openai", "m", Spending(usd=0.25, tokens=100, calls=1))
        if outcome:
            usage = Usage(input_tokens=10, output_tokens=5, cost_usd=cost)
            ledger.end(number, Reply(outcome=outcome, usage=usage))
    ledger.close()


def test_spend_is_what_the_calls_cost_and_not_what_the_rows_say(run: Run, tmp_path: Path) -> None:
    """A resumed run writes the rows of a batch anew, with answers from the cache, which cost nothing."""
    _called(run, ("0000000.0", Outcome.TRANSIENT, 0.0), ("0000000.0", Outcome.OK, 0.5))
    _called(run, ("0000002.0", Outcome.TRUNCATED, 0.125), ("0000003.0", None, None))
    report = summarise(run.output_dir, run.run_id)
    spend = report.spend
    assert (spend.calls, spend.failed, spend.lost, spend.unpriced) == (4, 2, 1, 0)
    assert (spend.cost_usd, spend.failed_cost_usd, spend.unsaid_usd) == (0.625, 0.125, 0.25)
    assert (spend.input_tokens, spend.output_tokens) == (30, 15)
    assert {row.name: row.cost_usd for row in report.strategies} == {"a": 0.5, "b": 0.125}
    out = io.StringIO()
    print_report(report, Console(file=out, width=300))
    said = "4 calls (2 failed for $0.1250, 1 lost at a kill, up to $0.2500 more of unknown usage)"
    assert f"{said}, $0.6250" in out.getvalue()
    assert said in write_html(report, tmp_path / "r.html").read_text()
    _called(save_run(plan_run(run.settings)), ("0000000.0", Outcome.OK, None))
    whole = summarise(run.output_dir, ALL_RUNS).spend
    assert (whole.calls, whole.unpriced, whole.cost_usd) == (5, 1, 0.625)


def test_the_pace_of_calls_leaves_the_pauses_between_sessions_out(run: Run, tmp_path: Path) -> None:
    """Two calls in 60 seconds at work; the run's record says that it began a day ago."""
    finish_run(run.model_copy(update={"started": run.started - timedelta(days=1)}), RunState.COMPLETED)
    call = {"at": 30, "start": 1, "candidate": "x", "worst_usd": 0, "worst_tokens": 0}
    lines = [json.dumps({"session": session, **call}) for session in ("a", "b")]
    (run.folder / "calls.jsonl").write_text("\n".join(lines) + "\n")
    report = summarise(run.output_dir, run.run_id)
    assert report.spend.active_s == 60.0
    assert "2 provider calls, 2 a minute" in write_html(report, tmp_path / "r.html").read_text()
    out = io.StringIO()
    print_report(report, Console(file=out, width=300))
    assert "; 24 h 0 min from start to end" in out.getvalue()


def test_money_that_is_unknown_is_never_zero() -> None:
    assert (money(0.5, 4), money(0, 4), money(0)) == (
        "$0.5000 + 4 unpriced calls",
        "unknown (4 unpriced calls)",
        "$0.00",
    )


def test_one_folder_many_runs(run: Run) -> None:
    other = save_run(plan_run(run.settings, now=run.started + timedelta(seconds=1)))
    append_ledger(other, [accepted(candidate(0, "Mish"))], round=0, batch=0)
    whole = summarise(run.output_dir, ALL_RUNS)
    assert (whole.runs, whole.attempted, whole.accepted, whole.candidates) == (2, 6, 3, 5)
    assert summarise(run.output_dir, other.run_id).attempted == 1
    report, page = write_report(run.output_dir, ALL_RUNS)
    assert (report.attempted, page) == (6, run.output_dir / ".synth" / "report.html")
    relative = os.path.relpath(run.output_dir)
    assert write_report(relative)[1].samefile(other.folder / "report.html")
    assert write_report(relative)[1].is_absolute()  # whoever is told of it may work elsewhere
    assert summarise(run.output_dir, ALL_RUNS).runs == 2
    with pytest.raises(UsageError, match="no run 'x'"):
        summarise(run.output_dir, "x")


def test_a_run_of_another_version_is_counted_with_the_folder(run: Run) -> None:
    _called(run, ("0000000.0", Outcome.OK, 0.25))
    (run.folder / "run.json").write_text('{"format": "of the future"}')
    other = save_run(plan_run(run.settings, now=run.started + timedelta(seconds=1)))
    append_ledger(other, [accepted(candidate(0, "Mish"))], round=0, batch=0)
    whole = summarise(run.output_dir, ALL_RUNS)
    assert (whole.runs, whole.attempted, whole.spend.cost_usd) == (2, 6, 0.25)


def test_a_run_without_a_ledger_has_an_empty_report_and_page(tmp_path: Path) -> None:
    save_run(plan_run(Settings(output_dir=str(tmp_path), seed=1)))
    report = summarise(tmp_path)
    assert (report.attempted, report.accepted, report.operators) == (0, 0, ())
    assert "0 programs accepted" in write_html(report, tmp_path / "r.html").read_text()
    print_report(report, Console(file=io.StringIO()))


def test_the_report_is_json_for_other_tools(report: Report) -> None:
    data = json.loads(report.model_dump_json())
    assert data["yield"] == pytest.approx(0.4)


class _Page(HTMLParser):
    """What a browser would fetch or run, and whether every element that must be closed is."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag in ("section", "details", "table", "div", "pre", "main", "svg", "g"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("section", "details", "table", "div", "pre", "main", "svg", "g"):
            assert self.open.pop() == tag


def test_the_page_needs_nothing_else_and_runs_nothing(report: Report, tmp_path: Path) -> None:
    text = write_html(report, tmp_path / "deep" / "report.html").read_text()
    page = _Page()
    page.feed(text)
    assert not page.open
    assert page.fetched == ["data:,"]
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not re.search(r"@import|url\((?!#)", text)
    assert page.tags.count("svg") == 2  # the funnel and the lengths; no operator was judged five times


def test_the_page_says_what_the_report_says(report: Report, tmp_path: Path) -> None:
    text = write_html(report, tmp_path / "report.html").read_text()
    for needle in (
        "2 programs accepted",
        "40.0%",
        "SHAPE_ERROR",
        "4x8 and 9x2",
        "duplicate-graph",
        "buffers",
    ):
        assert needle in text
    assert report.run_id in text
    assert "&lt;/script&gt;&lt;img" in text


def test_the_terminal_says_it_too(report: Report) -> None:
    out = io.StringIO()
    print_report(report, Console(file=out, width=160))
    text = out.getvalue()
    for needle in (
        "2 programs accepted of 5 attempts (40.0%)",
        "of 4 candidates, 25.0% at the first attempt, 50.0% with further attempts",
        "SHAPE_ERROR",
        "4x8 and 9x2",
    ):
        assert needle in text
    assert "at line 7" not in text


def test_a_folder_that_cannot_be_written_is_reported_nevertheless(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.folder / "report.html").mkdir()
    finish_run(run, RunState.INTERRUPTED)
    print_reports(str(run.output_dir), "", as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.out)["accepted"] == 2
    assert "report.html: Is a directory; the page is left as it is" in said.err
    print_reports(str(run.output_dir), "", as_json=False)
    assert f"go on with: synth resume --output-dir {run.output_dir} --run {run.run_id}" in " ".join(
        capsys.readouterr().out.split()
    )


def test_small_formats() -> None:
    assert [duration(s) for s in (None, 0.25, 4.26, 42, 200, 18720)] == [
        "–", "250 ms", "4.3 s", "42 s", "3 min 20 s", "5 h 12 min",
    ]  # fmt: skip
    assert one_line("abcdef\nrest", 4) == "abc…"


@pytest.mark.slow
def test_ten_thousand_candidates_take_under_two_seconds_of_cpu(tmp_path: Path) -> None:
    run = save_run(plan_run(Settings(output_dir=str(tmp_path), seed=1)))
    names = [operator.name for operator in CATALOG]
    for batch in range(157):
        rows = range(batch * 64, min(10_000, batch * 64 + 64))
        made = (candidate(i, *(names[(i * k) % len(names)] for k in (1, 3, 7))) for i in rows)
        judged = [
            accepted(one) if one.index % 4 else failed(one, Stage.VALIDATE_EAGER, Category.SHAPE_ERROR, "x")
            for one in made
        ]
        append_ledger(run, judged, round=0, batch=batch)
    began = time.process_time()
    report = summarise(tmp_path)
    write_html(report, tmp_path / "r.html")
    assert time.process_time() - began < 2
    assert (report.attempted, report.accepted) == (10_000, 7_500)
