"""A service in the settings: `[[hub.services]]`."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from carrel_hub.services.fields import ClientId, ServiceName, ServiceUrl, check_client, check_secret


class ServiceSettings(BaseModel):
    """A service that runs elsewhere and acts with rights of its own, or signs people in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ServiceName = Field(description="Its name, in `{base}services/NAME/` and in roles.")
    api_token: SecretStr | None = Field(
        default=None,
        description="What it calls the API with, 8 to 64 characters; also the secret of its OAuth"
        " client.",
    )
    admin: bool = Field(default=False, description="It has every right of an administrator.")
    url: ServiceUrl | None = Field(
        default=None,
        description="Where it listens, such as http://127.0.0.1:9000; proxied at"
        " `{base}services/NAME/`.",
    )
    info: dict[str, Any] = Field(default={}, description="What those who may list it are told.")
    display: bool = Field(default=True, description="Show it in the navigation.")
    oauth_client_id: ClientId | None = Field(
        default=None, description="Its OAuth client, `service-NAME` unless said otherwise."
    )
    oauth_redirect_uri: str | None = Field(
        default=None,
        description="The one address that answers go to; `{base}services/NAME/oauth_callback` for"
        " one with a url.",
    )
    oauth_client_allowed_scopes: list[str] = Field(
        default=[], description="What it may ask people for beside knowing who they are."
    )
    oauth_no_confirm: bool = Field(
        default=False, description="Ask nobody whether it may know who they are."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.api_token is not None:
            check_secret(self.api_token.get_secret_value())
        check_client(
            url=self.url,
            client_id=self.oauth_client_id,
            redirect_uri=self.oauth_redirect_uri,
        )
        return self
