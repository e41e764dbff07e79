"""``era serve``."""

from __future__ import annotations

import click

from era_ingest.cli.app import Runners, cli, settings_of


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Name or address to bind.")
@click.option(
    "--port", default=8321, show_default=True, type=click.IntRange(0, 65535), help="Port; 0: any free one."
)
@click.option(
    "--new-token",
    type=click.Choice(["read", "write"]),
    help="Print a fresh token and what stands for it in ERA_SERVE_TOKENS; serve nothing.",
)
@click.pass_context
def serve(ctx: click.Context, *, host: str, port: int, new_token: str | None) -> None:
    """Serve search and jobs over HTTP until Ctrl-C.

    Its OpenAPI document is /v1/openapi.json. Other machines are served only with tokens (ERA_SERVE_TOKENS).
    """
    runners = ctx.ensure_object(Runners)
    if new_token is not None:
        token, setting = runners.new_token(new_token)
        click.echo(f"token (for the caller, shown once): {token}\nin ERA_SERVE_TOKENS: {setting}")
        return
    ctx.exit(runners.serve(settings_of(ctx, talks=False), host, port))
