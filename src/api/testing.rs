//! Operations on a store of their own in memory, for tests that look at what is behind the API: the audit trail above all,
//! which no operation reads yet.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use keyward_storage::Turn;
use keyward_storage::disk::MemoryDisk;
use keyward_storage::ids::{WorkspaceId, WorkspaceNo};
use keyward_storage::records::audit::{self, AuditEvent};
use keyward_storage::records::change::ChangeId;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::operation::Serving;
use super::wire::{Authorization, ContentType, Forwarded, Inbound, Outbound, RequestId};
use crate::app::{Services, open_storage};
use crate::config::{Secret, SecretSources, Settings};
use crate::outside::Outside;
use crate::tenants::{self, By, NewRootKey};
use crate::vault::Vault;

/// The time of every request, unix ms.
pub const NOW: u64 = 1_795_256_643_000;
/// The master key: 32 bytes of 7.
const MASTER_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// A server without its sockets: one workspace, and a root key that may do everything in it.
pub struct Kit {
    /// What the operations stand on.
    pub services: Arc<Services>,
    /// The workspace.
    pub workspace: WorkspaceNo,
    runtime: tokio::runtime::Runtime,
    id: WorkspaceId,
    root: RefCell<String>,
    seen: Cell<u64>,
    /// The test clock of the next requests; `None` for [`NOW`].
    pub test_time_ms: Cell<Option<i64>>,
    /// Where the next requests come from, as far as is known.
    pub client_ip: Cell<Option<IpAddr>>,
    /// The name that another node gave the next requests' changes; `None` where they come from clients.
    pub change: Cell<Option<ChangeId>>,
}

/// An audit event, as tests like to compare it.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    /// Its name.
    pub event: String,
    /// Its description.
    pub description: String,
    /// Its targets: kind, id and display name.
    pub targets: Vec<(String, String, String)>,
    /// The metadata of its targets, in their order.
    pub meta: Vec<Value>,
    /// What ties it to others.
    pub correlation: Option<String>,
}

impl Kit {
    /// A new store.
    pub fn new() -> Kit {
        let secrets = SecretSources { master_key: Some(Secret::new(MASTER_KEY)), ..SecretSources::default() };
        let settings = Settings { data_dir: Path::new("/data").to_owned(), secrets, ..Settings::default() };
        let outside = Outside::fixed(NOW, 7);
        let storage =
            open_storage(&settings, Arc::new(MemoryDisk::new()), &outside, &Default::default()).expect("opened");
        let vault = Arc::new(Vault::open(&settings.secrets, &settings.data_dir).expect("a master key"));
        let services = Services::of_records(storage, outside, vault);
        let services = Arc::new(services);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let entropy = &services.outside.entropy;
        let id = WorkspaceId(tenants::draw_id(entropy));
        let key = NewRootKey::generate(None, vec![tenants::administrator(id)], None, entropy);
        let root = key.minted.plaintext.to_string();
        let by = By::new(tenants::system_actor("test", "test"), NOW, entropy);
        let made = services.transact_blocking(Turn::FIRST, NOW, move |tx| {
            let no = tenants::create_workspace(tx, id, "a workspace", None, &by)?;
            tenants::create_root_key(tx, no, key, &by)?;
            Ok::<_, keyward_storage::Abort<std::convert::Infallible>>(no)
        });
        let workspace = made.expect("made").value;
        let (test_time_ms, client_ip) = (Cell::new(None), Cell::new(Some([192, 0, 2, 1].into())));
        let change = Cell::new(None);
        let kit = Kit {
            services,
            workspace,
            runtime,
            id,
            root: RefCell::new(root),
            seen: Cell::new(0),
            test_time_ms,
            client_ip,
            change,
        };
        kit.told();
        kit
    }

    /// Another root key of the workspace makes the next requests.
    pub fn change_root_key(&self) {
        let entropy = &self.services.outside.entropy;
        let key = NewRootKey::generate(None, vec![tenants::administrator(self.id)], None, entropy);
        *self.root.borrow_mut() = key.minted.plaintext.to_string();
        let by = By::new(tenants::system_actor("test", "test"), NOW, entropy);
        let no = self.workspace;
        let made = self.services.transact_blocking(Turn::FIRST, NOW, move |tx| {
            tenants::create_root_key(tx, no, key, &by)?;
            Ok::<_, keyward_storage::Abort<std::convert::Infallible>>(())
        });
        made.expect("made");
        self.told();
    }

    /// Calls an operation as the root key: status and body.
    pub fn call(&self, operation: &str, body: &Value) -> (u16, Value) {
        answer(&self.runtime.block_on(self.serve(operation, body)))
    }

    /// Makes calls that are all under way before one of them is answered: status and body of each, as they come.
    pub fn call_at_once(&self, calls: &[(&str, Value)]) -> Vec<(u16, Value)> {
        let calls = calls.iter().map(|(operation, body)| self.serve(operation, body));
        let served = self.runtime.block_on(async move { calls.collect::<JoinSet<_>>().join_all().await });
        served.iter().map(answer).collect()
    }

    fn serve(&self, operation: &str, body: &Value) -> Serving {
        let inbound = Inbound {
            request_id: RequestId::draw(&self.services.outside.entropy, NOW),
            now_ms: NOW,
            deadline_ms: self.change.get().map_or(u64::MAX, |_| NOW + 30_000),
            test_time_ms: self.test_time_ms.get(),
            authorization: Authorization::One(format!("Bearer {}", self.root.borrow()).into()),
            portal_session: None,
            content_type: ContentType::Json,
            client_ip: self.client_ip.get(),
            user_agent: Some("kit/1".into()),
            metrics_disabled: false,
            body: Bytes::from(body.to_string()),
            forwarded: self.change.get().map(|change| Forwarded { change, hops: 1 }),
        };
        let entry = super::find(&format!("/v2/{operation}")).unwrap_or_else(|| panic!("no operation {operation}"));
        super::respond(Arc::clone(&self.services), entry, inbound)
    }

    /// The data of a call that must succeed.
    pub fn ok(&self, operation: &str, body: Value) -> Value {
        let (status, reply) = self.call(operation, &body);
        assert_eq!(status, 200, "{operation} {body}: {reply}");
        reply["data"].clone()
    }

    /// Makes a call that must be refused with this status, and must leave no event (AL-EV-03).
    pub fn refused(&self, operation: &str, body: Value, status: u16) {
        self.told();
        let (came, reply) = self.call(operation, &body);
        assert_eq!(came, status, "{operation} {body}: {reply}");
        assert_eq!(self.told(), [], "AL-EV-03: {operation} was refused");
    }

    /// A new API's id; its event is passed over.
    pub fn api(&self) -> String {
        let id = text(&self.ok("apis.createApi", json!({"name": "an api"}))["apiId"]);
        self.told();
        id
    }

    /// A new key's id, in an API, with these members; its events are passed over.
    pub fn key(&self, api: &str, mut members: Value) -> String {
        members["apiId"] = api.into();
        let id = text(&self.ok("keys.createKey", members)["keyId"]);
        self.told();
        id
    }

    /// The audit events since this was last asked, oldest first. Each is told by this root key, now, from the kit's
    /// address (COM-RK-08, COM-HDR-01, COM-HDR-03).
    pub fn told(&self) -> Vec<Told> {
        let events = self.events();
        events.iter().filter(|event| event.actor.kind == "rootkey").for_each(|event| {
            assert_eq!(event.actor.name, "root key", "COM-RK-08");
            assert_eq!(event.time, NOW);
            assert_eq!(event.remote_ip.as_deref(), Some("192.0.2.1"), "COM-HDR-01");
            assert_eq!(event.user_agent.as_deref(), Some("kit/1"), "COM-HDR-03");
        });
        events.into_iter().map(Told::of).collect()
    }

    /// The same, as they are stored.
    pub fn events(&self) -> Vec<AuditEvent> {
        let snapshot = self.services.storage.snapshot().expect("a snapshot");
        let rows = audit::list(&snapshot, self.workspace, self.seen.get() + 1, usize::MAX).expect("readable");
        self.seen.set(rows.last().map_or(self.seen.get(), |(sequence, _)| *sequence));
        rows.into_iter().map(|(_, row)| row.event).collect()
    }
}

fn answer(outbound: &Outbound) -> (u16, Value) {
    (outbound.status, serde_json::from_slice(&outbound.body).expect("JSON"))
}

impl Told {
    fn of(event: AuditEvent) -> Told {
        let meta = |meta: Option<String>| meta.map_or(Value::Null, |meta| serde_json::from_str(&meta).expect("JSON"));
        Told {
            event: event.event,
            description: event.description,
            targets: event.targets.iter().map(|at| (at.kind.clone(), at.id.clone(), at.name.clone())).collect(),
            meta: event.targets.into_iter().map(|target| meta(target.meta)).collect(),
            correlation: event.correlation.map(|id| id.to_string()),
        }
    }
}

/// The names of events, in order.
pub fn names(told: &[Told]) -> Vec<&str> {
    told.iter().map(|event| event.event.as_str()).collect()
}

/// Fails unless all events share one correlation id (AL-EV-04).
pub fn tied(told: &[Told]) {
    let first = &told.first().expect("an event").correlation;
    assert!(first.as_deref().is_some_and(|id| id.starts_with("cor_")), "AL-EV-04: {told:?}");
    assert!(told.iter().all(|event| event.correlation == *first), "AL-EV-04: {told:?}");
}

/// A target, as [`Told`] has it.
pub fn on(kind: &str, id: &str, name: &str) -> (String, String, String) {
    (kind.to_owned(), id.to_owned(), name.to_owned())
}

/// A member that must be text.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}
