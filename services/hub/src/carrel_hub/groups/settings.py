"""A group in the settings: `[hub.groups.NAME]`."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from carrel_hub.auth.names import normalise_name

UserName = Annotated[str, AfterValidator(normalise_name)]
"""A user's name, in its one spelling."""


class GroupSettings(BaseModel):
    """A group that is there from the start. Nobody is ever taken out of it by the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    users: list[UserName] = Field(default=[], description="Who is put into it, made if need be.")
    properties: dict[str, Any] = Field(
        default={}, description="What is kept with it when it is made."
    )
