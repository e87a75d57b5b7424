"""What scopes allow, in words, for those who are asked to grant them. Pure."""

from collections.abc import Mapping

from carrel_hub.rbac.custom import CustomScope
from carrel_hub.rbac.scopes import Scope

WORDS: Mapping[str, str] = {
    Scope.INHERIT: "everything its owner may do",
    Scope.SELF: "everything with what is their own",
    Scope.ADMIN_UI: "open the page of people",
    Scope.ADMIN_USERS: "make, change and delete users",
    Scope.ADMIN_AUTH_STATE: "see what signing in left behind of users",
    Scope.USERS: "see users, and say when they were active",
    Scope.DELETE_USERS: "delete users",
    Scope.LIST_USERS: "list users",
    Scope.READ_USERS: "see users",
    Scope.READ_USERS_NAME: "see the names of users",
    Scope.READ_USERS_GROUPS: "see which groups users are in",
    Scope.READ_USERS_ACTIVITY: "see when users were last active",
    Scope.USERS_ACTIVITY: "say when users were active",
    Scope.READ_ROLES: "see roles",
    Scope.READ_ROLES_USERS: "see the roles of users",
    Scope.READ_ROLES_SERVICES: "see the roles of services",
    Scope.READ_ROLES_GROUPS: "see the roles of groups",
    Scope.ADMIN_SERVERS: "start and stop servers, and see how they run",
    Scope.ADMIN_SERVER_STATE: "see how and where servers run",
    Scope.SERVERS: "see, start and stop servers",
    Scope.READ_SERVERS: "see whether servers run",
    Scope.START_SERVERS: "start servers",
    Scope.DELETE_SERVERS: "stop servers",
    Scope.TOKENS: "make and revoke tokens",
    Scope.READ_TOKENS: "see tokens, without their secrets",
    Scope.ADMIN_GROUPS: "make, change and delete groups",
    Scope.GROUPS: "see groups, and who is in them, and change that",
    Scope.READ_GROUPS: "see groups and who is in them",
    Scope.READ_GROUPS_NAME: "see the names of groups",
    Scope.LIST_GROUPS: "list groups",
    Scope.DELETE_GROUPS: "delete groups",
    Scope.ADMIN_SERVICES: "make, see and delete services",
    Scope.LIST_SERVICES: "list services",
    Scope.READ_SERVICES: "see services",
    Scope.READ_SERVICES_NAME: "see the names of services",
    Scope.READ_HUB: "see what the hub runs on",
    Scope.PROXY: "see and refresh the table of routes",
    Scope.SHUTDOWN: "shut the hub down",
    Scope.READ_METRICS: "read the metrics",
    Scope.ACCESS_SERVERS: "open servers, and do there what their owners can",
    Scope.ACCESS_SERVICES: "open services",
    Scope.SHARES: "share servers with others, and end that",
    Scope.READ_SHARES: "see with whom servers are shared",
    Scope.USERS_SHARES: "see what is shared with users, and give it back",
    Scope.READ_USERS_SHARES: "see what is shared with users",
    Scope.GROUPS_SHARES: "see what is shared with groups, and give it back",
    Scope.READ_GROUPS_SHARES: "see what is shared with groups",
}

WORDS_FOR_ONE_SERVER: Mapping[str, str] = {
    Scope.ACCESS_SERVERS: "open it, and do there what its owner can",
    Scope.READ_SERVERS: "see whether it runs",
    Scope.START_SERVERS: "start it",
    Scope.DELETE_SERVERS: "stop it",
    Scope.SERVERS: "see whether it runs, start it and stop it",
    Scope.ADMIN_SERVER_STATE: "see how and where it runs",
    Scope.ADMIN_SERVERS: "start it, stop it, and see how and where it runs",
    Scope.READ_SHARES: "see with whom it is shared",
    Scope.SHARES: "share it with others, and end that",
}

WORDS_OF_ONES_OWN: Mapping[str, str] = {
    Scope.READ_USERS: "see what is known of you",
    Scope.READ_USERS_NAME: "see your name",
    Scope.READ_USERS_GROUPS: "see which groups you are in",
    Scope.READ_USERS_ACTIVITY: "see when you were last active",
    Scope.USERS_ACTIVITY: "say when you were active",
    Scope.SERVERS: "see, start and stop your servers",
    Scope.READ_SERVERS: "see whether your servers run",
    Scope.START_SERVERS: "start your servers",
    Scope.DELETE_SERVERS: "stop your servers",
    Scope.ACCESS_SERVERS: "open your servers, and do there what you can",
    Scope.TOKENS: "make and revoke your tokens",
    Scope.READ_TOKENS: "see your tokens, without their secrets",
    Scope.SHARES: "share your servers with others, and end that",
    Scope.READ_SHARES: "see with whom your servers are shared",
    Scope.USERS_SHARES: "see what is shared with you, and give it back",
    Scope.READ_USERS_SHARES: "see what is shared with you",
}


def in_words(text: str, custom: Mapping[str, CustomScope]) -> str:
    """Return what a scope allows, in words; its name where there are none."""
    name = text.partition("!")[0]
    if name in custom:
        return custom[name].description
    return WORDS.get(name, name)


def in_words_of_one_server(name: str, custom: Mapping[str, CustomScope]) -> str:
    """Return what the name of a scope allows with the one server that is spoken of."""
    return WORDS_FOR_ONE_SERVER.get(name) or in_words(name, custom)


def in_words_of_ones_own(name: str, custom: Mapping[str, CustomScope]) -> str:
    """Return what the name of a scope allows with what is one's own."""
    return WORDS_OF_ONES_OWN.get(name) or f"{in_words(name, custom)}: your own only"
