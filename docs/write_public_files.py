"""Write what timm's data say about the weights of the presets' encoders: train/models/encoders/public_files.json."""

import json
from dataclasses import asdict

from train.models.catalogue import START_FILES, encoders
from train.models.encoders.public_files import public_file


def main() -> None:
    """Write the file; the same timm gives the same bytes."""
    files = {encoder: public_file(encoder) for encoder in sorted(set(encoders().values()))}
    content = {encoder: None if file is None else asdict(file) for encoder, file in files.items()}
    START_FILES.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
