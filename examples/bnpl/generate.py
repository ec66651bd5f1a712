"""A buy-now-pay-later lender's eight months, from a seed: events by topic, and the truth about them kept apart.

    python examples/bnpl/generate.py --out build/bnpl --scale 1 --seed 0
    python examples/bnpl/generate.py --out build/bnpl --drift --late-incident

Scale 1 is some half a million events of 80,000 applications. Writes OUT/TOPIC.parquet for customers, merchants,
devices, applications, plans, repayments, refunds and chargebacks, each with a column `arrived_at`, the instant at which
the lender had the event; and OUT/truth.parquet, which no definition reads. The same seed and options give the same
values on every machine (draws.py).

What is modelled. Days of the week, hours of the day, growth. Customers who buy more or less, old ones and new ones;
merchants of which few sell most, in eight categories with amounts of their own; phones, second devices, new phones,
households on one device. Plans of four instalments two weeks apart, the first at the checkout; payments that fail and
succeed on a retry; refunds in whole or in part. Three kinds of fraud: an account taken over (an old customer, a device
that other victims' purchases came from, dear things that are easy to sell, at any hour), a compromised merchant (for
one to three weeks fraudulent purchases on its customers' accounts), stacking (made-up customers who apply at many
merchants within four days and never pay). Nine in ten frauds come back as a chargeback, 1 to 25 days later,
reported by the bank the next morning; some chargebacks are no fraud. Credit default: by a risk that nobody sees, by a
time of trouble that shows in payments first, by how much of the limit is used, by tenure and category. It is known by
unpaid instalments, weeks later.

--drift: after five months things are dearer, more customers default, and more takeovers come from the victim's own
device. --late-incident: seventy days before the end, all that payments, refunds and banks report within 36 hours
arrives after these 36 hours; what happened, and when, is the same.

What is not modelled. Every application of the past got its plan: what would have become of a refused one is unknown
here as anywhere, and nothing pretends to know it. No interest, late fees, partial payments or collections after the
third try; limits are never changed by how one pays; merchants neither fail nor grow; fraudsters do not learn from what
is declined; seasons, holidays and time zones.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent))

import lending
import market
from draws import Draws, Integers
from market import CATEGORIES, CHANNELS, DAY, FRAUDS, NONE, REGIONS, SECOND, SYSTEMS

TOPICS = ("customers", "merchants", "devices", "applications", "plans", "repayments", "refunds", "chargebacks")
_INSTANT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """scale: 1 is some 80,000 applications. drift, late_incident: as the module says."""

    scale: float = 1.0
    seed: int = 0
    drift: bool = False
    late_incident: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that happened. tables: by topic. truth: one row an application."""

    tables: dict[str, pa.Table]
    truth: pa.Table

    @property
    def events(self) -> int:
        return sum(table.num_rows for table in self.tables.values())


def generate(options: Options) -> World:
    """All of it, from the seed alone."""
    draws = [Draws(options.seed, part) for part in range(12)]
    count = max(500, round(76_000 * options.scale))
    rings = market.make_rings(draws[0], max(3, round(26 * options.scale)))
    customers = market.make_customers(draws[1], max(150, round(14_000 * options.scale)), rings)
    merchants = market.make_merchants(draws[2], max(60, round(600 * options.scale**0.5)))
    made = market.make_applications(draws[3], draws[4], count, customers, merchants, rings, drift=options.drift)
    course = lending.make_course(draws[5], made, customers, merchants, drift=options.drift)
    events = {
        "plans": lending.make_plans(draws[6], made),
        "repayments": lending.make_repayments(draws[7], made, course),
        "refunds": lending.make_refunds(draws[8], made, course),
        "chargebacks": lending.make_chargebacks(made, course),
    }
    if options.late_incident:
        for name in ("repayments", "refunds", "chargebacks"):
            events[name] = lending.late(draws[9], events[name])
    device, devices = _devices(draws[10], made)
    tables = {
        "customers": _customers(draws[11], customers),
        "merchants": _merchants(merchants),
        "devices": devices,
        "applications": _applications(made, device),
        **{name: _of_plan(name, held, made) for name, held in events.items()},
    }
    return World(tables=tables, truth=_truth(made, course))


def write(world: World, folder: Path) -> None:
    """A file a topic, and the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in {**world.tables, "truth": world.truth}.items():
        pq.write_table(table, folder / f"{name}.parquet")


# --- tables ---


def _customers(draws: Draws, customers: market.Customers) -> pa.Table:
    """A customer's first event, and for one in twelve a later one with a higher limit."""
    count = len(customers.signed_up)
    raised = np.flatnonzero(draws.happens(count, 1 / 12) & (customers.ring < 0))
    later = customers.signed_up[raised] + 30 * DAY + draws.below(len(raised), 200 * DAY)
    raised, later = raised[later < market.END], later[later < market.END]
    which = np.concatenate([np.arange(count), raised])
    at = np.concatenate([customers.signed_up, later])
    limit = np.concatenate([customers.limit, customers.limit[raised] * 3 // 2])
    order = np.argsort(at, kind="stable")
    which, at, limit = which[order], at[order], limit[order]
    return pa.table(
        {
            "change_id": np.arange(1, len(at) + 1),
            "customer_id": which + 1,
            "changed_at": _instants(at),
            "signed_up_at": _instants(customers.signed_up[which]),
            "region": _words(REGIONS, customers.region[which]),
            "income_band": customers.income_band[which],
            "thin_file": customers.thin_file[which],
            "credit_limit": _money(limit),
            "arrived_at": _instants(at),
        }
    )


def _merchants(merchants: market.Merchants) -> pa.Table:
    order = np.argsort(merchants.onboarded, kind="stable")
    return pa.table(
        {
            "merchant_id": order + 1,
            "onboarded_at": _instants(merchants.onboarded[order]),
            "category": _words([c[0] for c in CATEGORIES], merchants.category[order]),
            "region": _words(REGIONS, merchants.region[order]),
            "verified": merchants.verified[order],
            "arrived_at": _instants(merchants.onboarded[order]),
        }
    )


def _devices(draws: Draws, made: market.Applications) -> tuple[Integers, pa.Table]:
    """Each application's device id, and the devices in order of their first use. Thieves' are emulators more often."""
    _, first, inverse = np.unique(made.device, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(1, len(first) + 1)
    opens = np.sort(first)
    seen = made.at[opens] - SECOND
    stolen = (made.fraud[opens] != NONE) & (made.device[opens] >= 3 * (made.customer.max() + 1))
    table = pa.table(
        {
            "device_id": np.arange(1, len(opens) + 1),
            "first_seen_at": _instants(seen),
            "system": _words(SYSTEMS, draws.pick(len(opens), np.array([0.42, 0.33, 0.17, 0.08]))),
            "emulator": draws.happens(len(opens), np.where(stolen, 0.12, 0.008)),
            "arrived_at": _instants(seen),
        }
    )
    return rank[inverse], table


def _applications(made: market.Applications, device: Integers) -> pa.Table:
    return pa.table(
        {
            "application_id": np.arange(1, len(made) + 1),
            "created_at": _instants(made.at),
            "customer_id": made.customer + 1,
            "merchant_id": made.merchant + 1,
            "device_id": device,
            "amount": _money(made.amount),
            "items": made.items,
            "channel": _words(CHANNELS, made.channel),
            "new_address": made.new_address,
            "arrived_at": _instants(made.at),
        }
    )


def _of_plan(topic: str, events: lending.Events, made: market.Applications) -> pa.Table:
    id_name, at_name = {
        "plans": ("plan_id", "opened_at"),
        "repayments": ("repayment_id", "tried_at"),
        "refunds": ("refund_id", "refunded_at"),
        "chargebacks": ("chargeback_id", "reported_at"),
    }[topic]
    columns: dict[str, object] = {
        id_name: np.arange(1, len(events.at) + 1),
        at_name: _instants(events.at),
        "application_id": events.application + 1,
        "customer_id": made.customer[events.application] + 1,
        "merchant_id": made.merchant[events.application] + 1,
        "amount": _money(events.amount),
    }
    if topic == "plans":
        columns["instalments"] = np.full(len(events.at), lending.INSTALMENTS, np.int64)
    if topic == "repayments":
        columns["instalment"], columns["attempt"] = events.instalment, events.attempt
        columns["paid"] = _money(events.paid)
        columns["failed"] = events.paid == 0
    columns["arrived_at"] = _instants(events.arrived_at)
    return pa.table(columns)


def _truth(made: market.Applications, course: lending.Course) -> pa.Table:
    """fraud: its kind, null for none. defaults: whether instalments stay unpaid, whatever the lender heard of it so
    far. charged_back_at: null for never."""
    return pa.table(
        {
            "application_id": np.arange(1, len(made) + 1),
            "created_at": _instants(made.at),
            "fraud": pa.array([FRAUDS[kind] for kind in made.fraud.tolist()], pa.string()),
            "defaults": course.defaulted,
            "charged_back_at": pa.array(
                course.charged_back_at, pa.int64(), mask=course.charged_back_at >= lending.NEVER
            ).cast(_INSTANT),
        }
    )


def _instants(at: Integers) -> pa.Array:
    return pa.array(at, pa.int64()).cast(_INSTANT)


def _money(cents: Integers) -> pa.Array:
    """decimal128(12, 2) of cents: its 128-bit words are written as they are, the sign in the upper half."""
    words = np.stack([cents, cents >> 63], axis=1)
    return pa.Array.from_buffers(pa.decimal128(12, 2), len(cents), [None, pa.py_buffer(words.astype("<i8").tobytes())])


def _words(words: list[str] | tuple[str, ...], index: Integers) -> pa.Array:
    return pa.array(words, pa.string()).take(pa.array(index))


def main() -> None:
    parser = argparse.ArgumentParser(description="A buy-now-pay-later lender's events, from a seed.")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the Parquet files")
    add_options(parser)
    arguments = parser.parse_args()
    world = generate(chosen(arguments))
    write(world, arguments.out)
    for name, table in world.tables.items():
        print(f"{name:14} {table.num_rows:>9,}")
    print(f"{'events':14} {world.events:>9,}")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scale", type=float, default=1.0, help="1 is some half a million events")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drift", action="store_true", help="amounts, defaults and takeovers change after five months")
    parser.add_argument("--late-incident", action="store_true", help="36 hours of reports arrive after they are over")


def chosen(arguments: argparse.Namespace) -> Options:
    return Options(
        scale=arguments.scale, seed=arguments.seed, drift=arguments.drift, late_incident=arguments.late_incident
    )


if __name__ == "__main__":
    main()
