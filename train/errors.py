"""Errors that only training can raise."""

from seqdata.errors import SeqdataError


class DivergedError(SeqdataError):
    """Loss or gradient is no longer finite (exit code 9); the message names epoch, step and the batch's sequences."""

    exit_code = 9
