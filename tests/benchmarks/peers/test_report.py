from __future__ import annotations

import json
from pathlib import Path

from benchmarks.peers.report import write_report

SPREAD = {"milliseconds": [1.0, 2.0, 4.0], "multiple_of_ours": [1.5, 2.5, 3.5], "resident_mib": 100.0}
CURVE = {
    "sizes": [256, 1024],
    "milliseconds": [1.0, 4.0],
    "resident_mib": [50.0, 53.0],
    "exponent": 1.0,
    "exponent_without_the_smallest": 0.98,
}
RECORD = {
    "command": "make peers",
    "date": "2026-11-30",
    "machine": {"cpu": "a processor", "cores": 2, "load_1_minute": 0.1},
    "figures": {
        "threads": 2,
        "rounds": 15,
        "peers": {"faiss-cpu": "1.15.1"},
        "similarity": {
            "2048": {
                "queries": 1024,
                "dimensions": 153,
                "contenders": {"faiss IndexFlatIP": {**SPREAD, "greatest_difference": 1e-7}},
                "square_product_gflops": 70.0,
                "effective_gflops": 120.0,
                "effective_rate_by_square_product": 1.714,
            }
        },
        "end_to_end": {
            "frame": "1024x1024 RGB, uint8",
            "rows": {"fast": 2048, "balanced": 4096},
            "as_multiples_of": {"fast": {"anomalib": SPREAD}, "balanced": {"anomalib": SPREAD}},
        },
        "growth": {
            "bank": {"Lineward": {**CURVE, "bank_mib": [0.1, 0.6], "resident_mib_per_bank_mib": 1.9}},
            "dimension": {"numpy": CURVE},
            "input": CURVE,
        },
        "building": {
            "patches": 24576,
            "held_out": 4096,
            "rows": 1024,
            "contenders": {"k-means": {**SPREAD, "held_out_mean": 0.01, "held_out_greatest": 0.2}},
        },
    },
}


def test_the_document_says_what_the_results_say(tmp_path: Path):
    path = tmp_path / "peers.json"
    path.write_text(json.dumps(RECORD))
    text = write_report(path).read_text()
    for line in (
        "## Similarity: 1,024 queries, 153 dimensions, 2,048 rows",
        "| faiss IndexFlatIP | 2.00 (1.00 to 4.00) | 2.50 (1.50 to 3.50) | 1.0e-07 |",
        "120.0 GFLOP/s of plain products: 1.714 of it.",
        "| anomalib | 2.0 (1.0 to 4.0) | 2.5 (1.5 to 3.5) | 2.5 (1.5 to 3.5) | 100 |",
        "| Lineward | 1.00 | 4.00 | 1.00 | 0.98 | 1.9 |",
        "| k-means | 0.00 (0.00 to 0.00) | 2.5 (1.5 to 3.5) | 0.0100 | 0.2000 |",
    ):
        assert line in text
    assert all(len(row.split("|")) == len(rows[0].split("|")) for rows in _tables(text) for row in rows)


def _tables(text: str) -> list[list[str]]:
    blocks = [block.splitlines() for block in text.split("\n\n")]
    return [rows for rows in blocks if rows[0].startswith("| ")]
