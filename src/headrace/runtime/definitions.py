"""All definitions of a project, by kind and name, and what the catalog is told of them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from headrace.catalog.define import Declared
from headrace.core.errors import DefinitionError, NotFoundError, did_you_mean
from headrace.core.expr import Reference, references
from headrace.core.fingerprint import fingerprint
from headrace.core.times import Duration
from headrace.core.window import Aligned, Lifetime, Sliding, Unit, Window
from headrace.decisions.define import Decision
from headrace.features.define import FeatureView, Label, entity_expression
from headrace.features.meaning import label_meaning, label_names, topic_meaning, view_meaning
from headrace.log.define import Topic
from headrace.log.effects import about, assumed, explain_with
from headrace.models.define import Model, check_entities

T = TypeVar("T")

CLASSES: tuple[type, ...] = (Topic, Label, FeatureView, Model, Decision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions:
    """What a project declares. Topics, labels and models that only another definition mentions are among them."""

    topics: Mapping[str, Topic]
    labels: Mapping[str, Label]
    views: Mapping[str, FeatureView]
    models: Mapping[str, Model]
    decisions: Mapping[str, Decision]

    @classmethod
    def of(cls, objects: Iterable[object]) -> Definitions:
        """From the objects at the top level of definition files.

        Raises: DefinitionError HR-0801 where two different ones share kind and name.
        """
        found: dict[type, dict[str, object]] = {kind: {} for kind in CLASSES}
        for one in objects:
            for each in _with_mentioned(one):
                _put(found[type(each)], each)
        made = cls(
            topics=_typed(found[Topic], Topic),
            labels=_typed(found[Label], Label),
            views=_typed(found[FeatureView], FeatureView),
            models=_typed(found[Model], Model),
            decisions=_typed(found[Decision], Decision),
        )
        made._check()
        return made

    def _check(self) -> None:
        """What no definition sees alone: entities of requests, and topics that forget before their views do."""
        for label in self.labels.values():
            for topic in (label.of, label.source):
                if topic.derivation is not None:
                    raise _not_of_derived(f"label {label.name!r} is of", topic, "labels name events of their origin")
        for model in self.models.values():
            if self.topic(model.topic).derivation is not None:
                raise _not_of_derived(f"model {model.name!r} scores", self.topic(model.topic), "its events are copies")
            views = [self.view(name) for name in model.views]
            check_entities(f"model {model.name!r}", self.topic(model.topic), views)
        for decision in self.decisions.values():
            if decision.request.derivation is not None:
                said = f"decision {decision.name!r} decides"
                raise _not_of_derived(said, decision.request, "its events are copies, and nobody appends to it")
            views = [self.view(name) for name in decision.views]
            check_entities(f"decision {decision.name!r}", decision.request, views)
        for view in self.views.values():
            for topic in view.topics:
                _check_retention(view, topic)
                if topic.derivation is not None:
                    _check_derived(view, topic)
                    _check_retention(view, self.topic(topic.derivation.of))

    def topic(self, name: str) -> Topic:
        return _named(self.topics, "topic", name)

    def view(self, name: str) -> FeatureView:
        return _named(self.views, "view", name)

    def model(self, name: str) -> Model:
        return _named(self.models, "model", name)

    def decision(self, name: str) -> Decision:
        return _named(self.decisions, "decision", name)

    @property
    def served(self) -> tuple[str, ...]:
        """The decisions that answer requests: all but those that only challenge another."""
        challenging = {one.decision.name for decision in self.decisions.values() for one in decision.challengers}
        return tuple(name for name in self.decisions if name not in challenging)

    @property
    def held(self) -> dict[str, Topic]:
        """The views that are held by partition, each with its derived topic (SEMANTICS 5.2)."""
        derived = {view.name: view.topics[0] for view in self.views.values() if len(view.topics) == 1}
        return {name: topic for name, topic in derived.items() if topic.derivation is not None}

    @property
    def views_served(self) -> tuple[tuple[str, ...], ...]:
        """The views of each decision that answers requests, but for those that are held by partition, each set of them
        once: what states there are."""
        held = self.held
        found = {tuple(sorted(view for view in self.decisions[name].views if view not in held)) for name in self.served}
        return tuple(sorted(views for views in found if views))

    def declared(self, *, tz_version: str) -> tuple[Declared, ...]:
        """What the catalog compares; a fingerprint covers those of everything that its definition needs."""
        made: dict[tuple[str, str], Declared] = {}

        def add(kind: str, name: str, meaning: object, needs: Iterable[tuple[str, str]] = ()) -> None:
            needed = tuple(dict.fromkeys(needs))
            text = json.dumps(meaning, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            below = {f"{k} {n}": made[k, n].fingerprint for k, n in needed if k not in ("topic",) and (k, n) in made}
            made[kind, name] = Declared(
                kind=kind, name=name, fingerprint=fingerprint([meaning, below]), meaning=text, needs=needed
            )

        for topic in self.topics.values():
            made["topic", topic.name] = self._declared_topic(topic)
        for label in self.labels.values():
            add("label", label.name, label_meaning(label), [("topic", label.of.name), ("topic", label.source.name)])
        for view in self.views.values():
            needs = [("topic", t.name) for t in view.topics] + [("label", n) for n in sorted(label_names(view))]
            needs += [("topic", t.derivation.of) for t in view.topics if t.derivation is not None]
            add("view", view.name, view_meaning(view, self.labels, tz_version=tz_version, topics=self.topics), needs)
        for model in self.models.values():
            label_need = [("label", model.label_name)] if isinstance(model.label, Label) else []
            add("model", model.name, model.meaning(), [*label_need, *(("view", v) for v in model.views)])
        # Challengers have no challengers: before those that they challenge, their fingerprints are known.
        for decision in sorted(self.decisions.values(), key=lambda one: len(one.challengers) > 0):
            needs = [("topic", decision.request.name), *(("view", v) for v in decision.views)]
            needs += [("model", model.name) for model in decision.models]
            needs += [("decision", one.decision.name) for one in decision.challengers]
            add("decision", decision.name, decision.meaning(), needs)
        return tuple(made.values())

    def _declared_topic(self, topic: Topic) -> Declared:
        """Its fingerprint is of what its events mean; who looks after it stands in the text alone."""
        meaning = topic_meaning(topic)
        return Declared(
            kind="topic",
            name=topic.name,
            fingerprint=fingerprint([meaning, {}]),
            needs=() if topic.derivation is None else (("topic", topic.derivation.of),),
            meaning=json.dumps({**meaning, **about(topic)}, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
            assumed=assumed(topic),
            explain=explain_with(topic.name, self.readers(topic.name)),
        )

    def readers(self, topic: str) -> tuple[str, ...]:
        """What is made of a topic's events, as "view activity": labels, views, models, decisions, in this order."""
        labels = [f"label {one.name}" for one in self.labels.values() if topic in (one.of.name, one.source.name)]
        views = [f"view {one.name}" for one in self.views.values() if topic in {t.name for t in one.topics}]
        models = [f"model {one.name}" for one in self.models.values() if one.topic == topic]
        decisions = [f"decision {one.name}" for one in self.decisions.values() if one.request.name == topic]
        return (*labels, *views, *models, *decisions)

    def check_alone(self) -> None:
        """What only several processes can do: fill a derived topic. Raises: DefinitionError HR-0366."""
        for topic in self.topics.values():
            if topic.derivation is not None:
                raise DefinitionError(
                    "HR-0366",
                    f"topic {topic.name!r} is derived, and this project's log is a file",
                    detail="a derived topic is filled beside the servers, on a log that processes share",
                    hint="docs/guides/kafka.md: log = in headrace.toml",
                )

    def check_joint(self) -> None:
        """What only matters where several processes share the partitions: the one that has a key must have it in all
        sources of a view (docs/KAFKA.md K3). Raises: DefinitionError HR-0813."""
        for view in self.views.values():
            counts = {t.name: t.partitions for t in _keyed_by_entity(view)}
            if len(set(counts.values())) > 1:
                raise DefinitionError(
                    "HR-0813",
                    f"view {view.name!r} joins topics of unequal partition counts",
                    detail=", ".join(f"{name} has {count}" for name, count in counts.items()),
                    hint=f"declare partitions={max(counts.values())} for each of them",
                    view=view.name,
                )

    def check_held(self, log: Iterable[Topic]) -> None:
        """A key's events stay where they are when partitions are added, so the values of a view that is held by
        partition would be in two. log: the topics as the log has them. Raises: DefinitionError HR-0370."""
        before = {topic.name: topic.partitions for topic in log}
        for view in self.views.values():
            for topic in view.topics:
                count = before.get(topic.name, topic.partitions)
                if topic.derivation is not None and topic.partitions != count:
                    raise DefinitionError(
                        "HR-0370",
                        f"derived topic {topic.name!r} is read by view {view.name!r}: its partitions stay as many",
                        detail=f"it has {count}, declared are {topic.partitions}",
                        hint="declare another derived topic of as many as you want, and let the view read that",
                        topic=topic.name,
                    )

    def fingerprints(self, kind: str, *, tz_version: str) -> dict[str, str]:
        """name -> fingerprint of all definitions of a kind."""
        return {one.name: one.fingerprint for one in self.declared(tz_version=tz_version) if one.kind == kind}


def _keyed_by_entity(view: FeatureView) -> list[Topic]:
    """Sources whose key is the view's entity; the others reach it by a derived topic, of as many partitions as it
    needs."""
    if len(view.entity) > 1:
        return []
    found = []
    for emission in view.sources.emissions:
        key = entity_expression(emission, view.entity[0], view.name)
        if isinstance(key, Reference) and key.path == f"{emission.topic.name}.{emission.topic.key}":
            found.append(emission.topic)
    return found


def _check_derived(view: FeatureView, topic: Topic) -> None:
    """What a view over a derived topic cannot be yet: its values are held by partition, and its events are its
    source's. Raises: DefinitionError HR-0369."""
    said = f"view {view.name!r} reads"
    if len(view.topics) > 1:
        raise _not_of_derived(said, topic, "beside other sources, whose partitions are others")
    (emission,) = view.sources.emissions
    keys = [entity_expression(emission, part, view.name) for part in view.entity]
    if not any(isinstance(key, Reference) and key.path == f"{topic.name}.{topic.key}" for key in keys):
        raise _not_of_derived(said, topic, f"its entity has no part {topic.key!r}, so one may lie in all partitions")
    late = label_names(view) or {f.name for f in topic.late_columns} & {
        r.name for f in view.features for part in (f.input, f.where) if part is not None for r in references(part)
    }
    if late:
        raise _not_of_derived(said, topic, f"{min(late)!r} becomes known later, which is told to the source alone")


def _not_of_derived(said: str, topic: Topic, why: str) -> DefinitionError:
    assert topic.derivation is not None, "derived"
    return DefinitionError(
        "HR-0369",
        f"{said} the derived topic {topic.name!r}",
        detail=why,
        hint=f"take topic {topic.derivation.of!r} in its place",
    )


def _check_retention(view: FeatureView, topic: Topic) -> None:
    """Views pin their topics (SEMANTICS 5.5)."""
    if topic.retention is None:
        return
    reaches = [reach(feature.window) for feature in view.features]
    needed = None if None in reaches else max(r.micros for r in reaches if r is not None) + topic.max_late.micros
    if needed is None or topic.retention.micros < needed:
        raise DefinitionError(
            "HR-0808",
            f"topic {topic.name!r} forgets events that view {view.name!r} still counts",
            detail=f"it keeps {topic.retention}; the view needs "
            + ("all of them" if needed is None else str(Duration(needed))),
            hint="keep the topic longer, or shorten the view's windows; None keeps for ever",
        )


def reach(window: Window) -> Duration | None:
    """How far behind t a window looks; None for all the way."""
    match window:
        case Sliding():
            return window.width + window.delay
        case Lifetime():
            return None
        case Aligned():
            unit = Duration.parse(_LONGEST[window.unit]) if isinstance(window.unit, Unit) else window.unit
            return unit + unit if window.complete else unit


_LONGEST = {Unit.HOUR: "1h", Unit.DAY: "25h", Unit.WEEK: "169h", Unit.MONTH: "745h", Unit.YEAR: "8785h"}


def _with_mentioned(one: object) -> Iterable[object]:
    """A definition behind those that it holds."""
    match one:
        case Label():
            yield from (one.of, one.source)
        case FeatureView():
            yield from one.topics
        case Model():
            if isinstance(one.label, Label):
                yield from _with_mentioned(one.label)
        case Decision():
            yield one.request
            for model in one.models:
                yield from _with_mentioned(model)
            for challenger in one.challengers:
                yield from _with_mentioned(challenger.decision)
    yield one


def _put(known: dict[str, object], one: object) -> None:
    name: str = one.name  # type: ignore[attr-defined]  # every definition has a name
    if known.setdefault(name, one) is not one:
        kind = "view" if isinstance(one, FeatureView) else type(one).__name__.lower()
        raise DefinitionError("HR-0801", f"two definitions of {kind} {name!r}", hint="rename or delete one of them")


def _typed(found: Mapping[str, object], kind: type[T]) -> dict[str, T]:
    return {name: one for name, one in found.items() if isinstance(one, kind)}


def _named(known: Mapping[str, T], kind: str, name: str) -> T:
    if name not in known:
        raise NotFoundError(
            "HR-0806", f"no {kind} {name!r} in this project", hint=did_you_mean(name, known), kind=kind, name=name
        )
    return known[name]
