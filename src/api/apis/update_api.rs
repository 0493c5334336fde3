//! apis.updateApi: an API's name and settings; what is not named stays as it is (EXT-10).

use keyward_storage::Abort;
use keyward_storage::ids::ApiId;
use keyward_storage::records::api::{self, ApiRow};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{api_target, not_found};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Empty, Ident, Int, List, Opt, Patch, Prefix, Text};
use crate::api::trail::Changes;
use crate::rbac::Need;

/// Longest address or range: an IPv6 one with its prefix length has 49 characters, spaces around it aside.
const RANGE_CHARS_MAX: usize = 64;

/// What to change. Absent leaves as it is; null clears where it is allowed.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The API's id.
    api_id: Ident<8, 255>,
    /// A name for people.
    #[serde(default)]
    name: Opt<Text<3, 256>>,
    /// Whether `apis.deleteApi` is refused.
    #[serde(default)]
    delete_protection: Opt<bool>,
    /// IPv4 and IPv6 addresses and CIDR ranges its keys may be verified from; null or an empty list = any. Peers in the
    /// setting `http.trusted_proxies` (by default loopback and private networks) may name another address.
    #[serde(default)]
    ip_whitelist: Patch<List<Text<1, RANGE_CHARS_MAX>, 0, 100>>,
    /// Prefix of keys whose request names none; null = none.
    #[serde(default)]
    default_prefix: Patch<Prefix>,
    /// Random bytes of keys whose request names no number; null = 16. The official SDKs name 16 in every request.
    #[serde(default)]
    default_bytes: Patch<Int<16, 255>>,
    /// Whether keys may be made recoverable.
    #[serde(default)]
    store_encrypted_keys: Opt<bool>,
}

/// apis.updateApi.
pub struct UpdateApi;

impl Operation for UpdateApi {
    const NAME: &'static str = "apis.updateApi";
    const SUMMARY: &'static str = "Update an API";
    const DESCRIPTION: &'static str = "Changes an API's name and settings, all or none. The next request sees them; keys \
        that exist keep the prefix and the length they were made with.";
    const ALLOWS: &'static [&'static str] = &["api.*.update_api", "api.<apiId>.update_api"];
    const FAILS: &'static [Code] = &[Code::ApiNotFound];
    const AUDITS: &'static [&'static str] = &["api.update"];
    type Request = Request;
    type Response = Empty;

    async fn run(call: Call, ask: Request) -> Result<Empty, Problem> {
        // Before the lookup, as its siblings do (APIS-GET-2).
        let granted = call.authorize(&Need::any_or_one("api", &ask.api_id, "update_api"))?;
        let id = ApiId::parse(&ask.api_id).ok_or_else(not_found)?;
        let ip_whitelist = match ask.ip_whitelist {
            Patch::Keep => None,
            Patch::Clear => Some(Vec::new()),
            Patch::Set(asked) => Some(ranges(asked)?),
        };
        let changed = granted.transact(Correlate::IfSeveral, move |change| {
            let workspace = change.workspace();
            let before = api::get_live(change.tx, workspace, id)?.ok_or_else(|| Abort::Refused(not_found()))?;
            let mut after = before.clone();
            if let Some(name) = ask.name.0 {
                after.name = name.into_string();
            }
            after.delete_protection = ask.delete_protection.unwrap_or(after.delete_protection);
            after.store_encrypted_keys = ask.store_encrypted_keys.unwrap_or(after.store_encrypted_keys);
            after.ip_whitelist = ip_whitelist.unwrap_or(after.ip_whitelist);
            after.default_prefix = ask.default_prefix.map(Text::into_string).apply(after.default_prefix);
            let bytes =
                ask.default_bytes.map(|bytes| u8::try_from(bytes.get()).expect("the shape bounds it to 16..255"));
            after.default_bytes = bytes.apply(after.default_bytes);
            let changes = changes(&before, &after);
            // A request that changes nothing records nothing (AL-OP-01).
            if changes.is_empty() {
                return Ok(());
            }
            api::put(change.tx, workspace, id, &after);
            let mut target = api_target(id, &after.name);
            target.meta = changes.into_meta();
            change.audit("api.update", format!("Updated API {id}"), vec![target]);
            Ok(())
        });
        changed.await?;
        Ok(Empty {})
    }
}

/// The list in canonical form, each range once, in the order it was given (KEYS-IP-2).
fn ranges<const MIN: usize, const MAX: usize>(
    asked: List<Text<1, RANGE_CHARS_MAX>, MIN, MAX>,
) -> Result<Vec<String>, Problem> {
    let mut ranges: Vec<String> = Vec::with_capacity(asked.len());
    for (at, text) in asked.into_iter().enumerate() {
        let Some(range) = api::parse_range(&text) else {
            return Err(Problem::invalid(format!(
                "`ipWhitelist[{at}]` is neither an IPv4 or IPv6 address nor a CIDR range such as 10.0.0.0/8."
            )));
        };
        let whole = range.prefix_len() == range.max_prefix_len();
        let range = if whole { range.addr().to_string() } else { range.to_string() };
        if !ranges.contains(&range) {
            ranges.push(range);
        }
    }
    Ok(ranges)
}

fn changes(before: &ApiRow, after: &ApiRow) -> Changes {
    let mut changes = Changes::default();
    changes.note("name", json!(before.name), json!(after.name));
    changes.note("deleteProtection", json!(before.delete_protection), json!(after.delete_protection));
    changes.note("ipWhitelist", json!(before.ip_whitelist), json!(after.ip_whitelist));
    changes.note("defaultPrefix", json!(before.default_prefix), json!(after.default_prefix));
    changes.note("defaultBytes", json!(before.default_bytes), json!(after.default_bytes));
    changes.note("storeEncryptedKeys", json!(before.store_encrypted_keys), json!(after.store_encrypted_keys));
    changes
}
