//! A search: candidates from the index, judged by the records.
//!
//! The index says which rows may be meant, and each is then read and looked at. So what is shown is what is there: a row that
//! changed or went since the last commit is judged as it is, and a row of another workspace, or of an API the caller may not
//! see, could not be shown even if the index named it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use keyward_storage::ids::{ApiId, CorrelationId, IdText, KeyId, WorkspaceNo};
use keyward_storage::records::audit::{self, AuditEvent};
use keyward_storage::records::{api, identity, key};
use keyward_storage::{ReadError, Snapshot};

use super::schema::{self, Kind, Tag};
use super::shared::{Freshness, Shared};
use super::texts;
use super::view::{Ask, View};
use super::words::Words;

/// Candidates asked for at first; four times as many each time after that.
const CANDIDATES_FIRST: usize = 128;
/// Most candidates that are looked at for one page. A page that ends there says where the next one begins.
const CANDIDATES_MAX: usize = 10_000;
/// Most APIs that the index is asked for; of more, keys of others are passed over.
const APIS_ASKED_MAX: usize = 64;
/// Most events that are newer than the index and are looked through one by one.
const NEWER_MAX: u64 = 5_000;
/// Events newer than what the index is known to have, for which it is not asked what it has.
const NEWER_WITHOUT_LOOKING: u64 = 500;
/// How far from its place in the order of time an event may stand by its number, where the index does not help.
const DISORDER_MAX: u64 = 1_000;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// There is no index yet, or none that can be read.
    #[error("the search index is not available")]
    Unavailable,
    /// The records cannot be read.
    #[error(transparent)]
    Records(#[from] ReadError),
}

/// A page of what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T, C> {
    /// The rows, in order.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<C>,
    /// How much of the records was searched.
    pub freshness: Freshness,
}

/// Which keys.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Whose.
    pub workspace: WorkspaceNo,
    /// Of which APIs, ascending; `None` for all.
    pub apis: Option<Vec<ApiId>>,
    /// What is in them.
    pub words: Words,
    /// The bytes behind the prefix of an id from which on, inclusive; they need not be an id.
    pub from: Vec<u8>,
    /// Most on a page.
    pub most: usize,
}

/// Which audit events.
#[derive(Debug, Clone, Default)]
pub struct Events {
    /// What is in them; `None` for any.
    pub words: Option<Words>,
    /// Of one of these names; empty for any.
    pub names: Vec<String>,
    /// By whom.
    pub actor: Option<String>,
    /// To what.
    pub resource: Option<String>,
    /// Together with what.
    pub correlation: Option<String>,
    /// Not before this, unix ms.
    pub start: Option<u64>,
    /// Before this, unix ms.
    pub end: Option<u64>,
    /// Time and sequence number from which on, downwards, inclusive.
    pub from: Option<(u64, u64)>,
    /// Most on a page.
    pub most: usize,
}

impl Events {
    /// Whether it asks for every event.
    fn asks_for_all(&self) -> bool {
        self.words.is_none()
            && self.names.is_empty()
            && self.actor.is_none()
            && self.resource.is_none()
            && self.correlation.is_none()
            && self.start.is_none()
            && self.end.is_none()
    }

    /// Least and greatest order.
    fn between(&self) -> Option<(u128, u128)> {
        let least = schema::event_order(self.start.unwrap_or(0), 0);
        let mut greatest = match self.end {
            None => u128::MAX,
            Some(end) => schema::event_order(end, 0).checked_sub(1)?,
        };
        if let Some((time, sequence)) = self.from {
            greatest = greatest.min(schema::event_order(time, sequence));
        }
        (least <= greatest).then_some((least, greatest))
    }

    fn takes(&self, event: &AuditEvent) -> bool {
        (self.names.is_empty() || self.names.contains(&event.event))
            && self.actor.as_ref().is_none_or(|actor| *actor == event.actor.id)
            && self.resource.as_ref().is_none_or(|id| event.targets.iter().any(|target| target.id == *id))
            && self.correlation.as_ref().is_none_or(|id| event.correlation.is_some_and(|of| of.to_string() == *id))
            && self.words.as_ref().is_none_or(|words| words.find_in(&texts::of_event(event)))
    }
}

/// Runs a step in the index. What it stumbles over makes the index be looked at, and is no answer.
fn guarded<R>(shared: &Shared, step: impl FnOnce() -> tantivy::Result<R>) -> Result<R, SearchError> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a search could not read the index");
            shared.note_damage();
            Err(SearchError::Unavailable)
        }
        Err(_) => {
            shared.note_damage();
            Err(SearchError::Unavailable)
        }
    }
}

/// Finds keys, by id ascending.
pub fn keys(shared: &Shared, snapshot: &Snapshot, ask: &Keys) -> Result<Found<KeyId, String>, SearchError> {
    let freshness = shared.freshness();
    let view = shared.first_view().ok_or(SearchError::Unavailable)?;
    let workspace = ask.workspace;
    let mut least = first_order(&ask.from);
    let mut any_of = Vec::new();
    if let Some(apis) = ask.apis.as_ref().filter(|apis| apis.len() <= APIS_ASKED_MAX) {
        any_of.push(apis.iter().map(|api| view.fields().api(workspace, *api)).collect());
    }
    let (mut rows, mut looked_at, mut at_once) = (Vec::new(), 0, CANDIDATES_FIRST.max(ask.most + 1));
    let mut next = None;
    'pages: while looked_at < CANDIDATES_MAX {
        let asked = Ask {
            kind: Kind::Key,
            workspace,
            words: Some(&ask.words),
            any_of: any_of.clone(),
            between: (least, u128::MAX),
            descending: false,
        };
        let (candidates, more) = guarded(shared, || view.candidates(&asked, at_once))?;
        for order in candidates {
            looked_at += 1;
            least = order.saturating_add(1);
            let Some(id) = IdText::from_bytes(order.to_be_bytes()).map(KeyId) else { continue };
            if is_meant(snapshot, ask, id)? {
                if rows.len() == ask.most {
                    next = Some(place(order));
                    break 'pages;
                }
                rows.push(id);
            }
            if looked_at == CANDIDATES_MAX {
                next = Some(place(least));
            }
        }
        if !more {
            next = None;
            break;
        }
        at_once = (at_once * 4).min(CANDIDATES_MAX - looked_at.min(CANDIDATES_MAX)).max(1);
    }
    Ok(Found { rows, next, freshness })
}

/// The bytes of an order as what stands behind a prefix. It need not be an id, only at or before the next one.
fn place(order: u128) -> String {
    String::from_utf8_lossy(&order.to_be_bytes()).into_owned()
}

/// The order that these bytes stand for: the first id that is not before them.
fn first_order(from: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let length = from.len().min(16);
    bytes[..length].copy_from_slice(&from[..length]);
    u128::from_be_bytes(bytes).saturating_add(u128::from(from.len() > 16))
}

/// Whether a key is live, of an API that is asked for, and has what is searched for.
fn is_meant(snapshot: &Snapshot, ask: &Keys, id: KeyId) -> Result<bool, ReadError> {
    let workspace = ask.workspace;
    let Some(row) = key::get(snapshot, workspace, id)?.filter(|row| row.deleted_at.is_none()) else { return Ok(false) };
    if ask.apis.as_ref().is_some_and(|apis| apis.binary_search(&row.api).is_err()) {
        return Ok(false);
    }
    if api::get_live(snapshot, workspace, row.api)?.is_none() {
        return Ok(false);
    }
    let identity = match row.identity {
        Some(id) => identity::get_live(snapshot, workspace, id)?,
        None => None,
    };
    let external_id = identity.as_ref().map(|identity| identity.external_id.as_str());
    Ok(ask.words.find_in(&texts::of_key(id, &row, external_id)))
}

/// An audit event with its sequence number.
pub type Numbered = (u64, AuditEvent);

/// Finds audit events, newest first by time and then by sequence number.
///
/// Events that are newer than the index are looked through one by one, so that an answer has them at once; where there are
/// too many of those, or no index, it has a part.
pub fn events(
    shared: &Shared,
    snapshot: &Snapshot,
    workspace: WorkspaceNo,
    ask: &Events,
) -> Result<Found<Numbered, (u64, u64)>, SearchError> {
    let Some(between) = ask.between() else {
        return Ok(Found { rows: Vec::new(), next: None, freshness: Freshness::Current });
    };
    let view = shared.view().filter(|view| view.complete || !ask.asks_for_all());
    let head = audit::head(snapshot, workspace)?.sequence;
    let through = match &view {
        // What an index that is being made has of a workspace need not be the beginning.
        Some(view) if view.complete => indexed_through(shared, view, workspace, head).ok(),
        _ => None,
    };
    let newer = head.saturating_sub(through.unwrap_or(0));
    if ask.asks_for_all() && (through.is_none() || newer > NEWER_MAX) {
        return in_order_of_numbers(snapshot, workspace, ask, head);
    }
    let freshness = if newer <= NEWER_MAX { Freshness::Current } else { shared.freshness() };
    let mut freshness = match freshness {
        Freshness::Current if newer > NEWER_MAX => Freshness::Behind(0),
        freshness => freshness,
    };
    let mut found: Vec<(u128, Numbered)> = Vec::new();
    for (sequence, row) in audit::list(snapshot, workspace, head - newer.min(NEWER_MAX) + 1, NEWER_MAX as usize)? {
        let order = schema::event_order(row.event.time, sequence);
        if (between.0..=between.1).contains(&order) && ask.takes(&row.event) {
            found.push((order, (sequence, row.event)));
        }
    }
    // Below this nothing was looked at.
    let mut end = None;
    if let Some(view) = &view {
        match older(shared, view, snapshot, workspace, ask, between, &mut found) {
            Ok(ended) => end = ended,
            // What was looked through is better than nothing.
            Err(SearchError::Unavailable) => freshness = Freshness::Partial,
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable_by_key(|(order, _)| std::cmp::Reverse(*order));
    found.dedup_by_key(|(order, _)| *order);
    if let Some(end) = end {
        found.retain(|(order, _)| *order > end);
    }
    let cursor = |order: u128| ((order >> 64) as u64, order as u64);
    let next = match found.get(ask.most) {
        Some((order, _)) => Some(cursor(*order)),
        None => end.map(cursor),
    };
    let rows = found.into_iter().take(ask.most).map(|(_, row)| row).collect();
    Ok(Found { rows, next, freshness })
}

/// Up to which number the index has every event of a workspace, or a little less. Finding out costs a look at all of them,
/// so what was found out for an earlier commit is good enough while few events are newer.
fn indexed_through(shared: &Shared, view: &View, workspace: WorkspaceNo, head: u64) -> Result<u64, SearchError> {
    let known = shared.events_through(workspace);
    if let Some(known) = known.filter(|known| head.saturating_sub(*known) <= NEWER_WITHOUT_LOOKING) {
        return Ok(known);
    }
    let through = guarded(shared, || view.last_event(workspace))?;
    shared.note_events_through(workspace, through);
    Ok(through)
}

/// Adds what the index knows of, one more than fits a page. Gives the order at which looking ended before that.
fn older(
    shared: &Shared,
    view: &View,
    snapshot: &Snapshot,
    workspace: WorkspaceNo,
    ask: &Events,
    (least, mut greatest): (u128, u128),
    found: &mut Vec<(u128, Numbered)>,
) -> Result<Option<u128>, SearchError> {
    let term = |tag, value: &str| view.fields().term(Kind::Event, tag, workspace, value.as_bytes());
    let mut any_of = Vec::new();
    if !ask.names.is_empty() {
        any_of.push(ask.names.iter().map(|name| term(Tag::Event, name)).collect());
    }
    any_of.extend(ask.actor.as_ref().map(|id| vec![term(Tag::Actor, id)]));
    any_of.extend(ask.resource.as_ref().map(|id| vec![term(Tag::Resource, id)]));
    if let Some(id) = &ask.correlation {
        // What is no id of the kind has no event.
        let id = CorrelationId::parse(id);
        any_of.push(id.iter().map(|id| term(Tag::Correlation, &String::from_utf8_lossy(id.as_bytes()))).collect());
    }
    let (mut taken, mut looked_at, mut at_once) = (0, 0, CANDIDATES_FIRST.max(ask.most + 1));
    while looked_at < CANDIDATES_MAX {
        let asked = Ask {
            kind: Kind::Event,
            workspace,
            words: ask.words.as_ref(),
            any_of: any_of.clone(),
            between: (least, greatest),
            descending: true,
        };
        let (candidates, more) = guarded(shared, || view.candidates(&asked, at_once))?;
        for order in candidates {
            looked_at += 1;
            let sequence = order as u64;
            let row = audit::list(snapshot, workspace, sequence, 1)?.into_iter().next();
            if let Some((_, row)) = row.filter(|(of, row)| *of == sequence && row.event.time == (order >> 64) as u64)
                && ask.takes(&row.event)
            {
                found.push((order, (sequence, row.event)));
                taken += 1;
                if taken > ask.most {
                    return Ok(None);
                }
            }
            let Some(below) = order.checked_sub(1).filter(|below| *below >= least) else { return Ok(None) };
            greatest = below;
        }
        if !more {
            return Ok(None);
        }
        at_once = (at_once * 4).min(CANDIDATES_MAX - looked_at.min(CANDIDATES_MAX)).max(1);
    }
    Ok(Some(greatest))
}

/// Every event, from the records alone: by their numbers, which is the order of time but for a little.
fn in_order_of_numbers(
    snapshot: &Snapshot,
    workspace: WorkspaceNo,
    ask: &Events,
    head: u64,
) -> Result<Found<Numbered, (u64, u64)>, SearchError> {
    let top = ask.from.map_or(head, |(_, sequence)| head.min(sequence.saturating_add(DISORDER_MAX)));
    let bottom =
        ask.from.map_or(head, |(_, sequence)| head.min(sequence)).saturating_sub(ask.most as u64 + DISORDER_MAX);
    let greatest = ask.from.map_or(u128::MAX, |(time, sequence)| schema::event_order(time, sequence));
    let most = usize::try_from(top - bottom.min(top)).unwrap_or(0);
    let listed = audit::list(snapshot, workspace, bottom + 1, most)?;
    let numbered = listed.into_iter().filter(|(sequence, _)| *sequence <= top);
    let orders = numbered.map(|(sequence, row)| (schema::event_order(row.event.time, sequence), (sequence, row.event)));
    let mut found: Vec<(u128, Numbered)> = orders.filter(|(order, _)| *order <= greatest).collect();
    found.sort_unstable_by_key(|(order, _)| std::cmp::Reverse(*order));
    let next = found.get(ask.most).map(|(order, _)| ((order >> 64) as u64, *order as u64));
    let rows = found.into_iter().take(ask.most).map(|(_, row)| row).collect();
    Ok(Found { rows, next, freshness: Freshness::Current })
}
