"""A Java client, generated from the running server's own document, compiles and calls it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.runtime.project import open_project
from tests.e2e.serving import Serving
from tests.e2e.shop import DEFINITIONS, Commands, make
from tests.needs import requires, requires_program

requires("uvicorn", "httptools", "prometheus_client")

SOURCE = Path(__file__).parent / "client" / "Checkout.java"
SCOPES = "decisions:decide,decisions:read,features:read,topics:append"
DECLINES = DEFINITIONS.replace("count_1d > 1000", "count_1d > 0").replace(
    "    hr.approve()])",
    """    hr.approve()], texts={
        "MANY": {"en": "Too many orders.", "de": "Zu viele Antraege."},
        "CURIOUS": {"en": "Visits.", "de": "Besuche."}})""",
)
SAID = """\
outcome decline repeated false
texts de Zu viele Antraege.
features {count_1d=1, count_30d=1, mean_amount_30d=12.5, std_weight_30d=0.0}
same true repeated true
texts en Too many orders.
recorded java-1
conflict 409 true
taken {accepted=2}
count 1
rows 2
"""


def run(*command: str | Path, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    return done.stdout


@pytest.mark.slow
def test_a_generated_java_client_compiles_and_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requires_program("java", "mvn")
    requires("openapi_generator_cli")
    folder = make(tmp_path / "shop", DECLINES)
    with open_project(folder) as project:
        project.apply()
    token = Commands(folder, capsys).done("tokens", "create", "--name", "java", "--scope", SCOPES).strip()
    with Serving(folder) as server:
        document = server.call("GET", "/openapi.json", headers={"Authorization": f"Bearer {token}"})
        (tmp_path / "openapi.json").write_text(json.dumps(document.json))
        client = tmp_path / "client"
        run(
            "openapi-generator-cli",
            "generate",
            *("-i", "openapi.json", "-g", "java", "--library", "native", "-o", "client"),
            "--additional-properties=hideGenerationTimestamp=true,openApiNullable=false",
            folder=tmp_path,
        )
        shutil.copy(SOURCE, client / "src" / "main" / "java" / SOURCE.name)
        goals = ("compile", "dependency:build-classpath", "-Dmdep.outputFile=classpath", "-DskipTests")
        run("mvn", "-q", "-B", *goals, folder=client)
        classpath = f"{client / 'target' / 'classes'}{os.pathsep}{(client / 'classpath').read_text().strip()}"
        said = run("java", "-cp", classpath, "Checkout", f"http://localhost:{server.port}", token, folder=client)
        assert server.stop() == 0
    assert said == SAID
