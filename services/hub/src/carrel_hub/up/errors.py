"""What `carrel` tells people when it cannot go on."""


class UpError(Exception):
    """The message says what is wrong and what to do; `status` is the exit status."""

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.status = status
