//! Text to values.
