"""One call of a running server, as whoever looks after it makes it. Touches: sockets."""

from __future__ import annotations

import urllib.error
import urllib.request

ANSWER_SECONDS_MAX = 10.0


def called(url: str, token: str | None, *, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers, their names in lower case. Raises: OSError, http.client.HTTPException where nobody
    answers, ValueError for what is no address."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("expected http:// or https://")
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS_MAX) as answer:
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.headers.items()}
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read(), {k.lower(): v for k, v in refused.headers.items()}


def reason_of(error: Exception) -> str:
    """Why nobody answered, in a few words."""
    return str(getattr(error, "reason", None) or error or type(error).__name__)
