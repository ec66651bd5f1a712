"""What a server counts and times, as Prometheus reads it. Touches: nothing; counters are this object's own.

Buckets go from 100 us, the cheapest decision, to 5 s; the goal for a decision lies at 3 to 4 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest

from headrace.api.series import LAST_LOOK, LOOK_CPU, PERIOD, SAMPLED, SERVING, versions_digest
from headrace.runtime.sampling import Look

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_RESULTS = ("compared", "mismatched", "erased", "unknown", "skipped")
_LOOKS = {
    LAST_LOOK: "When the sampler last ended a look; at first, when it was started.",
    PERIOD: "How long the sampler means to take from one look to the next.",
    LOOK_CPU: "Processor time of the sampler's last look.",
}
FIRST_LOOK_SECONDS = 60.0  # a process is started, definitions are loaded
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
            "Parts of a decision: queue, compute (features, score, policy of its batch), append (its batch's commit), "
            "total.",
            ("decision", "stage"),
            buckets=SECONDS,
            registry=registry,
        )
        self._views_asked = Counter(
            "headrace_view_answers",
            "Questions to views that are held by partition: answered, or why a decision had to do without.",
            ("view", "result"),
            registry=registry,
        )
        self._views_seconds = Histogram(
            "headrace_view_seconds",
            "How long a decision waited for views that are held by partition.",
            ("view",),
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
        self._checkpoints = Counter(
            "headrace_checkpoints", "Times that checkpoints were written beside the server.", ("result",),
            registry=registry,
        )  # fmt: skip
        self._sampled: Counter | None = None
        self._behind: Gauge | None = None
        self._looks: dict[str, Gauge] = {}
        self._serving = Gauge(
            SERVING,
            "1 for the version set that decides; versions: the first 16 digits of its text's SHA-256.",
            ("decision", "versions"),
            registry=registry,
        )
        self._served: dict[str, str] = {}
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[tuple[Counter, tuple[str, ...]], Counter] = {}
        self._histograms: dict[tuple[Histogram, tuple[str, ...]], Histogram] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._counter(self._requests, route, str(status)).inc()
        self._histogram(self._seconds, route).observe(seconds)

    def decided(self, decision: str, outcome: str, kind: str) -> None:
        self._counter(self._outcomes, decision, outcome, kind).inc()

    def staged(self, decision: str, *, queue: float, compute: float, append: float, total: float) -> None:
        self._histogram(self._stages, decision, "queue").observe(queue)
        self._histogram(self._stages, decision, "compute").observe(compute)
        self._histogram(self._stages, decision, "append").observe(append)
        self._histogram(self._stages, decision, "total").observe(total)

    def view_asked(self, view: str, result: str, seconds: float) -> None:
        self._counter(self._views_asked, view, result).inc()
        self._histogram(self._views_seconds, view).observe(seconds)

    def overloaded(self, queue: str) -> None:
        self._counter(self._refused, queue).inc()

    def appended(self, topic: str, verdict: str, count: int) -> None:
        self._counter(self._events, topic, verdict).inc(count)

    def serving(self, decision: str, versions: str) -> None:
        """versions: the version set's text. The one before it is no longer said."""
        before, now = self._served.get(decision), versions_digest(versions)
        if before is not None and before != now:
            self._serving.remove(decision, before)
        self._served[decision] = now
        self._serving.labels(decision, now).set(1)

    def checkpointed(self, *, well: bool) -> None:
        self._counter(self._checkpoints, "written" if well else "failed").inc()

    # --- the sampler ---

    def sampler_begins(self) -> None:
        """From now on it should look: one that never does shows as one whose last look is long ago."""
        registry = self._registry
        self._sampled = Counter(
            SAMPLED,
            "Recorded decisions of the sample: compared (mismatched among them), mismatched, erased, unknown (of "
            "versions that are not at hand), skipped (more than a look compares).",
            ("decision", "result"),
            registry=registry,
        )
        self._behind = Gauge(
            "headrace_sampler_behind", "Records that the sampler has not looked at.", ("decision",), registry=registry
        )
        for name, help in _LOOKS.items():
            self._looks[name] = Gauge(name, help, registry=registry)
        self._looks[LAST_LOOK].set_to_current_time()
        self._looks[PERIOD].set(FIRST_LOOK_SECONDS)

    def sampled(self, look: Look) -> None:
        assert self._sampled is not None, "sampler_begins comes first"
        for each in look.sampled:
            for result in _RESULTS:
                self._counter(self._sampled, each.decision, result).inc(getattr(each, result))
        self.sampler_behind(look.behind)
        self._looks[LAST_LOOK].set_to_current_time()
        self._looks[PERIOD].set(look.rest_seconds + look.cpu_seconds)
        self._looks[LOOK_CPU].set(look.cpu_seconds)

    def sampler_behind(self, behind: Mapping[str, int]) -> None:
        assert self._behind is not None, "sampler_begins comes first"
        for decision, count in behind.items():
            self._behind.labels(decision).set(count)

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
