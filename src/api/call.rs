//! What a handler may touch: who calls, when, the records, and, once it is authorized, a transaction.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use keyward_query::events::{Event, Events};
use keyward_storage::ids::{CorrelationId, EventId, IdText, WorkspaceId, WorkspaceNo};
use keyward_storage::records::audit::{Actor, AuditEvent, Target};
use keyward_storage::records::change::{self, ChangeId, ChangeRow};
use keyward_storage::{Abort, Committed, Storage, TransactError, Turn, Tx, Unavailable};

use super::problem::{Code, Problem};
use super::wire::RequestId;
use crate::app::Services;
use crate::auth::Principal;
use crate::otlp::trace::{self, Work};
use crate::outside::Entropy;
use crate::rbac::Need;
use crate::tenants;

/// A request that has passed validation, authentication and the workspace's limit.
pub struct Call {
    pub(super) services: Arc<Services>,
    pub(super) principal: Principal,
    /// Names this request in the reply and in events.
    pub request_id: RequestId,
    /// The request's time, unix ms: the server's clock, or in test mode what the request says.
    pub now: u64,
    /// When the client is told that it was not answered in time, by the server's clock, unix ms.
    pub deadline: u64,
    /// The client's address.
    pub client_ip: Option<IpAddr>,
    /// The client's program, as it calls itself.
    pub user_agent: Option<Arc<str>>,
    /// Whether the client asked not to be recorded (COM-HDR-04).
    pub metrics_disabled: bool,
    /// Audit events the operation declares.
    pub(super) audits: &'static [&'static str],
    /// As what this node answers.
    pub(super) standing: Standing,
    /// The name of what it changes, where another node gave it one.
    pub(super) change: Option<ChangeId>,
}

/// As what a node answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The records are its own to change.
    Leader,
    /// They are another node's, which can be asked.
    Follower,
    /// They are another node's, which cannot be reached.
    Alone,
}

/// How long after a request's deadline the name of its change is remembered, ms: nobody repeats it then, by whatever clock.
const REMEMBERED_MS: u64 = 60_000;

/// A permission check that passed: the only way to a transaction.
#[must_use]
pub struct Granted<'c> {
    call: &'c Call,
    /// Whether what is changed is what the request is for.
    is_own: bool,
    /// Whose turn the transaction takes.
    turn: Turn,
}

impl Call {
    /// Records and counters.
    pub fn storage(&self) -> &Storage {
        &self.services.storage
    }

    /// The services behind the operations.
    pub fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// The workspace everything this call sees belongs to (COM-RK-09).
    pub fn workspace(&self) -> WorkspaceNo {
        self.principal.workspace.no
    }

    /// That workspace's public id.
    pub fn workspace_id(&self) -> WorkspaceId {
        self.principal.workspace.id
    }

    /// Passes where the caller holds what is needed; else 403 naming what is missing (PM-EVAL-04).
    pub fn authorize(&self, need: &Need<'_>) -> Result<Granted<'_>, Problem> {
        match self.principal.grants.check(need) {
            Ok(()) => Ok(self.granted()),
            Err(denied) => Err(Problem::new(Code::InsufficientPermissions, denied.to_string())),
        }
    }

    /// As [`Call::authorize`], for operations that answer a lack of permission as if the resource did not exist.
    pub fn may(&self, need: &Need<'_>) -> Option<Granted<'_>> {
        self.principal.grants.allows(need).then(|| self.granted())
    }

    /// Whether the caller holds `<kind>.<id>.<action>` for any id at all, or for all.
    pub fn holds_any(&self, kind: &str, action: &str) -> bool {
        self.principal.grants.ids(kind, action).next().is_some()
    }

    /// The ids in the grants `<kind>.<id>.<action>`, for operations that show what they name (PM-TAB-02).
    pub fn ids<'a>(&'a self, kind: &'a str, action: &'a str) -> impl Iterator<Item = &'a str> {
        self.principal.grants.ids(kind, action)
    }

    /// Whether the caller may do everything in its workspace: then no requirement need be spelled out.
    pub fn is_administrator(&self) -> bool {
        self.principal.grants.is_administrator()
    }

    fn granted(&self) -> Granted<'_> {
        Granted { call: self, is_own: true, turn: Turn::of(self.workspace()).until(self.deadline) }
    }

    /// What this program does by itself on behalf of a call, such as a refill that is due: no permission is asked. It
    /// does not wait behind the workspace's changes, since a verification waits for it.
    pub fn as_system(&self) -> Granted<'_> {
        Granted { call: self, is_own: false, turn: Turn::of_verification(self.workspace()).until(self.deadline) }
    }

    /// Passes where credits and limits may be counted here: on the leader, and where it cannot be reached.
    ///
    /// # Errors
    /// The leader is to be asked.
    pub fn may_count(&self) -> Result<(), Problem> {
        match self.standing {
            Standing::Leader | Standing::Alone => Ok(()),
            Standing::Follower => Err(Problem::for_leader()),
        }
    }

    /// Whether this node answers for a leader that it cannot reach.
    pub fn is_alone(&self) -> bool {
        self.standing == Standing::Alone
    }

    /// Reads from disk on a thread that may block. `what` completes "We could not load the requested …".
    pub async fn read<R: Send + 'static>(
        &self,
        what: &str,
        read: impl FnOnce(&Storage) -> Result<R, keyward_storage::ReadError> + Send + 'static,
    ) -> Result<R, Problem> {
        self.services.read(read).await.map_err(|error| match error.is_damage() {
            true => damaged(what).because(error),
            false => unreadable(what).because(error),
        })
    }

    /// Records an event of this call. A full queue makes it wait a little, no longer; the event is then lost and counted.
    /// Whether it was taken.
    pub async fn record(&self, event: impl Into<Event>) -> bool {
        let Some(events) = &self.services.events else { return true };
        match events.try_record(event) {
            Ok(()) => true,
            Err(event) => Box::pin(events.record(event)).await,
        }
    }

    /// The same without waiting.
    pub fn record_or_drop(&self, event: impl Into<Event>) {
        if let Some(events) = &self.services.events {
            events.record_or_drop(event);
        }
    }

    /// Reads events on a thread that may block. `what` completes "We could not load the requested …".
    pub async fn read_events<R: Send + 'static>(
        &self,
        what: &str,
        read: impl FnOnce(&Events) -> io::Result<R> + Send + 'static,
    ) -> Result<R, Problem> {
        let events = self.services.events.clone().ok_or_else(|| unreadable(what))?;
        let _step = trace::step(Work::ReadEvents);
        let done = tokio::task::spawn_blocking(move || read(&events)).await;
        done.map_err(io::Error::other).flatten().map_err(|error| unreadable(what).because(error))
    }

    fn actor(&self) -> Actor {
        let key = &self.principal.key;
        Actor {
            kind: "rootkey".into(),
            id: key.id.to_string(),
            name: key.name.as_deref().unwrap_or("root key").to_owned(),
        }
    }
}

/// Milliseconds since the handler began, to the microsecond (finer digits are noise that only takes room), shared evenly
/// by so many decisions (RL-MULTI-12).
pub fn latency_ms(begun: Instant, decisions: usize) -> f64 {
    let micros = begun.elapsed().as_secs_f64() * 1e6 / decisions.max(1) as f64;
    micros.round() / 1e3
}

fn unreadable(what: &str) -> Problem {
    Problem::new(Code::ServiceUnavailable, format!("We could not load the requested {what}."))
}

/// The same where the records hold something else than was written: trying again does not help, and the operator has to know.
fn damaged(what: &str) -> Problem {
    let detail = format!(
        "We could not load the requested {what}: a part of this server's data is damaged. Please tell its operator, whom \
         `keyward verify-data` tells what is damaged and what to do."
    );
    Problem::new(Code::ServiceUnavailable, detail)
}

/// Whether the events of a transaction are tied together (AL-EV-04).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Correlate {
    /// Even a single one.
    Always,
    /// Where there are two or more.
    IfSeveral,
}

impl Granted<'_> {
    /// Runs a transaction and waits until it is durable and visible. It runs to its end even if the client goes away, but
    /// is not begun after the request's deadline.
    pub async fn transact<R: Send + 'static>(
        self,
        correlate: Correlate,
        run: impl FnOnce(&mut Change<'_, '_>) -> Result<R, Abort<Problem>> + Send + 'static,
    ) -> Result<Committed<R>, Problem> {
        let call = self.call;
        if call.standing != Standing::Leader {
            return Err(Problem::for_leader());
        }
        let workspace = call.workspace();
        let made = call.change.filter(|_| self.is_own).map(|id| {
            let row = ChangeRow {
                request: *call.request_id.as_bytes(),
                made_at: call.services.outside.clock.now_ms(),
                expires_at: call.deadline.saturating_add(REMEMBERED_MS),
            };
            (id, row)
        });
        let context = Context {
            workspace,
            now: call.now,
            actor: call.actor(),
            remote_ip: call.client_ip.map(|ip| ip.to_string()),
            user_agent: call.user_agent.as_deref().map(str::to_owned),
            entropy: call.services.outside.entropy.clone(),
            declared: call.audits,
        };
        let outcome = call
            .services
            .transact(self.turn, call.now, move |tx| {
                if let Some((id, _)) = &made
                    && change::get(tx, id)?.is_some()
                {
                    return Err(Abort::Refused(made_before()));
                }
                let mut change = Change { tx: &mut *tx, context, events: Vec::new(), told_bytes: 0, untold: false };
                let value = run(&mut change)?;
                change.finish(correlate);
                if let Some((id, row)) = &made
                    && tx.has_changes()
                {
                    change::put(tx, id, row);
                }
                Ok(value)
            })
            .await;
        outcome.map_err(problem)
    }
}

/// How a transaction that was not applied is answered.
fn problem(error: TransactError<Problem>) -> Problem {
    match error {
        TransactError::Refused(problem) => problem,
        TransactError::Unavailable(Unavailable::TooLarge) => too_large(),
        TransactError::Unavailable(why) => unavailable(&why),
        TransactError::Read(error) if error.is_damage() => damaged("resource").because(error),
        TransactError::Read(error) => unreadable("resource").because(error),
    }
}

/// What the repeat of a change is answered whose own answer is lost. It must not be a status that clients try again by
/// themselves.
pub fn made_before() -> Problem {
    Problem::new(
        Code::RequestTimeout,
        "The change was made, but the node that made it went away before its reply came, and replies are not kept. Please look \
         at the resource before you try again; a key whose plaintext was not seen can be rerolled.",
    )
}

fn too_large() -> Problem {
    Problem::invalid("The change is too large for one request. Split it into several.")
}

/// 503 with a small `Retry-After` for what storage does not take now (COM-CODE-02).
pub fn unavailable(why: &Unavailable) -> Problem {
    Problem::no_capacity(match why {
        Unavailable::Busy => "Too many changes are waiting for the disk. Please try again in a moment.",
        Unavailable::Late => {
            "The server did not come to the change within the request's time, and nothing of it was done. Please try again."
        }
        Unavailable::NoSpace => "The server's disk is full, so changes are refused. Please tell its operator.",
        Unavailable::NotLeader => "This node follows another one, and has no way to hand the change on. Please try again in a moment.",
        Unavailable::Fenced => {
            "Another node leads now, and this one takes no changes any more. Please send them to the other one."
        }
        Unavailable::Suspended => {
            "This node has lost touch with whatever says which node leads, so it takes no changes. Please try again in a moment."
        }
        Unavailable::Unconfirmed => {
            "The change is made, but too few followers have confirmed it in time: it is lost if this node is lost before they \
             have. Please look whether it is there before you try again."
        }
        Unavailable::Stopped | Unavailable::TooLarge => "The server is stopping. Please try again in a moment.",
    })
    .because(why.clone())
}

/// What is the same for all events of a transaction.
struct Context {
    workspace: WorkspaceNo,
    now: u64,
    actor: Actor,
    remote_ip: Option<String>,
    user_agent: Option<String>,
    entropy: Entropy,
    declared: &'static [&'static str],
}

/// A transaction on behalf of a call: the records, and the events that tell of the change.
pub struct Change<'a, 'tx> {
    /// The records as they are now, and changes to them.
    pub tx: &'a mut Tx<'tx>,
    context: Context,
    events: Vec<AuditEvent>,
    /// Bytes of the events, roughly.
    told_bytes: usize,
    /// Whether a change without an event is meant.
    untold: bool,
}

impl Change<'_, '_> {
    /// The caller's workspace.
    pub fn workspace(&self) -> WorkspaceNo {
        self.context.workspace
    }

    /// The request's time, unix ms.
    pub fn now(&self) -> u64 {
        self.context.now
    }

    /// The random part of a new id.
    pub fn new_id(&self) -> IdText {
        tenants::draw_id(&self.context.entropy)
    }

    /// Records an event of the caller's.
    pub fn audit(&mut self, event: &str, description: String, targets: Vec<Target>) {
        let event = AuditEvent {
            id: EventId(self.new_id()),
            time: self.context.now,
            event: event.into(),
            description,
            actor: self.context.actor.clone(),
            remote_ip: self.context.remote_ip.clone(),
            user_agent: self.context.user_agent.clone(),
            targets,
            correlation: None,
        };
        // Ids, times, lengths and the hash of the event before it take some more.
        const BESIDE: usize = 128;
        self.told_bytes += BESIDE + event.description.len() + event.user_agent.as_deref().map_or(0, str::len);
        self.events.push(event);
    }

    /// Refuses a change that has grown beyond what one may be: asked while many rows are put, so that one that will be
    /// refused in the end does not hold up all others until then.
    pub fn refuse_too_large(&self) -> Result<(), Abort<Problem>> {
        match self.tx.bytes() + self.told_bytes > keyward_storage::MAX_TRANSACTION_BYTES {
            true => Err(Abort::Refused(too_large())),
            false => Ok(()),
        }
    }

    /// Records an event of the program's own, at a time of its own. It stands before the caller's and is not tied to them.
    pub fn audit_as_system(&mut self, actor: Actor, time: u64, event: &str, description: String, targets: Vec<Target>) {
        let event = AuditEvent {
            id: EventId(self.new_id()),
            time,
            event: event.into(),
            description,
            actor,
            remote_ip: None,
            user_agent: None,
            targets,
            correlation: None,
        };
        let workspace = self.context.workspace;
        self.tx.audit(workspace, event);
    }

    /// Says that what changes may go without an event: a counter's bookkeeping, not a record.
    pub fn may_go_untold(&mut self) {
        self.untold = true;
    }

    fn finish(mut self, correlate: Correlate) {
        let tied = correlate == Correlate::Always || self.events.len() >= 2;
        let correlation = tied.then(|| CorrelationId(self.new_id()));
        for mut event in std::mem::take(&mut self.events) {
            debug_assert!(
                self.context.declared.contains(&event.event.as_str()),
                "the operation records {}, which it does not declare",
                event.event
            );
            event.correlation = correlation;
            self.tx.audit(self.context.workspace, event);
        }
        debug_assert!(
            self.untold || !self.tx.has_changes() || self.tx.audited().next().is_some(),
            "a change leaves at least one audit event"
        );
    }
}
