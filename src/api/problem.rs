//! Error replies: the codes, once, as a table; what the client may read; what only the log may.
//!
//! [`Problem`] is the one type that knows HTTP statuses. Layers below have errors of their own that say what the caller
//! can do about them; a handler turns them into a `Problem` and keeps the original as its cause, for the log.

pub mod help;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use serde::Serialize;

/// What every `error.type` begins with; clients switch on the rest, [`Code::path`].
pub const TYPE_BASE: &str = "https://unkey.com/docs/errors/";

/// The content type of an error for a client that accepts it (COM-ERR-05).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The content type of every success, and of errors for clients that do not ask for [`PROBLEM_JSON`].
pub const JSON: &str = "application/json";

/// Makes [`Code`] and its three columns from one table.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $path:literal $status:literal $title:literal;)*) => {
        /// What went wrong, as clients tell it apart. The table is section 13 of the common contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* #[doc = concat!("\n\n`", $path, "`, status ", stringify!($status), ".")] $name,)*
        }

        impl Code {
            /// Every code, in the table's order.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The end of `error.type`, after [`TYPE_BASE`].
            pub const fn path(self) -> &'static str {
                match self { $(Code::$name => $path,)* }
            }

            /// The HTTP status that belongs to the code.
            pub const fn status(self) -> u16 {
                match self { $(Code::$name => $status,)* }
            }

            /// The fixed `error.title`.
            pub const fn title(self) -> &'static str {
                match self { $(Code::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The permission query of `keys.verifyKey` does not parse.
    PermissionsQuerySyntax = "user/bad_request/permissions_query_syntax_error" 400 "Bad Request";
    /// The body's stream broke off.
    RequestBodyUnreadable = "user/bad_request/request_body_unreadable" 400 "Bad Request";
    /// SQL that does not parse or is not allowed.
    InvalidAnalyticsQuery = "user/bad_request/invalid_analytics_query" 400 "Bad Request";
    /// SQL that names a table outside the allowlist.
    InvalidAnalyticsTable = "user/bad_request/invalid_analytics_table" 400 "Bad Request";
    /// SQL that calls a function outside the allowlist.
    InvalidAnalyticsFunction = "user/bad_request/invalid_analytics_function" 400 "Bad Request";
    /// SQL that is not a SELECT.
    InvalidAnalyticsQueryType = "user/bad_request/invalid_analytics_query_type" 400 "Bad Request";
    /// SQL that asks further back than events are kept.
    QueryRangeExceedsRetention = "user/bad_request/query_range_exceeds_retention" 400 "Bad Request";
    /// The body is larger than the limit (COM-BODY-02).
    RequestBodyTooLarge = "user/bad_request/request_body_too_large" 413 "Request Entity Too Large";
    /// The deadline passed (COM-BODY-09).
    RequestTimeout = "user/bad_request/request_timeout" 408 "Request Timeout";
    /// The client went away before its answer; seen in logs only.
    ClientClosedRequest = "user/bad_request/client_closed_request" 499 "Client Closed Request";
    /// A query ran too long.
    QueryExecutionTimeout = "user/unprocessable_entity/query_execution_timeout" 422 "Unprocessable Entity";
    /// A query needed too much memory, or its result is too large.
    QueryMemoryLimitExceeded = "user/unprocessable_entity/query_memory_limit_exceeded" 422 "Unprocessable Entity";
    /// A query read too many rows.
    QueryRowsLimitExceeded = "user/unprocessable_entity/query_rows_limit_exceeded" 422 "Unprocessable Entity";
    /// The workspace used up its analytics quota.
    QueryQuotaExceeded = "user/too_many_requests/query_quota_exceeded" 429 "Too Many Requests";
    /// The workspace made more requests than it may (COM-WRL).
    WorkspaceRateLimited = "user/too_many_requests/workspace_rate_limited" 429 "Too Many Requests";
    /// No credential was claimed (COM-AUTH-07).
    CredentialMissing = "unkey/authentication/missing" 400 "Bad Request";
    /// The credential has the wrong form (COM-AUTH-02, COM-AUTH-03).
    CredentialMalformed = "unkey/authentication/malformed" 400 "Bad Request";
    /// The bearer is no root key (COM-RK-02).
    RootKeyNotFound = "unkey/authentication/key_not_found" 401 "Unauthorized";
    /// The portal's cookie is there and empty.
    PortalTokenMissing = "unkey/authentication/portal_token_missing" 400 "Bad Request";
    /// A portal code or session is unknown, used, expired or revoked.
    PortalSessionNotFound = "unkey/authentication/portal_session_not_found" 401 "Unauthorized";
    /// The root key lacks a permission.
    InsufficientPermissions = "unkey/authorization/insufficient_permissions" 403 "Insufficient Permissions";
    /// The root key has expired; or a portal is disabled or unusable.
    Forbidden = "unkey/authorization/forbidden" 403 "Forbidden";
    /// The root key is disabled.
    KeyDisabled = "unkey/authorization/key_disabled" 403 "Key is disabled";
    /// The root key's own or its target workspace is disabled.
    WorkspaceDisabled = "unkey/authorization/workspace_disabled" 403 "Workspace is disabled";
    /// The key is absent, deleted, another workspace's, or hidden.
    KeyNotFound = "unkey/data/key_not_found" 404 "Not Found";
    /// The workspace the root key administers does not exist.
    WorkspaceNotFound = "unkey/data/workspace_not_found" 404 "Not Found";
    /// The API is absent, deleted, another workspace's, or hidden.
    ApiNotFound = "unkey/data/api_not_found" 404 "Not Found";
    /// `keys.migrateKeys` named an unknown migration.
    MigrationNotFound = "unkey/data/migration_not_found" 404 "Not Found";
    /// The key space is gone.
    KeySpaceNotFound = "unkey/data/key_space_not_found" 404 "Not Found";
    /// The permission is absent or another workspace's.
    PermissionNotFound = "unkey/data/permission_not_found" 404 "Not Found";
    /// The role is absent or another workspace's.
    RoleNotFound = "unkey/data/role_not_found" 404 "Not Found";
    /// The identity is absent, deleted or another workspace's.
    IdentityNotFound = "unkey/data/identity_not_found" 404 "Not Found";
    /// An override operation named a namespace that is absent, deleted or another workspace's.
    RatelimitNamespaceNotFound = "unkey/data/ratelimit_namespace_not_found" 404 "Not Found";
    /// The override is absent, or hidden from the caller.
    RatelimitOverrideNotFound = "unkey/data/ratelimit_override_not_found" 404 "Not Found";
    /// `limit` or `multiLimit` on a deleted namespace.
    RatelimitNamespaceGone = "unkey/data/ratelimit_namespace_gone" 410 "Resource Gone";
    /// The portal is absent, another workspace's, or hidden.
    PortalNotFound = "unkey/data/portal_not_found" 404 "Not Found";
    /// The permission's slug is taken.
    PermissionAlreadyExists = "unkey/data/permission_already_exists" 409 "Conflicting Resource";
    /// The role's name is taken.
    RoleAlreadyExists = "unkey/data/role_already_exists" 409 "Conflicting Resource";
    /// The external id is taken.
    IdentityAlreadyExists = "unkey/data/identity_already_exists" 409 "Conflicting Resource";
    /// The namespace's name is taken; keyward's own, in the style of the other 409 codes.
    RatelimitNamespaceAlreadyExists = "unkey/data/ratelimit_namespace_already_exists" 409 "Conflicting Resource";
    /// The portal's slug or its resource is taken; keyward's own, in the style of the other 409 codes.
    PortalAlreadyExists = "unkey/data/portal_already_exists" 409 "Conflicting Resource";
    /// The workspace has no analytics.
    AnalyticsNotConfigured = "unkey/data/analytics_not_configured" 412 "Precondition Failed";
    /// The analytics engine cannot be reached.
    AnalyticsConnectionFailed = "unkey/data/analytics_connection_failed" 503 "Service Unavailable";
    /// The body fails validation, or the handler refuses a value in it.
    InvalidInput = "unkey/application/invalid_input" 400 "Bad Request";
    /// Something has to be set up first, such as key recovery for the API.
    PreconditionFailed = "unkey/application/precondition_failed" 412 "Precondition Failed";
    /// Delete protection is on.
    ProtectedResource = "unkey/application/protected_resource" 412 "Resource is protected";
    /// A bug.
    UnexpectedError = "unkey/application/unexpected_error" 500 "Internal Server Error";
    /// Storage failed; with status 503 instead where it refused for lack of room (COM-CODE-02).
    ServiceUnavailable = "unkey/application/service_unavailable" 500 "Internal Server Error";
    /// An invariant was violated.
    AssertionFailed = "unkey/application/assertion_failed" 500 "Internal Server Error";
}

impl Code {
    /// The whole `error.type`.
    pub fn url(self) -> String {
        [TYPE_BASE, self.path()].concat()
    }
}

/// A detail holds no braces (COM-ERR-09), so those of a name that it echoes become parentheses.
fn without_braces(detail: Cow<'static, str>) -> Cow<'static, str> {
    if detail.contains(['{', '}']) { detail.replace('{', "(").replace('}', ")").into() } else { detail }
}

/// One entry of `error.errors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where the rule stands: a JSON-Schema keyword pointer, `requestBody` or `security` (COM-VAL-02 to COM-VAL-07).
    pub location: Cow<'static, str>,
    /// The rule, what was wanted, what came, and at which place of the body (COM-VAL-08).
    pub message: String,
    /// What to do about it; only with the entries of COM-VAL-03 to COM-VAL-07.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<Cow<'static, str>>,
}

/// Why a request was refused or failed: everything of an error reply but the request id.
///
/// `detail` and `errors` go to the client; the cause goes to the log and nowhere else (COM-ERR-07).
#[derive(Debug)]
pub struct Problem {
    code: Code,
    /// Another status and title than the code's own: 404 and 405 of unknown routes, and 503.
    instead: Option<(u16, &'static str)>,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    retry_after_s: Option<u32>,
    cause: Option<Box<dyn Error + Send + Sync>>,
    /// Whether it is no refusal: this node cannot say, and its leader is to be asked.
    is_for_leader: bool,
}

impl Problem {
    /// A problem with its code's own status, title and no entries.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem {
            code,
            instead: None,
            detail: without_braces(detail.into()),
            errors: Vec::new(),
            retry_after_s: None,
            cause: None,
            is_for_leader: false,
        }
    }

    /// What a node that follows another one says of a request that it cannot answer by itself. No client sees it where the
    /// leader can be asked.
    pub fn for_leader() -> Problem {
        let detail = "This node follows another one, which cannot be reached at the moment, and only that one can do this. \
            Nothing was changed. Please try again in a moment, or send the request to the leader.";
        Problem { is_for_leader: true, ..Problem::no_capacity(detail) }
    }

    /// Whether the leader is to be asked instead.
    pub fn is_for_leader(&self) -> bool {
        self.is_for_leader
    }

    /// 400 `invalid_input` for a value that the handler refuses: `errors` is there and empty (COM-ERR-03).
    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(Code::InvalidInput, detail)
    }

    /// 404 for an unknown path (COM-RT-06).
    pub fn no_such_route(path: &str) -> Problem {
        let named = path.strip_prefix("/v2/").filter(|name| {
            (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
        });
        let detail = match named {
            Some(name) => {
                format!("This keyward has no operation '{name}'. GET /reference lists the operations it has.").into()
            }
            None => Cow::Borrowed("There is no such route. GET /reference lists the operations of this keyward."),
        };
        let mut problem = Problem::new(Code::InvalidInput, detail);
        problem.instead = Some((404, "Not Found"));
        problem
    }

    /// 405 for a known path and another method (COM-RT-06); the `Allow` header is the caller's to add.
    pub fn method_not_allowed() -> Problem {
        let mut problem = Problem::new(Code::InvalidInput, "This route does not take that method.");
        problem.instead = Some((405, "Method Not Allowed"));
        problem
    }

    /// 503 for a refusal for lack of room: nothing was committed, and the client may try again in a second
    /// (COM-CODE-02).
    pub fn no_capacity(detail: impl Into<Cow<'static, str>>) -> Problem {
        let mut problem = Problem::new(Code::ServiceUnavailable, detail);
        problem.instead = Some((503, "Service Unavailable"));
        problem.retry_after_s = Some(1);
        problem
    }

    /// 500 for an error that nobody foresaw (COM-ERR-07).
    pub fn unexpected(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Problem {
        Problem::new(Code::UnexpectedError, "Something went wrong on our side. Please try again.").because(cause)
    }

    /// Keeps what led here, for the log.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Problem {
        self.cause = Some(cause.into());
        self
    }

    /// Adds entries to `error.errors`. They are sent for the statuses of COM-ERR-03 only.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Problem {
        self.errors = errors;
        self
    }

    /// Says how many seconds to wait before another try. Keep it small: Python clients wait as long as they are told.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Problem {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The HTTP status, the same in the status line and in the body (COM-ERR-02).
    pub fn status(&self) -> u16 {
        self.instead.map_or(self.code.status(), |(status, _)| status)
    }

    /// `error.title`.
    pub fn title(&self) -> &'static str {
        self.instead.map_or(self.code.title(), |(_, title)| title)
    }

    /// `error.detail`, for humans.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The entries, whether or not the status sends them.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// Seconds for `Retry-After`, where the problem has an opinion.
    pub fn retry_after_s(&self) -> Option<u32> {
        self.retry_after_s
    }

    /// The reply's body (COM-ERR-01). `errors` is there, empty or not, exactly for 400, 408, 413 and 499 (COM-ERR-03).
    pub fn body(&self, request_id: &str) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            meta: Meta<'a>,
            error: Details<'a>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Meta<'a> {
            request_id: &'a str,
        }
        #[derive(Serialize)]
        struct Details<'a> {
            title: &'a str,
            detail: &'a str,
            status: u16,
            r#type: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            errors: Option<&'a [FieldError]>,
        }
        let status = self.status();
        let body = Body {
            meta: Meta { request_id },
            error: Details {
                title: self.title(),
                detail: &self.detail,
                status,
                r#type: &self.code.url(),
                errors: matches!(status, 400 | 408 | 413 | 499).then_some(&self.errors),
            },
        };
        serde_json::to_vec(&body).expect("strings, numbers and lists of them always serialize into memory")
    }
}

/// What the log says: status, code, detail, and which rules a body violates. The entries' messages quote the body and
/// stay out (COM-LOG-07). The cause is [`Error::source`]; whoever logs prints the chain.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status(), self.code.path(), self.detail)?;
        for error in &self.errors {
            write!(f, "; {}", error.location)?;
        }
        Ok(())
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Some(cause) => Some(cause.as_ref()),
            None => None,
        }
    }
}

/// 403 with what is missing (PM-EVAL-04).
impl From<crate::rbac::Denied> for Problem {
    fn from(denied: crate::rbac::Denied) -> Problem {
        Problem::new(Code::InsufficientPermissions, denied.to_string())
    }
}

/// 400 with what is wrong and where (KEYS-PERMQ-4).
impl From<crate::rbac::QueryError> for Problem {
    fn from(error: crate::rbac::QueryError) -> Problem {
        Problem::new(Code::PermissionsQuerySyntax, error.to_string())
    }
}

/// The content type of an error for a request's `Accept` header (COM-ERR-05), several headers joined by commas.
///
/// Problem JSON where the header lists `application/problem+json`, `application/*` or `*/*`, parameters ignored; plain
/// JSON otherwise, and without the header.
pub fn content_type(accept: Option<&str>) -> &'static str {
    let takes_problems = accept.unwrap_or_default().split(',').any(|item| {
        let media_type = item.split(';').next().unwrap_or_default().trim();
        [PROBLEM_JSON, "application/*", "*/*"].iter().any(|taken| media_type.eq_ignore_ascii_case(taken))
    });
    if takes_problems { PROBLEM_JSON } else { JSON }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn body(problem: &Problem) -> Value {
        serde_json::from_slice(&problem.body("req_test")).expect("a problem's body is JSON")
    }

    /// COM-ERR-01, COM-ERR-02: the shape, with `type` under the documentation's address.
    #[test]
    fn the_body_has_the_contracts_shape() {
        let problem = Problem::new(Code::ApiNotFound, "The requested API does not exist or has been deleted.");
        let expected = json!({
            "meta": {"requestId": "req_test"},
            "error": {
                "title": "Not Found",
                "detail": "The requested API does not exist or has been deleted.",
                "status": 404,
                "type": "https://unkey.com/docs/errors/unkey/data/api_not_found",
            },
        });
        assert_eq!(body(&problem), expected);
    }

    /// COM-ERR-03, COM-RT-06, COM-CODE-02: `errors` belongs to 400, 408, 413 and 499, by status and not by code.
    #[test]
    fn errors_is_there_for_four_statuses_only() {
        for code in Code::ALL {
            let problem = Problem::new(*code, "x");
            let wanted = [400, 408, 413, 499].contains(&code.status());
            assert_eq!(body(&problem)["error"].get("errors").is_some(), wanted, "{code:?}");
        }
        for (problem, status, title) in [
            (Problem::no_such_route("/x"), 404, "Not Found"),
            (Problem::method_not_allowed(), 405, "Method Not Allowed"),
            (Problem::no_capacity("full"), 503, "Service Unavailable"),
        ] {
            let body = body(&problem);
            assert_eq!((problem.status(), problem.title()), (status, title));
            assert_eq!(body["error"]["status"], status);
            assert!(body["error"].get("errors").is_none());
        }
        assert_eq!(Problem::no_capacity("full").retry_after_s(), Some(1));
        assert_eq!(body(&Problem::invalid("no"))["error"]["errors"], json!([]));
    }

    /// Section 13: codes are unique, and a status always has the same title but for the ones the contract words itself.
    #[test]
    fn the_table_of_codes_is_consistent() {
        let mut paths: Vec<_> = Code::ALL.iter().map(|code| code.path()).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), Code::ALL.len());
        for code in Code::ALL {
            let usual = match code.status() {
                400 => "Bad Request",
                401 => "Unauthorized",
                404 => "Not Found",
                408 => "Request Timeout",
                409 => "Conflicting Resource",
                410 => "Resource Gone",
                412 => "Precondition Failed",
                413 => "Request Entity Too Large",
                422 => "Unprocessable Entity",
                429 => "Too Many Requests",
                499 => "Client Closed Request",
                500 => "Internal Server Error",
                503 => "Service Unavailable",
                _ => code.title(),
            };
            if *code != Code::ProtectedResource {
                assert_eq!(code.title(), usual, "{code:?}");
            }
        }
    }

    /// COM-ERR-07: a cause is for the log; the client reads nothing of it.
    #[test]
    fn a_cause_never_reaches_the_client() {
        let problem = Problem::unexpected("table keys: page 17 has a bad checksum");
        assert!(!String::from_utf8(problem.body("req_1")).expect("JSON is text").contains("checksum"));
        assert!(problem.source().expect("the cause is kept").to_string().contains("checksum"));
    }

    /// COM-ERR-05: what `Accept` decides.
    #[test]
    fn the_content_type_follows_accept() {
        for (accept, wanted) in [
            (None, JSON),
            (Some(""), JSON),
            (Some("application/json"), JSON),
            (Some("text/html, application/xhtml+xml"), JSON),
            (Some("*/*"), PROBLEM_JSON),
            (Some("text/html, */*;q=0.8"), PROBLEM_JSON),
            (Some("application/*"), PROBLEM_JSON),
            (Some("application/json, Application/Problem+JSON; q=0.5"), PROBLEM_JSON),
            (Some("application/problem+jsonx"), JSON),
        ] {
            assert_eq!(content_type(accept), wanted, "{accept:?}");
        }
    }
}
