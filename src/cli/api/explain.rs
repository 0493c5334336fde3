//! What went wrong, in words, with what to do about it.

use super::kebab;
use super::members::Members;
use super::reply::{Failure, Refusal, quoted};
use crate::api::Entry;
use crate::api::problem::TYPE_BASE;
use crate::cli::access::Access;
use crate::cli::text::printable;
use crate::cli::{EXIT_ERROR, EXIT_UNREACHABLE};
use crate::http_client::PostError;

/// No answer came.
pub fn no_answer(access: &Access, error: &PostError) -> Failure {
    let Access { url, url_source, .. } = access;
    let (code, advice) = match error {
        PostError::Unreachable(_) => (
            EXIT_UNREACHABLE,
            format!("is the server running? The URL is from {url_source}; --api-url or KEYWARD_API_URL names another"),
        ),
        PostError::Lost(_) => (EXIT_ERROR, "look whether it was before you ask again".to_owned()),
        PostError::Strange(_) => (
            EXIT_ERROR,
            format!("{url} (from {url_source}) is not a keyward; --api-url or KEYWARD_API_URL names another"),
        ),
    };
    Failure { code, reasons: vec![error.to_string(), advice] }
}

/// Something answered that is no keyward.
pub fn no_keyward(access: &Access, what: &str) -> Failure {
    let Access { url, url_source, .. } = access;
    let advice = format!("is {url} (from {url_source}) a keyward? --api-url or KEYWARD_API_URL names another");
    Failure { code: EXIT_ERROR, reasons: vec![format!("{url}: {what}"), advice] }
}

/// An operation was refused.
pub fn refusal(entry: &'static Entry, refusal: &Refusal, request_id: &str, url: &str) -> Vec<String> {
    let members = Members::of(entry);
    let code = refusal.r#type.strip_prefix(TYPE_BASE).unwrap_or(&refusal.r#type);
    let mut lines = vec![format!("{} ({}): {}", refusal.title, refusal.status, refusal.detail)];
    for field in &refusal.errors {
        lines.push(format!("  {}", members.by_flag(&field.message)));
        lines.extend(field.fix.as_ref().map(|fix| format!("    {fix}")));
    }
    lines.push(format!("  {code}, request {request_id} of {url}"));
    lines.extend(advice(entry, refusal, code).map(|advice| format!("  fix: {advice}")));
    lines.iter().map(|line| printable(line)).collect()
}

/// What to do about a refusal, where the command line knows.
pub fn advice(entry: &'static Entry, refusal: &Refusal, code: &str) -> Option<String> {
    let update = "keyward root-key update --key-id KEY_ID";
    let ids = "`keyward root-key list --workspace WS` lists the ids; both run on the server's machine";
    Some(match code {
        "unkey/authorization/insufficient_permissions" => {
            // Of several that are needed together the detail may name one that is held.
            let missing = match missing_permission(&refusal.detail) {
                Some(missing) if !refusal.detail.contains(" and ") => vec![missing],
                _ => widest(entry)?,
            };
            let add: Vec<_> = missing.into_iter().map(|one| format!("--add-permission {}", quoted(one))).collect();
            format!("{update} {} ({ids})", add.join(" "))
        }
        "unkey/authorization/key_disabled" => format!("{update} --enabled true ({ids})"),
        "unkey/authorization/forbidden" => format!("where the root key has expired: {update} --expires none ({ids})"),
        "unkey/authorization/workspace_disabled" => {
            "keyward workspace update --workspace WS --enabled true, on the server's machine".to_owned()
        }
        "unkey/authentication/key_not_found" | "unkey/authentication/malformed" | "unkey/authentication/missing" => {
            "give another root key with KEYWARD_ROOT_KEY, --root-key-file or `keyward auth login`; `keyward auth status` \
             says which one is used"
                .to_owned()
        }
        "user/too_many_requests/workspace_rate_limited" => {
            "wait, or raise the limit: keyward workspace update --workspace WS --api-requests-per-minute N, on the \
             server's machine"
                .to_owned()
        }
        "user/too_many_requests/query_quota_exceeded" => {
            limits("--queries-per-hour N or --query-seconds-per-hour N", "wait for the next window, or raise the limit")
        }
        "user/unprocessable_entity/query_execution_timeout" => {
            limits("--query-max-seconds N", "select a smaller range of time, ask a roll-up table, or raise the limit")
        }
        "user/unprocessable_entity/query_memory_limit_exceeded" if !refusal.detail.contains("response size") => {
            limits("--query-max-memory BYTES", "select less, or raise the limit")
        }
        "user/unprocessable_entity/query_rows_limit_exceeded" => {
            limits("--query-max-rows N", "add a LIMIT, or raise the limit")
        }
        "user/bad_request/query_range_exceeds_retention" => {
            limits("--logs-retention-days N", "begin at a later time, or have events kept for longer from now on")
        }
        "unkey/data/analytics_not_configured" => {
            "set analytics.enabled = true in the server's settings and start it again".to_owned()
        }
        "unkey/data/analytics_connection_failed" => "try again in a moment".to_owned(),
        "user/bad_request/invalid_analytics_table" | "user/bad_request/invalid_analytics_query_type" => {
            let kebabs = [entry.family, entry.procedure].map(kebab);
            format!("`keyward api {} --help` names the tables and an example", kebabs.join(" "))
        }
        "unkey/application/invalid_input" if refusal.status == 404 => {
            "the server is another version of keyward than this command line, or not the one that you mean".to_owned()
        }
        "unkey/application/service_unavailable" if refusal.status == 503 => {
            "nothing was changed; try again in a moment".to_owned()
        }
        _ if code.starts_with("unkey/data/") && refusal.status == 404 => {
            let needed = widest(entry)?.join(" and ");
            format!(
                "look at the id or name. What a root key may not see is not found either: this operation needs {needed}"
            )
        }
        _ => return None,
    })
}

/// What raising a limit of the workspace takes.
fn limits(flag: &str, instead: &str) -> String {
    format!("{instead}: keyward workspace update --workspace WS {flag}, on the server's machine")
}

/// The permissions that together open an operation on whatever there is.
fn widest(entry: &'static Entry) -> Option<Vec<&'static str>> {
    let ways = entry.allows.iter().map(|way| way.split(" & ").collect::<Vec<_>>());
    ways.into_iter().find(|way| way.iter().all(is_exact))
}

/// Whether a permission can be granted as it is written, on whatever there is.
fn is_exact(permission: &&str) -> bool {
    permission.contains(".*.") && !permission.contains([' ', '<'])
}

/// The widest of the permissions that a detail names (PM-EVAL-04): the first that is not tied to one thing.
fn missing_permission(detail: &str) -> Option<&str> {
    let trim = |word: &'_ str| -> usize { word.len() - word.trim_start_matches(['(', '\'', '[', '"']).len() };
    let words = detail.split_whitespace().map(|word| {
        let word = &word[trim(word)..];
        word.trim_end_matches([',', '.', ')', '\'', ']', '"', ';'])
    });
    words.into_iter().find(|word| is_exact(word) && word.split('.').count() == 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::find;
    use crate::api::problem::Code;

    fn explained(name: &str, code: Code, detail: &str) -> String {
        let told = Refusal {
            title: code.title().to_owned(),
            detail: detail.to_owned(),
            status: code.status(),
            r#type: code.url(),
            errors: Vec::new(),
        };
        let entry = find(&format!("/v2/{name}")).expect("an operation");
        refusal(entry, &told, "req_1", "http://127.0.0.1:7070").join("\n")
    }

    /// PM-EVAL-04: the line to paste grants what the server says is missing, on whatever it is missing.
    #[test]
    fn a_refusal_says_what_to_do() {
        let one = "Missing one of these permissions: api.*.update_key or api.api_1.update_key";
        let told = explained("keys.updateKey", Code::InsufficientPermissions, one);
        assert!(told.contains("--add-permission 'api.*.update_key'"), "{told}");
        let told = explained("keys.updateKey", Code::InsufficientPermissions, "Not allowed.");
        assert!(told.contains("--add-permission 'api.*.update_key'"), "the operation's own: {told}");
        let both = "Missing one of these permissions: (rbac.*.create_permission, and 'rbac.*.create_role').";
        assert_eq!(missing_permission(both), Some("rbac.*.create_permission"));
        assert_eq!(missing_permission("see docs.example.com or unkey:v1:ws_1:**#*"), None);
        let joint = "Missing one of these permissions: unkey:v1:ws:keyspaces/ks#update_key or ((api.*.update_key or \
                     api.api_1.update_key) and rbac.*.add_permission_to_key)";
        let told = explained("keys.addPermissions", Code::InsufficientPermissions, joint);
        let all = "--add-permission 'api.*.update_key' --add-permission 'rbac.*.add_permission_to_key'";
        assert!(told.contains(all), "what is needed together: {told}");
        let told = explained("apis.listKeys", Code::ApiNotFound, "D");
        assert!(told.contains("needs api.*.read_key and api.*.read_api"), "{told}");
        for (code, words) in [
            (Code::KeyDisabled, "--enabled true"),
            (Code::Forbidden, "--expires none"),
            (Code::RootKeyNotFound, "keyward auth status"),
            (Code::WorkspaceRateLimited, "--api-requests-per-minute"),
            (Code::KeyNotFound, "api.*.update_key"),
        ] {
            let told = explained("keys.updateKey", code, "D\u{1b}[2J");
            assert!(told.contains(words) && told.contains(code.path()) && told.contains("req_1"), "{told}");
            assert!(!told.contains('\u{1b}'), "no stranger steers the terminal");
        }
    }
}
