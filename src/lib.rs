//! keyward.
