"""Process 1 of 3: what there is before anything was learnt. Runs once.

    python initialize.py --directory run

writes the network as initialised, the campaign and its query, and an empty log. Then `blackopt check`, and
the first `blackopt run --once` publishes the centre and the first window's keys.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from blackopt.artifacts import safetensors
from online_app import world
from online_app.shop import create

HERE = Path(__file__).resolve().parent


def initialize(directory: Path) -> None:
    """Make the directory in which production and campaign meet."""
    (directory / "queries").mkdir(parents=True)
    (directory / "arms").mkdir()
    (directory / "incumbent.safetensors").write_bytes(safetensors.write(world.incumbent()))
    for name in ("campaign.yaml", "queries/bought.sql"):
        shutil.copy(HERE / name, directory / name)
    create(directory)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, required=True, help="a new one")
    directory = parser.parse_args().directory
    if directory.exists():
        parser.error(f"{directory} is there already; name a new directory")
    initialize(directory)


if __name__ == "__main__":
    main()
