"""Writes the graphs that TensorRT must take, for tests in environments without torch.

    python -m tests.export.write_graphs FOLDER

The embedding graph of the default backbone as `lineward train` exports it, in each precision.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lineward.export.conversion import PRECISIONS
from tests.export.exported_graphs import exported_graph


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for precision in PRECISIONS:
        path = folder / f"default_{precision}.onnx"
        path.write_bytes(exported_graph(precision, size=256))
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
