"""Hostile inputs by the thousand: how many are refused, captioned, lost, or end in a traceback.

python benchmarks/robustness.py [--section NAME ...] [--inputs 500] [--seed 0]

Prints Markdown, a row per section. Each input is tried in a process of its own with limits on time
and memory. A refusal is one error of earwitness of one line; a hang, a dead process or a missing
result counts as lost. Exit status 1 when anything was lost or ended in a traceback.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from earwitness_lab.hostile import campaign, folders, jobs

SECTIONS: dict[str, Callable[[Path, int, int], campaign.Section]] = {
    "tampered folders": folders.section,
    "killed jobs": jobs.kills,
    "file names": jobs.names,
}
"""section by name: a function of a working folder, the number of inputs, and the seed"""


def main() -> int:
    """Prints the table; 1 when anything went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--section", action="append", choices=list(SECTIONS), metavar="NAME")
    parser.add_argument("--inputs", type=int, default=500, help="per section (default 500)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found = []
    with TemporaryDirectory() as place:
        for name in args.section or SECTIONS:
            print(f"robustness: {name} ...", file=sys.stderr)
            found.append(SECTIONS[name](Path(place), args.inputs, args.seed))
    print(campaign.report(found))
    return int(any(section.bad for section in found))


if __name__ == "__main__":
    sys.exit(main())
