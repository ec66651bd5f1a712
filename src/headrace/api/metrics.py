"""What a server counts and times, as Prometheus reads it. Touches: nothing; counters are this object's own.

Buckets go from 100 us, the cheapest decision, to 5 s; the goal for a decision lies at 3 to 4 ms.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """One server's. Any thread may count."""

    def __init__(self) -> None:
        disable_created_metrics()  # a series more of each, which says when it began
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter(
            "headrace_http_requests", "Answered requests, by route and status.", ("route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "headrace_http_seconds",
            "From the request's head to the answer.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self._outcomes = Counter(
            "headrace_decisions",
            "Answered decisions, by outcome; kind is decided, repeated, or fallback.",
            ("decision", "outcome", "kind"),
            registry=registry,
        )
        self._stages = Histogram(
            "headrace_decision_stage_seconds",
            "Parts of a decision: queue, decide (features, score, policy and append of its batch), total.",
            ("decision", "stage"),
            buckets=SECONDS,
            registry=registry,
        )
        self._refused = Counter(
            "headrace_overload",
            "Calls that were refused at once because a queue was full.",
            ("queue",),
            registry=registry,
        )
        self._events = Counter(
            "headrace_events_appended", "Events by verdict.", ("topic", "verdict"), registry=registry
        )
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[tuple[Counter, tuple[str, ...]], Counter] = {}
        self._histograms: dict[tuple[Histogram, tuple[str, ...]], Histogram] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._counter(self._requests, route, str(status)).inc()
        self._histogram(self._seconds, route).observe(seconds)

    def decided(self, decision: str, outcome: str, kind: str) -> None:
        self._counter(self._outcomes, decision, outcome, kind).inc()

    def staged(self, decision: str, *, queue: float, decide: float, total: float) -> None:
        self._histogram(self._stages, decision, "queue").observe(queue)
        self._histogram(self._stages, decision, "decide").observe(decide)
        self._histogram(self._stages, decision, "total").observe(total)

    def overloaded(self, queue: str) -> None:
        self._counter(self._refused, queue).inc()

    def appended(self, topic: str, verdict: str, count: int) -> None:
        self._counter(self._events, topic, verdict).inc(count)

    def gauge(self, name: str, help: str, labels: dict[str, str], read: Callable[[], float]) -> None:
        """A value that is read when Prometheus asks."""
        held = self._gauges.get(name)
        if held is None:
            held = self._gauges[name] = Gauge(name, help, tuple(labels), registry=self._registry)
        (held.labels(**labels) if labels else held).set_function(read)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def _counter(self, of: Counter, *labels: str) -> Counter:
        """The child of these labels, kept: looking it up costs more than counting."""
        found = self._counters.get((of, labels))
        if found is None:
            found = self._counters[of, labels] = of.labels(*labels)
        return found

    def _histogram(self, of: Histogram, *labels: str) -> Histogram:
        found = self._histograms.get((of, labels))
        if found is None:
            found = self._histograms[of, labels] = of.labels(*labels)
        return found
