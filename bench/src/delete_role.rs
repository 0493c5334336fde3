//! What deleting a role that very many keys hold does to the changes beside it, and when verifications see it.
//!
//! In process, over the operations themselves. All keys are in memory and hold one role. A writer changes a key of its own
//! again and again and notes how long each change takes; in the middle of it the role is deleted. The figure is the longest
//! change that overlapped the deletion, beside the longest of the time before.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use keyward::api;
use keyward::api::wire::{Authorization, ContentType, Inbound, RequestId};
use keyward::app::Services;
use keyward::secret;
use keyward_storage::ids::{RoleId, WorkspaceNo};
use serde::Serialize;
use serde_json::{Value, json};

use crate::compare::scratch;
use crate::{Error, Result, store};

/// How long changes are timed before the role is deleted, and after it.
const BESIDE: Duration = Duration::from_secs(2);
/// Verifications right after the deletion; each must see it.
const VERIFIED: usize = 1000;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory for the data; `None`: the system's for temporary files.
    pub directory: Option<PathBuf>,
    /// Keys that hold the role.
    pub keys: usize,
    /// Fail when a change beside the deletion takes longer, in milliseconds.
    pub most_ms: Option<f64>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Keys that held the role.
    pub keys: usize,
    /// How long the deletion took, ms.
    pub deletion_ms: f64,
    /// The longest change of another key before it, ms.
    pub longest_change_before_ms: f64,
    /// The longest that overlapped it, ms.
    pub longest_change_beside_ms: f64,
    /// Changes timed in all.
    pub changes: usize,
    /// Verifications after it, none of which saw the role any more.
    pub verified: usize,
}

/// Fills a store and measures.
///
/// # Errors
/// Whatever keeps it from measuring; a verification that still shows the role; [`Error::Missed`] when the bound is missed.
pub fn delete_role(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let place = scratch(options.directory.as_ref())?;
    let data = place.path().join("data");
    let services = store::open(&data)?;
    let root_key = std::fs::read_to_string(data.join("root.key")).map_err(Error::io("read root.key"))?;
    let caller = Caller::new(Arc::clone(&services), root_key.trim())?;
    let role = caller.ok("permissions.createRole", &json!({"name": "everybody", "permissions": ["documents.read"]}))?;
    let role =
        role["roleId"].as_str().and_then(RoleId::parse).ok_or_else(|| Error::Unexpected("no role".to_owned()))?;
    say(&format!("making {} keys", options.keys));
    let plaintexts = store::fill_with_roles(&services, options.keys, &[role])?;
    for plaintext in &plaintexts {
        let view = services.storage.read_key(WorkspaceNo(1), &secret::digest(plaintext));
        view.map_err(|error| Error::Unexpected(error.to_string()))?;
    }
    let held = |verification: &Value| verification.get("roles").is_some() || verification.get("permissions").is_some();
    if !held(&caller.verify(&plaintexts[0])?) {
        return Err(Error::Unexpected("a key does not show its role before it is deleted".to_owned()));
    }

    say("changing a key, deleting the role beside it");
    let done = AtomicBool::new(false);
    let (times, deletion, verified) = std::thread::scope(|scope| -> Result<_> {
        let writer = scope.spawn(|| -> Result<Vec<(Instant, Instant)>> {
            let caller = Caller::new(Arc::clone(&services), root_key.trim())?;
            let api = caller.ok("apis.createApi", &json!({"name": "beside"}))?;
            let key = caller.ok("keys.createKey", &json!({"apiId": api["apiId"]}))?;
            let mut times = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let begun = Instant::now();
                caller.ok("keys.updateKey", &json!({"keyId": key["keyId"], "name": format!("{}", times.len())}))?;
                times.push((begun, Instant::now()));
            }
            Ok(times)
        });
        let measured = (|| {
            std::thread::sleep(BESIDE);
            let begun = Instant::now();
            caller.ok("permissions.deleteRole", &json!({"role": role.to_string()}))?;
            let deletion = (begun, Instant::now());
            let mut verified = 0;
            for plaintext in plaintexts.iter().step_by(plaintexts.len().div_ceil(VERIFIED)) {
                if held(&caller.verify(plaintext)?) {
                    return Err(Error::Unexpected("a verification after the deletion still shows the role".to_owned()));
                }
                verified += 1;
            }
            std::thread::sleep(BESIDE);
            Ok((deletion, verified))
        })();
        done.store(true, Ordering::Relaxed);
        let times = writer.join().map_err(|_| Error::Unexpected("the writer panicked".to_owned()))??;
        let (deletion, verified) = measured?;
        Ok((times, deletion, verified))
    })?;
    services.shutdown();

    let longest = |which: &dyn Fn(&(Instant, Instant)) -> bool| {
        let spans = times.iter().filter(|span| which(span)).map(|(begun, ended)| ended.duration_since(*begun));
        spans.max().unwrap_or_default().as_secs_f64() * 1000.0
    };
    let report = Report {
        keys: options.keys,
        deletion_ms: deletion.1.duration_since(deletion.0).as_secs_f64() * 1000.0,
        longest_change_before_ms: longest(&|(_, ended)| *ended < deletion.0),
        longest_change_beside_ms: longest(&|(begun, ended)| *ended >= deletion.0 && *begun <= deletion.1),
        changes: times.len(),
        verified,
    };
    match options.most_ms.filter(|&most| report.longest_change_beside_ms > most) {
        None => Ok(report),
        Some(most) => {
            let found = report.longest_change_beside_ms;
            Err(Error::Missed(format!("a change beside the deletion took {found:.2} ms; {most} ms are allowed")))
        }
    }
}

/// Calls operations without a socket.
pub(crate) struct Caller {
    services: Arc<Services>,
    bearer: String,
    runtime: tokio::runtime::Runtime,
}

impl Caller {
    pub(crate) fn new(services: Arc<Services>, root_key: &str) -> Result<Caller> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(Error::io("make a runtime"))?;
        Ok(Caller { services, bearer: format!("Bearer {root_key}"), runtime })
    }

    pub(crate) fn ok(&self, operation: &str, body: &Value) -> Result<Value> {
        let entry = api::find(&format!("/v2/{operation}"));
        let entry = entry.ok_or_else(|| Error::Unexpected(format!("there is no operation {operation}")))?;
        let inbound = Inbound {
            request_id: RequestId::draw(&self.services.outside.entropy, self.services.outside.clock.now_ms()),
            now_ms: self.services.outside.clock.now_ms(),
            deadline_ms: u64::MAX,
            test_time_ms: None,
            authorization: Authorization::One(self.bearer.as_str().into()),
            portal_session: None,
            content_type: ContentType::Json,
            client_ip: None,
            user_agent: None,
            metrics_disabled: false,
            body: Bytes::from(body.to_string()),
            forwarded: None,
        };
        let outbound = self.runtime.block_on(api::respond(Arc::clone(&self.services), entry, inbound));
        let text = String::from_utf8_lossy(&outbound.body);
        let reply: Value = serde_json::from_str(&text).map_err(|error| Error::Unexpected(error.to_string()))?;
        match outbound.status {
            200 => Ok(reply["data"].clone()),
            status => Err(Error::Unexpected(format!("{operation} answered {status}: {text}"))),
        }
    }

    pub(crate) fn verify(&self, plaintext: &str) -> Result<Value> {
        self.ok("keys.verifyKey", &json!({"key": plaintext}))
    }
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        format!(
            "{} keys held the role\nthe deletion               {:8.2} ms\nlongest change before it   {:8.2} ms\n\
             longest change beside it   {:8.2} ms, of {} changes\nverifications right after  {:8}, none saw the role",
            self.keys,
            self.deletion_ms,
            self.longest_change_before_ms,
            self.longest_change_beside_ms,
            self.changes,
            self.verified
        )
    }
}
