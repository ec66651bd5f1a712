"""The command line: `headrace <noun> <verb>`. Data on stdout, talk on stderr.

Exit status: 0 done, 1 failed, 2 usage, 3 changes pending.

Commands are named here and load when they are called, so that help costs no imports.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from headrace.core.errors import HeadraceError, UsageError

# name -> (module, attribute, help)
_COMMANDS = {
    "init": ("headrace.cli.project", "init", "Make a project to start from."),
    "plan": ("headrace.cli.project", "plan", "Show what apply would change; exit 3 where something would."),
    "apply": ("headrace.cli.project", "apply", "Make what is declared be in force."),
    "import": ("headrace.cli.events", "import_events", "Import a Parquet, CSV or NDJSON file into a topic."),
    "produce": ("headrace.cli.events", "produce", "Append events, one JSON object a line."),
    "topics": ("headrace.cli.topics", "topics", "List topics, read and write them, see who lags, drop them."),
    "quarantine": ("headrace.cli.quarantine", "quarantine", "What was set aside; give it back."),
    "features": ("headrace.cli.features", "features", "Read features, replay them from files."),
    "training-set": ("headrace.cli.models", "training_set", "Build training sets, show what late data changed."),
    "models": ("headrace.cli.models", "models", "Train, list and evaluate models."),
    "decide": ("headrace.cli.decisions", "decide", "Decide one request, durably."),
    "decisions": ("headrace.cli.decisions", "decisions", "List recorded decisions, recompute them."),
    "serve": ("headrace.cli.serve", "serve", "Serve decisions, features and events over HTTP."),
    "tokens": ("headrace.cli.tokens", "tokens", "Who may call the server."),
    "audit": ("headrace.cli.models", "audit", "Look for what types cannot see."),
    "streams": ("headrace.cli.streams", "streams", "Fill derived topics."),
    "backup": ("headrace.cli.operations", "backup", "Copy the log while it is being written."),
    "restore": ("headrace.cli.operations", "restore", "Put a backup in place of a missing log."),
    "checkpoint": ("headrace.cli.operations", "checkpoint", "Make the next start short."),
    "doctor": ("headrace.cli.operations", "doctor", "Check the log, the project, its server."),
    "log": ("headrace.cli.operations", "log", "Set right what a wrong clock wrote."),
    "dev": ("headrace.cli.dev", "dev", "Run a real Kafka cluster on this machine."),
    "warm": ("headrace.cli.operations", "warm", "Compile the kernel now, so that no request waits for it."),
}


class _Commands(click.Group):
    """Loads a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help) for name, (_, _, help) in _COMMANDS.items()])


@click.command(cls=_Commands)
@click.option(
    "--project", "folder", default=".", envvar="HEADRACE_PROJECT", show_default=True, help="The folder that declares."
)
@click.version_option(package_name="headrace")
@click.pass_context
def cli(ctx: click.Context, folder: str) -> None:
    """From event to decision: one log, one kernel, one ledger."""
    ctx.obj = folder


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: errors in words, the exit status by their kind. arguments: the process's own by default.

    Raises: SystemExit, always.
    """
    try:
        status = cli.main(arguments, prog_name="headrace", standalone_mode=False)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except HeadraceError as error:
        click.echo(str(error), err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    sys.exit(status if isinstance(status, int) else 0)
