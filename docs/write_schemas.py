"""Write the JSON Schemas of the manifests from their models: python docs/write_schemas.py."""

from pathlib import Path

from indexer.localizer import pack
from indexer.versions import manifest as index_manifest
from seqdata.contracts import manifest
from seqdata.storage.files import write_json_atomic


def main() -> None:
    """Write every schema into schemas/manifests."""
    folder = Path(__file__).resolve().parent.parent / "schemas" / "manifests"
    for module in (manifest, index_manifest, pack):
        for name, schema in module.json_schemas().items():
            write_json_atomic(folder / f"{name}.schema.json", schema)


if __name__ == "__main__":
    main()
