"""Where a cluster is and how it is spoken to, said in one URL. Frozen, pure.

    kafka://127.0.0.1:9092                                   plain text, no password
    kafka://headrace@a:9092,b:9092/risk.                     SCRAM-SHA-512 over plain text; topics begin with "risk."
    kafka+tls://headrace@a:9093?ca=/etc/ca.pem               SCRAM-SHA-512 over TLS
    kafka+tls://a:9093?ca=/etc/ca.pem&certificate=/etc/me.pem&key=/etc/me.key

A password is never in the URL: `HEADRACE_KAFKA_PASSWORD` holds it, or `password_file=` names a file that does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from headrace.core.errors import UsageError, did_you_mean
from headrace.core.times import Duration

PASSWORD_VARIABLE = "HEADRACE_KAFKA_PASSWORD"
SCHEMES = ("kafka", "kafka+tls")
_PREFIX = re.compile(r"[A-Za-z0-9._-]{0,64}\Z")
_OPTIONS = ("ca", "certificate", "key", "mechanism", "password_file", "replication", "session_timeout")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """bootstrap: brokers to ask first. prefix: what the names of this log's topics begin with in the cluster.

    tls: over TLS; ca, certificate, key: files in PEM. user: "" where no password is asked for; mechanism: of SASL.
    password_file: "" means the variable. replication: of topics that are made; 0 means three where there are three
    brokers, else all of them. session_timeout: how long a process may be silent before its partitions go to others.
    """

    bootstrap: str
    prefix: str = ""
    tls: bool = False
    ca: str = ""
    certificate: str = ""
    key: str = ""
    user: str = ""
    mechanism: str = "SCRAM-SHA-512"
    password_file: str = ""
    replication: int = 0
    session_timeout: Duration = Duration.parse("6s")

    @classmethod
    def parse(cls, url: str) -> KafkaSettings:
        """Raises: UsageError HR-0350 for what is no such URL, or holds a password."""
        parts = urlsplit(url)
        users, _, hosts = parts.netloc.rpartition("@")
        if parts.scheme not in SCHEMES or not hosts or parts.fragment:
            raise _wrong("not the address of a Kafka cluster", f"expected kafka://HOST:PORT, seen {_shown(url)}")
        if ":" in users:
            raise _wrong("it holds a password", f"take it out, and put it into {PASSWORD_VARIABLE} or password_file=")
        prefix = unquote(parts.path.removeprefix("/"))
        if not _PREFIX.match(prefix):
            raise _wrong(f"{prefix!r} cannot begin a topic's name", "expected letters, digits, '.', '_', '-'")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        for name in options:
            if name not in _OPTIONS:
                raise _wrong(f"unknown option {name!r}", did_you_mean(name, _OPTIONS))
        mechanism = options.get("mechanism", "SCRAM-SHA-512").upper()
        if mechanism not in _MECHANISMS:
            raise _wrong(f"unknown mechanism {mechanism!r}", f"expected one of {', '.join(_MECHANISMS)}")
        replication = options.get("replication", "0")
        if not replication.isdecimal():
            raise _wrong(f"replication {replication!r}", "expected a number of brokers")
        return cls(
            bootstrap=",".join(_host(host) for host in hosts.split(",")),
            prefix=prefix,
            tls=parts.scheme == "kafka+tls",
            ca=options.get("ca", ""),
            certificate=options.get("certificate", ""),
            key=options.get("key", ""),
            user=unquote(users),
            mechanism=mechanism,
            password_file=options.get("password_file", ""),
            replication=int(replication),
            session_timeout=Duration.parse(options.get("session_timeout", "6s")),
        )


def _host(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise _wrong(f"{text!r} is no broker", "expected HOST:PORT, several with commas")
    return text


def _shown(url: str) -> str:
    """Without what may be a password."""
    return re.sub(r"//[^@/]*@", "//...@", url[:200])


def _wrong(what: str, detail: str) -> UsageError:
    return UsageError("HR-0350", f"the log's URL: {what}", detail=detail, hint="docs/guides/kafka.md has examples")
