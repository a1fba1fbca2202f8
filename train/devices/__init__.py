"""Where to compute, and in which precision: one policy for training, describing, mining, validation and the index."""

from train.devices.copies import has_room, or_on_cpu, to_device, to_host
from train.devices.device import pick_device
from train.devices.precision import arithmetic, autocast, computing, has_bfloat16, pick_precision
from train.devices.repeatable import repeatable
from train.devices.resize import resize_by_products

__all__ = [
    "arithmetic",
    "autocast",
    "computing",
    "has_bfloat16",
    "has_room",
    "or_on_cpu",
    "pick_device",
    "pick_precision",
    "repeatable",
    "resize_by_products",
    "to_device",
    "to_host",
]
