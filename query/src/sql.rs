//! A SELECT in ClickHouse's dialect, through four doors in order: the gate (is the text allowed), the scope (whose rows),
//! the translation (what it means), the run (within what bounds).

pub mod aggregates;
pub mod bind;
pub mod functions;
pub mod gate;
pub mod json;
pub mod kernel;
pub mod nodes;
pub mod operators;
pub mod run;
mod select;
#[cfg(test)]
mod testing;
pub mod typed;
pub mod types;

pub use select::{Query, Select};
