from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.export.tuning.table import Accuracy, Candidate, Graph, Row, Timing, choose, pareto_front, worth_timing
from lineward.runtime.errors import BenchError


def row(score: float, bound: float | None, rows: int = 1, p50: float = 0.0) -> Row:
    timing = Timing(p50, () if bound is None else (bound / 2, bound))
    return Row(Candidate(Graph(64), rows), Accuracy(score, None), timing)


scores = st.sampled_from([0.8, 0.9, 0.95, 1.0])  # few, so that ties are many
bounds = st.sampled_from([0.005, 0.01, 0.0101, 0.02, 0.05])
tables = st.lists(st.tuples(scores, bounds), min_size=1, max_size=12).map(
    lambda pairs: [row(score, bound, rows=number) for number, (score, bound) in enumerate(pairs)]
)


@given(tables, bounds, bounds)
def test_a_larger_budget_never_gives_a_worse_score(table, one, other):
    found = []
    for budget in sorted((one, other)):
        try:
            found.append(choose(table, budget).accuracy.score)
        except BenchError:
            found.append(-1.0)
    assert found == sorted(found)


@given(tables, bounds)
def test_the_choice_is_the_most_accurate_that_fits_and_of_equals_the_fastest(table, budget):
    fitting = [r for r in table if max(r.timing.p99) <= budget]
    if not fitting:
        with pytest.raises(BenchError):
            choose(table, budget)
        return
    chosen = choose(table, budget)
    best = max(r.accuracy.score for r in fitting)
    assert chosen.accuracy.score == best
    assert max(chosen.timing.p99) == min(max(r.timing.p99) for r in fitting if r.accuracy.score == best)


@given(tables)
def test_nothing_beats_the_front_and_all_else_is_beaten_or_equalled(table):
    front = pareto_front(table)
    for r in table:
        beaten = any(
            f.accuracy.score >= r.accuracy.score and max(f.timing.p99) <= max(r.timing.p99) for f in front if f is not r
        )
        assert beaten or r in front
    times = [max(r.timing.p99) for r in front]
    ranks = [r.accuracy.score for r in front]
    assert times == sorted(set(times))
    assert ranks == sorted(set(ranks))


def test_a_budget_that_nothing_fits_names_the_fastest_and_a_budget_that_does():
    table = [row(0.9, 0.01234, rows=512), row(1.0, 0.03, rows=1024)]
    with pytest.raises(BenchError, match="fits into 10 ms: the fastest candidate, 64 pixels, 512 rows") as error:
        choose(table, 0.01)
    assert "allow 12.4 ms" in error.value.do
    assert choose(table, 0.0124).candidate.rows == 512


def test_what_was_not_timed_in_full_is_never_chosen():
    assert choose([row(1.0, None, rows=1), row(0.8, 0.01, rows=2)], 1.0).candidate.rows == 2


@pytest.mark.parametrize(
    ("p50", "score", "worth"),
    [(0.010, 0.9, True), (0.0112, 0.9, False), (0.0112, 0.91, True), (0.008, 0.8, True)],
    ids=["as fast", "clearly slower", "slower and more accurate", "faster"],
)
def test_only_clearly_beaten_candidates_are_not_timed(p50: float, score: float, worth: bool):
    probed = [row(0.9, None, rows=1, p50=0.010), row(score, None, rows=2, p50=p50)]
    assert (Candidate(Graph(64), 2) in worth_timing(probed)) == worth
    assert worth_timing(probed)


@pytest.mark.parametrize(("pixel", "score"), [(None, 0.9), (0.7, 0.8)], ids=["no masks", "masks"])
def test_the_score_is_the_mean_of_what_there_is(pixel: float | None, score: float):
    assert Accuracy(0.9, pixel).score == pytest.approx(score)
