//! The crate from outside, in one program.

#[path = "suite/answers.rs"]
mod answers;
#[path = "suite/bombs.rs"]
mod bombs;
#[path = "suite/compare.rs"]
mod compare;
#[path = "suite/events.rs"]
mod events;
#[path = "suite/isolation.rs"]
mod isolation;
#[path = "suite/relay.rs"]
mod relay;
#[path = "suite/search.rs"]
mod search;
#[path = "suite/store.rs"]
mod store;
#[path = "suite/tables.rs"]
mod tables;
