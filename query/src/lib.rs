//! Events and their queries: verifications and rate-limit decisions, recorded as Arrow batches, sealed into Parquet and
//! read with restricted SQL.
//!
//! Nothing lives here yet: verify keeps a key's last-used time in the storage crate's counters, and no operation reads
//! events. The crate holds the place that `README.md`'s map names, so that the first line of analytics code does not
//! have to move a boundary.
