//! What can go wrong in a bench, by what its user can do about it.

use std::io;

/// A bench's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a bench could not measure, or what it measured was too bad.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments ask for something that makes no sense or is not allowed: change them.
    #[error("{0}")]
    Usage(String),
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried, as a phrase that fits before a colon.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A server answered otherwise than the bench needs, so a figure would be about something else.
    #[error("{0}")]
    Unexpected(String),
    /// The measurement is sound and misses the bound that was asked for.
    #[error("{0}")]
    Missed(String),
}

impl Error {
    /// For `map_err`: wraps an I/O error with what was being done.
    pub fn io<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Error {
        let doing = doing.into();
        move |source| Error::Io { doing, source: source.into() }
    }
}
