"""A score over HTTP as FastAPI's users write it, with XGBoost's own model; runs in an environment of its own, without
headrace.

    PEER_MODEL=FOLDER uvicorn --app-dir bench _serving_peers_fastapi:app

FOLDER holds model.json, as XGBoost saves it, and scaling.json {"means": [...], "deviations": [...]}. The caller sends
the 15 feature values; none is looked up, nothing is kept. POST /score answers the score, POST /score-with-reasons the
score and the four inputs that raised it most, by `pred_contribs`. Each is given the fastest way that was found to say
it: `async def`, as handing 150 us of work to a thread costs more than it frees; `inplace_predict`, half of what a
DMatrix and `predict` take; one thread, as several wait for each other longer than a row takes. With reasons the score
is made of the contributions, whose sum is the margin, so that the model is asked once.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import xgboost
from fastapi import FastAPI
from pydantic import BaseModel

REASONS_MAX = 4


class Features(BaseModel):
    tx_amount: float
    weekend: bool
    night: bool
    customer_count_1d: int
    customer_mean_tx_amount_1d: float | None
    customer_count_7d: int
    customer_mean_tx_amount_7d: float | None
    customer_count_30d: int
    customer_mean_tx_amount_30d: float | None
    terminal_count_1d: int
    terminal_tx_fraud_rate_1d: float
    terminal_count_7d: int
    terminal_tx_fraud_rate_7d: float
    terminal_count_30d: int
    terminal_tx_fraud_rate_30d: float


class Score(BaseModel):
    score: float


class ScoreWithReasons(BaseModel):
    score: float
    reasons: list[str]


NAMES = list(Features.model_fields)
_folder = Path(os.environ["PEER_MODEL"])
_scaling = json.loads((_folder / "scaling.json").read_text())
_means, _deviations = np.array(_scaling["means"]), np.array(_scaling["deviations"])
_booster = xgboost.Booster(model_file=_folder / "model.json")
_booster.set_param({"nthread": 1})
if _booster.feature_names != NAMES:
    raise SystemExit(f"the model takes {_booster.feature_names}, the service {NAMES}")

app = FastAPI()


@app.post("/score")
async def score(features: Features) -> Score:
    return Score(score=float(_booster.inplace_predict(_row(features), validate_features=False)[0]))


@app.post("/score-with-reasons")
async def score_with_reasons(features: Features) -> ScoreWithReasons:
    rows = xgboost.DMatrix(_row(features), feature_names=NAMES, nthread=1)
    shares = _booster.predict(rows, pred_contribs=True)[0]
    score = 1 / (1 + math.exp(-shares.sum()))
    inputs = shares[:-1]  # the last is the base
    raised = [place for place in np.argsort(-inputs)[:REASONS_MAX] if inputs[place] > 0]
    return ScoreWithReasons(score=score, reasons=[NAMES[place] for place in raised])


def _row(features: Features) -> np.ndarray:
    values = np.array([list(features.model_dump().values())], dtype=np.float64)  # None is NaN
    return (values - _means) / _deviations
