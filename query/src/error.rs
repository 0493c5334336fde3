//! Why a query was not answered, by what its sender can do about it.

/// A refused or failed query. Each kind is one error code of the API (AN-ERR); its text is for the sender: it names what is
/// wrong in the sender's own words and never shows rewritten SQL, internal names or other tenants' ids (AN-ERR-15).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The text is no query that can be answered (AN-ERR-01).
    #[error("{0}")]
    Query(String),
    /// Not a SELECT (AN-ERR-02).
    #[error("{0}")]
    NotSelect(String),
    /// A table that does not exist; the text contains its name as written (AN-ERR-03).
    #[error("{0}")]
    Table(String),
    /// A function that is not allowed; the text contains its name in lower case (AN-ERR-04).
    #[error("{0}")]
    Function(String),
    /// An explicit lower bound older than the workspace's retention (AN-ERR-05).
    #[error("{0}")]
    Range(String),
    /// The time limit (AN-ERR-08).
    #[error("{0}")]
    Timeout(String),
    /// The memory limit, or the size of the encoded answer (AN-ERR-09).
    #[error("{0}")]
    Memory(String),
    /// More rows than the workspace's limit (AN-ERR-10).
    #[error("{0}")]
    Rows(String),
    /// A quota of the current window is used up (AN-ERR-11).
    #[error("{text}")]
    Quota {
        /// Which, and when the window ends.
        text: String,
        /// Seconds until then, rounded up.
        retry_after_s: u32,
    },
    /// Too many queries wait for their turn.
    #[error("too many queries are running")]
    Busy,
    /// Nobody waits for the answer any more.
    #[error("the query was cancelled")]
    Cancelled,
    /// The event store could not be read (AN-ERR-12); the cause is in the log.
    #[error("the event store is not available")]
    Unavailable,
}

impl Refusal {
    /// [`Refusal::Query`] from anything that can be written.
    pub fn query(text: impl Into<String>) -> Refusal {
        Refusal::Query(text.into())
    }
}
