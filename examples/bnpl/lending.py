"""What becomes of each application: its plan, instalments, refunds, chargebacks, and how late the lender hears of it.

The one idea: a plan's whole course is decided first (which instalment is never paid, which payment fails once), and its
events follow from that, so that what the generator knows and what events say can be compared. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from draws import Draws, Floats, Integers, logistic
from market import (
    CATEGORIES,
    DAY,
    DRIFT_FROM,
    END,
    HOUR,
    MINUTE,
    NONE,
    SECOND,
    STACKING,
    Applications,
    Customers,
    Flags,
    Merchants,
)

INSTALMENTS = 4
APART = 14 * DAY
RETRIES = (0, 3 * DAY, 7 * DAY)  # after an instalment is due
TROUBLE = 45 * DAY
NEVER = END + 10_000 * DAY

INCIDENT_FROM = END - 70 * DAY  # so that applications which could not see its reports have matured by the end
INCIDENT_UNTIL = INCIDENT_FROM + 36 * HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Of each application. unpaid_from: the first instalment that is never paid, 5 where all are. charged_back_at,
    refunded_at: NEVER where not. friendly: the chargeback is a customer's dispute and no fraud. refunded: the
    share of what is still owed that a refund takes off. exposure: what the customer owed by schedule, in cents."""

    unpaid_from: Integers
    slips: Flags  # n x 4: the first try fails and a later one succeeds
    slips_twice: Flags
    charged_back_at: Integers
    friendly: Flags
    refunded_at: Integers
    refunded: Floats
    exposure: Integers

    @property
    def defaulted(self) -> Flags:
        return self.unpaid_from <= INSTALMENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Of one topic, in order of time. application: the index of the one they belong to. amount, paid: cents."""

    at: Integers
    arrived_at: Integers
    application: Integers
    amount: Integers
    paid: Integers
    instalment: Integers
    attempt: Integers


def make_course(
    draws: Draws, applications: Applications, customers: Customers, merchants: Merchants, *, drift: bool
) -> Course:
    """What will become of each."""
    count = len(applications)
    fraud = applications.fraud != NONE
    exposure = scheduled_exposure(applications)
    customer = applications.customer
    troubled = (applications.at >= customers.distress[customer] - 28 * DAY) & (
        applications.at < customers.distress[customer] + TROUBLE
    )
    odds = _default_odds(applications, customers, merchants, exposure, troubled, drift=drift)
    defaults = draws.happens(count, logistic(odds)) & ~fraud
    first_unpaid = 2 + draws.pick(count, np.array([0.45, 0.3, 0.25]))
    unpaid_from = np.where(defaults, first_unpaid, INSTALMENTS + 1)
    unpaid_from = np.where(applications.fraud == STACKING, 2, unpaid_from)

    reported = fraud & draws.happens(count, 0.92)
    friendly = ~fraud & draws.happens(count, 0.002)
    share = draws.uniform(count)
    delay = DAY // SECOND * (1 + 23.9 * share * share)  # seconds: 1 to 25 days, most of them within ten
    charged_back_at = applications.at + delay.astype(np.int64) * SECOND
    charged_back_at = np.where(reported | friendly, charged_back_at, NEVER)

    refunded = ~fraud & ~defaults & draws.happens(count, 0.05)
    refunded_at = applications.at + 2 * DAY + draws.below(count, 18 * DAY)
    parts = np.where(draws.happens(count, 0.6), 1.0, 0.2 + draws.below(count, 40) / 100)

    propensity = logistic(-3.0 + 0.7 * customers.risk[customer] + 1.3 * troubled)
    slips = draws.uniform(INSTALMENTS * count).reshape(count, INSTALMENTS) < propensity[:, None]
    slips &= ~(fraud | refunded)[:, None]  # a plan that is cut off must not end in a payment that failed once
    slips[:, 0] = False
    twice = slips & (draws.uniform(INSTALMENTS * count).reshape(count, INSTALMENTS) < 0.25)
    return Course(
        unpaid_from=unpaid_from,
        slips=slips,
        slips_twice=twice,
        charged_back_at=charged_back_at,
        friendly=friendly,
        refunded_at=np.where(refunded, refunded_at, NEVER),
        refunded=np.where(refunded, parts, 0.0),
        exposure=exposure,
    )


def _default_odds(
    applications: Applications,
    customers: Customers,
    merchants: Merchants,
    exposure: Integers,
    troubled: Flags,
    *,
    drift: bool,
) -> Floats:
    """Log odds. A third of it stands in attributes, a third shows in how plans are being paid, a third nobody sees."""
    customer = applications.customer
    used = (exposure + applications.amount) / customers.limit[customer]
    known_for = np.clip((applications.at - customers.signed_up[customer]) / (90 * DAY), 0.0, 1.0)
    kind = np.array([c[4] for c in CATEGORIES])[merchants.category[applications.merchant]]
    odds = -3.6 + 0.75 * customers.risk[customer] + 0.9 * np.clip(used, 0.0, 2.5) + 2.1 * troubled
    odds = odds + 0.4 * customers.thin_file[customer] - 0.7 * known_for + 1.5 * kind
    return odds + np.where((applications.at >= DRIFT_FROM) & drift, 0.7, 0.0)


def scheduled_exposure(applications: Applications) -> Integers:
    """What the customer owes by schedule of earlier applications when each is made, in cents."""
    count = len(applications)
    quarter = applications.amount // INSTALMENTS
    first = applications.amount - 3 * quarter
    at = np.concatenate([applications.at + k * APART + (1 if k == 0 else 0) for k in range(INSTALMENTS)])
    change = np.concatenate([applications.amount - first, -quarter, -quarter, -quarter])
    customer = np.concatenate([applications.customer] * INSTALMENTS)
    # An application is asked before what it adds: its own question stands a microsecond before.
    at = np.concatenate([at, applications.at])
    customer = np.concatenate([customer, applications.customer])
    change = np.concatenate([change, np.zeros(count, np.int64)])
    order = np.lexsort((at, customer))
    running = np.cumsum(change[order])  # each customer's changes end at 0, so customers do not disturb each other
    asked = np.empty(len(order), np.int64)
    asked[order] = running
    return asked[INSTALMENTS * count :]


def instalments(applications: Applications, course: Course) -> Integers:
    """n x 4, cents; the first has what does not divide."""
    quarter = applications.amount // INSTALMENTS
    return np.stack([applications.amount - 3 * quarter, quarter, quarter, quarter], axis=1)


def make_plans(draws: Draws, applications: Applications) -> Events:
    count = len(applications)
    at = applications.at + SECOND + draws.below(count, 3 * SECOND)
    return _events(at, at + SECOND // 5, np.arange(count), applications.amount)


def make_refunds(draws: Draws, applications: Applications, course: Course) -> Events:
    """Of what is still owed by schedule; what was paid already goes back by another way, which is not modelled."""
    owed = np.where(_due(applications) > course.refunded_at[:, None], instalments(applications, course), 0)
    amount = _taken_off(owed, course).sum(axis=1)
    which = np.flatnonzero((course.refunded_at < END) & (amount > 0))
    at = course.refunded_at[which]
    return _events(at, at + 2 * SECOND + draws.below(len(which), 60 * SECOND), which, amount[which])


def make_chargebacks(applications: Applications, course: Course) -> Events:
    """The bank's file comes each morning at six."""
    which = np.flatnonzero(course.charged_back_at < END)
    at = course.charged_back_at[which]
    morning = (at - 6 * HOUR) // DAY * DAY + DAY + 6 * HOUR
    return _events(at, morning, which, applications.amount[which])


def make_repayments(draws: Draws, applications: Applications, course: Course) -> Events:
    """One event a try. The first instalment is taken at the checkout and never fails."""
    count = len(applications)
    due = _due(applications)
    jitter = draws.below(INSTALMENTS * count, 6 * HOUR).reshape(count, INSTALMENTS)
    jitter[:, 0] = 4 * SECOND + jitter[:, 0] % (20 * SECOND)
    owed = instalments(applications, course)
    owed = owed - np.where(due > course.refunded_at[:, None], _taken_off(owed, course), 0)
    unpaid = np.arange(1, INSTALMENTS + 1)[None, :] >= course.unpaid_from[:, None]
    failed = (course.slips | unpaid, course.slips_twice | unpaid, unpaid)
    tried = (np.ones_like(unpaid), failed[0], failed[1])
    cancelled = np.where(course.friendly, NEVER, course.charged_back_at)[:, None]
    tables: list[tuple[Integers, ...]] = []
    for attempt, (later, fails, happens) in enumerate(zip(RETRIES, failed, tried, strict=True), 1):
        at = due + later + jitter
        place, instalment = np.nonzero(happens & (at < cancelled) & (at < END) & (owed > 0))
        amount = owed[place, instalment]
        paid = np.where(fails[place, instalment], 0, amount)
        tables.append(
            (at[place, instalment], place, amount, paid, instalment + 1, np.full(len(place), attempt, np.int64))
        )
    at, place, amount, paid, instalment, attempt_of = (np.concatenate(columns) for columns in zip(*tables, strict=True))
    return _events(at, at + SECOND // 2 + draws.below(len(at), 5 * SECOND), place, amount, paid, instalment, attempt_of)


def late(draws: Draws, events: Events) -> Events:
    """The same events, of which those of the incident arrive after it."""
    hit = (events.at >= INCIDENT_FROM) & (events.at < INCIDENT_UNTIL)
    after = INCIDENT_UNTIL + 10 * MINUTE + draws.below(len(events.at), 2 * HOUR)
    fields = {name: getattr(events, name) for name in events.__slots__}
    fields["arrived_at"] = np.where(hit, np.maximum(after, events.arrived_at), events.arrived_at)
    return Events(**fields)


def _due(applications: Applications) -> Integers:
    return applications.at[:, None] + APART * np.arange(INSTALMENTS)[None, :]


def _taken_off(owed: Integers, course: Course) -> Integers:
    return np.where(course.refunded[:, None] == 1.0, owed, np.rint(owed * course.refunded[:, None]).astype(np.int64))


def _events(
    at: Integers,
    arrived_at: Integers,
    application: Integers,
    amount: Integers,
    paid: Integers | None = None,
    instalment: Integers | None = None,
    attempt: Integers | None = None,
) -> Events:
    """In order of time, those before the end."""
    order = np.argsort(at, kind="stable")
    order = order[at[order] < END]
    nothing = np.zeros(len(at), np.int64)
    return Events(
        at=at[order],
        arrived_at=arrived_at[order],
        application=application[order],
        amount=amount[order],
        paid=(nothing if paid is None else paid)[order],
        instalment=(nothing if instalment is None else instalment)[order],
        attempt=(nothing if attempt is None else attempt)[order],
    )
