"""Errors that a user can mend: each is one line that names the file and the remedy, and an exit code."""


class SppnetError(Exception):
    """A failure with a message fit for the user.  Exit code 1."""

    exit_code = 1


class UsageError(SppnetError):
    """The call itself is wrong: an unknown name, scale or combination of options.  Exit code 2."""

    exit_code = 2


class DataError(SppnetError):
    """Data, weights or an optional package is missing or unreadable.  Exit code 3."""

    exit_code = 3
