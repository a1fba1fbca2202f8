"""Write the JSON Schemas of the manifests from their models: python docs/write_schemas.py."""

from pathlib import Path

import indexer.manifest
import seqdata.manifest
from seqdata.storage import write_json_atomic


def main() -> None:
    """Write every schema into schemas/manifests."""
    folder = Path(__file__).resolve().parent.parent / "schemas" / "manifests"
    for name, schema in {**seqdata.manifest.json_schemas(), **indexer.manifest.json_schemas()}.items():
        write_json_atomic(folder / f"{name}.schema.json", schema)


if __name__ == "__main__":
    main()
