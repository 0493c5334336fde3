//! keys.rerollKey: a new secret for a key, and the old one's end.

use keyward_storage::Abort;
use keyward_storage::hot::counters::MINUTE_MS;
use keyward_storage::ids::{KeyId, RatelimitId};
use keyward_storage::records::key::{self, KeyRow, Ratelimit};
use keyward_storage::records::vault;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::create_key::Response;
use super::recovery::{ToSeal, need_encryption, need_for_all, need_vault};
use super::settings::EXPIRES_MAX;
use super::{find, find_again, refill};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Ident, Int, Prefix, Secret};
use crate::api::trail::Changes;
use crate::rbac::Need;
use crate::secret;
use crate::tenants::target;

/// Which key, and how long it goes on. Unknown members are ignored.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The key's id.
    key_id: Ident<3, 255>,
    /// Milliseconds from now for which the old key goes on to verify, rounded up to a full minute; 0 ends it at once.
    expiration: Int<0, EXPIRES_MAX>,
}

/// keys.rerollKey.
pub struct RerollKey;

impl Operation for RerollKey {
    const NAME: &'static str = "keys.rerollKey";
    const SUMMARY: &'static str = "Reroll a key";
    const DESCRIPTION: &'static str = "Makes a new key with the settings of an old one, which expires: at once, or after a \
        grace period in which both verify, though never later than it would have expired anyway. The new key's plaintext \
        is shown this once.\n\n\
        A recoverable key gives a recoverable one, which takes the permission `encrypt_key` as well.\n\n\
        Credits are doubled: each of the two keys has all that was left. Rate limits of the key count afresh on the new \
        one; those of its identity go on.";
    const ALLOWS: &'static [&'static str] =
        &["api.*.create_key", "api.<apiId>.create_key", "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>#create_key"];
    const FAILS: &'static [Code] = &[Code::KeyNotFound, Code::PreconditionFailed];
    const AUDITS: &'static [&'static str] = &["key.update", "key.reroll"];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let found = find(&call, &ask.key_id).await?;
        let (api, keyspace) = (found.row.api.spell(), found.api.keyspace.spell());
        let path = ["keyspaces", &keyspace];
        let need = [Need::any_or_one("api", &api, "create_key"), Need::urn(&path, "create_key")];
        let granted = call.authorize(&Need::Any(&need))?;
        let (workspace, old_id) = (call.workspace(), found.id);
        // A key has a copy from its first moment on, or never (HASH-9).
        let recoverable =
            call.read("key", move |storage| vault::has_copy(&storage.snapshot()?, workspace, old_id)).await?;
        if recoverable {
            let _may_encrypt = need_for_all(&api, &keyspace, "encrypt_key", |need| call.authorize(need))?;
            need_vault(&call)?;
            need_encryption(&found.api)?;
        }
        let prefix = prefix(&found.row.start).or(found.api.default_prefix.as_deref());
        let bytes = found.api.default_bytes.map_or(secret::DEFAULT_BYTES, usize::from);
        let minted = secret::mint(prefix, bytes, &call.services().outside.entropy);
        let (digest, start) = (minted.digest, minted.start);
        let to_seal = recoverable.then(|| ToSeal::new(&call, &minted.plaintext));
        let expiration = ask.expiration.get_unsigned();
        let made = granted.transact(Correlate::IfSeveral, move |change| {
            let mut old = find_again(change, old_id)?;
            refill::settle(change, &mut old)?;
            let (workspace, now) = (change.workspace(), change.now());
            let id = KeyId(change.new_id());
            let fresh = |limit: &Ratelimit| Ratelimit { id: RatelimitId(change.new_id()), ..limit.clone() };
            let row = KeyRow {
                hash: change.tx.hash(&digest)?,
                start,
                ratelimits: old.row.ratelimits.iter().map(fresh).collect(),
                created_at: now,
                updated_at: None,
                ..old.row.clone()
            };
            key::insert(change.tx, workspace, id, &row)?;
            if let Some(to_seal) = to_seal {
                need_encryption(&old.api).map_err(Abort::Refused)?;
                to_seal.seal(change, id)?;
            }
            if row.limited {
                let left = change.tx.credits(workspace, old_id, &old.row)?.balance;
                refill::begin(change, id, &row, left)?;
            }
            let before = old.row.expires;
            let end = end_of_grace(now, expiration);
            old.row.expires = Some(before.map_or(end, |before| before.min(end)));
            old.row.updated_at = Some(now);
            key::update(change.tx, workspace, old_id, &old.row);
            let mut changes = Changes::default();
            changes.note("expires", json!(before), json!(old.row.expires));
            let mut old_target = old.target();
            old_target.meta = changes.into_meta();
            let new_target = target("key", id, row.name.as_deref().unwrap_or_default());
            let targets = vec![new_target, old_target, old.api_target()];
            change.audit("key.reroll", format!("Rerolled key ({old_id}) to ({id})"), targets);
            Ok(id)
        });
        Ok(Response { key_id: made.await?.value.to_string(), key: Secret::new(&*minted.plaintext) })
    }
}

/// The prefix of a key that begins like this: all before the last underscore, since what follows it is base58
/// (KEYS-REROLL-4). One that no request could ask for (KEYFMT-4) came with a migrated key: whoever presented that first chose
/// it, and it might make a key that is too long to be presented.
fn prefix(start: &str) -> Option<&str> {
    let (prefix, _) = start.rsplit_once('_')?;
    Prefix::try_from(prefix.to_owned()).is_ok().then_some(prefix)
}

/// Unix ms at which a key expires that was given `expiration` ms at `now`: on a whole minute. It is still valid in that very millisecond, so
/// none at all is the one before (KEYS-REROLL-5).
fn end_of_grace(now: u64, expiration: u64) -> u64 {
    match expiration {
        0 => now.saturating_sub(1),
        _ => now.saturating_add(expiration).div_ceil(MINUTE_MS).saturating_mul(MINUTE_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KEYS-REROLL-4, KEYFMT-5: prefixes may hold underscores, also at their end.
    #[test]
    fn a_prefix_goes_to_the_last_underscore() {
        for (start, wanted) in [
            ("", None),
            ("3ZyQ", None),
            ("prod_3ZyQ", Some("prod")),
            ("my_app_3ZyQ", Some("my_app")),
            ("my_app__3ZyQ", Some("my_app_")),
            ("\u{1b}]0;x_3ZyQ", None),
            ("a_prefix_of_18_char_3ZyQ", None),
        ] {
            assert_eq!(prefix(start), wanted, "{start}");
        }
    }

    /// KEYS-REROLL-5: rounded up to a full minute, unless it is one already.
    #[test]
    fn a_grace_period_ends_on_a_full_minute() {
        const NOON: u64 = 1_781_524_800_000;
        for (expiration, wanted) in [
            (0, NOON - 1),
            (1, NOON + 60_000),
            (59_999, NOON + 60_000),
            (60_000, NOON + 60_000),
            (60_001, NOON + 120_000),
            (4_102_444_800_000, NOON + 4_102_444_800_000),
        ] {
            assert_eq!(end_of_grace(NOON, expiration), wanted, "{expiration}");
        }
        assert_eq!(end_of_grace(0, 0), 0);
    }
}
