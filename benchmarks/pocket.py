"""Rebuilds the pocket models: `make pocket DATA=...`. Every stage resumes where it stopped."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

LAMB_STAGES = (
    "pocket_lm",
    "pocket_encoder_random",
    "pocket_encoder",
    "pocket_encoder_more",
    "pocket_encoder_last",
    "pocket_encoder_hints",
    "pocket_lamb",
)
CLASSES_STAGE = "pocket_classes"
"""the class head beside the encoder; a minute"""
LINK_STAGES = ("pocket_clap", "pocket_bridge", "pocket_link_zeroshot")


def main() -> None:
    """Runs the stages in order and puts the best weights into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--keep", action="store_true", help="leave the shipped weights as they are")
    args = parser.parse_args()
    for stage in (*LAMB_STAGES, CLASSES_STAGE, *LINK_STAGES):
        if (Path("runs") / stage / "done").exists():
            continue
        start = time.time()
        command = [sys.executable, "-m", "earwitness", "train", f"recipes/{stage}.toml"]
        subprocess.run([*command, "--data", args.data], check=True)
        (Path("runs") / stage / "done").write_text(f"{time.time() - start:.0f} s\n")
    if not args.keep:
        for script, run in (("ship", "pocket_lamb"), ("ship_link", "pocket_link_zeroshot")):
            ship = [sys.executable, f"benchmarks/{script}.py", f"runs/{run}/best"]
            subprocess.run([*ship, "--data", args.data], check=True)
        score = [sys.executable, "benchmarks/calibration.py", "pocket-lamb", "--store"]
        subprocess.run([*score, "--data", args.data], check=True)


if __name__ == "__main__":
    main()
