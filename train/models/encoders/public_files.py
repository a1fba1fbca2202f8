"""The public file of weights that an encoder starts from, by timm's data."""

import re
import urllib.parse
from dataclasses import dataclass
from pathlib import PurePosixPath

# Files of torchvision of which timm keeps a copy without saying what it was called.
_TORCHVISION = {"vgg16.tv_in1k": "https://download.pytorch.org/models/vgg16-397923af.pth"}


@dataclass(frozen=True)
class PublicFile:
    """Weights that anybody can download.

    Attributes:
        name: timm's name with the tag of the weights, such as "resnet18.tv_in1k".
        hub: Repository of the Hugging Face hub that `--weights pretrained` reads; empty where it reads `address`.
        address: Where the authors' own file lies; empty where timm's data do not say.
        sha256: The first digits of that file's SHA-256, or empty: torch.hub puts them into file names and checks them.
    """

    name: str
    hub: str
    address: str
    sha256: str

    def __str__(self) -> str:
        """One line for people."""
        file = PurePosixPath(urllib.parse.urlsplit(self.address).path).name
        parts = [self.hub and f"hub {self.hub}", file and f"file {file}", self.sha256 and f"SHA-256 {self.sha256}…"]
        return f"{self.name}: {', '.join(part for part in parts if part)}"


def public_file(encoder: str) -> PublicFile | None:
    """Find the public weights of an encoder.

    Args:
        encoder: A timm name; without a tag it means timm's default weights.

    Returns:
        The file, or None where nobody published weights of that name.

    Example:
        >>> print(public_file("resnet18.tv_in1k"))
        resnet18.tv_in1k: hub timm/resnet18.tv_in1k, file resnet18-f37072fd.pth, SHA-256 f37072fd…
    """
    import timm  # heavy

    from train.models.encoders import cct  # noqa: F401  # heavy: adds its names to timm's

    config = timm.get_pretrained_cfg(encoder) if timm.is_model(encoder.partition(".")[0]) else None
    if config is None or not config.has_weights:
        return None
    architecture = encoder.partition(".")[0]
    name = f"{architecture}.{config.tag}" if config.tag else architecture
    address = _TORCHVISION.get(name, str(config.url or ""))
    digits = re.search(r"-([0-9a-f]{8,})\.(?:pth|pt)$", address)
    return PublicFile(name, str(config.hf_hub_id or ""), address, digits.group(1) if digits else "")
