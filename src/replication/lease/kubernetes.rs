//! The claim in an object of the Lease API of Kubernetes (`coordination.k8s.io/v1`), swapped by its `resourceVersion`.
//!
//! The claim is an annotation; the fields of the specification say the same to whoever looks with `kubectl get lease`: who holds it,
//! for how long, renewed when by the holder's clock, and how often it changed hands. Nothing is decided by them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::claim::Claim;
use super::register::{Ask, Endpoints, Held, RegisterError, Swapped, Version, excerpt, line};
use crate::config::Lease;
use crate::http_client::Answer;
use crate::outside::Clock;
use crate::server_url::ServerUrl;

/// Where the API server is for pods.
const SERVER: &str = "https://kubernetes.default.svc";
/// What a pod is given to know the server and be known by it.
const POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Holds the claim.
const ANNOTATION: &str = "keyward/claim";

/// A lease object.
#[derive(Debug)]
pub struct Kubernetes {
    endpoints: Endpoints,
    /// Of the leases of its namespace.
    path: String,
    name: String,
    namespace: String,
    token_file: Option<PathBuf>,
    clock: Clock,
    /// The object as it was read last: what others noted in it stays.
    object: Option<Value>,
}

impl Kubernetes {
    /// The object that the settings name.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn open(lease: &Lease) -> Result<Kubernetes, String> {
        let in_pod = |file: &str| Some(Path::new(POD).join(file)).filter(|path| path.exists());
        let (namespace, name) = match lease.name.split_once('/') {
            Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
            None => {
                let Some(file) = in_pod("namespace") else {
                    return Err(
                        "replication.lease_name names no namespace (NAMESPACE/NAME), and this is no pod".to_owned()
                    );
                };
                (line("namespace", &file).map_err(|error| error.to_string())?.to_string(), lease.name.clone())
            }
        };
        let word = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
        };
        if !word(&namespace) || !word(&name) {
            return Err(format!(
                "replication.lease_name is {}, and names of Kubernetes are of small letters, digits, `-` and `.`",
                lease.name
            ));
        }
        let urls = match lease.endpoints.is_empty() {
            true => vec![ServerUrl::parse(SERVER)?],
            false => lease.endpoints.clone(),
        };
        let ca_file = lease.ca_file.clone().or_else(|| in_pod("ca.crt"));
        Ok(Kubernetes {
            endpoints: Endpoints::new(urls, ca_file.as_deref(), lease)?,
            path: format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"),
            name,
            namespace,
            token_file: lease.token_file.clone().or_else(|| in_pod("token")),
            clock: crate::outside::Outside::system().clock,
            object: None,
        })
    }

    /// See [`super::register::Register::read`].
    pub fn read(&mut self, patience: Duration) -> Result<Held, RegisterError> {
        let answer = self.call("GET", &format!("{}/{}", self.path, self.name), b"", patience)?;
        self.object = None;
        match answer.status {
            404 => return Ok(None),
            200 => {}
            _ => return Err(refused(&answer)),
        }
        let object: Value = serde_json::from_slice(&answer.body).map_err(|_| strange(&answer))?;
        let version = object["metadata"]["resourceVersion"].as_str().ok_or_else(|| strange(&answer))?.to_owned();
        let claim = object["metadata"]["annotations"][ANNOTATION].as_str().and_then(Claim::parse);
        let claim = claim.ok_or_else(|| {
            RegisterError(format!("the lease {}/{} is not keyward's; name another one", self.namespace, self.name))
        })?;
        self.object = Some(object);
        Ok(Some((version, claim)))
    }

    /// See [`super::register::Register::swap`].
    pub fn swap(
        &mut self,
        expected: Option<&Version>,
        claim: &Claim,
        patience: Duration,
    ) -> Result<Swapped, RegisterError> {
        let object = self.written(expected, claim);
        let (method, path) = match expected {
            None => ("POST", self.path.clone()),
            Some(_) => ("PUT", format!("{}/{}", self.path, self.name)),
        };
        let answer = self.call(method, &path, object.to_string().as_bytes(), patience)?;
        match answer.status {
            200 | 201 => {
                let object: Value = serde_json::from_slice(&answer.body).map_err(|_| strange(&answer))?;
                let version =
                    object["metadata"]["resourceVersion"].as_str().ok_or_else(|| strange(&answer))?.to_owned();
                self.object = Some(object);
                Ok(Swapped::Done(version))
            }
            // Another version is there, one is there already, or none any more.
            404 | 409 => Ok(Swapped::Conflict),
            _ => Err(refused(&answer)),
        }
    }

    /// The object with this claim in it.
    fn written(&self, expected: Option<&Version>, claim: &Claim) -> Value {
        let mut object = self.object.clone().filter(|_| expected.is_some()).unwrap_or_else(|| {
            json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": { "name": self.name, "namespace": self.namespace },
            })
        });
        let holder = match claim.released {
            true => Value::Null,
            false => json!(format!("{}_{:032x}", claim.name, u128::from_be_bytes(claim.session))),
        };
        let now = self.clock.now_ms();
        let mut spec = object["spec"].as_object().cloned().unwrap_or_default();
        let before = spec.get("holderIdentity").cloned();
        if before.as_ref() != Some(&holder) && !claim.released {
            let changes = spec.get("leaseTransitions").and_then(Value::as_u64).unwrap_or(0);
            spec.insert("acquireTime".to_owned(), json!(micro_time(now)));
            spec.insert("leaseTransitions".to_owned(), json!(changes + u64::from(before.is_some())));
        }
        // A candidate changes nothing of the holder's.
        if claim.candidates.is_empty() {
            spec.insert("renewTime".to_owned(), json!(micro_time(now)));
        }
        spec.insert("holderIdentity".to_owned(), holder);
        spec.insert("leaseDurationSeconds".to_owned(), json!(claim.duration_ms.div_ceil(1_000)));
        object["spec"] = Value::Object(spec);
        let mut annotations = object["metadata"]["annotations"].as_object().cloned().unwrap_or_else(Map::new);
        annotations.insert(ANNOTATION.to_owned(), json!(claim.text()));
        object["metadata"]["annotations"] = Value::Object(annotations);
        if let Some(version) = expected {
            object["metadata"]["resourceVersion"] = json!(version);
        }
        object
    }

    /// Asks, with the token as its file has it now: the kubelet writes another one every hour.
    fn call(
        &mut self,
        method: &'static str,
        path: &str,
        body: &[u8],
        patience: Duration,
    ) -> Result<Answer, RegisterError> {
        let token = self.token_file.as_deref().map(|path| line("token for Kubernetes", path)).transpose()?;
        let bearer = token.map(|token| Zeroizing::new(format!("Bearer {}", *token)));
        let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
        self.endpoints.ask(&Ask { method, path, headers: &headers, body }, patience)
    }
}

fn refused(answer: &Answer) -> RegisterError {
    let advice = match answer.status {
        401 => " (it does not know the token: replication.lease_token_file)",
        403 => " (the account needs a Role with get, create and update on leases of coordination.k8s.io)",
        _ => "",
    };
    RegisterError(format!("Kubernetes answers {}{advice}: {}", answer.status, excerpt(&answer.body)))
}

fn strange(answer: &Answer) -> RegisterError {
    RegisterError(format!("what answers there is not Kubernetes: {}", excerpt(&answer.body)))
}

/// A time as the API has it: RFC 3339 with six digits behind the second.
fn micro_time(unix_ms: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.microsecond()
    )
}
