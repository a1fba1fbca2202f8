"""Every error that a user can meet, with the exit code that the command line ends with.

A message is one line that names the file, the field and what to do next. Anything that is not a `SeqdataError` is a
defect of ours and may show a traceback. docs/errors.md lists the codes: 0 is success, 1 a defect, 2 a usage error.
"""

BROKEN_PIPE = 141
"""Exit code when the reader of stdout has gone: 128 + SIGPIPE, as a shell reports it."""


class SeqdataError(Exception):
    """Base of all errors that a user sees as one line."""

    exit_code = 1
    """What the command line ends with."""

    label = "error"
    """The word before the message; "note" where nothing has failed."""

    def __init__(self, message: str) -> None:
        """A message may quote what a file holds: line ends in it become spaces."""
        super().__init__(" ".join(message.splitlines()))


class InputError(SeqdataError):
    """A raw dump or a file the user named is missing, unreadable or of another kind (exit code 3)."""

    exit_code = 3


class ContractError(SeqdataError):
    """A table, manifest, protocol, configuration or checkpoint breaks its contract (exit code 4)."""

    exit_code = 4


class UsageError(ContractError):
    """A word on the command line is wrong: a flag's value, a name, or flags that exclude each other (exit code 2)."""

    exit_code = 2


class EmptyCutError(ContractError):
    """A cut along the route leaves no frame to train or to test (exit code 4)."""


class OutputError(SeqdataError):
    """The output folder holds something else, is in use, or cannot be written (exit code 5)."""

    exit_code = 5


class QuarantineNotice(SeqdataError):  # noqa: N818 - it is news, not a failure
    """A build ended well, but left inputs out: they are in quarantine with their reasons (exit code 6)."""

    exit_code = 6
    label = "note"


class MissingDependencyError(SeqdataError):
    """A package or a weights file is absent; the message names the exact install or flag (exit code 7)."""

    exit_code = 7


class NotEnoughDataError(SeqdataError):
    """Too few descriptors, queries or positives for a step; the message says what would work (exit code 8)."""

    exit_code = 8


class DivergedError(SeqdataError):
    """Loss or gradient is no longer finite (exit code 9); the message names epoch, step and the batch's sequences."""

    exit_code = 9


class Interrupted(SeqdataError):  # noqa: N818 - it is news, not a failure
    """Ctrl-C ended the command; finished parts stay on disk, and the message says how to continue (exit code 130)."""

    exit_code = 130
    label = "note"


class Terminated(Interrupted):
    """SIGTERM ended the command as Ctrl-C does: a job scheduler's time is over, or a service stops (exit code 143)."""

    exit_code = 143


class Termination(KeyboardInterrupt):
    """SIGTERM, raised where Ctrl-C would be, so that everything that cleans up after one does so after the other."""
