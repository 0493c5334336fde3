//! keyward: API keys, verification and rate limits over the Unkey v2 HTTP API, on embedded storage, in one binary.
//!
//! A request comes in through [`http`], is judged and answered by an operation of [`api`], and touches records and
//! counters through `keyward_storage`. A change goes down one road - operation, writer, log, records, hot index - and
//! nothing travels back up except an answer. `README.md` holds the map and its invariants.

pub mod allocator;
pub mod api;
pub mod app;
pub mod audit;
pub mod auth;
pub mod cli;
pub mod config;
pub mod guesses;
pub mod health;
pub mod help;
pub mod http;
pub mod http_client;
pub mod metrics;
pub mod named_file;
pub mod otlp;
pub mod outside;
pub mod pepper;
pub mod rbac;
pub mod reload;
pub mod replication;
pub mod secret;
pub mod server_url;
pub mod service_manager;
pub mod telemetry;
pub mod tenants;
pub mod tls;
pub mod vault;
