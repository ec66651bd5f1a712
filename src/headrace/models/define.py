"""Models: which inputs, in which order, learn which label by which trainer. Frozen, pure.

Inputs are the request's fields, features, and expressions over both. The type of each says when it can be known, so a
model that reads its own label, or a column whose truth comes later, is an error here, when it is declared (SEMANTICS
4.4).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headrace.core import schema
from headrace.core.availability import Lateness
from headrace.core.errors import DefinitionError, LeakError, MaturityError
from headrace.core.expr import Call, Expr, Named, Operand, Reference, Source, describe, references, to_expr
from headrace.core.schema import DataType, Kind
from headrace.core.times import Duration
from headrace.features.define import Feature, FeatureView, Label, check_declared
from headrace.log.define import Topic

Setting = bool | int | float | str | None
LearnedFrom = Operand | FeatureView | Feature
INPUTS_MAX = 4_096  # an input's index is an int16 in tree arrays; no tabular model that we know of comes near

_TAKEN = frozenset({Kind.INT64, Kind.FLOAT64, Kind.DECIMAL, Kind.BOOLEAN, Kind.DURATION})
_INSTEAD = {
    Kind.STRING: "say what about the text matters, as in (applications.channel == 'web').named('is_web')",
    Kind.TIMESTAMP: "say what about the instant matters, as in hr.hour(applications.created_at)",
    Kind.LIST: "models take one number an input: aggregate it, or look up its parts",
}


class Method(enum.Enum):
    """The closed set of what can be trained; each becomes one artifact of arrays (models/artifact.py)."""

    LOGISTIC_REGRESSION = "logistic_regression"
    DECISION_TREE = "decision_tree"
    RANDOM_FOREST = "random_forest"
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """How a model is trained. settings: sorted by name, as the library takes them. standardize: inputs are shifted by
    the training set's mean and divided by its standard deviation; both are kept in the artifact."""

    method: Method
    settings: tuple[tuple[str, Setting], ...]
    standardize: bool
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Input:
    """One number that a model takes. name: a field's own, a feature's "view.feature", a derived one's given name."""

    name: str
    expr: Expr

    @property
    def type(self) -> DataType:
        return self.expr.type


@dataclass(frozen=True, slots=True, init=False, eq=False)
class Model:
    """A score in [0, 1] for one event of a topic: the probability of its label.

    topic: the name of the label's origin topic, whose events are scored. inputs: in the order in which the scorer takes
    them. label: a Label, or a late boolean column of the topic. where: a condition on the request's fields; only
    requests for which it is true enter a training set (false and null do not), and so what is measured on one. It
    chooses rows and nothing else: a request that it leaves out is scored like any other, where a decision asks.
    Raises: DefinitionError HR-0601 to HR-0606, HR-0615, LeakError HR-0201, MaturityError HR-0202.
    """

    name: str
    topic: str
    inputs: tuple[Input, ...]
    label: Label | Reference
    trainer: Trainer
    where: Expr | None
    description: str

    def __init__(
        self,
        name: str,
        *,
        features: Sequence[LearnedFrom],
        label: Label | Reference,
        trainer: Trainer,
        where: Operand | None = None,
        description: str = "",
    ) -> None:
        if not name.isidentifier() or name.startswith("_"):
            raise DefinitionError(
                "HR-0101", f"{name!r} cannot name a model", detail="expected a Python identifier without leading _"
            )
        put = object.__setattr__
        put(self, "name", name)
        put(self, "topic", _origin(name, label))
        put(self, "inputs", _inputs(name, self.topic, features))
        put(self, "where", None if where is None else _where(name, self.topic, to_expr(where)))
        if isinstance(label, Label):
            for one in self.inputs:
                check_declared(f"model {name!r}: input {one.name!r}", one.expr, label.of)
            if self.where is not None:
                check_declared(f"model {name!r}: where", self.where, label.of)
        put(self, "label", label)
        put(self, "trainer", trainer)
        put(self, "description", description)

    @property
    def label_name(self) -> str:
        return self.label.name

    @property
    def score(self) -> Reference:
        """What it says of a request, for the rules of a decision that has several models (`fraud.score > 0.6`)."""
        return Reference(source=Source.SCORE, owner=self.name, name="score", type=schema.float64, nullable=False)

    @property
    def maturity(self) -> Duration:
        """How long after its event a row's label is certain: no younger row enters a training set (SEMANTICS 4.3)."""
        return self.label.maturity if isinstance(self.label, Label) else self.label.availability.after

    @property
    def views(self) -> tuple[str, ...]:
        """The names of the views that the inputs read, in order of first use."""
        return view_names(i.expr for i in self.inputs)

    def meaning(self) -> dict[str, object]:
        """What the fingerprint covers, as JSON values: inputs in order, label, trainer, and the rows it learns from
        where they are not all; not the description. The fingerprints of the topic, the label and the views stand beside
        it in the catalog."""
        chosen = {} if self.where is None else {"where": describe(self.where)}
        return {
            "kind": "model",
            "name": self.name,
            "topic": self.topic,
            "inputs": [[i.name, describe(i.expr), str(i.type)] for i in self.inputs],
            "label": self.label_name,
            "trainer": [self.trainer.method.value, self.trainer.standardize, self.trainer.seed, *self.trainer.settings],
            **chosen,
        }


def view_names(exprs: Iterable[Expr]) -> tuple[str, ...]:
    """The views that expressions read, in order of first use."""
    return tuple(dict.fromkeys(r.owner for e in exprs for r in references(e) if r.source is Source.FEATURE))


def check_entities(what: str, topic: Topic, views: Iterable[FeatureView]) -> None:
    """Each view's entity is a field of the topic whose events are scored, of the same type; checked where both are at
    hand.

    what: kind and name of the definition that reads them. Raises: DefinitionError HR-0603.
    """
    for view in views:
        for part in view.entity:
            if part not in topic.schema:
                raise DefinitionError(
                    "HR-0603",
                    f"{what} reads view {view.name!r}, whose entity {part!r} is no field of topic {topic.name!r}",
                    detail=f"there is: {', '.join(topic.schema.names)}",
                    hint="a request must name the entity that it asks about: add the field to the topic",
                )


# --- trainers ---


def logistic_regression(
    *,
    C: float = 1.0,  # noqa: N803 - the library's name, which is what a user looks up
    max_iter: int = 100,
    tol: float = 1e-4,
    class_weight: str | None = None,
    standardize: bool = True,
    seed: int = 0,
) -> Trainer:
    """A linear model, by scikit-learn (lbfgs). C: inverse strength of the L2 penalty. class_weight: None or "balanced".
    Standardised by default, as the penalty weighs coefficients by their inputs' scale. Raises: DefinitionError
    HR-0605."""
    settings = {
        "C": _number("C", C, above=0),
        "max_iter": _count("max_iter", max_iter, 1),
        "tol": _number("tol", tol, above=0),
        "class_weight": _choice("class_weight", class_weight, None, "balanced"),
    }
    return _trainer(Method.LOGISTIC_REGRESSION, settings, standardize, seed)


def decision_tree(
    *,
    max_depth: int | None = None,
    min_samples_leaf: int = 1,
    min_samples_split: int = 2,
    criterion: str = "gini",
    class_weight: str | None = None,
    standardize: bool = False,
    seed: int = 0,
) -> Trainer:
    """One tree, by scikit-learn. max_depth None: until the leaves are pure. Raises: DefinitionError HR-0605."""
    settings = _tree_settings(max_depth, min_samples_leaf, min_samples_split, criterion, class_weight)
    return _trainer(Method.DECISION_TREE, settings, standardize, seed)


def random_forest(
    *,
    n_estimators: int = 100,
    max_depth: int | None = None,
    min_samples_leaf: int = 1,
    min_samples_split: int = 2,
    max_features: str | int | float | None = "sqrt",
    criterion: str = "gini",
    class_weight: str | None = None,
    standardize: bool = False,
    seed: int = 0,
) -> Trainer:
    """The mean of trees, by scikit-learn. max_features: of each split: "sqrt", "log2", a count, a share, None for all.
    Raises: DefinitionError HR-0605."""
    settings = _tree_settings(max_depth, min_samples_leaf, min_samples_split, criterion, class_weight)
    settings["n_estimators"] = _count("n_estimators", n_estimators, 1)
    if isinstance(max_features, int) and not isinstance(max_features, bool):
        settings["max_features"] = _count("max_features", max_features, 1)
    elif isinstance(max_features, float):
        settings["max_features"] = _number("max_features", max_features, above=0, most=1)
    else:
        settings["max_features"] = _choice("max_features", max_features, "sqrt", "log2", None)
    return _trainer(Method.RANDOM_FOREST, settings, standardize, seed)


def xgboost(
    *,
    n_estimators: int = 100,
    max_depth: int = 6,
    learning_rate: float = 0.3,
    min_child_weight: float = 1.0,
    subsample: float = 1.0,
    colsample_bytree: float = 1.0,
    gamma: float = 0.0,
    reg_lambda: float = 1.0,
    reg_alpha: float = 0.0,
    scale_pos_weight: float = 1.0,
    tree_method: str = "hist",
    base_score: float | None = None,
    standardize: bool = False,
    seed: int = 0,
) -> Trainer:
    """Boosted trees, by XGBoost. base_score None: the share of true labels. Raises: DefinitionError HR-0605."""
    settings: dict[str, Setting] = {
        "n_estimators": _count("n_estimators", n_estimators, 1),
        "max_depth": _count("max_depth", max_depth, 1),
        "learning_rate": _number("learning_rate", learning_rate, above=0),
        "min_child_weight": _number("min_child_weight", min_child_weight, least=0),
        "subsample": _number("subsample", subsample, above=0, most=1),
        "colsample_bytree": _number("colsample_bytree", colsample_bytree, above=0, most=1),
        "gamma": _number("gamma", gamma, least=0),
        "reg_lambda": _number("reg_lambda", reg_lambda, least=0),
        "reg_alpha": _number("reg_alpha", reg_alpha, least=0),
        "scale_pos_weight": _number("scale_pos_weight", scale_pos_weight, above=0),
        "tree_method": _choice("tree_method", tree_method, "hist", "exact", "approx"),
        "base_score": None if base_score is None else _number("base_score", base_score, above=0, below=1),
    }
    return _trainer(Method.XGBOOST, settings, standardize, seed)


def lightgbm(
    *,
    n_estimators: int = 100,
    num_leaves: int = 31,
    max_depth: int | None = None,
    learning_rate: float = 0.1,
    min_child_samples: int = 20,
    min_child_weight: float = 1e-3,
    min_split_gain: float = 0.0,
    subsample: float = 1.0,
    subsample_freq: int = 0,
    colsample_bytree: float = 1.0,
    reg_lambda: float = 0.0,
    reg_alpha: float = 0.0,
    scale_pos_weight: float = 1.0,
    max_bin: int = 255,
    standardize: bool = False,
    seed: int = 0,
) -> Trainer:
    """Boosted trees, by LightGBM, on inputs rounded to float32, as they are scored. max_depth None: num_leaves alone
    bounds a tree. subsample counts where subsample_freq, in trees, is above 0. Raises: DefinitionError HR-0605."""
    settings: dict[str, Setting] = {
        "n_estimators": _count("n_estimators", n_estimators, 1),
        "num_leaves": _count("num_leaves", num_leaves, 2),
        "max_depth": None if max_depth is None else _count("max_depth", max_depth, 1),
        "learning_rate": _number("learning_rate", learning_rate, above=0),
        "min_child_samples": _count("min_child_samples", min_child_samples, 0),
        "min_child_weight": _number("min_child_weight", min_child_weight, least=0),
        "min_split_gain": _number("min_split_gain", min_split_gain, least=0),
        "subsample": _number("subsample", subsample, above=0, most=1),
        "subsample_freq": _count("subsample_freq", subsample_freq, 0),
        "colsample_bytree": _number("colsample_bytree", colsample_bytree, above=0, most=1),
        "reg_lambda": _number("reg_lambda", reg_lambda, least=0),
        "reg_alpha": _number("reg_alpha", reg_alpha, least=0),
        "scale_pos_weight": _number("scale_pos_weight", scale_pos_weight, above=0),
        "max_bin": _count("max_bin", max_bin, 2),
    }
    return _trainer(Method.LIGHTGBM, settings, standardize, seed)


def _tree_settings(
    max_depth: int | None, min_samples_leaf: int, min_samples_split: int, criterion: str, class_weight: str | None
) -> dict[str, Setting]:
    return {
        "max_depth": None if max_depth is None else _count("max_depth", max_depth, 1),
        "min_samples_leaf": _count("min_samples_leaf", min_samples_leaf, 1),
        "min_samples_split": _count("min_samples_split", min_samples_split, 2),
        "criterion": _choice("criterion", criterion, "gini", "entropy", "log_loss"),
        "class_weight": _choice("class_weight", class_weight, None, "balanced"),
    }


def _trainer(method: Method, settings: Mapping[str, Setting], standardize: bool, seed: int) -> Trainer:
    if not isinstance(standardize, bool):
        raise _unfit("standardize", standardize, "True or False")
    return Trainer(
        method=method,
        settings=tuple(sorted(settings.items())),
        standardize=standardize,
        seed=_count("seed", seed, 0),
    )


def _count(name: str, value: int, least: int) -> int:
    # Above 2**31 - 1 the libraries' own C integers end.
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
        raise _unfit(name, value, f"an integer of at least {least}")
    return value


def _number(
    name: str,
    value: float,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> float:
    bounds = (("at least", least), ("above", above), ("at most", most), ("below", below))
    said = " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
    if not fits or not (
        (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    ):
        raise _unfit(name, value, f"a number {said}")
    return float(value)


def _choice(name: str, value: Setting, *choices: str | None) -> Setting:
    if value not in choices:
        raise _unfit(name, value, " or ".join(repr(c) for c in choices))
    return value


def _unfit(name: str, value: object, expected: str) -> DefinitionError:
    return DefinitionError("HR-0605", f"trainer setting {name}={value!r}", detail=f"expected {expected}", setting=name)


# --- inputs and label ---


def _origin(model: str, label: Label | Reference) -> str:
    """The topic whose events carry the label."""
    if isinstance(label, Label):
        if label.type != schema.boolean:
            raise DefinitionError(
                "HR-0604",
                f"model {model!r}: label {label.name!r} is {label.type}",
                detail="expected boolean: the score is the probability that it is true",
                hint="declare a label whose value= is a condition",
            )
        return label.of.name
    late = isinstance(label, Reference) and label.source is Source.FIELD and label.availability.late
    if not late:
        said = describe(label) if isinstance(label, Expr) else repr(label)
        raise DefinitionError(
            "HR-0604",
            f"model {model!r}: {said} cannot be its label",
            detail="expected an hr.Label, or a column of the request's topic that declares available_after",
            hint="a truth that comes later says so: hr.field(hr.boolean, available_after='7d')",
        )
    if label.type != schema.boolean:
        raise DefinitionError(
            "HR-0604", f"model {model!r}: label {label.path!r} is {label.type}", detail="expected boolean"
        )
    return label.owner


def _inputs(model: str, topic: str, features: Sequence[LearnedFrom]) -> tuple[Input, ...]:
    made: list[Input] = []
    for given in features:
        if isinstance(given, FeatureView):
            made.extend(_input(model, topic, f.expression) for f in given.features)
        else:
            made.append(_input(model, topic, to_expr(given)))
    if not 1 <= len(made) <= INPUTS_MAX:
        raise DefinitionError(
            "HR-0606", f"model {model!r} has {len(made)} inputs", detail=f"expected 1 to {INPUTS_MAX}"
        )
    seen: set[str] = set()
    for one in made:
        if one.name in seen:
            raise DefinitionError(
                "HR-0602",
                f"model {model!r} has two inputs named {one.name!r}",
                hint="list it once, or name one of them: (...).named('...')",
                input=one.name,
            )
        seen.add(one.name)
    return tuple(made)


def _input(model: str, topic: str, expr: Expr) -> Input:
    name = _input_name(model, expr)
    where = f"model {model!r}: input {name!r}"
    check_known(where, expr, (model,))
    for reference in references(expr):
        if reference.source is Source.SCORE:
            raise DefinitionError("HR-0603", f"{where} reads a score", detail="expected fields and features")
        if reference.source is Source.FIELD and reference.owner != topic:
            raise DefinitionError(
                "HR-0603",
                f"{where} reads {reference.path!r}, which is not of topic {topic!r}",
                detail="expected fields of the topic whose events are scored, and features",
                hint="what other topics know enters through a feature view: hr.lookup(...), hr.last(...)",
            )
    if expr.type.kind not in _TAKEN:
        raise DefinitionError(
            "HR-0601",
            f"{where} is {expr.type}",
            detail="expected a number, a boolean or a duration",
            hint=_INSTEAD[expr.type.kind],
            input=name,
        )
    return Input(name=name, expr=expr)


def _where(model: str, topic: str, expr: Expr) -> Expr:
    what = f"model {model!r}: where"
    check_known(what, expr, (model,))
    for reference in references(expr):
        if reference.source is not Source.FIELD or reference.owner != topic:
            raise DefinitionError(
                "HR-0615",
                f"{what} reads {reference.path!r}",
                detail=f"expected fields of topic {topic!r}, whose events are scored",
                hint="what a view or a score says is no choice of training rows: make it an input",
            )
    if expr.type.kind is not Kind.BOOLEAN:
        raise DefinitionError(
            "HR-0615", f"{what} is {expr.type}", detail=f"expected a condition, seen {describe(expr)}"
        )
    return expr


def _input_name(model: str, expr: Expr) -> str:
    match expr:
        case Named(name=name):
            return name
        case Reference(source=Source.FEATURE):
            return expr.path
        case Reference(name=name):
            return name
        case Call(op=op, args=(Reference(name=name),)):
            return f"{op}_{name}"  # hr.hour(applications.created_at) is hour_created_at
    raise DefinitionError(
        "HR-0602",
        f"model {model!r}: an input has no name",
        detail=f"seen {describe(expr)}",
        hint="name it: (...).named('amount_vs_mean')",
    )


def check_known(where: str, expr: Expr, path: tuple[str, ...]) -> None:
    """A value of a request must be known at the request: no late column, no label, not inside an expression either.

    where: kind and name of what reads it. path: what the error's path ends in. Raises: LeakError HR-0201, MaturityError
    HR-0202.
    """
    late = expr.availability
    if not late.late:
        return
    label = late.why is Lateness.LABEL
    kind = MaturityError if label else LeakError
    whole = (*late.path, *path)
    raise kind(
        "HR-0202" if label else "HR-0201",
        f"{where} is known only later",
        detail=f"it {'matures' if label else 'is known'} {late.after} after its event, and is asked for at the event; "
        f"path: {' -> '.join(whole)}",
        hint="aggregate it over a window that waits: hr.rate(...).over('30d'), which delays by its maturity",
        path=whole,
        needed=late.after,
    )
