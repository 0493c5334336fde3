//! Rate-limit windows: who has used how much of which limit.
//!
//! - [`cell`]: the counter as one word, and its step as a pure function (RL-ALG);
//! - [`windows`]: the map from subjects to cells; one take, or all of several;
//! - [`history`]: test mode, where requests bring times in any order;
//! - [`journal`]: what survives a restart.

pub mod cell;
pub mod history;
pub mod journal;
pub mod windows;

pub use cell::Decision;
pub use journal::{Loaded, WindowJournal, Written};
pub use windows::{Exhausted, Kind, Subject, Take, Windows, cells_are_lock_free};

#[cfg(all(test, not(shuttle)))]
mod tests;
