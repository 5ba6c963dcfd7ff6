"""What an error says, in one line."""

MAX_CHARACTERS = 400


def one_line(error: BaseException) -> str:
    """An error's message: its first line, and where that only opens what follows, the next too.

    An error without words gives its class's name.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    said = lines[0]
    for line in lines[1:]:
        if not (said.endswith(":") or _counts_errors(said)):
            break
        said = f"{said} {line}"
    if said.endswith(":"):  # nothing followed
        said = said[:-1]
    return said if len(said) <= MAX_CHARACTERS else f"{said[: MAX_CHARACTERS - 4]} ..."


def _counts_errors(said: str) -> bool:
    """Whether a line is pydantic's "1 validation error for Name", and perhaps the field's name."""
    _, is_there, rest = said.partition(" validation error")
    return bool(is_there) and len(rest.split()) <= 3
