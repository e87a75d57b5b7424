"""What tells every hub that somebody's rights may have changed."""

from sqlmodel import Field, SQLModel


class IdentityCounter(SQLModel, table=True):
    """The one row whose number grows with each change of who may do what (`db.identity`)."""

    __tablename__ = "identity_counter"

    id: int = Field(primary_key=True)
    number: int = 0
