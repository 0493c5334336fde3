//! Events: from the ring through the journal into Parquet.

pub mod tables;
