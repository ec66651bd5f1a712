"""Field types and schemas: what a value may be, and how it looks in Arrow. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from headrace.core.errors import DefinitionError, did_you_mean
from headrace.core.times import Duration

DECIMAL_PRECISION_MAX = 18  # a unit count of 18 digits fits int64, the kernel's word; sums are wider (SEMANTICS 3.2)


class Kind(enum.Enum):
    """The closed set of value kinds."""

    STRING = "string"
    INT64 = "int64"
    FLOAT64 = "float64"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    DURATION = "duration"
    DECIMAL = "decimal"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class DataType:
    """A value's type. precision, scale: of DECIMAL only. item: of LIST only."""

    kind: Kind
    precision: int = 0
    scale: int = 0
    item: DataType | None = None

    def __str__(self) -> str:
        if self.kind is Kind.DECIMAL:
            return f"decimal({self.precision}, {self.scale})"
        return f"list<{self.item}>" if self.kind is Kind.LIST else self.kind.value

    @property
    def numeric(self) -> bool:
        return self.kind in (Kind.INT64, Kind.FLOAT64, Kind.DECIMAL)

    @property
    def arrow(self) -> pa.DataType:
        """The one Arrow type that carries it: strings utf8, instants timestamp[us, UTC], decimals decimal128."""
        match self.kind:
            case Kind.STRING:
                return pa.string()
            case Kind.INT64:
                return pa.int64()
            case Kind.FLOAT64:
                return pa.float64()
            case Kind.BOOLEAN:
                return pa.bool_()
            case Kind.TIMESTAMP:
                return pa.timestamp("us", tz="UTC")
            case Kind.DURATION:
                return pa.int64()  # microseconds; Arrow's duration is refused by Parquet readers too often
            case Kind.DECIMAL:
                return pa.decimal128(self.precision, self.scale)
            case Kind.LIST:
                assert self.item is not None
                return pa.list_(self.item.arrow)


string = DataType(Kind.STRING)
int64 = DataType(Kind.INT64)
float64 = DataType(Kind.FLOAT64)
boolean = DataType(Kind.BOOLEAN)
timestamp = DataType(Kind.TIMESTAMP)
duration = DataType(Kind.DURATION)


def decimal(precision: int, scale: int) -> DataType:
    """An exact decimal of at most `precision` digits, `scale` of them behind the point. Money is this, not float64."""
    if not (1 <= precision <= DECIMAL_PRECISION_MAX and 0 <= scale <= precision):
        raise DefinitionError(
            "HR-0104",
            f"decimal({precision}, {scale}) cannot be declared",
            detail=f"expected 1 <= precision <= {DECIMAL_PRECISION_MAX} and 0 <= scale <= precision",
        )
    return DataType(Kind.DECIMAL, precision=precision, scale=scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A named, typed place in an event.

    required: null is refused. minimum, maximum: the declared range, in the field's own unit (for a decimal a text or an
    int is exact); values outside are refused. available_after: the truth of this column comes later (SEMANTICS 4.1).
    """

    name: str
    type: DataType
    required: bool = False
    minimum: int | float | str | None = None
    maximum: int | float | str | None = None
    available_after: Duration | None = None
    description: str = ""

    @property
    def arrow(self) -> pa.Field:
        return pa.field(self.name, self.type.arrow, nullable=not self.required)


def field(
    type: DataType,
    *,
    required: bool = False,
    minimum: int | float | str | None = None,
    maximum: int | float | str | None = None,
    available_after: str | Duration | None = None,
    description: str = "",
) -> Field:
    """A field with more to say than its type; its name is given by the topic that holds it."""
    after = None if available_after is None else Duration.parse(available_after)
    return Field(
        name="",
        type=type,
        required=required,
        minimum=minimum,
        maximum=maximum,
        available_after=after,
        description=description,
    )


@dataclass(frozen=True, slots=True)
class Schema:
    """Fields in declared order; names are unique."""

    owner: str
    fields: tuple[Field, ...]

    @classmethod
    def of(cls, owner: str, fields: Mapping[str, DataType | Field]) -> Schema:
        """From {"name": type or hr.field(...)}. Raises: DefinitionError HR-0101 for a name that cannot be one."""
        made = []
        for name, declared in fields.items():
            if not name.isidentifier() or name.startswith("_"):
                raise DefinitionError(
                    "HR-0101",
                    f"{owner}: {name!r} cannot name a field",
                    detail="expected a Python identifier without leading _",
                )
            match declared:
                case DataType():
                    made.append(Field(name=name, type=declared))
                case Field():
                    made.append(
                        Field(
                            name=name,
                            type=declared.type,
                            required=declared.required,
                            minimum=declared.minimum,
                            maximum=declared.maximum,
                            available_after=declared.available_after,
                            description=declared.description,
                        )
                    )
                case _:
                    raise DefinitionError(
                        "HR-0105",
                        f"{owner}.{name}: {declared!r} is not a type",
                        detail="expected hr.string, hr.int64, hr.float64, hr.boolean, hr.timestamp, hr.decimal(p, s) "
                        "or hr.field(...)",
                    )
        return cls(owner, tuple(made))

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __contains__(self, name: object) -> bool:
        return any(f.name == name for f in self.fields)

    def __getitem__(self, name: str) -> Field:
        for f in self.fields:
            if f.name == name:
                return f
        raise DefinitionError(
            "HR-0106",
            f"{self.owner} has no field {name!r}",
            hint=did_you_mean(name, self.names),
            owner=self.owner,
            field=name,
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields)

    @property
    def arrow(self) -> pa.Schema:
        return pa.schema([f.arrow for f in self.fields])
