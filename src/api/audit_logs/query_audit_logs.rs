//! auditLogs.queryAuditLogs: the audit events of the workspace, filtered and searched (EXT-15).

use keyward_query::search::{Events, Words};
use schemars::JsonSchema;
use serde::Deserialize;

use super::cursor::Query;
use super::event_object::Event;
use crate::api::call::Call;
use crate::api::listing::{Cursor, LIMIT_DEFAULT, Limit, PAGE_BYTES, SearchText, json_bytes};
use crate::api::operation::{OnFollower, Operation, Page};
use crate::api::problem::{Code, Problem};
use crate::api::search::{self, Searched};
use crate::api::shape::{Int, List, Opt, Text};
use crate::rbac::Need;

/// Names of events in a query.
const EVENTS_MAX: usize = 50;

/// Which events.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Only events with all of these words in their description, actor, resources or metadata.
    #[serde(default)]
    search: SearchText,
    /// Only events of one of these names, as `key.create`.
    #[serde(default)]
    event: Opt<List<Text<1, 128>, 0, EVENTS_MAX>>,
    /// Only what this actor did: a root key's id, for instance.
    #[serde(default)]
    actor_id: Opt<Text<1, 512>>,
    /// Only what was done to the resource with this id.
    #[serde(default)]
    resource_id: Opt<Text<1, 512>>,
    /// Only the events of one action.
    #[serde(default)]
    correlation_id: Opt<Text<1, 128>>,
    /// Only events at or after this time, Unix milliseconds.
    #[serde(default)]
    start: Opt<Int<0, { i64::MAX }>>,
    /// Only events before this time, Unix milliseconds.
    #[serde(default)]
    end: Opt<Int<0, { i64::MAX }>>,
    /// Events on the page.
    #[serde(default)]
    #[schemars(extend("default" = 100))]
    limit: Limit,
    /// Where the page begins, from the page before of the same query.
    #[serde(default)]
    cursor: Cursor,
}

impl Request {
    /// What a cursor belongs to.
    fn query(&self) -> Query {
        let number = |number: &Opt<Int<0, { i64::MAX }>>| number.as_ref().map(|number| number.get().to_string());
        let (start, end) = (number(&self.start), number(&self.end));
        let members = [
            self.search.as_deref().map(str::trim).filter(|search| !search.is_empty()),
            self.actor_id.as_deref(),
            self.resource_id.as_deref(),
            self.correlation_id.as_deref(),
            start.as_deref(),
            end.as_deref(),
        ];
        let mut names: Vec<&str> = self.names().collect();
        names.sort_unstable();
        names.dedup();
        Query::new(members.into_iter().chain(names.into_iter().map(Some)))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.event.0.iter().flat_map(|names| names.iter().map(|name| &**name))
    }

    fn events(&self, from: Option<(u64, u64)>) -> Events {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let time = |time: &Opt<Int<0, { i64::MAX }>>| time.as_ref().and_then(|time| u64::try_from(time.get()).ok());
        let search = self.search.as_deref().unwrap_or_default().trim();
        Events {
            words: (!search.is_empty()).then(|| Words::new(search)),
            names: self.names().map(str::to_owned).collect(),
            actor: owned(self.actor_id.as_deref()),
            resource: owned(self.resource_id.as_deref()),
            correlation: owned(self.correlation_id.as_deref()),
            start: time(&self.start),
            end: time(&self.end),
            from,
            most: self
                .limit
                .as_ref()
                .map_or(LIMIT_DEFAULT, |limit| usize::try_from(limit.get()).expect("bounded to 1..100")),
        }
    }
}

/// auditLogs.queryAuditLogs.
pub struct QueryAuditLogs;

impl Operation for QueryAuditLogs {
    const NAME: &'static str = "auditLogs.queryAuditLogs";
    const SUMMARY: &'static str = "Query the audit log";
    const DESCRIPTION: &'static str = "Returns the workspace's audit events, newest first, in the order in which they were \
        recorded where times are equal. All filters that are given must fit.\n\n\
        `search` finds words in description, actor, resources and metadata: every one of them must be there. Words are runs \
        of letters and digits; letters' case and accents do not count. What is written together, or in quotation marks, is \
        found together. The last word may be the beginning of one. There is no other syntax.\n\n\
        Pages neither repeat nor skip an event, whatever is recorded meanwhile. A cursor belongs to the query it came with; \
        another query refuses it.\n\n\
        New events are there at once. `index` says when a part of the log could not be searched: `behind` (what was recorded \
        within the last `behindMs` milliseconds may be missing) or `partial` (the index is being made anew).";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &["audit_log.*.read_audit_log"];
    const FAILS: &'static [Code] = &[];
    type Request = Request;
    type Response = Searched<Event>;

    async fn run(call: Call, ask: Request) -> Result<Searched<Event>, Problem> {
        let _granted = call.authorize(&Need::tuple("audit_log", "*", "read_audit_log"))?;
        let query = ask.query();
        let from = match ask.cursor.as_deref().filter(|cursor| !cursor.is_empty()) {
            None => None,
            Some(cursor) => Some(query.read(cursor).ok_or_else(|| {
                Problem::invalid(
                    "The cursor is not one of this query. Send it with the filters it came with, or leave it out to begin \
                     at the newest event.",
                )
            })?),
        };
        let events = ask.events(from);
        let (workspace, id) = (call.workspace(), call.workspace_id());
        search::ask(&call, "audit events", move |search, storage| {
            let found = search.events(&storage.snapshot()?, workspace, &events)?;
            let (mut rows, mut bytes, mut next) = (Vec::with_capacity(found.rows.len()), 0, found.next);
            for (sequence, event) in found.rows {
                if bytes >= PAGE_BYTES {
                    next = Some((event.time, sequence));
                    break;
                }
                let row = Event::new(id, event);
                bytes += json_bytes(&row);
                rows.push(row);
            }
            let cursor = next.map(|place| query.cursor(place));
            Ok(Searched::new(Page::new(rows, cursor), found.freshness))
        })
        .await
    }
}
