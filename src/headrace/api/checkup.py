"""What is wrong with a project's server: what one would need, and what a running one says. Touches: the token file, the
import system, and sockets where a server is asked.

The one idea: a running server is asked from outside, as its callers and its Prometheus do, so that what is found is
what they meet; what it says is compared with what is in force here.
"""

from __future__ import annotations

import email.utils
import http.client
import importlib.util
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace.api.calling import called, reason_of
from headrace.api.series import LAST_LOOK, PERIOD, SAMPLED, SERVING, WAITING, versions_digest
from headrace.api.tokens import Scope, TokenStore
from headrace.core.errors import HeadraceError, MissingExtraError
from headrace.core.times import Duration, Instant, iso
from headrace.log.backup import Finding
from headrace.plugs import require
from headrace.runtime.checkup import said

PACKAGES = ("uvicorn", "httptools", "aiohttp", "prometheus_client")  # of the extra `serve`
EXPIRES_SOON = Duration.parse("7d")  # time to hand out another
CLOCK_SECONDS_MAX = 5.0  # the header has whole seconds; a topic's skew is a minute
WAITING_MAX = 64  # calls of one queue: more than one commit takes
SAMPLER_SECONDS = 300.0  # beyond twice its period: a look may be slow where the machine is busy


def check_needs(decisions: int) -> list[Finding]:
    """What `headrace serve` needs besides the project. decisions: how many are declared."""
    findings = []
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        findings.append(
            Finding(serious=True, text=f"not installed: {', '.join(missing)}; pip install 'headrace[serve]'")
        )
    if not decisions:
        text = "no decision is declared: a server has features and events only; see docs/guides/your-first-decision.md"
        findings.append(Finding(serious=False, text=text))
    return findings


def check_tokens(state_folder: Path, now: Instant) -> list[Finding]:
    """Tokens that let nobody in, or soon will not."""
    try:
        tokens = TokenStore(state_folder).list()
    except HeadraceError as error:
        return [Finding(serious=True, text=f"nobody is let in: {said(error)}")]
    live = [token for token in tokens if token.live(now)]
    if tokens and not live:
        text = f"all {len(tokens)} tokens are revoked or expired, so every call is refused; headrace tokens create"
        return [Finding(serious=True, text=text)]
    findings = []
    if live and not any(Scope.DECIDE.value in token.scopes for token in live):
        text = f"no valid token allows {Scope.DECIDE.value}; headrace tokens create --scope {Scope.DECIDE.value}"
        findings.append(Finding(serious=False, text=text))
    for token in live:
        if token.expires is not None and token.expires - now < EXPIRES_SOON.micros:
            later = [
                one
                for one in live
                if set(token.scopes) <= set(one.scopes)
                and one.name == token.name
                and (one.expires is None or one.expires > token.expires)
            ]
            if not later:
                text = f"token {token.id} of {token.name!r} expires at {iso(Instant(token.expires))}; "
                findings.append(Finding(serious=False, text=f"{text}headrace tokens create --name {token.name}"))
    return findings


@dataclass(slots=True)
class Asked:
    """notes: what could not be asked, which is no fault of the server."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def find(self, text: str, *, serious: bool = True) -> None:
        self.findings.append(Finding(serious=serious, text=text))


def ask_server(url: str, token: str | None, versions: Mapping[str, str] | None) -> Asked:
    """What a running server says of itself. token: with the scope metrics:read, where it has tokens. versions: of the
    decisions in force here, as text; None where that is not known."""
    asked = Asked()
    url = url.rstrip("/")
    try:
        status, body, headers = called(f"{url}/healthz", None)
    except (OSError, http.client.HTTPException, ValueError) as error:
        asked.find(f"no server answers at {url} ({reason_of(error)}); headrace serve, or look at its log")
        return asked
    if status != 200 or _json(body).get("status") != "ok":
        asked.find(f"what answers at {url} is no headrace server: status {status} from /healthz")
        return asked
    _compare_clocks(asked, url, headers)
    try:
        status, body, _ = called(f"{url}/readyz", None)
        if status != 200:
            why = _json(body).get("detail", f"status {status}")
            asked.find(f"the server at {url} wants no requests ({why}); its log says more")
        status, body, _ = called(f"{url}/metrics", token)
    except (OSError, http.client.HTTPException, ValueError) as error:
        asked.find(f"the server at {url} stopped answering ({reason_of(error)}); look at its log")
        return asked
    if status in (401, 403):
        if token is not None:
            asked.find(f"the server at {url} refuses the token; headrace tokens list", serious=False)
        else:
            asked.notes.append(
                f"the server at {url} has tokens: with --token env:NAME (scope metrics:read) its versions, queues and "
                "sampler are looked at too"
            )
    elif status != 200:
        asked.find(f"the server at {url} answers /metrics with status {status}; its log says more")
    else:
        try:
            series = _series(body.decode())
        except MissingExtraError as error:
            asked.notes.append(f"the server's versions, queues and sampler were not looked at: {error.message}")
            return asked
        except ValueError as error:
            asked.find(f"what the server at {url} answers at /metrics is none of Prometheus's text ({error})")
            return asked
        if versions is not None:
            _compare_versions(asked, series, versions)
        _look_at(asked, series)
    return asked


Series = list[tuple[str, dict[str, str], float]]


def _compare_versions(asked: Asked, series: Series, versions: Mapping[str, str]) -> None:
    served = {labels["decision"]: labels["versions"] for name, labels, _ in series if name == SERVING}
    for decision, text in versions.items():
        if decision not in served:
            asked.find(f"decision {decision!r} is in force and not served; start the server again, without --decision")
        elif served[decision] != versions_digest(text):
            asked.find(
                f"decision {decision!r} is served by another version than the one in force; wait as long as reading "
                "the log takes, then look for `what serves goes on` in the server's log"
            )
    for decision in served.keys() - versions.keys():
        text = f"decision {decision!r} is served and cannot be here; start the server again once the others are mended"
        asked.find(text, serious=False)


def _look_at(asked: Asked, series: Series) -> None:
    for name, labels, value in series:
        if name == WAITING and value > WAITING_MAX:
            text = f"{int(value)} calls wait at {labels['queue']}; see Overload in docs/runbooks/server.md"
            asked.find(text, serious=False)
        if name == f"{SAMPLED}_total" and labels["result"] == "mismatched" and value > 0:
            decision = labels["decision"]
            asked.find(
                f"{int(value)} sampled records of decision {decision!r} do not recompute to the same bits; "
                f"headrace decisions replay {decision}, and docs/runbooks/decisions.md"
            )
    plain = {name: value for name, labels, value in series if not labels}
    if LAST_LOOK in plain and time.time() - plain[LAST_LOOK] > 2 * plain[PERIOD] + SAMPLER_SECONDS:
        minutes = (time.time() - plain[LAST_LOOK]) / 60
        asked.find(f"the sampler has not looked for {minutes:.0f} minutes; see The sampler in docs/runbooks/server.md")


def _compare_clocks(asked: Asked, url: str, headers: Mapping[str, str]) -> None:
    stamp = headers.get("date")
    if stamp is None:
        return
    apart = email.utils.parsedate_to_datetime(stamp).timestamp() - time.time()
    if abs(apart) > CLOCK_SECONDS_MAX:
        side = "ahead of" if apart > 0 else "behind"
        asked.find(
            f"the clock of the server at {url} is {abs(apart):.0f} s {side} this machine's; set the clocks right: "
            "requests outside a topic's skew are restamped"
        )


def _json(body: bytes) -> dict[str, object]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _series(text: str) -> Series:
    """Raises: ValueError, MissingExtraError HR-0990."""
    parser = require("prometheus_client.parser", wanted_by="doctor, of a server's metrics,")
    families = parser.text_string_to_metric_families(text)
    return [(one.name, one.labels, one.value) for family in families for one in family.samples]
