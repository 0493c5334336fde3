//! workspace.*: what the caller's workspace may use, and what it used (EXT-19).

pub mod get_limits;
pub mod get_usage;
