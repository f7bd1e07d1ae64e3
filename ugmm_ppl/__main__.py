"""Entry of the command line: `ugmm-ppl` or `python -m ugmm_ppl`."""

import sys

from ugmm_ppl.checks import MissingExtraError
from ugmm_ppl.checks.machine import require


def main() -> None:
    """Run the command line, or say which extra it needs."""
    try:
        cli = require("ugmm_ppl.cli.app", "cli", ("typer",))
    except MissingExtraError as error:
        sys.exit(f"error: {error}")
    cli.app(prog_name="ugmm-ppl")


if __name__ == "__main__":
    main()
