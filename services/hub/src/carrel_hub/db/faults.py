"""What a database objects to, in its own words."""

from sqlalchemy.exc import DBAPIError


def reason_of(error: DBAPIError) -> str:
    """Return what the database said, without the values it was given, which are on other lines."""
    said: BaseException | None = error.orig
    if said is not None and said.__cause__ is not None:  # the driver's own error
        said = said.__cause__
    return str(said).partition("\n")[0][:300]
