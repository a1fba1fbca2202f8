"""What a remote store answers when it does not give the bytes that were asked for."""


class Refusal(Exception):  # noqa: N818 - it is an answer
    """An answer that asking again will not change; its text says what it was and what to do."""


class ShortReply(OSError):  # noqa: N818 - it is an answer
    """Fewer bytes than asked for."""
