//! Black-box tests: the built binary, from outside, judged by the contract.
//!
//! One binary with discovery switched off, so that all of it links once. Statement ids of the contract (COM-AUTH-01,
//! KEYS-RL-7, ...) stand in the doc comments of the tests that hold the program to them.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]
#![allow(clippy::disallowed_methods, reason = "tests look at the machine they run on")]

mod harness;

mod analytics;
mod api_cli;
mod apis;
mod audit;
mod authority;
mod backup;
mod chain;
mod cli;
mod contract;
mod doctor;
mod durability;
mod events;
mod fixture;
mod followers;
mod identities;
mod import;
mod key_links;
mod keys;
mod layers;
mod lease;
mod list_keys;
mod metrics;
mod migrate;
mod mistakes;
mod namespaces;
mod otlp;
mod overrides;
mod pages;
mod parity;
mod pepper;
mod permissions;
mod properties;
mod quickstart;
mod ratelimit;
mod refills;
mod replication;
mod reroll;
mod robust;
mod root_keys;
mod schema;
mod search;
mod secrets;
mod settings;
mod sockets;
mod support_bundle;
mod things;
mod tidy;
mod tls;
mod trouble;
mod vault;
mod verify;
mod workspace_operations;
