"""Write ``data_manifests/weights.toml`` from the cards in ``baselines/weights``: ``python scripts/list_weights.py DATASET[:CLASSES]=NAME ...``.

    python scripts/list_weights.py mnist=mnist-all mnist:0-4=mnist-0-4

names, for each data set and source class (as suites name it; none for all classes), the weights that ship for it.
"""

from __future__ import annotations

import sys

from baselines.priors.shipped import FOLDER
from baselines.priors.weights_io import MAX_BYTES, read_card
from sepbench.files import file_sha256
from sepbench.resources import resource_root


def main(arguments: list[str]) -> None:
    lines = ["# Trained priors that ship in baselines/weights, each with its card. Written by scripts/list_weights.py.", ""]
    for argument in arguments:
        target, name = argument.split("=")
        dataset, _, classes = target.partition(":")
        path = FOLDER / f"{name}.safetensors"
        card = read_card(path)
        if path.stat().st_size > MAX_BYTES:
            raise SystemExit(f"{path} has {path.stat().st_size:,} bytes, shipped weights have at most {MAX_BYTES:,}")
        lines += ["[[weights]]", f'name = "{name}"', f'dataset = "{dataset}"', f'classes = "{classes}"', f"shape = {list(card['shape'])}"]
        lines += [f'sha256 = "{file_sha256(path)}"', f"size = {path.stat().st_size}", ""]
    target_path = resource_root("data_manifests") / "weights.toml"
    target_path.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    print(f"{target_path} written: {len(arguments)} entries")


if __name__ == "__main__":
    main(sys.argv[1:])
