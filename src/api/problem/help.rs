//! What a person reads about an error code: what happened, why, what to do, and how the reply looks.
//!
//! The table is one match over [`Code`], so that a code without its text does not compile. The pages at `/errors/…` and
//! `packaging/docs/errors.md` are made from it.

use super::{Code, Problem};

/// The help of one code, in Markdown; each text is a paragraph or a list.
#[derive(Debug, Clone, Copy)]
pub struct Help {
    /// What happened, in a sentence or two.
    pub happened: &'static str,
    /// The usual causes.
    pub why: &'static str,
    /// What whoever sees it does about it.
    pub what_to_do: &'static str,
    /// A `detail` as replies have it.
    pub detail: &'static str,
}

/// The help of a code.
pub const fn of(code: Code) -> Help {
    match code {
        Code::PermissionsQuerySyntax => Help {
            happened: "The `permissions` query of a verification does not parse, so nothing was verified.",
            why: "Queries are permission names joined by `AND` and `OR`, with parentheses for order. A name that is left \
                out, a parenthesis that is not closed, or a character that no permission name has ends the reading. The \
                detail says at which character.",
            what_to_do: "Correct the query: `documents.read AND (documents.write OR admin)`. Where it is put together by a \
                program, log the text that was sent; an empty list joined by `AND` is the usual culprit.",
            detail: "Syntax error in the permission query: something is missing at character 22.",
        },
        Code::RequestBodyUnreadable => Help {
            happened: "The body of the request could not be read to its end; nothing was carried out.",
            why: "The client, or a proxy on the way, broke the stream off or framed it wrongly: a chunk without its size, a \
                connection that was reset.",
            what_to_do: "Send the request again. If it keeps happening, look at the proxy in front of keyward: it must pass \
                bodies on whole.",
            detail: "The request body could not be read.",
        },
        Code::InvalidAnalyticsQuery => Help {
            happened: "The analytics query was not run: it does not parse, or uses a form that is not allowed.",
            why: "Queries are a single `SELECT` in ClickHouse's dialect over the tables of events. A syntax error, a column \
                that does not exist, two statements in one, or a comparison of unlike types all end here.",
            what_to_do: "Read the detail: it names the place. `keyward api analytics get-verifications --help` has an \
                example, and the reference lists tables and columns.",
            detail: "Unknown column 'outcom'. Did you mean 'outcome'?",
        },
        Code::InvalidAnalyticsTable => Help {
            happened: "The analytics query names a table that cannot be queried.",
            why: "Only the tables of events and their roll-ups by minute, hour, day and month can be read; each operation \
                has its own. System tables and functions that act as tables cannot.",
            what_to_do: "Name one of the tables that the detail or the reference lists, for example `key_verifications_v1` \
                or `key_verifications_per_day_v1`.",
            detail: "Table 'keys' cannot be queried.",
        },
        Code::InvalidAnalyticsFunction => Help {
            happened: "The analytics query calls a function that is not available.",
            why: "Functions come from a list: aggregates, dates, texts, conditions. Functions that reach files, other hosts \
                or the server itself are not on it.",
            what_to_do: "Use a function of the list; the reference of `analytics.getVerifications` has it. Most of what is \
                missing can be said with `CASE`, `countIf`, `toStartOfInterval` or `formatDateTime`.",
            detail: "Function 'sleep' is not allowed.",
        },
        Code::InvalidAnalyticsQueryType => Help {
            happened: "The analytics query is not a `SELECT`.",
            why: "Events can be read and never be changed by a query: `INSERT`, `ALTER`, `DROP`, `SHOW` and the like are \
                refused before anything is looked at.",
            what_to_do: "Ask with a `SELECT`. How long events are kept is a limit of the workspace: `keyward workspace \
                update --workspace WS --logs-retention-days N`.",
            detail: "Only SELECT queries are allowed.",
        },
        Code::QueryRangeExceedsRetention => Help {
            happened: "The analytics query asks for events that are older than the workspace keeps them.",
            why: "Each workspace keeps events for a number of days, 90 unless somebody set it otherwise. A query that names \
                an earlier time is refused rather than answered with a part.",
            what_to_do: "Begin at a later time. To keep events for longer from now on: `keyward workspace update --workspace \
                WS --logs-retention-days N`, on the server's machine.",
            detail: "The query asks for data from before the retention of 90 days.",
        },
        Code::RequestBodyTooLarge => Help {
            happened: "The body of the request is larger than the server takes; it was not looked at.",
            why: "The limit is `http.max_body_bytes`, 10 MiB unless set otherwise. Large `meta`, or very many keys in one \
                `keys.migrateKeys`, are the usual reasons.",
            what_to_do: "Split the request. If it has to be that large, raise `http.max_body_bytes` in the server's settings, \
                and the limit of any proxy in front.",
            detail: "The request body exceeds the maximum allowed size of 10485760 bytes.",
        },
        Code::RequestTimeout => Help {
            happened: "The request took longer than its deadline. A change that was under way is finished all the same.",
            why: "Either the body came too slowly, or the server was too busy: `http.request_deadline_ms`, 20 seconds unless \
                set otherwise, counts from the end of the request's head to the reply.",
            what_to_do: "Read the state before you repeat a change that creates something. If it happens often, look at the \
                disk (a slow sync holds up every change) and at the load.",
            detail: "The request took too long to process.",
        },
        Code::ClientClosedRequest => Help {
            happened: "The client closed the connection before its answer was there. Only the server's log shows this code.",
            why: "The client's own time limit passed, its process ended, or a proxy gave up.",
            what_to_do: "Compare the client's time limit with how long requests take. A change that had begun was finished.",
            detail: "The client closed the connection before the reply was sent.",
        },
        Code::QueryExecutionTimeout => Help {
            happened: "The analytics query ran longer than a query of this workspace may; it was stopped.",
            why: "It reads too many events: a long range of time over raw events, or a grouping by a column with very many \
                values. The limit is the workspace's, 30 seconds unless set otherwise.",
            what_to_do: "Select a smaller range, or ask a roll-up table (`…_per_hour_v1`, `…_per_day_v1`). To raise the \
                limit: `keyward workspace update --workspace WS --query-max-seconds N`.",
            detail: "The query exceeded the maximum execution time of 30 seconds.",
        },
        Code::QueryMemoryLimitExceeded => Help {
            happened: "The analytics query needed more memory than it may have, or its result is too large to send.",
            why: "Groupings by columns with very many values, and sorting of very many rows, are held in memory.",
            what_to_do: "Group by less, add a `LIMIT`, or ask a roll-up table. To raise the limit: `keyward workspace update \
                --workspace WS --query-max-memory BYTES`; all queries together have `analytics.memory_bytes`.",
            detail: "The query exceeded the memory limit of 1000000000 bytes.",
        },
        Code::QueryRowsLimitExceeded => Help {
            happened: "The analytics query would read or return more rows than a query of this workspace may.",
            why: "The limit is the workspace's, ten million rows unless set otherwise.",
            what_to_do: "Select a smaller range of time, or ask a roll-up table. To raise the limit: `keyward workspace \
                update --workspace WS --query-max-rows N`.",
            detail: "The query exceeded the limit of 10000000 rows.",
        },
        Code::QueryQuotaExceeded => Help {
            happened: "The workspace has used up its queries, or its seconds of computing, for this hour.",
            why: "Each workspace has a quota, so that one cannot take the machine from the others: 1000 queries and 1800 \
                seconds an hour unless set otherwise.",
            what_to_do: "Wait for the next hour, ask less often, or raise the quota: `keyward workspace update --workspace \
                WS --queries-per-hour N --query-seconds-per-hour N`.",
            detail: "The workspace has exceeded its quota of 1000 queries per hour.",
        },
        Code::WorkspaceRateLimited => Help {
            happened: "The workspace made more requests than it may in a minute; this one was not carried out.",
            why: "The operator gave the workspace a limit (there is none unless somebody sets it). The headers \
                `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` tell how it stands.",
            what_to_do: "Wait as long as `Retry-After` says. To raise the limit: `keyward workspace update --workspace WS \
                --api-requests-per-minute N`, or `none`.",
            detail: "The workspace has exceeded its limit of 6000 requests per minute.",
        },
        Code::CredentialMissing => Help {
            happened: "The operation wants a credential, and the request has none.",
            why: "Operations of the portal want the cookie `portal_session`; all others want the header `Authorization: \
                Bearer ROOT_KEY`.",
            what_to_do: "Send the credential. Where it was sent, look whether a proxy takes the header away.",
            detail: "The request has no portal session.",
        },
        Code::CredentialMalformed => Help {
            happened: "The `Authorization` header is there, and is not a bearer credential.",
            why: "The word `Bearer` with a capital, one space and the root key are wanted. `bearer`, `Basic …`, a key \
                without the word, and a word without a key are all refused; so are two such headers.",
            what_to_do: "Send `Authorization: Bearer ROOT_KEY`. An empty environment variable behind `Bearer ` is the usual \
                reason for a header without a key.",
            detail: "You must provide a valid root key in the Authorization header in the format 'Bearer ROOT_KEY'.",
        },
        Code::RootKeyNotFound => Help {
            happened: "No root key like this one exists here.",
            why: "It was mistyped or cut off, it was revoked, or it belongs to another server (keyward knows nothing of \
                root keys of Unkey's cloud). Keys of your users are no root keys. After several unknown keys from one \
                address, answers to further ones are held back for a moment.",
            what_to_do: "Find the right one. On the server's machine `keyward root-key list --workspace WS` lists what \
                there is, and `keyward root-key create` makes another: no root key is needed for that.",
            detail: "The provided root key is invalid.",
        },
        Code::PortalTokenMissing => Help {
            happened: "The cookie `portal_session` is there and empty.",
            why: "A sign-out that cleared the cookie's value and not the cookie, or a page that sets it before it has a \
                session.",
            what_to_do: "Open the portal anew: `portal.createSession` by your backend, then the exchange of its code.",
            detail: "The portal session is empty.",
        },
        Code::PortalSessionNotFound => Help {
            happened: "The portal's session or code does not hold (any more).",
            why: "It has expired, was used before (codes are good for one exchange), was revoked, or was never issued here.",
            what_to_do: "Have your backend make a new session for the user and send the user there.",
            detail: "The portal session does not exist or has expired.",
        },
        Code::InsufficientPermissions => Help {
            happened: "The root key is valid, and may not do this.",
            why: "Each operation asks for a permission, for example `api.*.create_key` for all APIs or \
                `api.api_….create_key` for one. The detail names what would be enough. A root key can also not hand out \
                more than it holds.",
            what_to_do: "Add what is missing, on the server's machine: `keyward root-key update --key-id key_… \
                --add-permission 'api.*.create_key'`. It counts from the next request on.",
            detail: "Missing one of these permissions: 'api.*.create_key', 'api.api_1234.create_key'.",
        },
        Code::Forbidden => Help {
            happened: "The credential is known, and does not count now: the root key has expired, or the portal is disabled.",
            why: "Root keys can have an end (`--expires`); portals can be switched off.",
            what_to_do: "Make a new root key, or move its end: `keyward root-key update --key-id key_… --expires none`. For \
                a portal: `portal.updatePortal` with `enabled: true`.",
            detail: "The root key has expired.",
        },
        Code::KeyDisabled => Help {
            happened: "The root key is known and disabled.",
            why: "Somebody switched it off; nothing of it was deleted.",
            what_to_do: "Find out why before you switch it on: `keyward root-key update --key-id key_… --enabled true`. \
                `auditLogs.queryAuditLogs` tells who disabled it.",
            detail: "The key is disabled.",
        },
        Code::WorkspaceDisabled => Help {
            happened: "The workspace that the root key belongs to is disabled: none of its requests are answered.",
            why: "The operator of this server disabled it. Its data is all there.",
            what_to_do: "On the server's machine: `keyward workspace update --workspace WS --enabled true`.",
            detail: "The workspace is disabled.",
        },
        Code::KeyNotFound => Help {
            happened: "There is no such key, or none that this root key may see.",
            why: "The id is mistyped, the key was deleted, it is in another workspace, or the root key lacks the permission \
                to know of it: what is hidden looks exactly like what is not there.",
            what_to_do: "Look at the id (`key_…`, not the key itself). Find keys with `keys.searchKeys` or \
                `apis.listKeys`; if it is there, the root key lacks `api.*.read_key` or what the operation asks for.",
            detail: "The specified key was not found.",
        },
        Code::WorkspaceNotFound => Help {
            happened: "The workspace that the root key administers does not exist.",
            why: "It was deleted while the root key was in use.",
            what_to_do: "`keyward workspace list` shows the workspaces there are; use a root key of one of them.",
            detail: "The requested workspace does not exist.",
        },
        Code::ApiNotFound => Help {
            happened: "There is no such API, or none that this root key may see.",
            why: "The id is mistyped, the API was deleted, it is in another workspace, or the root key may not read it.",
            what_to_do: "`apis.listApis` lists them. Ids of Unkey's cloud are not the ids here, unless they were imported.",
            detail: "The requested API does not exist or has been deleted.",
        },
        Code::MigrationNotFound => Help {
            happened: "There is no migration with this id in the workspace.",
            why: "`keys.migrateKeys` wants a migration of this server, which says how the hashes were made.",
            what_to_do: "Make one with `migrations.createMigration`, or list them with `migrations.listMigrations`. `keyward \
                import` does both by itself.",
            detail: "The requested Migration does not exist or has been deleted.",
        },
        Code::KeySpaceNotFound => Help {
            happened: "The API's key space is gone.",
            why: "The API was deleted while the request was on its way.",
            what_to_do: "Look with `apis.listApis` whether the API is still there, and make it anew if it should be.",
            detail: "The requested key space does not exist.",
        },
        Code::PermissionNotFound => Help {
            happened: "There is no such permission in the workspace.",
            why: "The id or slug is mistyped, or the permission was deleted.",
            what_to_do: "`permissions.listPermissions` lists them, `permissions.createPermission` makes one. Operations \
                that attach permissions to keys make missing ones by themselves, where the root key may.",
            detail: "The requested permission does not exist.",
        },
        Code::RoleNotFound => Help {
            happened: "There is no such role in the workspace.",
            why: "The id or name is mistyped, or the role was deleted.",
            what_to_do: "`permissions.listRoles` lists them, `permissions.createRole` makes one.",
            detail: "The requested role does not exist.",
        },
        Code::IdentityNotFound => Help {
            happened: "There is no such identity in the workspace.",
            why: "The id or external id is mistyped (letters' case counts), or it was deleted.",
            what_to_do: "`identities.listIdentities` lists them. `keys.createKey` with an `externalId` makes one that is not \
                there yet.",
            detail: "This identity does not exist.",
        },
        Code::RatelimitNamespaceNotFound => Help {
            happened: "There is no rate-limit namespace with this name or id.",
            why: "Namespaces come to be with the first `ratelimit.limit` in them; overrides are set only in one that \
                exists.",
            what_to_do: "Look at `ratelimit.listNamespaces`; make one with `ratelimit.createNamespace`.",
            detail: "The requested namespace does not exist or has been deleted.",
        },
        Code::RatelimitOverrideNotFound => Help {
            happened: "There is no override for this identifier in the namespace, or none that this root key may see.",
            why: "The identifier must be the very text that the override was set with: `*` in it is a part of its name here.",
            what_to_do: "`ratelimit.listOverrides` lists them.",
            detail: "This override does not exist.",
        },
        Code::RatelimitNamespaceGone => Help {
            happened: "The rate-limit namespace was deleted, and is not made anew by using it.",
            why: "Somebody deleted it; clients go on asking for it.",
            what_to_do: "Use another name, or make it again on purpose: `ratelimit.createNamespace`.",
            detail: "This namespace has been deleted.",
        },
        Code::PortalNotFound => Help {
            happened: "There is no such portal, or none that this root key may see.",
            why: "The id or slug is mistyped, it was deleted, or it is in another workspace.",
            what_to_do: "Look at the slug that your backend passes to `portal.createSession`.",
            detail: "The requested portal does not exist.",
        },
        Code::PermissionAlreadyExists => Help {
            happened: "A permission with this slug exists already.",
            why: "Slugs are unique in a workspace. A create that is repeated after a lost answer ends here, too.",
            what_to_do: "Use the one that is there, or choose another slug.",
            detail: "A permission with slug 'documents.read' already exists in this workspace.",
        },
        Code::RoleAlreadyExists => Help {
            happened: "A role with this name exists already.",
            why: "Names of roles are unique in a workspace, whatever their letters' case.",
            what_to_do: "Use the one that is there, or choose another name.",
            detail: "A role with name 'editor' already exists in this workspace.",
        },
        Code::IdentityAlreadyExists => Help {
            happened: "An identity with this external id exists already.",
            why: "External ids are unique in a workspace, letters' case included.",
            what_to_do: "Use it, or change it with `identities.updateIdentity`.",
            detail: "Identity with externalId 'ada' already exists in this workspace.",
        },
        Code::RatelimitNamespaceAlreadyExists => Help {
            happened: "A rate-limit namespace with this name exists already.",
            why: "Names of namespaces are unique in a workspace.",
            what_to_do: "Use the one that is there, or choose another name.",
            detail: "A namespace with name 'logins' already exists in this workspace.",
        },
        Code::PortalAlreadyExists => Help {
            happened: "A portal with this slug, or for this resource, exists already.",
            why: "Slugs are unique in a workspace, and an API has one portal.",
            what_to_do: "Change the one that is there with `portal.updatePortal`, or choose another slug.",
            detail: "A portal with slug 'acme' already exists in this workspace.",
        },
        Code::AnalyticsNotConfigured => Help {
            happened: "This server does not answer analytics queries.",
            why: "`analytics.enabled` is false in its settings. Events are recorded all the same.",
            what_to_do: "Set `analytics.enabled = true` and start the server again.",
            detail: "Analytics are not configured for this workspace.",
        },
        Code::AnalyticsConnectionFailed => Help {
            happened: "The analytics query could not be run now.",
            why: "Too many queries are waiting for their turn, or the server is about to stop.",
            what_to_do: "Try again in a moment. If it happens often, raise `analytics.concurrent_queries` or \
                `analytics.waiting_queries`, or ask less.",
            detail: "Too many queries are waiting. Please try again.",
        },
        Code::InvalidInput => Help {
            happened: "The request does not have the form that the operation wants, or has a value that it refuses. \
                Nothing was changed.",
            why: "A member is missing, unknown, of another type or out of its bounds; the `Content-Type` is not \
                `application/json`; the `Authorization` header is absent. `error.errors` lists what is wrong: `location` is \
                the rule, `message` says what was wanted, what came, and where in the body. With status 404 or 405 the \
                path or the method is what does not exist.",
            what_to_do: "Compare the body with the operation's entry in the reference. `keyward api FAMILY OPERATION --help` \
                lists its members with their bounds.",
            detail: "POST request body for '/v2/keys.createKey' failed to validate schema",
        },
        Code::PreconditionFailed => Help {
            happened: "Something has to be set up before this can be done.",
            why: "Mostly recoverable keys: they want a master key for the server, and `storeEncryptedKeys` for the API. \
                Also: a root key cannot delete or disable itself.",
            what_to_do: "Do what the detail names. For recoverable keys: `keyward vault generate-key`, start the server with \
                `--master-key-file`, then `apis.updateApi` with `storeEncryptedKeys: true`.",
            detail: "The requested API does not support key encryption.",
        },
        Code::ProtectedResource => Help {
            happened: "The API is protected against deletion; it was not deleted.",
            why: "Somebody switched `deleteProtection` on, so that a mistake does not take all its keys along.",
            what_to_do: "If it is meant: `apis.updateApi` with `deleteProtection: false`, then delete it.",
            detail: "The resource you are attempting to delete is protected.",
        },
        Code::UnexpectedError => Help {
            happened: "Something went wrong in the server that nobody foresaw. That is a bug of keyward's.",
            why: "The reply says nothing of it on purpose; the server's log has a line with this request's id \
                (`meta.requestId`) and the whole chain of causes.",
            what_to_do: "Look the request id up in the log (`journalctl -u keyward | grep req_…`) and report it with that \
                line. Official SDKs repeat such a request by themselves.",
            detail: "Something went wrong on our side. Please try again.",
        },
        Code::ServiceUnavailable => Help {
            happened: "The server could not carry the request out now; nothing of it was carried out.",
            why: "With status 503: there is no room. The disk is almost full (`storage.min_free_bytes`), a queue is at its \
                bound, or all subjects of rate limits are taken (`storage.rate_subjects_max`). With status 500: storage \
                failed; the server stops by itself then and finds out at its next start what is on disk.",
            what_to_do: "Try again after `Retry-After`. For the operator: the log says what is short. Make room on the \
                disk, or raise the limit that is named.",
            detail: "The server is out of disk space and takes no changes for now.",
        },
        Code::AssertionFailed => Help {
            happened: "The server found something in its own data that cannot be. That is a bug of keyward's, or a damaged \
                disk.",
            why: "Records are checked when they are read; one did not hold what it must.",
            what_to_do: "Keep the log and a copy of the data directory. `keyward audit verify` checks the trail's chains; \
                report it with the request's line of the log.",
            detail: "Something went wrong on our side. Please try again.",
        },
    }
}

/// A reply with this code, indented: what [`Problem::body`] makes, so that it cannot drift.
pub fn example(code: Code) -> String {
    let body = Problem::new(code, of(code).detail).body("req_2hJ8sd7Kq3LmZx9T");
    // Both directions are total for what we made ourselves.
    serde_json::from_slice::<serde_json::Value>(&body)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every text is there and says something; a detail is one that a reply may have.
    #[test]
    fn every_code_has_its_help() {
        for code in Code::ALL {
            let Help { happened, why, what_to_do, detail } = of(*code);
            for text in [happened, why, what_to_do] {
                assert!(text.len() > 20 && text.ends_with('.') && !text.contains("  "), "{code:?}: {text}");
            }
            assert!(!detail.is_empty() && !detail.contains(['{', '}']), "{code:?}: COM-ERR-09");
            let example = example(*code);
            assert!(example.contains(&code.url()) && example.contains(&code.status().to_string()), "{example}");
        }
    }
}
