"""Who buys what, where, on which device: the lender's customers, merchants, devices and applications, fraud among them.

Every attribute stands in an array by index; ids are given in order of time at the end, so that an id tells no more than
a real one would. What is modelled, and what is not, is said in generate.py. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from draws import Draws, Floats, Integers

Flags = npt.NDArray[np.bool_]

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND
BEGIN = 1_740_960_000 * SECOND  # 2025-03-03T00:00:00Z, a Monday
DAYS = 240
END = BEGIN + DAYS * DAY
DRIFT_FROM = BEGIN + 150 * DAY

NONE, TAKEOVER, MERCHANT, STACKING = range(4)
FRAUDS = (None, "account_takeover", "merchant_compromise", "application_stacking")

WEEKDAYS = (0.85, 0.85, 0.9, 1.0, 1.2, 1.25, 0.95)
HOURS = (3, 2, 1, 1, 1, 2, 5, 10, 18, 26, 32, 36, 40, 36, 33, 33, 36, 42, 50, 58, 60, 46, 26, 10)
# name, median amount, spread (of its logarithm), share of merchants, what it does to the log odds of a default
CATEGORIES = (
    ("fashion", 68, 0.55, 0.30, 0.0),
    ("electronics", 240, 0.70, 0.12, 0.25),
    ("home", 120, 0.65, 0.18, -0.15),
    ("beauty", 45, 0.45, 0.14, 0.0),
    ("sports", 82, 0.55, 0.10, -0.1),
    ("travel", 310, 0.60, 0.05, 0.1),
    ("gift_cards", 95, 0.50, 0.03, 0.5),
    ("groceries", 38, 0.40, 0.08, 0.15),
)
EASY_TO_SELL = (1, 6)  # electronics and gift cards: what a thief buys
REGIONS = ("north", "east", "south", "west", "capital", "islands")
SYSTEMS = ("ios", "android", "windows", "macos")
CHANNELS = ("app", "web", "store")


@dataclass(frozen=True, slots=True, kw_only=True)
class Customers:
    """By index, in order of `signed_up`. weight: how much they buy; 0 for those whom a fraudster made up. wealth,
    risk: what nobody sees, of mean 0. ring: of made-up customers, else -1. distress: when a time of trouble
    begins. phone: the device; new_phone_at: when another one takes its place."""

    signed_up: Integers
    weight: Floats
    wealth: Floats
    risk: Floats
    ring: Integers
    distress: Integers
    thin_file: Flags
    income_band: Integers
    region: Integers
    limit: Integers  # cents
    phone: Integers
    new_phone_at: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Merchants:
    """By index, the largest first."""

    onboarded: Integers
    weight: Floats
    category: Integers
    verified: Flags
    region: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Applications:
    """In order of time. customer, merchant: indexes. device: any number that is the device's own. amount: cents. fraud:
    an index into FRAUDS."""

    at: Integers
    customer: Integers
    merchant: Integers
    device: Integers
    amount: Integers
    channel: Integers
    items: Integers
    new_address: Flags
    fraud: Integers

    def take(self, places: Integers) -> Applications:
        return Applications(**{name: getattr(self, name)[places] for name in self.__slots__})

    def __len__(self) -> int:
        return len(self.at)


def times(draws: Draws, count: int, *, at_night: bool = False, drift: float = 1.0) -> Integers:
    """Instants by the rhythm of days and hours and the lender's growth. at_night: any hour is as good as another.
    drift: how much more there is after DRIFT_FROM."""
    days = np.arange(DAYS)
    weights = (1 + 0.8 * days / DAYS) * np.array(WEEKDAYS)[days % 7]
    weights = np.where(BEGIN + days * DAY >= DRIFT_FROM, weights * drift, weights)
    hours = np.ones(24) if at_night else np.array(HOURS, np.float64)
    day, hour = draws.pick(count, weights), draws.pick(count, hours)
    return BEGIN + day * DAY + hour * HOUR + draws.below(count, HOUR)


def make_rings(draws: Draws, count: int) -> Integers:
    """When each ring begins. One of them is busy in the last days, for whoever decides the newest applications."""
    rings = times(draws, count)
    rings[0] = END - 3 * DAY
    return rings


def make_customers(draws: Draws, count: int, rings: Integers) -> Customers:
    """count: of real ones, six in ten of whom were there before. rings: when each ring of made-up customers begins."""
    old = int(0.6 * count)
    signed_up = np.concatenate([BEGIN - draws.below(old, 400 * DAY) - HOUR, times(draws, count - old)])
    sizes = 3 + draws.below(len(rings), 4)
    ring = np.repeat(np.arange(len(rings)), sizes)
    made_up = rings[ring] - 10 * MINUTE - draws.below(len(ring), 20 * DAY)
    total = count + len(ring)
    wealth, risk = draws.normal(total), draws.normal(total)
    taste = draws.uniform(total)
    weight = np.where(np.arange(total) < count, 1 / np.sqrt(0.002 + taste), 0.0)
    thin = draws.happens(total, np.where(risk > 0.8, 0.35, 0.12)) | (np.arange(total) >= count)
    band = np.clip(np.floor(3 + wealth + 0.5 * draws.normal(total)), 1, 5).astype(np.int64)
    steps = np.clip(np.rint(18 + 7 * wealth - 4 * risk - 5 * thin), 6, 60).astype(np.int64)
    # A riskier customer is likelier to fall into trouble, and does so at a time that no attribute tells.
    troubled = draws.happens(total, np.clip(0.07 + 0.06 * risk, 0.01, 0.4))
    distress = np.where(troubled, BEGIN - 20 * DAY + draws.below(total, (DAYS + 20) * DAY), END + 365 * DAY)
    order = np.argsort(np.concatenate([signed_up, made_up]), kind="stable")
    shares = draws.happens(total, 1 / 16)  # a neighbour's device, as in one household
    return Customers(
        signed_up=np.concatenate([signed_up, made_up])[order],
        weight=weight[order],
        wealth=wealth[order],
        risk=risk[order],
        ring=np.concatenate([np.full(count, -1), ring])[order],
        distress=distress[order],
        thin_file=thin[order],
        income_band=band[order],
        region=draws.below(total, len(REGIONS))[order],
        limit=(steps * 5_000)[order],
        phone=np.where(shares, np.maximum(np.arange(total) - 1, 0), np.arange(total)),
        new_phone_at=BEGIN + draws.below(total, 4 * DAYS * DAY),  # one in four within the time that is modelled
    )


def make_merchants(draws: Draws, count: int) -> Merchants:
    """Sizes by rank, so that few sell most of it."""
    weight = 1.0 / (np.arange(count) + 3)
    later = draws.happens(count, 0.15) & (np.arange(count) >= 20)
    onboarded = np.where(later, times(draws, count), BEGIN - 2 * DAY - draws.below(count, 700 * DAY))
    return Merchants(
        onboarded=onboarded,
        weight=weight,
        category=draws.pick(count, np.array([share for *_, share, _ in CATEGORIES])),
        verified=draws.happens(count, 0.9),
        region=draws.below(count, len(REGIONS)),
    )


def make_applications(
    draws: Draws, fraud: Draws, count: int, customers: Customers, merchants: Merchants, rings: Integers, *, drift: bool
) -> Applications:
    """Honest applications and fraudulent ones, in order of time."""
    honest = _honest(draws, count, customers, merchants, drift=drift)
    pool = 4 * len(customers.signed_up)  # devices of fraudsters are numbered from here
    parts = [
        honest,
        _takeovers(fraud, round(0.0036 * count), pool, customers, merchants, drift=drift),
        _compromises(fraud, count, pool + 100_000, customers, merchants),
        _stacking(fraud, pool + 200_000, customers, merchants, rings),
    ]
    fields = Applications.__slots__
    together = Applications(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields})
    inside = (together.at >= BEGIN) & (together.at < END)
    order = np.argsort(together.at, kind="stable")
    return together.take(order[inside[order]])


def _honest(draws: Draws, count: int, customers: Customers, merchants: Merchants, *, drift: bool) -> Applications:
    newcomers = np.flatnonzero((customers.signed_up >= BEGIN) & (customers.ring < 0))
    first = customers.signed_up[newcomers] + 2 * MINUTE + draws.below(len(newcomers), HOUR)
    again = times(draws, count - len(newcomers))
    there = np.maximum(np.searchsorted(customers.signed_up, again), 1)
    customer = np.concatenate([newcomers, draws.pick_among_first(customers.weight, there)])
    at = np.concatenate([first, again])
    # A purchase in two baskets: the same customer once more within the hour, at another merchant.
    twice = np.flatnonzero(draws.happens(len(at), 0.03))
    at = np.concatenate([at, at[twice] + 2 * MINUTE + draws.below(len(twice), 48 * MINUTE)])
    customer = np.concatenate([customer, customer[twice]])
    total = len(at)
    favourites = draws.pick(6 * len(customers.weight), merchants.weight).reshape(-1, 6)
    merchant = np.where(
        draws.happens(total, 0.55),
        favourites[customer, draws.below(total, 6)],
        draws.pick(total, merchants.weight),
    )
    merchant = _onboarded(merchant, at, merchants)
    dearer = np.where(at >= DRIFT_FROM, 1.25, 1.0) if drift else np.ones(total)
    return Applications(
        at=at,
        customer=customer,
        merchant=merchant,
        device=_own_device(draws, customers, customer, at),
        amount=_amounts(draws, merchants.category[merchant], customers.wealth[customer], dearer),
        channel=draws.pick(total, np.array([0.55, 0.37, 0.08])),
        items=1 + draws.below(total, 3) * draws.below(total, 3),
        new_address=draws.happens(total, 0.07),
        fraud=np.full(total, NONE),
    )


def _takeovers(
    draws: Draws, episodes: int, pool: int, customers: Customers, merchants: Merchants, *, drift: bool
) -> Applications:
    """One to three purchases within hours on an old customer's account, mostly from a device that other victims'
    accounts were used from. After the drift there are more of them, and more come from the victim's own device."""
    begin = times(draws, episodes, at_night=True, drift=2.0 if drift else 1.0)
    there = np.maximum(np.searchsorted(customers.signed_up, begin - 20 * DAY), 1)
    victim = draws.pick_among_first(customers.weight, there)
    episode = np.repeat(np.arange(episodes), 1 + draws.below(episodes, 3))
    total = len(episode)
    step = np.arange(total) - np.searchsorted(episode, episode)
    at = begin[episode] + step * (10 * MINUTE) + draws.below(total, 10 * MINUTE) * (step > 0)
    own = draws.happens(episodes, np.where((begin >= DRIFT_FROM) & drift, 0.7, 0.35))[episode]
    stolen_with = pool + draws.below(episodes, max(1, 2 * episodes // 3))[episode]
    customer = victim[episode]
    wanted = draws.pick(total, np.where(np.isin(merchants.category, EASY_TO_SELL), 4.0, 1.0) * merchants.weight)
    merchant = _onboarded(wanted, at, merchants)
    return Applications(
        at=at,
        customer=customer,
        merchant=merchant,
        device=np.where(own, _own_device(draws, customers, customer, at), stolen_with),
        amount=_amounts(draws, merchants.category[merchant], customers.wealth[customer], np.full(total, 1.5)),
        channel=draws.pick(total, np.array([0.4, 0.6, 0.0])),
        items=1 + draws.below(total, 3),
        new_address=draws.happens(total, 0.3),
        fraud=np.full(total, TAKEOVER),
    )


def _compromises(draws: Draws, count: int, pool: int, customers: Customers, merchants: Merchants) -> Applications:
    """Some mid-sized merchants lose their customers' accounts for one to three weeks; a quarter of what is then bought
    on them comes from a device of the thief's."""
    windows = max(4, round(16 * (count / 76_000) ** 0.5))
    size = len(merchants.weight)
    where = 3 + draws.below(windows, min(50, size - 3))
    begin = BEGIN + 15 * DAY + draws.below(windows, (DAYS - 25) * DAY)
    length = 8 * DAY + draws.below(windows, 12 * DAY)
    begin[0] = END - 8 * DAY  # one is going on at the end, for whoever decides the newest applications
    window = np.repeat(np.arange(windows), np.maximum(4, round(count / 76_000 * 320 / windows)))
    total = len(window)
    at = begin[window] + (draws.uniform(total) * length[window]).astype(np.int64)
    there = np.maximum(np.searchsorted(customers.signed_up, at), 1)
    customer = draws.pick_among_first(customers.weight, there)
    merchant = _onboarded(where[window], at, merchants)
    own = draws.happens(total, 0.75)
    return Applications(
        at=at,
        customer=customer,
        merchant=merchant,
        device=np.where(own, _own_device(draws, customers, customer, at), pool + draws.below(total, total)),
        amount=_amounts(draws, merchants.category[merchant], customers.wealth[customer], np.full(total, 1.2)),
        channel=draws.pick(total, np.array([0.4, 0.6, 0.0])),
        items=1 + draws.below(total, 3),
        new_address=draws.happens(total, 0.15),
        fraud=np.full(total, MERCHANT),
    )


def _stacking(draws: Draws, pool: int, customers: Customers, merchants: Merchants, rings: Integers) -> Applications:
    """A ring's made-up customers each apply at several merchants within four days, half of the time from a few devices
    of the ring's."""
    members = np.flatnonzero(customers.ring >= 0)
    customer = np.repeat(members, 3 + draws.below(len(members), 4))
    total = len(customer)
    ring = customers.ring[customer]
    at = np.maximum(rings[ring] + draws.below(total, 4 * DAY), customers.signed_up[customer] + 2 * MINUTE)
    merchant = _onboarded(draws.pick(total, np.sqrt(merchants.weight)), at, merchants)
    return Applications(
        at=at,
        customer=customer,
        merchant=merchant,
        device=np.where(draws.happens(total, 0.5), pool + 4 * ring + draws.below(total, 4), customers.phone[customer]),
        amount=_amounts(draws, merchants.category[merchant], customers.wealth[customer], np.full(total, 1.25)),
        channel=draws.pick(total, np.array([0.4, 0.6, 0.0])),
        items=1 + draws.below(total, 3),
        new_address=draws.happens(total, 0.2),
        fraud=np.full(total, STACKING),
    )


def _own_device(draws: Draws, customers: Customers, customer: Integers, at: Integers) -> Integers:
    """A customer's phone, the one that took its place, or now and then a second device."""
    total = len(customers.phone)
    phone = np.where(at >= customers.new_phone_at[customer], 2 * total + customer, customers.phone[customer])
    return np.where(draws.happens(len(customer), 0.13), total + customer, phone)


def _amounts(draws: Draws, category: Integers, wealth: Floats, factor: Floats) -> Integers:
    """Cents: around the category's median, more where the customer is better off; often a price that ends in 99."""
    median = np.array([c[1] for c in CATEGORIES], np.float64)[category]
    spread = np.array([c[2] for c in CATEGORIES])[category]
    exact = 100 * median * factor * np.exp(spread * draws.normal(len(category)) + 0.3 * wealth)
    cents = np.clip(np.rint(exact), 1_000, 400_000).astype(np.int64)
    return np.where(draws.happens(len(cents), 0.4), cents // 100 * 100 + 99, cents)


def _onboarded(merchant: Integers, at: Integers, merchants: Merchants) -> Integers:
    """The merchant, or one of the largest where it was not there yet."""
    return np.where(merchants.onboarded[merchant] < at, merchant, merchant % 20)
