"""The one exception that users are meant to read."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one sentence that names the remedy.

    The entry points print it and exit with status 2.
    """
