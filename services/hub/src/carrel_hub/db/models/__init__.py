"""Every table, imported in one place so that metadata is whole."""

from carrel_hub.db.models.agents import AgentHost, HostAccount, JoinToken
from carrel_hub.db.models.events import Event
from carrel_hub.db.models.fleet import FleetAuthority
from carrel_hub.db.models.groups import Group, UserGroup
from carrel_hub.db.models.identity import IdentityCounter
from carrel_hub.db.models.oauth import OAuthCode
from carrel_hub.db.models.replicas import Lease, Replica
from carrel_hub.db.models.routing import ProxyStatus, RouteChange, RouteCounter
from carrel_hub.db.models.servers import Server
from carrel_hub.db.models.services import Service, ServiceRun
from carrel_hub.db.models.sessions import BrowserSession, LoginAttempt, SignInLink
from carrel_hub.db.models.shares import Share, ShareCode
from carrel_hub.db.models.tokens import Token
from carrel_hub.db.models.users import User

__all__ = [
    "AgentHost",
    "BrowserSession",
    "Event",
    "FleetAuthority",
    "Group",
    "HostAccount",
    "IdentityCounter",
    "JoinToken",
    "Lease",
    "LoginAttempt",
    "OAuthCode",
    "ProxyStatus",
    "Replica",
    "RouteChange",
    "RouteCounter",
    "Server",
    "Service",
    "ServiceRun",
    "Share",
    "ShareCode",
    "SignInLink",
    "Token",
    "User",
    "UserGroup",
]
