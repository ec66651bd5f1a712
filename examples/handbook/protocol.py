"""The handbook's protocol: a week to train on, a week's delay, a week to test on; whom it drops, what it measures."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.times import Instant, instant
from headrace.models.evaluate import auc_roc, average_precision, entity_precision

WEEK = 7
TRAIN_BEGIN_BOOK = dt.datetime(2018, 7, 25, tzinfo=dt.UTC)
_DAY = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The periods, and the customers whose fraud was known on each day of the test."""

    train_begin: Instant
    days: npt.NDArray[np.int64]  # of every transaction, in the data's order
    customers: npt.NDArray[np.int64]
    frauds: npt.NDArray[np.bool_]
    ids: npt.NDArray[np.int64]

    @property
    def train_end(self) -> Instant:
        return Instant(self.train_begin + WEEK * _DAY)

    @property
    def test_begin(self) -> Instant:
        return Instant(self.train_end + WEEK * _DAY)

    @property
    def test_end(self) -> Instant:
        return Instant(self.test_begin + WEEK * _DAY)

    @property
    def t_label_train(self) -> Instant:
        """When the model is trained: every label of the training week is known."""
        return self.test_begin

    @property
    def t_label_all(self) -> Instant:
        """After the last transaction's label is known."""
        return Instant(int(self.days.max() + 1 + WEEK + 1) * _DAY)

    def test_rows(self, table: pa.Table) -> tuple[pa.Table, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The test rows without customers whose fraud is known by their day, their customers and days."""
        ids = table.column("transaction_id").to_numpy()
        place = np.searchsorted(self.ids, ids)
        customers, days = self.customers[place], self.days[place]
        first = int(self.test_begin // _DAY)
        keep = np.ones(len(ids), np.bool_)
        for i in range(WEEK):
            known_until = self.train_end // _DAY + i  # train, and up to train_end + i - 1
            begin = self.train_begin // _DAY
            known = self.customers[self.frauds & (self.days >= begin) & (self.days < known_until)]
            keep &= ~((days == first + i) & np.isin(customers, known))
        chosen = np.flatnonzero(keep)
        return table.take(pa.array(chosen)), customers[chosen], days[chosen]


def split(transactions: pa.Table) -> Split:
    """The book's weeks where the data covers them, else the last three weeks of the data."""
    at = transactions.column("tx_datetime").cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    days = at // _DAY
    begin = instant(TRAIN_BEGIN_BOOK)
    if not (days.min() * _DAY <= begin and days.max() >= begin // _DAY + 3 * WEEK - 1):
        begin = Instant(int(days.max() + 1 - 3 * WEEK) * _DAY)
    return Split(
        train_begin=begin,
        days=days,
        customers=transactions.column("customer_id").to_numpy().astype(np.int64),
        frauds=transactions.column("tx_fraud").to_numpy(zero_copy_only=False).astype(np.bool_),
        ids=transactions.column("transaction_id").to_numpy().astype(np.int64),
    )


def evaluate(
    truths: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float64],
    customers: npt.NDArray[np.int64],
    days: npt.NDArray[np.int64],
) -> tuple[float, float, float]:
    """AUC ROC, average precision, card precision@100."""
    cards = entity_precision(truths, scores, entities=customers, days=days, k=100)
    return auc_roc(truths, scores), average_precision(truths, scores), cards
