//! ratelimit.deleteNamespace: limits on it answer 410 from then on (EXT-14).

use keyward_storage::records::ratelimit::{self, NamespaceRow};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{may_not, namespace, namespace_not_found, namespace_target, still_live};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Empty, Text};
use crate::rbac::Need;

/// Which one.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The namespace's id or name.
    namespace: Text<1, 512>,
}

/// ratelimit.deleteNamespace.
pub struct DeleteNamespace;

impl Operation for DeleteNamespace {
    const NAME: &'static str = "ratelimit.deleteNamespace";
    const SUMMARY: &'static str = "Delete a namespace";
    const DESCRIPTION: &'static str = "Deletes a namespace. From the next request on limits in it answer 410 and operations \
        on its overrides 404. Its name cannot be used again; its overrides and its history are kept. There is no way back.";
    const ALLOWS: &'static [&'static str] =
        &["ratelimit.*.delete_namespace", "ratelimit.<namespaceId>.delete_namespace"];
    const FAILS: &'static [Code] = &[Code::RatelimitNamespaceNotFound];
    const AUDITS: &'static [&'static str] = &["ratelimitNamespace.delete"];
    type Request = Request;
    type Response = Empty;

    async fn run(call: Call, ask: Request) -> Result<Empty, Problem> {
        // Whoever may not delete it hears the same of a namespace that exists and of one that does not.
        let view = namespace(&call, &ask.namespace).await?.filter(|view| !view.deleted);
        let id = view.as_ref().map(|view| view.id.spell());
        let need = match &id {
            Some(id) => Need::any_or_one("ratelimit", id, "delete_namespace"),
            None => Need::tuple("ratelimit", "*", "delete_namespace"),
        };
        let granted = call.may(&need).ok_or_else(|| may_not("delete_namespace", &ask.namespace))?;
        let id = view.ok_or_else(namespace_not_found)?.id;
        let deleted = granted.transact(Correlate::IfSeveral, move |change| {
            let row = still_live(change, id)?;
            let (workspace, now) = (change.workspace(), change.now());
            ratelimit::put(change.tx, workspace, id, &NamespaceRow { deleted_at: Some(now), ..row.clone() });
            change.audit(
                "ratelimitNamespace.delete",
                format!("Deleted rate-limit namespace {} ({id})", row.name),
                vec![namespace_target(id, &row.name)],
            );
            Ok(())
        });
        deleted.await?;
        Ok(Empty {})
    }
}
