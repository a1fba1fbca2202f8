"""Answers of a remote store that are not the requested bytes."""


class Refusal(Exception):  # noqa: N818 - it is an answer
    """An answer that another try will not change; its text says what it was."""


class ShortReply(OSError):  # noqa: N818 - it is an answer
    """Fewer bytes than requested, which another try may mend."""
