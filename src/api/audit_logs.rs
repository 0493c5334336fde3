//! auditLogs.*: what was changed, when, and by whom.

mod cursor;
mod event_object;
pub mod query_audit_logs;
