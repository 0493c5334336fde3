//! The settings of the lease that says who leads.

use std::path::PathBuf;
use std::time::Duration;

use super::{Kind, SECOND_MS, Setting, Value, from_duration};
use crate::config::{Leader, LeaseStore};
use crate::server_url::ServerUrl;

/// Endpoints that are asked.
const ENDPOINTS_MAX: usize = 9;

/// The settings of the lease, in the order of the generated file.
pub(super) static SETTINGS: &[Setting] = &[
    choice!(
        "replication.lease",
        LeaseStore { "none" = None, "etcd" = Etcd, "kubernetes" = Kubernetes },
        replication.lease.store,
        "What says which node leads. none: an operator, by `keyward promote`. etcd, kubernetes: whoever holds a lease there; when\n\
         its holder is gone, the follower that has most takes it and leads. The same on all nodes."
    ),
    Setting {
        key: "replication.lease_endpoints",
        kind: Kind::List,
        meaning: "Where that is: URLs of etcd's client port, or of the API server, asked one after the other. Empty means\n\
                  https://kubernetes.default.svc for kubernetes.",
        put: |settings, value| {
            let texts = value.into_list();
            if texts.len() > ENDPOINTS_MAX {
                return Err(format!("names more than {ENDPOINTS_MAX}"));
            }
            settings.replication.lease.endpoints =
                texts.iter().map(|text| ServerUrl::parse(text)).collect::<Result<_, _>>()?;
            Ok(())
        },
        get: |settings| Value::List(settings.replication.lease.endpoints.iter().map(ServerUrl::to_string).collect()),
    },
    Setting {
        key: "replication.lease_name",
        kind: Kind::Text,
        meaning: "The lease's name: a key of etcd, or NAME or NAMESPACE/NAME of Kubernetes, where the pod's namespace is the one\n\
                  that is meant. Nodes of one store share it, and no others.",
        put: |settings, value| {
            let name = value.into_text();
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
            if name.is_empty() || name.len() > 253 || !name.chars().all(plain) {
                return Err("must be 1 to 253 letters, digits, `-`, `_`, `.` and `/`".to_owned());
            }
            settings.replication.lease.name = name;
            Ok(())
        },
        get: |settings| Value::Text(settings.replication.lease.name.clone()),
    },
    millis!(
        "replication.lease_duration_ms",
        3 * SECOND_MS,
        10 * 60 * SECOND_MS,
        replication.lease.duration,
        "How long the lease lasts without a renewal, which comes six times as often. When a leader is lost, another one leads after\n\
         that long and up to 2 s; a leader that cannot renew it takes no changes from four fifths of it on."
    ),
    Setting {
        key: "replication.lease_lossy",
        kind: Kind::Boolean,
        meaning: "Whether a follower leads by itself that may lack changes which were answered, when whoever may have them does not\n\
                  come back for twice the lease's duration. Else an operator has to say so: `keyward promote --force`.",
        put: |settings, value| {
            settings.replication.lease.lossy = value.boolean();
            Ok(())
        },
        get: |settings| Value::Boolean(settings.replication.lease.lossy),
    },
    Setting {
        key: "replication.advertise",
        kind: Kind::Text,
        meaning: "The URL by which other nodes reach this node's replication.listen, https://HOST:PORT or http://HOST:PORT: it\n\
                  stands in the lease, so that they follow whoever leads. Needed with a lease, unused without.",
        put: |settings, value| {
            let text = value.into_text();
            settings.replication.lease.advertise = (!text.is_empty()).then(|| Leader::parse(&text)).transpose()?;
            Ok(())
        },
        get: |settings| {
            let advertise = settings.replication.lease.advertise.as_ref();
            Value::Text(advertise.map_or_else(String::new, Leader::to_string))
        },
    },
    optional_path!(
        "replication.lease_ca_file",
        replication.lease.ca_file,
        "Authorities, PEM, that the endpoints' certificates must come from; empty means those of the pod for kubernetes, else\n\
         those that this machine trusts."
    ),
    optional_path!(
        "replication.lease_cert_file",
        replication.lease.cert_file,
        "The certificate that this node shows there, PEM, where certificates are asked for."
    ),
    optional_path!("replication.lease_key_file", replication.lease.key_file, "Its private key, PEM."),
    Setting {
        key: "replication.lease_user",
        kind: Kind::Text,
        meaning: "The user of etcd, where it asks for one.",
        put: |settings, value| {
            settings.replication.lease.user = value.into_text();
            Ok(())
        },
        get: |settings| Value::Text(settings.replication.lease.user.clone()),
    },
    optional_path!(
        "replication.lease_password_file",
        replication.lease.password_file,
        "The file of that user's password, one line, readable by its owner alone."
    ),
    optional_path!(
        "replication.lease_token_file",
        replication.lease.token_file,
        "The file of the bearer token for kubernetes, read anew for each request; empty means the pod's."
    ),
];
