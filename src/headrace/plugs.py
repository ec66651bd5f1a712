"""Every plug point on one screen: kind and name, where it lives, the extra it needs. Imports when asked.

Listing costs nothing, so that help and completion never import a vendor's library. An adapter that is not here does not
exist for the rest of headrace. Touches: the import system.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

from headrace.core.errors import MissingExtraError, NotFoundError, did_you_mean


@dataclass(frozen=True, slots=True)
class Plug:
    """place: "module:Name". extra: what `pip install headrace[extra]` brings for it, "" where the core suffices."""

    place: str
    extra: str = ""


PLUGS: dict[str, dict[str, Plug]] = {
    "log": {
        "kafka": Plug("headrace.log.kafka:KafkaLog"),
        "sqlite": Plug("headrace.log.sqlite:SqliteLog"),
    },
    "checkpoint store": {
        "folder": Plug("headrace.features.checkpoint_folder:FolderCheckpoints"),
        "s3": Plug("headrace.features.checkpoint_s3:S3Checkpoints", "s3"),
    },
    "kafka client": {
        "confluent": Plug("headrace.clients.kafka.confluent:ConfluentClient", "kafka"),
    },
    "payload": {
        "json": Plug("headrace.schemas.json_payload:JsonPayload"),
    },
    "model store": {
        "folder": Plug("headrace.models.folder:FolderModelStore"),
    },
    "trainer": {
        "decision_tree": Plug("headrace.models.scikit_learn:ScikitLearn", "ml"),
        "lightgbm": Plug("headrace.models.lightgbm:LightGBM", "ml"),
        "logistic_regression": Plug("headrace.models.scikit_learn:ScikitLearn", "ml"),
        "random_forest": Plug("headrace.models.scikit_learn:ScikitLearn", "ml"),
        "xgboost": Plug("headrace.models.xgboost:XGBoost", "ml"),
    },
}

# Import name of each package that an extra brings, for the one clear sentence when it is missing.
EXTRAS: dict[str, str] = {
    "boto3": "s3",
    "botocore": "s3",
    "confluent_kafka": "kafka",
    "lightgbm": "ml",
    "matplotlib": "ml",
    "pandas": "ml",
    "prometheus_client": "serve",
    "sklearn": "ml",
    "xgboost": "ml",
}


def names(kind: str) -> tuple[str, ...]:
    """What can be asked for of this kind, sorted. Raises: NotFoundError HR-0991 for an unknown kind."""
    if kind not in PLUGS:
        raise NotFoundError("HR-0991", f"no plug of kind {kind!r}", hint=did_you_mean(kind, PLUGS))
    return tuple(sorted(PLUGS[kind]))


def load(kind: str, name: str) -> object:
    """The adapter's class or function.

    Raises: NotFoundError HR-0991 for an unknown kind or name, MissingExtraError HR-0990 where its extra is missing.
    """
    if name not in names(kind):
        raise NotFoundError("HR-0991", f"no {kind} adapter {name!r}", hint=did_you_mean(name, PLUGS[kind]))
    plug = PLUGS[kind][name]
    module, _, attribute = plug.place.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if not plug.extra or (error.name or "").partition(".")[0] == "headrace":
            raise
        raise missing(error.name or name, plug.extra, f"{kind} adapter {name!r}") from error


def require(package: str, *, wanted_by: str) -> ModuleType:
    """An optional package, imported. wanted_by: kind and name of what needs it, as in "trainer 'xgboost'".

    Raises: MissingExtraError HR-0990 where it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise
        raise missing(package, EXTRAS[package.partition(".")[0]], wanted_by) from error


def missing(package: str, extra: str, wanted_by: str) -> MissingExtraError:
    """The error that says what is not installed, who wants it, and the command that brings it."""
    return MissingExtraError(
        "HR-0990",
        f"{wanted_by} needs {package}, which is not installed",
        hint=f"pip install 'headrace[{extra}]'",
        package=package,
        extra=extra,
    )
