//! keys.updateCredits: set, raise or lower what is left on a key.

use keyward_storage::records::key;
use keyward_storage::{Abort, Change as Balance};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::key_object::{Credits, RefillObject};
use super::{find, find_again, refill};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Ident, Int, Patch};
use crate::tenants::target;

/// What to do with the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// Exactly so many are left; null or no value = unlimited.
    Set,
    /// So many more.
    Increment,
    /// So many fewer, but never below none.
    Decrement,
}

/// What to change.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The key's id.
    key_id: Ident<3, 255>,
    /// How many; null, or none at all, = unlimited, with `set` only.
    #[serde(default)]
    #[schemars(extend("examples" = [100]))]
    value: Patch<Int<0, { i64::MAX }>>,
    /// What to do with the value.
    operation: What,
}

/// keys.updateCredits.
pub struct UpdateCredits;

impl Operation for UpdateCredits {
    const NAME: &'static str = "keys.updateCredits";
    const SUMMARY: &'static str = "Change a key's credits";
    const DESCRIPTION: &'static str = "Sets, raises or lowers how many verifications are left on a key, and returns \
        what is left then. The next verification uses the new number.";
    const ALLOWS: &'static [&'static str] = &[
        "api.*.update_key",
        "api.<apiId>.update_key",
        "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>/keys/<keyId>#update_key",
    ];
    const FAILS: &'static [Code] = &[Code::KeyNotFound];
    const AUDITS: &'static [&'static str] = &["key.update"];
    type Request = Request;
    type Response = Credits;

    async fn run(call: Call, ask: Request) -> Result<Credits, Problem> {
        let found = find(&call, &ask.key_id).await?;
        let granted = found.need("update_key", |need| call.authorize(need))?;
        let value = match ask.value {
            Patch::Set(value) => Some(value.get_unsigned()),
            Patch::Keep | Patch::Clear => None,
        };
        if ask.operation != What::Set && value.is_none() {
            return Err(Problem::invalid(
                "When specifying an increment or decrement operation, a value must be provided.",
            ));
        }
        let id = found.id;
        let changed = granted.transact(Correlate::IfSeveral, move |change| {
            let mut found = find_again(change, id)?;
            refill::settle(change, &mut found)?;
            let (workspace, now) = (change.workspace(), change.now());
            let balance = match (ask.operation, value) {
                (What::Set, Some(value)) => Balance::Set(value),
                (What::Set, None) => Balance::Set(0),
                (What::Increment, value) => Balance::Add(value.unwrap_or(0)),
                (What::Decrement, value) => Balance::Subtract(value.unwrap_or(0)),
            };
            let previous = change.tx.credits(workspace, id, &found.row)?.balance;
            let previous = if found.row.limited { previous.to_string() } else { "null".to_owned() };
            if ask.operation == What::Set {
                found.row.limited = value.is_some();
                if value.is_none() {
                    found.row.refill = None;
                }
            } else if !found.row.limited {
                return Err(Abort::Refused(Problem::invalid(
                    "You cannot increment or decrement a key with unlimited credits.",
                )));
            }
            // The due date of a refill stays what it was; without one there is none.
            let due = change.tx.credits(workspace, id, &found.row)?.refill_due.filter(|_| found.row.refill.is_some());
            let Ok(remaining) = change.tx.change_credits(workspace, id, &found.row, balance, due)? else {
                return Err(Abort::Refused(Problem::invalid(
                    "The key's credits would exceed the largest number there can be.",
                )));
            };
            found.row.updated_at = Some(now);
            key::update(change.tx, workspace, id, &found.row);
            let remaining = found.row.limited.then_some(remaining);
            let shown = remaining.map_or("unlimited".to_owned(), |remaining| remaining.to_string());
            let mut key = found.target();
            let operation = match ask.operation {
                What::Set => "set",
                What::Increment => "increment",
                What::Decrement => "decrement",
            };
            let value = value.map_or("null".to_owned(), |value| value.to_string());
            key.meta =
                Some(format!(r#"{{"operation":"{operation}","value":{value},"previous_remaining":{previous}}}"#));
            change.audit(
                "key.update",
                format!("Updated Key {id}, set remaining to {shown}."),
                vec![target("keySpace", found.api.keyspace, ""), key],
            );
            Ok((remaining, found.row.refill))
        });
        let changed = changed.await?;
        let (remaining, refill) = changed.value;
        Ok(Credits {
            // Spends may have come in between; what the change made of the balance then is the state after it.
            remaining: remaining.map(|remaining| changed.balance.unwrap_or(remaining)),
            refill: refill.as_ref().map(RefillObject::new),
        })
    }
}
