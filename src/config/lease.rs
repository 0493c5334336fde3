//! Settings of the lease: where it is held, and who this node is there.

use std::path::PathBuf;
use std::time::Duration;

use super::{Leader, Tls};
use crate::server_url::ServerUrl;

/// What keeps the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseStore {
    /// Nothing: an operator says who leads.
    None,
    /// etcd, over its JSON gateway.
    Etcd,
    /// The Lease API of Kubernetes.
    Kubernetes,
}

/// The lease that says who leads.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// What keeps it.
    pub store: LeaseStore,
    /// Where that is, in the order they are asked.
    pub endpoints: Vec<ServerUrl>,
    /// The lease's name there.
    pub name: String,
    /// How long it lasts.
    pub duration: Duration,
    /// Whether a node may lead by itself that may lack what was answered.
    pub lossy: bool,
    /// Where others reach this node's `replication.listen`.
    pub advertise: Option<Leader>,
    /// Authorities that the endpoints' certificates must come from.
    pub ca_file: Option<PathBuf>,
    /// This node's certificate there, and its key.
    pub cert_file: Option<PathBuf>,
    /// See `cert_file`.
    pub key_file: Option<PathBuf>,
    /// The user of etcd; empty where it asks for none.
    pub user: String,
    /// The file of its password.
    pub password_file: Option<PathBuf>,
    /// The file of the bearer token; read anew for each request.
    pub token_file: Option<PathBuf>,
}

impl Default for Lease {
    fn default() -> Lease {
        Lease {
            store: LeaseStore::None,
            endpoints: Vec::new(),
            name: "keyward".to_owned(),
            duration: Duration::from_secs(10),
            lossy: false,
            advertise: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            user: String::new(),
            password_file: None,
            token_file: None,
        }
    }
}

impl Lease {
    /// Whether a lease says who leads.
    pub fn is_on(&self) -> bool {
        self.store != LeaseStore::None
    }

    /// The certificate to show, as TLS has it.
    pub fn own(&self) -> Tls {
        Tls {
            cert_file: self.cert_file.clone().unwrap_or_default(),
            key_file: self.key_file.clone().unwrap_or_default(),
            ..Tls::default()
        }
    }

    /// What is right by itself and wrong together.
    pub(super) fn check(&self, listens: bool, plain: bool, problems: &mut Vec<String>) {
        if !self.is_on() {
            return;
        }
        if self.store == LeaseStore::Etcd && self.endpoints.is_empty() {
            problems.push("replication.lease is etcd and replication.lease_endpoints names none".to_owned());
        }
        if !listens || self.advertise.is_none() {
            problems.push(
                "replication.lease is set, so every node may lead: set replication.listen, and replication.advertise to the URL by \
                 which the others reach it"
                    .to_owned(),
            );
        }
        if let Some(advertise) = self.advertise.as_ref().filter(|advertise| advertise.is_exposed(plain)) {
            problems.push(format!(
                "replication.advertise is {advertise}, which is not encrypted, so others could read along: use https://, or set \
                 replication.plain where nobody else is on that network"
            ));
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            problems
                .push("of replication.lease_cert_file and replication.lease_key_file one is set; set both".to_owned());
        }
        if self.user.is_empty() == self.password_file.is_some() {
            problems
                .push("of replication.lease_user and replication.lease_password_file one is set; set both".to_owned());
        }
        for endpoint in self.endpoints.iter().filter(|url| !url.is_encrypted() && !url.is_loopback() && !plain) {
            problems.push(format!(
                "replication.lease_endpoints has {endpoint}, which is not encrypted: whoever is on the way could say who leads; use \
                 https://, or set replication.plain where nobody else is on that network"
            ));
        }
    }
}
