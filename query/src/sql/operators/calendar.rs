//! Dates and zones.
