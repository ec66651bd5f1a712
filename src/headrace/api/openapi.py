"""The OpenAPI 3.1 document of one project, so that other languages generate their clients. Pure.

The one idea: the document says what the validators take. Each decision and topic has schemas of its own, with decimals
as text under a pattern, as a double does not hold them; operation ids depend on the definitions' names alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.api.tokens import Scope
from headrace.core.schema import DataType, Field, Kind
from headrace.decisions.define import Decision, Outcome
from headrace.features.define import FeatureView, entity_expression
from headrace.log.define import Topic
from headrace.log.port import Verdict
from headrace.runtime.definitions import Definitions

VERSION = "1"
Json = dict[str, object]


def document(definitions: Definitions, decisions: Sequence[str]) -> Json:
    """decisions: the names that are served."""
    paths: Json = {}
    schemas: Json = {"Problem": _PROBLEM, "Versions": _VERSIONS}
    for name in decisions:
        decision = definitions.decision(name)
        schemas[f"{_pascal(name)}Request"] = event_schema(decision.request)
        schemas[f"{_pascal(name)}Answer"] = _answer_schema(_id_schema(decision), texts=bool(decision.texts))
        paths[f"/v1/decisions/{name}"] = {"post": _decide(decision)}
    if decisions:
        ids = [_id_schema(definitions.decision(name)) for name in decisions]
        same = all(one == ids[0] for one in ids)
        languages = tuple(dict.fromkeys(one for name in decisions for one in definitions.decision(name).languages))
        id_schema: Json = ids[0] if same else {"type": ["integer", "string"]}
        schemas["RecordedDecision"] = _answer_schema(id_schema, texts=bool(languages))
        paths["/v1/decisions/{decision_id}"] = {"get": _get_decision(languages)}
        schemas["Beside"] = _BESIDE
        if languages:
            schemas["ReasonText"] = _REASON_TEXT
    for view in definitions.views.values():
        title = _pascal(view.name)
        schemas[f"{title}Values"] = _values_schema(view)
        schemas[f"{title}Row"] = _row_schema(view)
        schemas[f"{title}Features"] = _features_schema(view)
        schemas[f"{title}Query"] = _keys_schema(view)
        keys = "/".join(f"{{{part}}}" for part in view.entity)
        paths[f"/v1/features/{view.name}"] = {"post": _read_many(view)}
        paths[f"/v1/features/{view.name}/{keys}"] = {"get": _read_one(view)}
    topics = [topic for topic in definitions.topics.values() if not topic.name.startswith("headrace.")]
    for topic in topics:
        schemas[f"{_pascal(topic.name)}Event"] = event_schema(topic)
        paths[f"/v1/topics/{topic.name}/events"] = {"post": _append(topic)}
    if definitions.views:
        schemas["Place"] = _PLACE
    if topics:
        schemas["Appended"] = _APPENDED
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "headrace",
            "version": VERSION,
            "description": "Decisions, features and events of one project.",
        },
        "paths": {**paths, **_operations()},
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "headrace tokens create"}},
        },
        "security": [{"token": []}],
    }


def event_schema(topic: Topic) -> Json:
    """A live event of a topic: late columns are not in it, as their truth comes later."""
    fields = [f for f in topic.schema if f.available_after is None]
    return {
        "type": "object",
        "description": topic.description or f"An event of {topic.name}.",
        "properties": {f.name: field_schema(f, required=f.name in topic.required) for f in fields},
        "required": [f.name for f in fields if f.name in topic.required],
        "additionalProperties": False,
    }


def field_schema(f: Field, *, required: bool) -> Json:
    made = type_schema(f.type, nullable=not required)
    if f.type.kind in (Kind.INT64, Kind.FLOAT64, Kind.DURATION):
        if f.minimum is not None:
            made["minimum"] = f.minimum
        if f.maximum is not None:
            made["maximum"] = f.maximum
    if f.description:
        made["description"] = f.description
    return made


def type_schema(type: DataType, *, nullable: bool) -> Json:
    made: Json
    match type.kind:
        case Kind.STRING:
            made = {"type": "string"}
        case Kind.INT64:
            made = {"type": "integer", "format": "int64"}
        case Kind.FLOAT64:
            made = {"type": "number", "format": "double"}
        case Kind.BOOLEAN:
            made = {"type": "boolean"}
        case Kind.TIMESTAMP:
            made = {"type": "string", "format": "date-time", "description": "with a zone, at most microseconds"}
        case Kind.DURATION:
            made = {"type": "integer", "format": "int64", "description": "microseconds"}
        case Kind.DECIMAL:
            whole, scale = type.precision - type.scale, type.scale
            fraction = rf"(\.[0-9]{{1,{scale}}})?" if scale else ""
            made = {"type": "string", "pattern": rf"^-?[0-9]{{1,{max(whole, 1)}}}{fraction}$"}
        case Kind.LIST:
            assert type.item is not None, "a list has an item type"
            made = {"type": "array", "items": type_schema(type.item, nullable=True)}
    if nullable:
        made["type"] = [made["type"], "null"]
    return made


# --- operations ---


def _decide(decision: Decision) -> Json:
    title = _pascal(decision.name)
    return {
        "operationId": f"decide{title}",
        "tags": ["decisions"],
        "summary": decision.description or f"Decide a request by {decision.name}, durably.",
        "description": f"The id of a request ({decision.request.id}) is its idempotency key: sent again it is answered "
        f"as before, with another payload it is refused. Needs the scope {Scope.DECIDE.value}.",
        "parameters": [
            _FEATURES,
            *_language(decision.languages),
            _parameter(
                "Headrace-Budget-Ms",
                "header",
                {"type": "integer", "minimum": 1, "maximum": 60_000},
                f"How long the request may wait before the fallback is the answer; {decision.budget} by default.",
            ),
            _parameter("Idempotency-Key", "header", {"type": "string"}, "If given, the id of the request."),
            *_accepted(decision.languages),
            _TRACE,
        ],
        "requestBody": _body({"application/json": _ref(f"{title}Request")}),
        "responses": _responses(f"{title}Answer", ("400", "401", "403", "408", "409", "413", "415", "422", "503")),
    }


def _language(languages: Sequence[str]) -> list[Json]:
    """The parameter of an answer with texts."""
    schema: Json = {"type": "string", "enum": list(languages)}
    return [_parameter("language", "query", schema, "Of the reasons' texts.")] if languages else []


def _accepted(languages: Sequence[str]) -> list[Json]:
    said = f"The nearest of the texts' languages is taken; {languages[0] if languages else ''} where none is near."
    return [_parameter("Accept-Language", "header", {"type": "string"}, said)] if languages else []


def _get_decision(languages: Sequence[str]) -> Json:
    return {
        "operationId": "getDecision",
        "tags": ["decisions"],
        "summary": "A recorded decision.",
        "description": f"Needs the scope {Scope.READ_DECISIONS.value}.",
        "parameters": [
            _parameter("decision_id", "path", {"type": "string"}, "Its slashes percent-encoded."),
            _FEATURES,
            *_language(languages),
            *_accepted(languages),
        ],
        "responses": _responses("RecordedDecision", ("400", "401", "403", "404", "503")),
    }


def _read_many(view: FeatureView) -> Json:
    title = _pascal(view.name)
    return {
        "operationId": f"read{title}Batch",
        "tags": ["features"],
        "summary": f"{view.name} of many entities, at one point.",
        "description": f"Needs the scope {Scope.READ_FEATURES.value}.",
        "requestBody": _body({"application/json": _ref(f"{title}Query")}),
        "responses": _responses(f"{title}Features", ("400", "401", "403", "413", "415", "422", "503")),
    }


def _read_one(view: FeatureView) -> Json:
    types = _entity_types(view)
    return {
        "operationId": f"read{_pascal(view.name)}",
        "tags": ["features"],
        "summary": f"{view.name} of one entity.",
        "description": f"Needs the scope {Scope.READ_FEATURES.value}.",
        "parameters": [
            *(_parameter(part, "path", type_schema(t, nullable=False), "") for part, t in types),
            _parameter(
                "t", "query", {"type": "string", "format": "date-time"}, "The instant to ask at; now by default."
            ),
        ],
        "responses": _responses(f"{_pascal(view.name)}Features", ("400", "401", "403", "422", "503")),
    }


def _append(topic: Topic) -> Json:
    event = _ref(f"{_pascal(topic.name)}Event")
    return {
        "operationId": f"append{_pascal(topic.name)}Events",
        "tags": ["topics"],
        "summary": f"Append events to {topic.name}: all of them, or none.",
        "description": "A list or one event as JSON, one event a line as NDJSON, or an Arrow stream. "
        f"Needs the scope {Scope.APPEND.value}.",
        "requestBody": _body(
            {
                "application/json": {"type": "array", "items": event},
                "application/x-ndjson": {"type": "string"},
                "application/vnd.apache.arrow.stream": {"type": "string", "format": "binary"},
            }
        ),
        "responses": _responses("Appended", ("400", "401", "403", "408", "413", "415", "422", "503")),
    }


def _operations() -> Json:
    def plain(id: str, summary: str, type: str, *, open: bool = False, scope: Scope | None = None) -> Json:
        answer: Json = {
            "description": "OK",
            "content": {type: {"schema": {"type": "string" if "text" in type else "object"}}},
        }
        made: Json = {
            "operationId": id,
            "tags": ["operations"],
            "summary": summary,
            "responses": {"200": answer, "default": _problem()},
        }
        if scope is not None:
            made["description"] = f"Needs the scope {scope.value}."
        return {**made, "security": []} if open else made

    drain = plain(
        "drain", "Others take over what this process decides and holds.", "application/json", scope=Scope.DRAIN
    )
    drained = plain("drained", "How far that is.", "application/json", scope=Scope.DRAIN)
    return {
        "/v1/drain": {"post": drain, "get": drained},
        "/healthz": {"get": plain("health", "The process runs.", "application/json", open=True)},
        "/readyz": {"get": plain("ready", "The server wants requests.", "application/json", open=True)},
        "/metrics": {"get": plain("metrics", "Prometheus' text.", "text/plain", scope=Scope.READ_METRICS)},
    }


def _responses(schema: str, problems: Sequence[str]) -> Json:
    answer = {"description": "OK", "content": {"application/json": {"schema": _ref(schema)}}}
    return {"200": answer, **{status: _problem() for status in problems}}


def _problem() -> Json:
    return {"description": "Problem details.", "content": {"application/problem+json": {"schema": _ref("Problem")}}}


def _body(content: dict[str, Json]) -> Json:
    return {"required": True, "content": {kind: {"schema": schema} for kind, schema in content.items()}}


def _parameter(name: str, place: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": place, "required": place == "path", "description": description, "schema": schema}


# --- schemas ---


def _id_schema(decision: Decision) -> Json:
    return type_schema(decision.request.schema[str(decision.request.id)].type, nullable=False)


def _answer_schema(id_schema: Json, *, texts: bool) -> Json:
    """id_schema: of the request's id. texts: whether reasons come in words too."""
    text: Json = {"type": "string"}
    properties: Json = {
        "decision_id": {"type": ["string", "null"], "description": "null: this is the fallback, and no decision"},
        "request_id": id_schema,
        "outcome": {"type": "string", "enum": [outcome.value for outcome in Outcome]},
        "score": {"type": ["number", "null"], "format": "double"},
        "reasons": {"type": "array", "items": text},
        "versions": _ref("Versions"),
        "t": {"type": "string", "format": "date-time"},
        "flags": {"type": "array", "items": text},
        "repeated": {"type": "boolean", "description": "the request was known: this is its recorded answer"},
    }
    words: Json = {
        "language": {"type": "string", "description": "of reason_texts"},
        "reason_texts": {"type": "array", "items": _ref("ReasonText")},
    }
    more: Json = {
        "scores": _SCORES,
        "arm": {"type": "string", "description": "the challenger that gave the answer"},
        "beside": {"type": "array", "items": _ref("Beside")},
        **(words if texts else {}),
        "decided_at": {"type": "string", "format": "date-time"},
        "rule": {"type": "integer", "format": "int64"},
        "features": {"type": "object", "additionalProperties": {"type": "object"}},
        "missing": {"type": "object", "additionalProperties": text},
    }
    return {"type": "object", "properties": {**properties, **more}, "required": list(properties)}


def _values_schema(view: FeatureView) -> Json:
    properties = {f.name: type_schema(f.type, nullable=True) for f in view.features}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _row_schema(view: FeatureView) -> Json:
    return {
        "type": "object",
        "properties": {
            "key": _key_schema(view),
            "values": _ref(f"{_pascal(view.name)}Values"),
            "missing": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "required": ["key", "values", "missing"],
    }


def _features_schema(view: FeatureView) -> Json:
    return {
        "type": "object",
        "properties": {
            "view": {"type": "string"},
            "t": {"type": "string", "format": "date-time"},
            "cut": {"type": "array", "items": _ref("Place")},
            "rows": {"type": "array", "items": _ref(f"{_pascal(view.name)}Row")},
        },
        "required": ["view", "t", "cut", "rows"],
    }


def _keys_schema(view: FeatureView) -> Json:
    return {
        "type": "object",
        "properties": {
            "keys": {"type": "array", "minItems": 1, "maxItems": 1_000, "items": _key_schema(view)},
            "t": {"type": ["string", "null"], "format": "date-time"},
        },
        "required": ["keys"],
        "additionalProperties": False,
    }


def _key_schema(view: FeatureView) -> Json:
    types = [type_schema(type, nullable=False) for _, type in _entity_types(view)]
    if len(types) == 1:
        return types[0]
    return {"type": "array", "prefixItems": types, "minItems": len(types), "maxItems": len(types)}


def _entity_types(view: FeatureView) -> list[tuple[str, DataType]]:
    emission = view.sources.emissions[0]
    return [(part, entity_expression(emission, part, view.name).type) for part in view.entity]


def _pascal(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.replace(".", "_").split("_") if part)


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_FEATURES = _parameter("features", "query", {"type": "boolean", "default": False}, "The feature values too.")
_TRACE = _parameter("traceparent", "header", {"type": "string"}, "W3C trace context.")
_VERSIONS: Json = {
    "type": "object",
    "description": "What the decision was made by.",
    "properties": {
        "semantics": {"type": "integer"},
        "policy": {"type": "string"},
        "model": {"type": ["string", "null"]},
        "views": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
        "models": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
        "challengers": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
    },
    "required": ["semantics", "policy", "model", "views"],
}
_SCORES: Json = {
    "type": "object",
    "description": "By model, where there are several.",
    "additionalProperties": {"type": ["number", "null"], "format": "double"},
}
_BESIDE: Json = {
    "type": "object",
    "description": "What another, a challenger or the decision itself, would have answered at the same point.",
    "properties": {
        "name": {"type": "string"},
        "outcome": {"type": "string", "enum": [outcome.value for outcome in Outcome]},
        "reasons": {"type": "array", "items": {"type": "string"}},
        "scores": _SCORES,
    },
    "required": ["name", "outcome", "reasons", "scores"],
}
_REASON_TEXT: Json = {
    "type": "object",
    "description": "A reason in words, as they are today; a code that has none today is left out.",
    "properties": {"code": {"type": "string"}, "text": {"type": "string"}},
    "required": ["code", "text"],
}
_PROBLEM: Json = {
    "type": "object",
    "description": "RFC 9457, with headrace's code, and the field where there is one.",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "pattern": "^HR-[0-9]{4}$"},
        "hint": {"type": "string"},
        "field": {"type": "string"},
        "row": {"type": "integer", "description": "of a list of events, from 0"},
        "retryable": {"type": "boolean"},
        "facts": {"type": "object"},
    },
    "required": ["type", "title", "status", "code"],
}
_PLACE: Json = {
    "type": "object",
    "description": "A cut's next offset in one partition.",
    "properties": {
        "topic": {"type": "string"},
        "incarnation": {"type": "integer", "format": "int64"},
        "partition": {"type": "integer"},
        "next": {"type": "integer", "format": "int64"},
    },
    "required": ["topic", "incarnation", "partition", "next"],
}
_APPENDED: Json = {
    "type": "object",
    "properties": {
        "topic": {"type": "string"},
        "count": {"type": "integer"},
        "verdicts": {"type": "object", "additionalProperties": {"type": "integer"}},
        "events": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "index": {"type": "integer"},
                    "partition": {"type": "integer"},
                    "offset": {"type": "integer", "format": "int64"},
                    "verdict": {"type": "string", "enum": [verdict.name.lower() for verdict in Verdict]},
                },
                "required": ["index", "partition", "offset", "verdict"],
            },
        },
    },
    "required": ["topic", "count", "verdicts", "events"],
}
