"""Hostile inputs by the thousand: how many are refused, captioned, lost, or end in a traceback.

    OMP_NUM_THREADS=1 python benchmarks/robustness.py [--inputs 5000] [--kills 300] [--seed 0]

Prints Markdown, a row per section. Inputs are tried in separate processes with limits on time and
memory. A refusal is one error of earwitness of one line (of the service: a status below 500 with
one sentence); a hang, a dead process or a missing result counts as lost. `--section "killed jobs"`
tries that row alone. Another seed gives different inputs, so that the figures of several runs add
up. Exit status 1 when anything was lost or ended in a traceback.
"""

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from earwitness_lab.hostile import campaign, folders, jobs, probes, sounds

SECTIONS: dict[str, tuple[float, campaign.Campaign]] = {
    "broken sounds": (0.70, sounds.section),
    "probes": (0.20, probes.section),
    "tampered folders": (0.08, folders.section),
    "file names": (0.02, jobs.names),
}
"""section by name: its share of the inputs, and what tries them"""

KILLS = "killed jobs"


def main() -> int:
    """Prints the table; 1 when anything went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--section", action="append", choices=[*SECTIONS, KILLS], metavar="NAME")
    parser.add_argument("--inputs", type=int, default=5_000)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    planned = [(name, round(args.inputs * share), one) for name, (share, one) in SECTIONS.items()]
    planned.append((KILLS, args.kills, jobs.kills))
    found = []
    with TemporaryDirectory() as place, campaign.workers(args.workers) as pool:
        for name, inputs, section in planned:
            if inputs < 1 or name not in (args.section or (*SECTIONS, KILLS)):
                continue
            print(f"robustness: {name} ...", file=sys.stderr)
            where = Path(place, name)
            part = campaign.side_by_side(pool, args.workers, section, where, inputs, args.seed)
            print(part.row, file=sys.stderr)
            found.append(part)
    print(campaign.report(found))
    return int(any(section.bad for section in found))


if __name__ == "__main__":
    sys.exit(main())
