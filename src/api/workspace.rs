//! workspace.*: what the caller's workspace may use (EXT-19).

pub mod get_limits;
