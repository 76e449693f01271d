"""``sepbench verify SUITE``: mix everything again and compare with the frozen digests."""

from __future__ import annotations

from typing import Annotated

import typer


def verify(suite: Annotated[str, typer.Argument(help="Name of the suite, or the path of its folder or TOML file.")]) -> None:
    """Compare a suite's files and mixtures with its frozen digests. Exit code 2 if one differs or cannot be made."""
    from sepbench.errors import SuiteError
    from sepbench.suites.verify import verify_suite

    wrong = []
    for check in verify_suite(suite):
        state = "wrong" if check.problem else "ok" if check.frozen else "not frozen"
        typer.echo(f"{check.what}: {state}{f', {check.digest}' if check.digest and not check.problem else ''}")
        if check.problem:
            wrong.append(check.problem)
    if wrong:
        more = f" ({len(wrong)} in all are wrong)" if len(wrong) > 1 else ""
        raise SuiteError(f"{suite} is not as it was frozen: {wrong[0]}{more}")
