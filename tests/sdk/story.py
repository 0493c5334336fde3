"""What every client is told to do, and what its user must get from it: the same story for all languages.

A step is a call of an operation, with the answer that the *user of the client* sees: the decoded object, or the class of
the error thrown. A step that needs what a failed or skipped one would have made is skipped. The statements are those of
the contract; sdk-notes.md sections 1 to 5 say what the clients make of an answer.
"""

from dataclasses import dataclass, field
from typing import Any


class Saved:
    """Something an earlier step has saved."""

    def __init__(self, name):
        self.name = name


class Kind:
    """Any value of a kind."""

    def __init__(self, words, fits):
        self.words, self.fits = words, fits

    def __repr__(self):
        return self.words


def is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


INT = Kind("an integer", is_int)
MS = Kind("a time in milliseconds", lambda value: is_int(value) and 1_600_000_000_000 < value < 5_000_000_000_000)
TEXT = Kind("some text", lambda value: isinstance(value, str) and value != "")
ANY_TEXT = Kind("a string", lambda value: isinstance(value, str))
LIST = Kind("a list", lambda value: isinstance(value, list))
ABSENT = Kind("nothing", lambda value: False)


def an_id(prefix):
    return Kind(f"an id {prefix}_…", lambda value: isinstance(value, str) and value.startswith(prefix + "_"))


class Nothing(Exception):
    """A step needs what no earlier step has made."""


def filled(value, saved):
    """The value with everything saved put in."""
    if isinstance(value, Saved):
        if value.name not in saved:
            raise Nothing(value.name)
        return saved[value.name]
    if isinstance(value, dict):
        return {name: filled(member, saved) for name, member in value.items()}
    if isinstance(value, list):
        return [filled(item, saved) for item in value]
    return value


def differences(wanted, came, at="data"):
    """Where an answer is not what was wanted: objects may hold more, lists may not, and the kinds are looked at."""
    if isinstance(wanted, Kind):
        return [] if wanted.fits(came) else [f"{at}: wanted {wanted}, got {came!r}"]
    if isinstance(wanted, dict):
        if not isinstance(came, dict):
            return [f"{at}: wanted an object, got {came!r}"]
        found = []
        for name, member in wanted.items():
            if member is ABSENT:
                # A client may show an absent member as null; the server's own answer is judged in tests/.
                found += [f"{at}.{name}: wanted nothing, got {came[name]!r}"] if came.get(name) is not None else []
            elif name not in came:
                found.append(f"{at}.{name} is missing")
            else:
                found += differences(member, came[name], f"{at}.{name}")
        return found
    if isinstance(wanted, list):
        if not isinstance(came, list) or len(came) != len(wanted):
            return [f"{at}: wanted {len(wanted)} items, got {came!r}"]
        return [line for i, item in enumerate(wanted) for line in differences(item, came[i], f"{at}[{i}]")]
    return [] if type(wanted) is type(came) and wanted == came else [f"{at}: wanted {wanted!r}, got {came!r}"]


@dataclass
class Step:
    """One call. `status` 200 means success; anything else is refused with `code`, as a typed error or a generic one."""

    operation: str
    body: Any
    status: int = 200
    code: str = ""
    typed: bool = True
    data: Any = None
    save: dict = field(default_factory=dict)
    credential: str = "root"
    # What a client must know to say this; the others' types have no room for it.
    only: str = ""
    # Other operations that the server must serve for this to mean anything.
    needs: tuple = ()
    # Sent by the runner itself: what no client has a method for.
    raw: bool = False
    title: str = ""

    @property
    def name(self):
        return self.title or f"{self.operation} answers {self.status} {self.code}".strip()


# What a refusal of that status is called in every client.
CLASSES = {
    400: "BadRequestErrorResponse",
    401: "UnauthorizedErrorResponse",
    403: "ForbiddenErrorResponse",
    404: "NotFoundErrorResponse",
    409: "ConflictErrorResponse",
    410: "GoneErrorResponse",
    412: "PreconditionFailedErrorResponse",
    429: "TooManyRequestsErrorResponse",
}

INVALID = "unkey/application/invalid_input"
DENIED = "unkey/authorization/insufficient_permissions"
NO_KEY = "unkey/data/key_not_found"
NO_API = "unkey/data/api_not_found"
NO_IDENTITY = "unkey/data/identity_not_found"
NO_PERMISSION = "unkey/data/permission_not_found"
NO_ROLE = "unkey/data/role_not_found"
NO_NAMESPACE = "unkey/data/ratelimit_namespace_not_found"
NO_OVERRIDE = "unkey/data/ratelimit_override_not_found"
PRECONDITION = "unkey/application/precondition_failed"

# What not all clients know.
NEWEST = "the newest operations"
NULLS = "null where it differs from absent"
ROLE_PERMISSIONS = "permissions of a new role"
SEARCH = "searches"

MINUTE = 60_000
# 2040-01-01, far from now and within every client's range.
LATER = 2_208_988_800_000
META = {"plan": "pro", "seats": 12, "tags": ["a", "b"], "nested": {"über": "☃", "none": None}, "half": 0.5}


def story():
    """All steps, in order."""
    steps = []

    def add(operation, body, data=None, save=None, **more):
        steps.append(Step(operation, body, data=data, save=save or {}, **more))

    def refused(operation, body, status, code, **more):
        steps.append(Step(operation, body, status=status, code=code, **more))

    def guarded(operation, body, data=None, save=None, weak=(403, DENIED), **more):
        """A success, after the refusals that hold for the very same request whatever the operation: no root key, an
        unknown one, a disabled one, a workspace without requests left, and one that may do nothing (`weak`)."""
        only = {"only": more["only"]} if "only" in more else {}
        # All errors of deleteIdentity are generic: the clients expect problem JSON there and do not ask for it. The
        # document of rootKeys.listKeys lists no 403.
        typed = operation != "identities.deleteIdentity"
        typed_403 = typed and operation != "rootKeys.listKeys"
        refused(operation, body, 400, INVALID, credential="none", typed=typed, **only)
        refused(operation, body, 401, "unkey/authentication/key_not_found", credential="unknown", typed=typed, **only)
        refused(operation, body, 403, "unkey/authorization/key_disabled", credential="disabled", typed=typed_403,
                **only)
        # They expect problem JSON for a 429 as well, but in the two operations that were written last.
        typed_429 = operation in ("permissions.updatePermission", "permissions.updateRole")
        refused(operation, body, 429, "user/too_many_requests/workspace_rate_limited", credential="limited",
                typed=typed_429, **only)
        if weak is not None:
            refused(operation, body, *weak, credential="weak", typed=typed_403, **only)
        add(operation, body, data, save, **more)

    # APIs

    guarded("apis.createApi", {"name": "Größe & \"quotes\" ☃"}, {"apiId": an_id("api")}, {"api": "apiId"})
    refused("apis.createApi", {"name": "ab"}, 400, INVALID)
    guarded("apis.getApi", {"apiId": Saved("api")}, {"id": Saved("api"), "name": "Größe & \"quotes\" ☃"})
    refused("apis.getApi", {"apiId": "x"}, 400, INVALID)
    refused("apis.getApi", {"apiId": "api_unknown1234"}, 404, NO_API)
    refused("apis.getApi", {"apiId": Saved("api")}, 404, NO_API, credential="foreign")
    guarded("apis.listKeys", {"apiId": Saved("api")}, [], weak=(404, NO_API), title="an empty list is a list")
    refused("apis.listKeys", {"apiId": Saved("api"), "limit": 101}, 400, INVALID)
    refused("apis.listKeys", {"apiId": "api_unknown1234"}, 404, NO_API)
    refused("apis.listKeys", {"apiId": Saved("api"), "decrypt": True}, 412, PRECONDITION, typed=False)

    # Permissions and roles

    guarded("permissions.createPermission", {"name": "Read documents", "slug": "documents.read", "description": "All."},
            {"permissionId": an_id("perm")}, {"permission": "permissionId"})
    refused("permissions.createPermission", {"name": "n", "slug": "no spaces"}, 400, INVALID)
    refused("permissions.createPermission", {"name": "Another", "slug": "Documents.Read"}, 409,
            "unkey/data/permission_already_exists")
    guarded("permissions.getPermission", {"permission": Saved("permission")},
            {"id": Saved("permission"), "name": "Read documents", "slug": "documents.read", "description": "All."})
    add("permissions.getPermission", {"permission": "documents.read"}, {"id": Saved("permission")})
    refused("permissions.getPermission", {"permission": "no.such"}, 404, NO_PERMISSION)
    refused("permissions.getPermission", {"permission": "no spaces"}, 400, INVALID)
    guarded("permissions.listPermissions", {"search": "READ doc"}, [{"id": Saved("permission")}])
    add("permissions.listPermissions", {"search": "no such thing"}, [], only=SEARCH)
    refused("permissions.listPermissions", {"limit": 0}, 400, INVALID)
    guarded("permissions.createRole", {"name": "Editor", "description": "Edits.", "permissions": ["documents.write"]},
            {"roleId": an_id("role")}, {"role": "roleId"})
    add("permissions.getRole", {"role": Saved("role")}, {"permissions": [{"slug": "documents.write"}]},
        only=ROLE_PERMISSIONS)
    # For the others, so that they go on alike.
    add("permissions.setRolePermissions", {"roleId": Saved("role"), "permissions": ["documents.write"]},
        [{"slug": "documents.write"}], raw=True)
    refused("permissions.createRole", {"name": "editor"}, 409, "unkey/data/role_already_exists")
    refused("permissions.createRole", {"name": ""}, 400, INVALID)
    guarded("permissions.getRole", {"role": "Editor"}, {
        "id": Saved("role"), "name": "Editor", "description": "Edits.",
        "permissions": [{"id": an_id("perm"), "name": "documents.write", "slug": "documents.write",
                         "description": ABSENT}],
    })
    refused("permissions.getRole", {"role": "Nobody"}, 404, NO_ROLE)
    refused("permissions.getRole", {"role": ""}, 400, INVALID)
    guarded("permissions.listRoles", {"search": "edit"}, [{"id": Saved("role"), "permissions": LIST}])
    refused("permissions.listRoles", {"limit": 101}, 400, INVALID)
    guarded("permissions.setRolePermissions",
            {"roleId": Saved("role"), "permissions": ["documents.write", "documents.read"]},
            [{"slug": "documents.read", "description": "All."}, {"slug": "documents.write"}])
    add("permissions.setRolePermissions", {"role": "Editor", "permissions": ["documents.write"]},
        [{"slug": "documents.write"}], only=NEWEST, title="the newest client names the role")
    refused("permissions.setRolePermissions", {"roleId": "role_unknown", "permissions": []}, 404, NO_ROLE)
    refused("permissions.setRolePermissions", {"roleId": Saved("role"), "permissions": [""]}, 400, INVALID)
    guarded("permissions.updatePermission", {"permission": "documents.read", "name": "Read", "description": None},
            {"id": Saved("permission"), "name": "Read", "slug": "documents.read", "description": ABSENT}, only=NEWEST)
    refused("permissions.updatePermission", {"permission": "documents.read", "slug": "documents.write"}, 409,
            "unkey/data/permission_already_exists", only=NEWEST)
    refused("permissions.updatePermission", {"permission": "no.such", "name": "n"}, 404, NO_PERMISSION, only=NEWEST)
    guarded("permissions.updateRole", {"role": "Editor", "description": "Writes."},
            {"id": Saved("role"), "name": "Editor", "description": "Writes."}, only=NEWEST)
    refused("permissions.updateRole", {"role": "Nobody", "name": "Somebody"}, 404, NO_ROLE, only=NEWEST)

    # Identities

    limits = [{"name": "requests", "limit": 5, "duration": MINUTE, "autoApply": True}]
    guarded("identities.createIdentity", {"externalId": "user_1", "meta": META, "ratelimits": limits},
            {"identityId": an_id("id")}, {"identity": "identityId"})
    refused("identities.createIdentity", {"externalId": "user_1"}, 409, "unkey/data/identity_already_exists")
    refused("identities.createIdentity", {"externalId": "no spaces"}, 400, INVALID)
    whole = {"id": Saved("identity"), "externalId": "user_1", "meta": META,
             "ratelimits": [{**limits[0], "id": an_id("rl")}]}
    guarded("identities.getIdentity", {"identity": "user_1"}, whole)
    add("identities.getIdentity", {"identity": Saved("identity")}, whole)
    refused("identities.getIdentity", {"identity": "nobody"}, 404, NO_IDENTITY)
    refused("identities.getIdentity", {"identity": ""}, 400, INVALID)
    refused("identities.getIdentity", {"identity": Saved("identity")}, 404, NO_IDENTITY, credential="foreign")
    guarded("identities.listIdentities", {"search": "user_1"}, [whole])
    refused("identities.listIdentities", {"limit": 101}, 400, INVALID)
    guarded("identities.updateIdentity", {"identity": "user_1", "meta": {"plan": "free"}},
            {**whole, "meta": {"plan": "free"}})
    add("identities.updateIdentity", {"identity": "user_1", "meta": {}, "ratelimits": []},
        {"externalId": "user_1", "meta": ABSENT, "ratelimits": ABSENT},
        title="identities.updateIdentity: an empty object and an empty list replace by nothing")
    add("identities.updateIdentity", {"identity": "user_1", "ratelimits": limits}, {"externalId": "user_1"})
    refused("identities.updateIdentity", {"identity": "user_1", "ratelimits": limits * 2}, 400, INVALID)
    refused("identities.updateIdentity", {"identity": "nobody"}, 404, NO_IDENTITY)

    # Keys: create, read, verify

    full = {
        "apiId": Saved("api"), "prefix": "demo", "name": "A key ☃", "byteLength": 24, "externalId": "user_1",
        "meta": META, "permissions": ["documents.read", "documents.new"], "expires": LATER, "enabled": True,
        "credits": {"remaining": 10, "refill": {"interval": "monthly", "amount": 10, "refillDay": 31}},
        "ratelimits": [{"name": "own", "limit": 20, "duration": MINUTE, "autoApply": True}],
    }
    guarded("keys.createKey", full, {"keyId": an_id("key"), "key": an_id("demo")},
            {"key": "keyId", "secret": "key"}, weak=(404, NO_API))
    add("keys.createKey", {"apiId": Saved("api")}, {"keyId": an_id("key"), "key": TEXT},
        {"plain": "keyId", "plain secret": "key"})
    refused("keys.createKey", {"apiId": "api_unknown1234"}, 404, NO_API)
    refused("keys.createKey", {"apiId": Saved("api"), "byteLength": 15}, 400, INVALID)
    refused("keys.createKey", {"apiId": Saved("api"), "roles": ["Nobody"]}, 404, NO_ROLE)
    refused("keys.createKey", {"apiId": Saved("api"), "recoverable": True}, 412, PRECONDITION, typed=False)
    key = {
        "keyId": Saved("key"), "start": an_id("demo"), "enabled": True, "createdAt": MS, "name": "A key ☃",
        "meta": META, "expires": LATER, "permissions": ["documents.new", "documents.read"], "roles": ABSENT,
        "credits": {"remaining": 10, "refill": {"interval": "monthly", "amount": 10, "refillDay": 31}},
        "identity": {"id": TEXT, "externalId": "user_1"},
        "ratelimits": [{"id": an_id("rl"), "name": "own", "limit": 20, "duration": MINUTE, "autoApply": True}],
        "plaintext": ABSENT, "lastUsedAt": ABSENT, "updatedAt": ABSENT,
    }
    bare = {
        "keyId": Saved("plain"), "start": TEXT, "enabled": True, "createdAt": MS,
        **{name: ABSENT for name in ("name", "meta", "expires", "permissions", "roles", "credits", "identity",
                                     "ratelimits", "plaintext", "updatedAt", "lastUsedAt")},
    }
    guarded("keys.getKey", {"keyId": Saved("key")}, key)
    add("keys.getKey", {"keyId": Saved("plain")}, bare, title="keys.getKey: what has no value is left out")
    refused("keys.getKey", {"keyId": "key_unknown"}, 404, NO_KEY)
    refused("keys.getKey", {"keyId": "x"}, 400, INVALID)
    refused("keys.getKey", {"keyId": Saved("key")}, 404, NO_KEY, credential="foreign")
    refused("keys.getKey", {"keyId": Saved("key"), "decrypt": True}, 412, PRECONDITION, typed=False)
    guarded("keys.whoami", {"key": Saved("secret")}, key, weak=(404, NO_KEY))
    refused("keys.whoami", {"key": "demo_unknown"}, 404, NO_KEY)
    refused("keys.whoami", {"key": ""}, 400, INVALID)
    add("apis.listKeys", {"apiId": Saved("api"), "externalId": "user_1"}, [key])

    guarded("keys.verifyKey", {"key": Saved("secret"), "permissions": "documents.read AND (documents.new OR no.such)",
                               "tags": ["path=/a b", "☃"], "credits": {"cost": 3}}, {
        "valid": True, "code": "VALID", "keyId": Saved("key"), "enabled": True, "name": "A key ☃", "meta": META,
        "expires": LATER, "credits": 7, "permissions": ["documents.new", "documents.read"], "roles": ABSENT,
        "identity": {"id": TEXT, "externalId": "user_1"}, "ratelimits": LIST,
    }, weak=None)
    add("keys.verifyKey", {"key": Saved("secret")}, {"valid": False, "code": "NOT_FOUND", "keyId": ABSENT},
        credential="weak", title="keys.verifyKey: without the permission the key is not found")
    add("keys.verifyKey", {"key": Saved("secret")}, {"valid": False, "code": "NOT_FOUND"}, credential="foreign")
    add("keys.verifyKey", {"key": "demo_unknown"}, {"valid": False, "code": "NOT_FOUND"})
    add("keys.verifyKey", {"key": Saved("plain secret")}, {
        "valid": True, "code": "VALID", "keyId": Saved("plain"), "enabled": True,
        **{name: ABSENT for name in ("name", "meta", "expires", "credits", "permissions", "roles", "identity",
                                     "ratelimits")},
    }, title="keys.verifyKey: what has no value is left out")
    add("keys.verifyKey", {"key": Saved("secret"), "permissions": "documents.delete"},
        {"valid": False, "code": "INSUFFICIENT_PERMISSIONS", "keyId": Saved("key"), "credits": 7})
    add("keys.verifyKey", {"key": Saved("secret"), "credits": {"cost": 100}},
        {"valid": False, "code": "USAGE_EXCEEDED", "credits": 7})
    add("keys.verifyKey", {"key": Saved("plain secret"),
                           "ratelimits": [{"name": "custom", "limit": 2, "duration": MINUTE * 60, "cost": 2}]},
        {"valid": True, "ratelimits": [{"id": "", "name": "custom", "limit": 2, "duration": MINUTE * 60, "reset": MS,
                                        "remaining": 0, "exceeded": False, "autoApply": False}]},
        title="keys.verifyKey: an inline limit has the empty id")
    add("keys.verifyKey", {"key": Saved("plain secret"),
                           "ratelimits": [{"name": "custom", "limit": 2, "duration": MINUTE * 60}]},
        {"valid": False, "code": "RATE_LIMITED", "ratelimits": [{"name": "custom", "exceeded": True, "remaining": 0}]})
    refused("keys.verifyKey", {"key": Saved("secret"), "ratelimits": [{"name": "unknown"}]}, 412, PRECONDITION,
            typed=False)
    refused("keys.verifyKey", {"key": Saved("secret"), "permissions": "documents.read AND"}, 400,
            "user/bad_request/permissions_query_syntax_error")
    refused("keys.verifyKey", {"key": ""}, 400, INVALID)
    add("keys.getKey", {"keyId": Saved("key")}, {"lastUsedAt": MS, "credits": {"remaining": 7}})

    # Keys: change. null clears and absent keeps; an empty list replaces by nothing.

    guarded("keys.updateKey", {"keyId": Saved("key")}, {}, title="keys.updateKey: absent keeps everything")
    add("keys.getKey", {"keyId": Saved("key")},
        {**key, "credits": {**key["credits"], "remaining": 7}, "updatedAt": MS, "lastUsedAt": MS})
    add("keys.updateKey", {"keyId": Saved("key"), "name": None, "externalId": None, "meta": None, "expires": None,
                           "credits": None, "ratelimits": [], "permissions": [], "roles": []}, {}, only=NULLS,
        title="keys.updateKey: null clears, empty lists replace by nothing")
    add("keys.getKey", {"keyId": Saved("key")},
        {**{name: ABSENT for name in ("name", "identity", "meta", "expires", "credits", "ratelimits", "permissions")},
         "keyId": Saved("key"), "enabled": True}, only=NULLS)
    add("keys.updateKey", {"keyId": Saved("key"), "name": "renamed", "meta": {"a": 1}, "enabled": False,
                           "expires": LATER + 1, "externalId": "user_1", "permissions": ["documents.read"],
                           "credits": {"remaining": 3, "refill": {"interval": "daily", "amount": 5}}}, {})
    add("keys.verifyKey", {"key": Saved("secret")}, {
        "valid": False, "code": "DISABLED", "enabled": False, "name": "renamed", "meta": {"a": 1}, "credits": 3,
        "permissions": ["documents.read"], "identity": {"externalId": "user_1"},
    })
    add("keys.updateKey", {"keyId": Saved("key"), "credits": {"refill": None}}, {}, only=NULLS,
        title="keys.updateKey: credits.refill null clears the refill alone")
    add("keys.getKey", {"keyId": Saved("key")}, {"credits": {"remaining": 3, "refill": ABSENT}}, only=NULLS)
    add("keys.updateKey", {"keyId": Saved("key"), "credits": {"remaining": None}}, {}, only=NULLS,
        title="keys.updateKey: credits.remaining null is unlimited")
    add("keys.getKey", {"keyId": Saved("key")}, {"credits": ABSENT, "name": "renamed"}, only=NULLS)
    add("keys.updateKey", {"keyId": Saved("key"), "enabled": True, "expires": 1, "credits": {"remaining": 3}}, {})
    add("keys.verifyKey", {"key": Saved("secret")}, {"valid": False, "code": "EXPIRED", "expires": 1})
    add("keys.updateKey", {"keyId": Saved("key"), "expires": LATER}, {})
    refused("keys.updateKey", {"keyId": "key_unknown"}, 404, NO_KEY)
    refused("keys.updateKey", {"keyId": Saved("key"), "name": ""}, 400, INVALID)
    refused("keys.updateKey", {"keyId": Saved("key"), "roles": ["Nobody"]}, 404, NO_ROLE)

    guarded("keys.updateCredits", {"keyId": Saved("key"), "operation": "set", "value": 40},
            {"remaining": 40})
    add("keys.updateCredits", {"keyId": Saved("key"), "operation": "increment", "value": 2}, {"remaining": 42})
    add("keys.updateCredits", {"keyId": Saved("key"), "operation": "decrement", "value": 100}, {"remaining": 0})
    add("keys.updateCredits", {"keyId": Saved("key"), "operation": "set", "value": None}, {"remaining": None},
        only=NULLS, title="keys.updateCredits: null sets unlimited, and is answered as null")
    add("keys.updateCredits", {"keyId": Saved("key"), "operation": "set"}, {})
    refused("keys.updateCredits", {"keyId": Saved("key"), "operation": "increment", "value": 1}, 400, INVALID)
    refused("keys.updateCredits", {"keyId": "key_unknown", "operation": "set", "value": 1}, 404, NO_KEY)

    # Keys: permissions and roles

    guarded("keys.addPermissions", {"keyId": Saved("plain"), "permissions": ["documents.read", "documents.mine"]},
            [{"id": an_id("perm"), "name": "documents.mine", "slug": "documents.mine", "description": ABSENT},
             {"slug": "documents.read"}])
    refused("keys.addPermissions", {"keyId": "key_unknown", "permissions": ["a.b"]}, 404, NO_KEY)
    refused("keys.addPermissions", {"keyId": Saved("plain"), "permissions": []}, 400, INVALID)
    guarded("keys.removePermissions", {"keyId": Saved("plain"), "permissions": ["documents.mine"]},
            [{"slug": "documents.read"}])
    refused("keys.removePermissions", {"keyId": Saved("plain"), "permissions": ["no.such"]}, 404, NO_PERMISSION)
    refused("keys.removePermissions", {"keyId": Saved("plain"), "permissions": [""]}, 400, INVALID)
    guarded("keys.setPermissions", {"keyId": Saved("plain"), "permissions": []}, [])
    refused("keys.setPermissions", {"keyId": "key_unknown", "permissions": []}, 404, NO_KEY)
    refused("keys.setPermissions", {"keyId": Saved("plain"), "permissions": ["no spaces"]}, 400, INVALID)
    guarded("keys.addRoles", {"keyId": Saved("plain"), "roles": ["Editor"]},
            [{"id": Saved("role"), "name": "Editor", "permissions": LIST}])
    refused("keys.addRoles", {"keyId": Saved("plain"), "roles": ["Nobody"]}, 404, NO_ROLE)
    refused("keys.addRoles", {"keyId": Saved("plain"), "roles": []}, 400, INVALID)
    add("keys.verifyKey", {"key": Saved("plain secret"), "permissions": "documents.write"},
        {"valid": True, "roles": ["Editor"]}, needs=("keys.addRoles",))
    guarded("keys.removeRoles", {"keyId": Saved("plain"), "roles": ["Editor"]}, [])
    refused("keys.removeRoles", {"keyId": Saved("plain"), "roles": ["Nobody"]}, 404, NO_ROLE)
    refused("keys.removeRoles", {"keyId": Saved("plain"), "roles": [""]}, 400, INVALID)
    guarded("keys.setRoles", {"keyId": Saved("plain"), "roles": ["Editor"]}, [{"name": "Editor"}])
    add("keys.setRoles", {"keyId": Saved("plain"), "roles": []}, [])
    refused("keys.setRoles", {"keyId": "key_unknown", "roles": []}, 404, NO_KEY)
    refused("keys.setRoles", {"keyId": Saved("plain"), "roles": [""]}, 400, INVALID)

    # Keys: reroll, migrate, delete

    guarded("keys.rerollKey", {"keyId": Saved("plain"), "expiration": 0}, {"keyId": an_id("key"), "key": TEXT},
            {"rolled": "keyId", "rolled secret": "key"})
    add("keys.verifyKey", {"key": Saved("rolled secret")}, {"valid": True, "keyId": Saved("rolled")})
    refused("keys.rerollKey", {"keyId": "key_unknown", "expiration": 0}, 404, NO_KEY)
    refused("keys.rerollKey", {"keyId": Saved("plain"), "expiration": -1}, 400, INVALID)
    add("migrations.createMigration", {"name": "from the story", "algorithm": "sha256"}, {"migrationId": TEXT},
        {"migration": "migrationId"}, raw=True)
    # The hash of the key "test" (HASH-1).
    test_hash = "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg="
    guarded("keys.migrateKeys", {"migrationId": Saved("migration"), "apiId": Saved("api"),
                                 "keys": [{"hash": test_hash, "name": "moved", "externalId": "user_1"}]},
            {"migrated": [{"hash": test_hash, "keyId": an_id("key")}], "failed": []})
    add("keys.migrateKeys", {"migrationId": Saved("migration"), "apiId": Saved("api"), "keys": [{"hash": test_hash}]},
        {"migrated": [], "failed": [test_hash]}, title="keys.migrateKeys: empty lists are lists")
    add("keys.verifyKey", {"key": "test"}, {"valid": True, "name": "moved"}, needs=("keys.migrateKeys",))
    refused("keys.migrateKeys", {"migrationId": "mig_unknown", "apiId": Saved("api"), "keys": [{"hash": "abc"}]}, 404,
            "unkey/data/migration_not_found")
    refused("keys.migrateKeys", {"migrationId": "x", "apiId": Saved("api"), "keys": [{"hash": "abc"}]}, 400, INVALID)
    add("apis.updateApi", {"apiId": Saved("api"), "ipWhitelist": ["203.0.113.7"]}, {}, raw=True)
    add("keys.verifyKey", {"key": Saved("secret")}, {"valid": False, "code": "FORBIDDEN", "keyId": Saved("key")},
        needs=("apis.updateApi",))
    add("apis.updateApi", {"apiId": Saved("api"), "ipWhitelist": None}, {}, raw=True)
    guarded("keys.deleteKey", {"keyId": Saved("key")}, {})
    refused("keys.deleteKey", {"keyId": Saved("key")}, 404, NO_KEY)
    refused("keys.deleteKey", {"keyId": "x"}, 400, INVALID)
    add("keys.verifyKey", {"key": Saved("secret")}, {"valid": False, "code": "NOT_FOUND"})

    # Rate limits

    ask = {"namespace": "emails", "identifier": "ada@example.com", "limit": 2, "duration": MINUTE * 60}
    guarded("ratelimit.limit", ask,
            {"success": True, "limit": 2, "remaining": 1, "reset": MS, "overrideId": ABSENT})
    add("ratelimit.limit", {**ask, "cost": 2}, {"success": False, "remaining": 0, "reset": MS},
        title="ratelimit.limit: a denial is an answer, not an error")
    refused("ratelimit.limit", {**ask, "duration": 999}, 400, INVALID)
    guarded("ratelimit.multiLimit", [{**ask, "identifier": "a"}, {**ask, "identifier": "b", "cost": 2}], {
        "passed": True,
        "limits": [{"namespace": "emails", "identifier": "a", "limit": 2, "remaining": 1, "reset": MS, "passed": True,
                    "overrideId": ABSENT},
                   {"identifier": "b", "remaining": 0, "passed": True}],
    })
    refused("ratelimit.multiLimit", [], 400, INVALID)
    override = {"namespace": "emails", "identifier": "*@example.com", "limit": 0, "duration": MINUTE}
    guarded("ratelimit.setOverride", override, {"overrideId": an_id("rlor")}, {"override": "overrideId"})
    refused("ratelimit.setOverride", {**override, "namespace": "nowhere"}, 404, NO_NAMESPACE)
    refused("ratelimit.setOverride", {**override, "duration": 999}, 400, INVALID)
    stored = {"overrideId": Saved("override"), "identifier": "*@example.com", "limit": 0, "duration": MINUTE}
    guarded("ratelimit.getOverride", {"namespace": "emails", "identifier": "bob@example.com"}, stored,
            weak=(404, NO_OVERRIDE))
    refused("ratelimit.getOverride", {"namespace": "emails", "identifier": "nobody"}, 404, NO_OVERRIDE)
    refused("ratelimit.getOverride", {"namespace": "nowhere", "identifier": "nobody"}, 404, NO_NAMESPACE)
    refused("ratelimit.getOverride", {"namespace": "emails", "identifier": ""}, 400, INVALID)
    guarded("ratelimit.listOverrides", {"namespace": "emails"}, [stored])
    refused("ratelimit.listOverrides", {"namespace": "nowhere"}, 404, NO_NAMESPACE)
    refused("ratelimit.listOverrides", {"namespace": "emails", "limit": 101}, 400, INVALID)
    add("ratelimit.limit", {**ask, "identifier": "bob@example.com"},
        {"success": False, "limit": 0, "remaining": 0, "overrideId": Saved("override")})
    guarded("ratelimit.deleteOverride", {"namespace": "emails", "identifier": "*@example.com"}, {})
    refused("ratelimit.deleteOverride", {"namespace": "emails", "identifier": "*@example.com"}, 404, NO_OVERRIDE)
    refused("ratelimit.deleteOverride", {"namespace": "emails", "identifier": ""}, 400, INVALID)
    add("ratelimit.deleteNamespace", {"namespace": "emails"}, {}, raw=True)
    for operation, body in (("ratelimit.limit", ask), ("ratelimit.multiLimit", [ask])):
        refused(operation, body, 410, "unkey/data/ratelimit_namespace_gone", needs=("ratelimit.deleteNamespace",))

    # Root keys and the workspace: the newest client alone

    grants = ["api.*.create_key", Saved("a resource name")]
    guarded("rootKeys.createKey", {"name": "from the story", "permissions": grants, "expires": LATER},
            {"keyId": an_id("key"), "key": an_id("unkey")}, {"root": "keyId"}, only=NEWEST)
    refused("rootKeys.createKey", {"permissions": grants, "expires": 1}, 400, INVALID, only=NEWEST)
    guarded("rootKeys.listKeys", {"limit": 100}, LIST, only=NEWEST)
    refused("rootKeys.listKeys", {"limit": 101}, 400, INVALID, only=NEWEST)
    guarded("rootKeys.updateKey", {"keyId": Saved("root"), "name": None, "enabled": False,
                                   "permissions": ["api.*.read_key"]}, {}, only=NEWEST)
    refused("rootKeys.updateKey", {"keyId": "key_unknown", "enabled": True}, 404, NO_KEY, only=NEWEST)
    guarded("rootKeys.rerollKey", {"keyId": Saved("root"), "expiration": 0},
            {"keyId": an_id("key"), "key": an_id("unkey")}, {"rerolled root": "keyId"}, only=NEWEST)
    refused("rootKeys.rerollKey", {"keyId": "key_unknown", "expiration": 0}, 404, NO_KEY, only=NEWEST)
    guarded("rootKeys.deleteKey", {"keyId": Saved("rerolled root")}, {}, only=NEWEST)
    refused("rootKeys.deleteKey", {"keyId": Saved("rerolled root")}, 404, NO_KEY, only=NEWEST)
    counted = {"limit": INT}
    guarded("workspace.getLimits", None, {
        "apiBillableOperationsCountMaxPerMonth": {}, "apiRequestsCountMaxPerMinute": {}, "logsRetentionDaysMax": counted,
        "logsAuditRetentionDaysMax": counted, "logdrainsMax": {},
    }, only=NEWEST, weak=None)
    guarded("workspace.getUsage", {}, {
        "period": {"start": INT, "end": INT},
        "totals": {"api": {"verifications": INT, "ratelimits": INT}, "compute": {}, "gateway": {}},
        "breakdowns": {"byEnvironment": LIST, "byApp": LIST},
    }, only=NEWEST, weak=None)

    # The end: what is protected stays, what is deleted is gone

    guarded("permissions.deletePermission", {"permission": "documents.read"}, {})
    refused("permissions.deletePermission", {"permission": "documents.read"}, 404, NO_PERMISSION)
    refused("permissions.deletePermission", {"permission": "no spaces"}, 400, INVALID)
    guarded("permissions.deleteRole", {"role": "Editor"}, {})
    # The clients' document lists no 404 here, so theirs is the generic error.
    refused("permissions.deleteRole", {"role": "Editor"}, 404, NO_ROLE, typed=False)
    refused("permissions.deleteRole", {"role": ""}, 400, INVALID)
    guarded("identities.deleteIdentity", {"identity": "user_1"}, ABSENT)
    refused("identities.deleteIdentity", {"identity": "user_1"}, 404, NO_IDENTITY, typed=False)
    refused("identities.deleteIdentity", {"identity": ""}, 400, INVALID, typed=False)
    add("apis.updateApi", {"apiId": Saved("api"), "deleteProtection": True}, {}, raw=True)
    refused("apis.deleteApi", {"apiId": Saved("api")}, 412, "unkey/application/protected_resource",
            needs=("apis.updateApi",))
    add("apis.updateApi", {"apiId": Saved("api"), "deleteProtection": False}, {}, raw=True)
    guarded("apis.deleteApi", {"apiId": Saved("api")}, {})
    refused("apis.deleteApi", {"apiId": Saved("api")}, 404, NO_API)
    refused("apis.deleteApi", {"apiId": "x"}, 400, INVALID)
    return steps
