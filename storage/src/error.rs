//! What can go wrong, named by what a caller can do about it. Nothing here knows of HTTP.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::is_no_space;
use crate::pepper::PepperMissing;
use crate::position::Position;

/// A row whose bytes this build cannot read: damage, or a newer layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRow {
    /// The bytes end before the last field.
    #[error("the row ends before its last field")]
    Truncated,
    /// Bytes follow the last field.
    #[error("bytes follow the row's last field")]
    TrailingBytes,
    /// A field holds what it cannot mean.
    #[error("the row holds {0}")]
    BadValue(&'static str),
    /// Written by a newer keyward.
    #[error("the row has layout version {0}, which this build does not know")]
    UnknownVersion(u8),
}

/// Reading failed. The store itself is in doubt: answer the one request and let the operator see the cause.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// redb could not read its file.
    #[error("records.redb could not be read")]
    Redb(#[source] Box<redb::Error>),
    /// A row does not decode.
    #[error("table {table} holds a row that cannot be read")]
    Row {
        /// The table's number.
        table: u16,
        /// Why.
        #[source]
        cause: BadRow,
    },
}

impl ReadError {
    /// Whether what was read is not what was written, or is of a newer keyward: reading it again does not help.
    pub fn is_damage(&self) -> bool {
        match self {
            ReadError::Row { .. } => true,
            ReadError::Redb(error) => matches!(**error, redb::Error::Corrupted(_)),
        }
    }
}

/// A transaction was not applied. Nothing of it remains.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The writer's queue, or this workspace's part of it, is full: more changes arrive than the disk takes. Try again.
    #[error("too many changes are waiting for the disk")]
    Busy,
    /// Its time was over before the writer came to it.
    #[error("the change was not begun within its time, and nothing of it was done")]
    Late,
    /// The disk is full, or nearly: reads and verifications go on, changes are refused until there is room.
    #[error("the disk is full: changes are refused until there is room")]
    NoSpace,
    /// The writer has stopped: the process is shutting down, or a disk error made it give up.
    #[error("the store no longer takes changes")]
    Stopped,
    /// The transaction is larger than a log record may be.
    #[error("the change is too large for one transaction")]
    TooLarge,
    /// This node follows another one, which takes changes.
    #[error("this node is a follower: changes are the leader's")]
    NotLeader,
    /// Another node was promoted: this one was the leader, and may not change anything any more.
    #[error("another node was promoted: this one takes no changes any more, and has to follow")]
    Fenced,
    /// This node leads by a lease, and has not been able to renew it: until it has, another one may lead.
    #[error("the lease by which this node leads has run out: it takes no changes until the lease is renewed")]
    Suspended,
    /// The change is made, and not confirmed by as many followers as have to in time. It will reach them unless this node is lost
    /// before. The only one of these that leaves something behind.
    #[error("the change is made, but not confirmed by followers in time: it would be lost with this node")]
    Unconfirmed,
}

/// The store could not be opened. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("the data directory {0} is in use by another keyward process; stop it, or name another directory")]
    Locked(PathBuf),
    /// Written by a newer keyward.
    #[error(
        "the data directory {dir} has format {found}, and this keyward ({}) knows formats up to {known}; install {}",
        crate::directory::VERSION,
        version.as_deref().map_or_else(|| "a newer keyward".to_owned(), |version| format!("keyward {version} or newer"))
    )]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this build reads.
        known: u32,
        /// The version that wrote there last, where that is known.
        version: Option<String>,
    },
    /// A restore was interrupted.
    #[error(
        "a backup was being restored into {0} and that did not end; run keyward restore into it again, or remove all that is in it"
    )]
    HalfRestored(PathBuf),
    /// The state of the directory before an upgrade could not be kept.
    #[error(
        "the data directory {dir} has format {found}, which this keyward changes to {known}; before that it keeps a copy of what \
         must change in {snapshot}, and could not make it; nothing was changed: make room, or go on with the version before"
    )]
    NoSnapshot {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The one it would get.
        known: u32,
        /// Where the copy would be.
        snapshot: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The format file cannot be understood.
    #[error("{0} is not a keyward format file; is this a keyward data directory?")]
    NotAStore(PathBuf),
    /// The data directory is a file, or lies below one.
    #[error("{0} is a file, or lies below one, and has to be a directory; name another data directory")]
    NotADirectory(PathBuf),
    /// The directory holds what keyward did not put there.
    #[error(
        "the data directory {dir} is not empty and holds no keyward store, but {found:?} and maybe more; name an empty \
         directory, or one that does not exist yet"
    )]
    ForeignFiles {
        /// The directory.
        dir: PathBuf,
        /// One of them.
        found: String,
    },
    /// This user may not use the directory.
    #[error("{}", denied(.path, *.owner, *.user))]
    Denied {
        /// What may not be used: the directory or a file in it.
        path: PathBuf,
        /// Number of the user who owns the directory.
        owner: Option<u32>,
        /// Number of the user this process runs as.
        user: u32,
    },
    /// The directory cannot be written by anyone.
    #[error(
        "{0} is on a read-only file system; mount it writable (in a container, as a volume that is not read-only), or name \
         another data directory"
    )]
    ReadOnlyFileSystem(PathBuf),
    /// The disk has no room for a store to be opened or begun.
    #[error(
        "the disk that holds {} is full: {}storage.min_free_bytes asks for {min_free_bytes}; free some space, name a data \
         directory on a larger disk, or lower storage.min_free_bytes",
        .path.display(),
        .free_bytes.map(|free| format!("{free} bytes are free and ")).unwrap_or_default()
    )]
    NoSpace {
        /// The data directory.
        path: PathBuf,
        /// What is left of it, where the system tells.
        free_bytes: Option<u64>,
        /// What is asked for ([`Options::min_free_bytes`](crate::Options::min_free_bytes)).
        min_free_bytes: u64,
    },
    /// A file of the directory cannot be read or written.
    #[error("{path} cannot be used")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The checkpoint cannot be read.
    #[error(
        "records.redb cannot be opened; restore a backup, or, if the log still begins at record 1, move the file away and \
         start again: it is then rebuilt from the log"
    )]
    Checkpoint(#[source] Box<redb::Error>),
    /// A follower has nothing to begin with.
    #[error("{0} holds no records, and this node is a follower: it takes them from its leader before anything else")]
    NoRecords(PathBuf),
    /// The log is not where it was.
    #[error("{0} holds no log although this directory held a store; put the log back or restore a backup")]
    LogMissing(PathBuf),
    /// The log cannot be trusted.
    #[error("the write-ahead log cannot be used")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row of the store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A pepper is missing that hashes are keyed with.
    #[error(transparent)]
    Pepper(#[from] PepperMissing),
    /// A record of the log cannot be read although its checksum holds.
    #[error("log record {position} cannot be decoded")]
    Record {
        /// Which.
        position: Position,
        /// Why.
        #[source]
        cause: BadRow,
    },
}

fn denied(path: &Path, owner: Option<u32>, user: u32) -> String {
    let path = path.display();
    match owner {
        Some(owner) if owner != user => format!(
            "{path} may not be used: it belongs to user {owner} and keyward runs as user {user}; run keyward as user \
             {owner}, or give the data directory with all that is in it to user {user} (chown -R)"
        ),
        _ => format!(
            "{path} may not be used by user {user}, who keyward runs as; give that user the right to read and write the \
             data directory and all that is in it (chown -R, chmod -R u+rwX)"
        ),
    }
}

impl OpenError {
    /// Whether it is for lack of room, wherever that was noticed.
    pub(crate) fn is_no_space(&self) -> bool {
        match self {
            OpenError::NoSpace { .. } => true,
            OpenError::Io { source, .. } => is_no_space(source),
            // It says itself what to do.
            OpenError::NoSnapshot { .. } => false,
            OpenError::Checkpoint(cause) => is_redb_no_space(cause),
            OpenError::Read(ReadError::Redb(cause)) => is_redb_no_space(cause),
            OpenError::Log(cause) => {
                let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&**cause);
                while let Some(error) = cause {
                    if error.downcast_ref::<io::Error>().is_some_and(is_no_space) {
                        return true;
                    }
                    cause = error.source();
                }
                false
            }
            _ => false,
        }
    }
}

fn is_redb_no_space(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(error) if is_no_space(error))
}

impl From<redb::Error> for ReadError {
    fn from(cause: redb::Error) -> ReadError {
        ReadError::Redb(Box::new(cause))
    }
}
