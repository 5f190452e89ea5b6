"""Errors that a user can cause and put right. The command line prints their one line and exits with 2."""


class UserError(Exception):
    """Bad input or a condition outside the program; the message is one line: file, line and remedy."""


class ArtifactError(UserError):
    """A `.karui` file that is cut, altered, hostile or of a newer format version."""
