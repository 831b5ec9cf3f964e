"""From outcomes to the one table: medians, ratios, whether a target is met, and what was missing."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.cases import Case, Consume, FanOut, Flood, Puts, Requests, Row, Side
from benchmarks.driver import Outcome

_HEAD = ("what", "qulo", "NATS", "ratio", "target", "note")
_NOTHING = "–"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """All outcomes of one case, and why measurements failed where they did."""

    case: Case
    outcomes: Mapping[Side, Sequence[Outcome]]
    failures: Sequence[str] = field(default=())

    @property
    def complete(self) -> bool:
        """Did every measurement succeed with exactly the messages that were sent?"""
        return not self.failures and not any(outcome.missing for outcome in self._all())

    @property
    def counts_messages(self) -> bool:
        """Were messages counted, so that "0 missing" says something?"""
        return isinstance(self.case.work, FanOut | Flood | Requests | Puts | Consume) and any(self._all())

    def figures(self, row: Row, side: Side) -> list[float]:
        """What was measured for one cell, in the row's unit."""
        found = (outcome.figures.get(row.figure) for outcome in self.outcomes.get(side, ()))
        return [figure * row.scale for figure in found if figure is not None]

    def ratio(self, row: Row) -> float | None:
        """The median of qulo over that of NATS, where there are both."""
        qulo, nats = self.figures(row, "qulo"), self.figures(row, "nats")
        return statistics.median(qulo) / statistics.median(nats) if qulo and nats else None

    def met(self, row: Row) -> bool | None:
        """Is the row's target met? None where there is no target or nothing to hold against it."""
        if row.target is None:
            return None
        qulo = self.figures(row, "qulo")
        figure = self.ratio(row) if row.target.is_ratio else statistics.median(qulo) if qulo else None
        return None if figure is None else row.target.met(figure)

    def losses(self) -> list[str]:
        """What went missing, came twice or was reported lost, and by which side."""
        return [text for side in self.outcomes for text in self._losses(side)]

    def _losses(self, side: Side) -> list[str]:
        outcomes = self.outcomes[side]
        missing = sum(max(outcome.missing, 0) for outcome in outcomes)
        extra = sum(max(-outcome.missing, 0) for outcome in outcomes)
        gaps = sum(outcome.gaps for outcome in outcomes)
        counts = {"MISSING": missing, "TWICE": extra, "GAPS": gaps}
        return [f"{side}: {what} {count:,}" for what, count in counts.items() if count]

    def _all(self) -> Iterable[Outcome]:
        return (outcome for outcomes in self.outcomes.values() for outcome in outcomes)


def render(results: Sequence[CaseResult]) -> str:
    """The table as text, one line for each row of each case."""
    lines = [_HEAD, *(_cells(result, row) for result in results for row in result.case.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:]])


def unmet(results: Sequence[CaseResult]) -> list[str]:
    """The rows whose target was measured and not met."""
    return [row.what for result in results for row in result.case.rows if result.met(row) is False]


def as_data(results: Sequence[CaseResult]) -> list[dict[str, object]]:
    """Every row with all that was measured, for --json."""
    return [_row_data(result, row) for result in results for row in result.case.rows]


def _row_data(result: CaseResult, row: Row) -> dict[str, object]:
    return {
        "case": result.case.name,
        "what": row.what,
        "unit": row.unit,
        "qulo": result.figures(row, "qulo"),
        "nats": result.figures(row, "nats"),
        "ratio": result.ratio(row),
        "target": str(row.target) if row.target else None,
        "met": result.met(row),
        "losses": result.losses(),
        "failures": list(result.failures),
    }


def _cells(result: CaseResult, row: Row) -> tuple[str, ...]:
    ratio = result.ratio(row)
    return (
        row.what,
        _spread(result.figures(row, "qulo"), row.unit),
        _spread(result.figures(row, "nats"), row.unit),
        _NOTHING if ratio is None else f"{ratio:.2f}x",
        str(row.target or _NOTHING),
        _note(result, row),
    )


def _note(result: CaseResult, row: Row) -> str:
    verdict = {True: "met", False: "NOT MET", None: ""}[result.met(row)]
    counted = result.losses() or (["0 missing"] if result.counts_messages else [])
    failed = [f"FAILED {len(result.failures)}x"] if result.failures else []
    return ", ".join(filter(None, [verdict, *failed, *counted]))


def _spread(figures: Sequence[float], unit: str) -> str:
    if not figures:
        return _NOTHING
    middle = f"{_number(statistics.median(figures))} {unit}"
    return middle if len(figures) == 1 else f"{middle} ({_number(min(figures))}–{_number(max(figures))})"


def _number(figure: float) -> str:
    """Three significant digits, or all of the whole part."""
    digits = 0 if figure >= 100 else 1 if figure >= 10 else 2 if figure >= 1 else 3
    return f"{figure:,.{digits}f}"
