//! The oracle's events as tables that are restricted as a scan is, and its rules for comparing answers.

pub mod compare;
pub mod tables;
