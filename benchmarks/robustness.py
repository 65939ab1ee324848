"""Hostile inputs by the thousand: how many are refused, captioned, lost, or end in a traceback.

OMP_NUM_THREADS=1 python benchmarks/robustness.py [--section NAME ...] [--share 1.0] [--seed 0]

Prints Markdown, a row per section: 10,000 inputs and 1,000 kills. They are tried in processes apart
with limits on time and memory. A refusal is one error of earwitness of one line (of the service: a
status below 500 with one sentence); a hang, a dead process or a missing result counts as lost.
Exit status 1 when anything was lost or ended in a traceback.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from earwitness_lab.hostile import campaign, folders, jobs, probes, sounds

SECTIONS: dict[str, tuple[int, Callable[[Path, int, int], campaign.Section]]] = {
    "broken sounds": (7000, sounds.section),
    "probes": (2000, probes.section),
    "tampered folders": (800, folders.section),
    "file names": (200, jobs.names),
    "killed jobs": (1000, jobs.kills),
}
"""section by name: how many inputs, and a function of a working folder, that number and the seed"""


def main() -> int:
    """Prints the table; 1 when anything went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--section", action="append", choices=list(SECTIONS), metavar="NAME")
    parser.add_argument("--share", type=float, default=1.0, help="of the numbers (default 1)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found = []
    with TemporaryDirectory() as place:
        for name in args.section or SECTIONS:
            print(f"robustness: {name} ...", file=sys.stderr)
            inputs, section = SECTIONS[name]
            part = section(Path(place, name), max(1, round(inputs * args.share)), args.seed)
            found.append(part)
    print(campaign.report(found))
    return int(any(section.bad for section in found))


if __name__ == "__main__":
    sys.exit(main())
