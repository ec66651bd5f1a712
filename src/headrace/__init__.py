"""headrace: from event to decision. One log, one kernel, one ledger.

`import headrace as hr` is all that a definition file needs. Public names load on first use (PEP 562), so that the
import itself costs nothing: `_NAMES` says where each one lives, and the block under TYPE_CHECKING says the same to type
checkers; a tidy test keeps the two equal. Pure.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.core.expr import coalesce as coalesce
    from headrace.core.expr import exp as exp
    from headrace.core.expr import hour as hour
    from headrace.core.expr import if_else as if_else
    from headrace.core.expr import log as ln  # noqa: F401 - a public name
    from headrace.core.expr import sqrt as sqrt
    from headrace.core.expr import weekday as weekday
    from headrace.core.schema import boolean as boolean
    from headrace.core.schema import decimal as decimal
    from headrace.core.schema import field as field
    from headrace.core.schema import float64 as float64
    from headrace.core.schema import int64 as int64
    from headrace.core.schema import string as string
    from headrace.core.schema import timestamp as timestamp
    from headrace.decisions.define import Challenger as Challenger
    from headrace.decisions.define import Decision as Decision
    from headrace.decisions.define import approve as approve
    from headrace.decisions.define import approve_if as approve_if
    from headrace.decisions.define import decline as decline
    from headrace.decisions.define import decline_if as decline_if
    from headrace.decisions.define import for_segment as for_segment
    from headrace.decisions.define import from_model as from_model
    from headrace.decisions.define import review as review
    from headrace.decisions.define import review_if as review_if
    from headrace.decisions.define import score as score
    from headrace.features.define import FeatureView as FeatureView
    from headrace.features.define import Label as Label
    from headrace.features.define import Sources as Sources
    from headrace.features.define import count as count
    from headrace.features.define import distinct as distinct
    from headrace.features.define import first as first
    from headrace.features.define import last as last
    from headrace.features.define import last_n as last_n
    from headrace.features.define import lookup as lookup
    from headrace.features.define import max as max
    from headrace.features.define import mean as mean
    from headrace.features.define import min as min
    from headrace.features.define import rate as rate
    from headrace.features.define import std as std
    from headrace.features.define import sum as sum
    from headrace.features.define import time_since_first as time_since_first
    from headrace.features.define import time_since_last as time_since_last
    from headrace.features.define import variance as variance
    from headrace.log.define import Topic as Topic
    from headrace.models.define import Model as Model
    from headrace.models.define import decision_tree as decision_tree
    from headrace.models.define import lightgbm as lightgbm
    from headrace.models.define import logistic_regression as logistic_regression
    from headrace.models.define import random_forest as random_forest
    from headrace.models.define import xgboost as xgboost
    from headrace.runtime.project import Project as Project
    from headrace.runtime.project import open_project as open  # noqa: F401 - a public name
    from headrace.sdk.consumer import AsyncConsumer as AsyncConsumer
    from headrace.sdk.consumer import Consumer as Consumer
    from headrace.sdk.define import Budget as Budget
    from headrace.sdk.producer import AsyncProducer as AsyncProducer
    from headrace.sdk.producer import Producer as Producer
    from headrace.sdk.sql import SqlOffsets as SqlOffsets
    from headrace.stream.define import derived_topic as derived_topic

__version__ = "0.1.0"

# Public name -> (module, name there where it differs). A public name must not be that of a slice: the import system
# sets `headrace.log` to the module as soon as anything imports it, so the natural logarithm is `hr.ln`.
_NAMES: dict[str, str | tuple[str, str]] = {
    "AsyncConsumer": "headrace.sdk.consumer",
    "AsyncProducer": "headrace.sdk.producer",
    "Budget": "headrace.sdk.define",
    "Challenger": "headrace.decisions.define",
    "Consumer": "headrace.sdk.consumer",
    "Decision": "headrace.decisions.define",
    "FeatureView": "headrace.features.define",
    "Label": "headrace.features.define",
    "Model": "headrace.models.define",
    "Producer": "headrace.sdk.producer",
    "Project": "headrace.runtime.project",
    "Sources": "headrace.features.define",
    "SqlOffsets": "headrace.sdk.sql",
    "Topic": "headrace.log.define",
    "approve": "headrace.decisions.define",
    "approve_if": "headrace.decisions.define",
    "boolean": "headrace.core.schema",
    "coalesce": "headrace.core.expr",
    "count": "headrace.features.define",
    "decimal": "headrace.core.schema",
    "decision_tree": "headrace.models.define",
    "decline": "headrace.decisions.define",
    "decline_if": "headrace.decisions.define",
    "derived_topic": "headrace.stream.define",
    "distinct": "headrace.features.define",
    "exp": "headrace.core.expr",
    "field": "headrace.core.schema",
    "first": "headrace.features.define",
    "float64": "headrace.core.schema",
    "for_segment": "headrace.decisions.define",
    "from_model": "headrace.decisions.define",
    "hour": "headrace.core.expr",
    "if_else": "headrace.core.expr",
    "int64": "headrace.core.schema",
    "last": "headrace.features.define",
    "last_n": "headrace.features.define",
    "lightgbm": "headrace.models.define",
    "ln": ("headrace.core.expr", "log"),
    "logistic_regression": "headrace.models.define",
    "lookup": "headrace.features.define",
    "max": "headrace.features.define",
    "mean": "headrace.features.define",
    "min": "headrace.features.define",
    "open": ("headrace.runtime.project", "open_project"),
    "random_forest": "headrace.models.define",
    "rate": "headrace.features.define",
    "review": "headrace.decisions.define",
    "review_if": "headrace.decisions.define",
    "score": "headrace.decisions.define",
    "sqrt": "headrace.core.expr",
    "std": "headrace.features.define",
    "string": "headrace.core.schema",
    "sum": "headrace.features.define",
    "time_since_first": "headrace.features.define",
    "time_since_last": "headrace.features.define",
    "timestamp": "headrace.core.schema",
    "variance": "headrace.features.define",
    "weekday": "headrace.core.expr",
    "xgboost": "headrace.models.define",
}

__all__ = ["__version__", *sorted(_NAMES)]


def __getattr__(name: str) -> object:
    """The public name, from its module; kept, so that this runs once a name. Raises: AttributeError."""
    place = _NAMES.get(name)
    if place is None:
        hint = importlib.import_module("headrace.core.errors").did_you_mean(name, _NAMES)
        raise AttributeError(f"headrace has no name {name!r}; {hint}")
    module, there = place if isinstance(place, tuple) else (place, name)
    value = getattr(importlib.import_module(module), there)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
