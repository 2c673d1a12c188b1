"""How ``fedpeft/data/builtin/*.jsonl.gz`` were made from the published data sets, once.

    python simulations/pack_labelled.py CLINC150/data_full.json BANKING77/train.csv BANKING77/test.csv

One line per label in alphabetical order, its texts in the order of publication. The same sources give the same bytes.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

BUILTIN = Path(__file__).resolve().parent.parent / "fedpeft" / "data" / "builtin"


def intents(path: Path) -> Iterable[tuple[str, str]]:
    """Yield CLINC150's queries that have an intent; those out of scope are left out."""
    published = json.loads(path.read_text(encoding="utf-8"))
    for part in ("train", "val", "test"):
        yield from ((text, label) for text, label in published[part])


def banking(paths: Iterable[Path]) -> Iterable[tuple[str, str]]:
    """Yield BANKING77's queries without the white space around them."""
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            yield from ((row["text"].strip(), row["category"]) for row in csv.DictReader(file))


def pack(name: str, examples: Iterable[tuple[str, str]]) -> None:
    """Write one data set."""
    texts = defaultdict(list)
    for text, label in examples:
        texts[label].append(text)
    lines = (json.dumps({"label": label, "texts": texts[label]}, ensure_ascii=False) for label in sorted(texts))
    packed = gzip.compress("".join(f"{line}\n" for line in lines).encode(), 9, mtime=0)
    (BUILTIN / f"{name}.jsonl.gz").write_bytes(packed)


if __name__ == "__main__":
    clinc, *rows = map(Path, sys.argv[1:])
    pack("intents", intents(clinc))
    pack("banking", banking(rows))
