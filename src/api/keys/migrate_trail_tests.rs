//! What keys.* leaves in the audit trail.
