"""The one exception that a user is meant to see, and what the terminal makes of it."""

import errno


class UserError(Exception):
    """Something the user can mend: the message names the place, the value and what to do.

    `main` prints it as a single message without a traceback and exits with status 2.
    """

    exit_code = 2


class Transient(UserError):
    """What may have passed when the same command runs again: a scheduler may restart it.

    `main` exits with status 75, as sysexits' EX_TEMPFAIL.
    """

    exit_code = 75


# What a file server says that is away for a while, or has lost what was open.
PASSING = (errno.ESTALE, errno.EIO, errno.EREMOTEIO, errno.ETIMEDOUT, errno.EHOSTDOWN)


def exit_code_of(error: UserError | OSError) -> int:
    """The exit status for an error: 2, or 75 where it may pass."""
    if isinstance(error, UserError):
        return error.exit_code
    return Transient.exit_code if error.errno in PASSING else UserError.exit_code


def shorten(items, limit: int = 5) -> str:
    """'a, b, c and 4 more': a list that stays readable in an error message."""
    items = [str(item) for item in items]
    if len(items) <= limit:
        return ", ".join(items)
    return f"{', '.join(items[:limit])} and {len(items) - limit} more"


def is_disk_full(error: BaseException) -> bool:
    """Whether `error`, or what caused it, is a full disk or an exhausted quota.

    Orbax and TensorFlow write from C++ and report it in words rather than by errno.
    """
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(cause) or "Disk quota exceeded" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
