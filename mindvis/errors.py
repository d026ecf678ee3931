"""The one exception for what a user can put right."""


class InputError(ValueError):
    """A file, array or setting that is not what it must be.

    Its message is one line that names the file, array or setting, what was found and what is needed. Scripts print
    that line and exit with status 2, without a traceback.
    """
