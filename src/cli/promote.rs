//! `keyward promote`: this node becomes the leader.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::ask::Asked;

/// `keyward promote`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct PromoteArguments {
    #[command(flatten)]
    asked: Asked<Promote>,
}

const AFTER_HELP: &str = "Run it on the follower that is furthest (`keyward status` tells each one's position) when the leader is \
    gone. It takes changes from then on. The leader before it is told as soon as it can be reached, and takes none any more; what it \
    had taken that no follower has is set aside into a file when it follows. Point the other followers at this node \
    (replication.follow) and restart them.\n\n\
    Where replication.lease says who leads, this is for when no node takes the lease by itself (`keyward status` says why): stop the node \
    that holds it, if one does, and run this with --force on the node that has most. The others follow without being told.";

/// How to promote.
#[derive(Debug, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// Also while the leader can be reached, or had more: changes that only it has are lost, and until it has heard of this both take
    /// changes
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
}

/// Answer of `promote`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Promoted {
    /// The term that began.
    pub term: u64,
    /// The position it began at.
    pub position: u64,
}

/// Runs `keyward promote`.
pub fn run(arguments: PromoteArguments) -> ExitCode {
    arguments.asked.run("promote", |promoted: &Promoted| {
        format!("this node leads in term {} since record {}\n", promoted.term, promoted.position)
    })
}
