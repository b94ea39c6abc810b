"""What the benchmark makes of its turns."""

import pytest

from bench.figures import CLIENT, Figures, medians, percentiles
from bench.results import BARE, OURS, Results


def turn(rate: float, *, cpu: float, client: float = 0.0) -> Figures:
    return Figures(
        count=10, rate=rate, cpu_ms={"nats": cpu / 2, "agent": cpu / 2, CLIENT: client}, latency_ms={"done": (1.0, 2.0)}
    )


def test_the_ratio_is_that_of_turns_in_the_same_round() -> None:
    # The machine was three times slower in the second round, for both.
    results = Results()
    results.closed["happy"] = {BARE: [turn(900, cpu=1), turn(300, cpu=3)], OURS: [turn(450, cpu=2), turn(150, cpu=6)]}
    assert results.cpu_ratio("happy") == pytest.approx(2)
    assert "handrail / bare: 0.50 of the rate, 2.00 times the CPU" in "\n".join(results.table("happy"))


def test_the_client_does_not_count_as_the_system() -> None:
    assert turn(1, cpu=2, client=50).system_cpu_ms == pytest.approx(2)


def test_a_turn_that_was_not_done_stands_for_all() -> None:
    undone = Figures(count=0, rate=0, note="not done within 30 s")
    assert medians([turn(1, cpu=1), undone]) == undone
    results = Results()
    results.closed["join 200"] = {OURS: [turn(1, cpu=1), undone]}
    assert list(results.table("join 200")) == [f"{'W9 join 200':<17}{'handrail':<18}not done within 30 s"]


def test_the_history_has_a_row_even_for_some_works_only() -> None:
    results = Results()
    results.closed["happy"] = {BARE: [turn(1000, cpu=1)], OURS: [turn(500, cpu=3)]}
    assert results.history_row("2026-01-01", "abc") == "| 2026-01-01 | abc | 500 | 3.00, 3.00 | - | - | - | - |"


def test_figures_survive_the_way_through_json() -> None:
    figures = turn(5, cpu=1)
    assert Figures.from_json(figures.to_json()) == figures


@pytest.mark.parametrize("values, expected", [([0.002], (2, 2)), ([n / 1000 for n in range(100)], (50, 99))])
def test_percentiles_are_milliseconds_of_what_was_measured(values: list[float], expected: tuple[float, float]) -> None:
    assert percentiles(values) == pytest.approx(expected)
