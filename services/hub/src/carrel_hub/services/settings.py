"""A service in the settings: `[[hub.services]]`."""

from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from carrel_hub.services.fields import ClientId, ServiceName, ServiceUrl, check_client, check_secret
from carrel_shared.fields import PeerName


class ServiceSettings(BaseModel):
    """A program that acts with rights of its own, or signs people in.

    With a `command` it is run from here, else elsewhere.
    """

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
    command: list[str] | None = Field(
        default=None,
        min_length=1,
        description="What runs it: it is started, watched and started again on its `host`. Its"
        " token is in its environment, so it is not to be among these words, which everybody on the"
        " host can read.",
    )
    user: str | None = Field(
        default=None,
        description="The unix account it runs as; never root. Needed where the agent is root.",
    )
    cwd: str | None = Field(
        default=None,
        pattern=r"^/",
        description="Where it is started; the home of its account without it.",
    )
    environment: dict[str, str] = Field(
        default={}, description="Variables it gets beside JupyterHub's; they win."
    )
    timeout: float = Field(
        default=30, gt=0, description="How many seconds it may take to answer at its url."
    )
    host: PeerName | None = Field(
        default=None,
        description="The host that runs it: an agent of the settings, the first one without this,"
        " or a host that has joined, where proxies reach it through that one's relay.",
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
            secret = check_secret(self.api_token.get_secret_value())
            if any(secret in word for word in self.command or ()):
                raise ValueError(
                    "command holds the api_token; everybody on the host can read command lines, and"
                    " it is in JUPYTERHUB_API_TOKEN"
                )
        if self.command is None:
            if self.user or self.cwd or self.environment or self.host:
                raise ValueError("user, cwd, environment and host are of services with a command")
        elif self.url is not None and urlsplit(self.url).hostname not in ("127.0.0.1", "localhost"):
            raise ValueError("url: a service with a command listens on http://127.0.0.1:PORT")
        check_client(
            url=self.url,
            client_id=self.oauth_client_id,
            redirect_uri=self.oauth_redirect_uri,
        )
        return self
