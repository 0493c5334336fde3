//! The settings of replication.

use std::path::PathBuf;
use std::time::Duration;

use super::{GIB, HOUR_MS, Kind, SECOND_MS, Setting, Value, check_listen, from_duration, from_size};
use crate::config::{Ack, CreditsOffline, Leader};

/// Most nodes that are asked at the start.
const PEERS_MAX: usize = 16;

/// The settings of replication, in the order of the generated file.
pub(super) static SETTINGS: &[Setting] = &[
    Setting {
        key: "replication.listen",
        kind: Kind::Text,
        meaning: "HOST:PORT to answer other nodes on: followers that take this node's log. Empty means it has none. Where\n\
                  tls.cert_file is set it speaks TLS with that certificate.",
        put: |settings, value| {
            let listen = value.into_text();
            if !listen.is_empty() {
                check_listen(&listen)?;
            }
            settings.replication.listen = Some(listen).filter(|listen| !listen.is_empty());
            Ok(())
        },
        get: |settings| Value::Text(settings.replication.listen.clone().unwrap_or_default()),
    },
    Setting {
        key: "replication.follow",
        kind: Kind::Text,
        meaning: "The leader's replication.listen, https://HOST:PORT or http://HOST:PORT. Then this node is a follower: its\n\
                  records are the leader's, it verifies keys and hands changes on. Empty means it follows nobody.",
        put: |settings, value| {
            let text = value.into_text();
            settings.replication.follow = (!text.is_empty()).then(|| Leader::parse(&text)).transpose()?;
            Ok(())
        },
        get: |settings| Value::Text(settings.replication.follow.as_ref().map_or_else(String::new, Leader::to_string)),
    },
    Setting {
        key: "replication.peers",
        kind: Kind::List,
        meaning: "The replication.listen of the other nodes, as in replication.follow. A node that starts as the leader asks them\n\
                  first, for at most replication.silence_ms, whether one of them was promoted while it was down, and takes no\n\
                  changes then. Empty means it asks nobody.",
        put: |settings, value| {
            let named = value.into_list();
            if named.len() > PEERS_MAX {
                return Err(format!("names {} nodes, and at most {PEERS_MAX} are asked", named.len()));
            }
            settings.replication.peers = named.iter().map(|text| Leader::parse(text)).collect::<Result<_, _>>()?;
            Ok(())
        },
        get: |settings| Value::List(settings.replication.peers.iter().map(Leader::to_string).collect()),
    },
    optional_path!(
        "replication.token_file",
        secrets.replication_token_file,
        "The file of the token that nodes know each other by, the same on all of them: one line of at least 32 characters,\n\
         readable by its owner alone, outside of data_dir. The systemd credential keyward-replication-token goes before it,\n\
         and the variable KEYWARD_REPLICATION_TOKEN can stand in for it."
    ),
    optional_path!(
        "replication.ca_file",
        replication.ca_file,
        "Authorities, PEM, that the leader's certificate must come from; empty means those that this machine trusts."
    ),
    optional_path!(
        "replication.client_ca_file",
        replication.client_ca_file,
        "Authorities, PEM: then followers must show a certificate that one of them has signed, and need no token where none is\n\
         set. A follower shows its tls.cert_file."
    ),
    Setting {
        key: "replication.plain",
        kind: Kind::Boolean,
        meaning: "Whether other nodes may be talked to without TLS beyond this machine. Whoever reads along sees every record and\n\
                  the token: only for a network that nobody else is on.",
        put: |settings, value| {
            settings.replication.plain = value.boolean();
            Ok(())
        },
        get: |settings| Value::Boolean(settings.replication.plain),
    },
    Setting {
        key: "replication.node",
        kind: Kind::Text,
        meaning: "This node's name in status and logs of the others: at most 64 letters, digits, `-`, `_` and `.`.",
        put: |settings, value| {
            let name = value.into_text();
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
                return Err("must be 1 to 64 letters, digits, `-`, `_` and `.`".to_owned());
            }
            settings.replication.node = name;
            Ok(())
        },
        get: |settings| Value::Text(settings.replication.node.clone()),
    },
    choice!(
        "replication.ack",
        Ack { "none" = None, "one" = One, "all" = All },
        replication.ack,
        "How many followers hold a change on their disks before it is answered. none: what was answered in the last\n\
         milliseconds is lost where the leader is, and a follower is promoted. one: nothing answered is lost, if the follower\n\
         that is furthest is promoted. all: nothing is lost whichever is promoted; while one is away changes are answered 503."
    ),
    size!(
        "replication.followers",
        1,
        16,
        replication.followers,
        "How many followers there are: so many confirm a change where replication.ack is all."
    ),
    millis!(
        "replication.ack_timeout_ms",
        1,
        10 * 60 * SECOND_MS,
        replication.ack_timeout,
        "How long an answer waits for followers. Then it is a 503 that says so: the change is made, and will reach them when\n\
         they are back, but it would be lost with the leader."
    ),
    millis!(
        "replication.silence_ms",
        100,
        HOUR_MS,
        replication.silence,
        "After so long without a word the other node counts as unreachable, and the connection is made anew."
    ),
    number!(
        "replication.log_bytes",
        0,
        1024 * GIB,
        replication.log_bytes,
        "Bytes of log that a node with replication.listen keeps for followers, beyond what it needs itself. A follower that\n\
         was away for longer than that takes all records anew."
    ),
    choice!(
        "replication.credits_offline",
        CreditsOffline { "refuse" = Refuse, "allow" = Allow },
        replication.credits_offline,
        "What a follower does with keys that have credits while the leader cannot be reached. refuse: it answers 503, and no\n\
         credit is given out twice. allow: it verifies them as far as the balance goes that it last knew, and nothing is taken\n\
         off: with n followers cut off, up to n times that balance is given out. Rate limits are counted by each node in\n\
         either case."
    ),
];
