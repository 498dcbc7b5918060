"""The verb `doctor`."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor_verb(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Say what works on this machine, what is missing, and how to mend it."""
    import json
    import sys

    from cgeartheye.doctor import examine

    findings = examine()
    if as_json:
        sys.stdout.write(json.dumps([vars(finding) for finding in findings], indent=1) + "\n")
    else:
        sys.stdout.write("".join(f"{finding.line()}\n" for finding in findings))
    if not all(finding.fine for finding in findings):
        raise typer.Exit(4)
