//! What an update leaves in the audit trail beside its event: old and new values of what changed (AL-EV-09).

use serde_json::{Map, Value, json};

/// The changed fields of one resource, collected for its audit target's `meta`.
#[derive(Default)]
pub struct Changes(Map<String, Value>);

impl Changes {
    /// Notes a field, where its two values differ.
    pub fn note(&mut self, name: &str, old: Value, new: Value) {
        if old != new {
            self.0.insert(name.to_owned(), json!({ "old": old, "new": new }));
        }
    }

    /// Notes that a field changed, without its values: metadata is the customer's, and no business of the trail.
    pub fn note_unseen(&mut self, name: &str, changed: bool) {
        if changed {
            self.0.insert(name.to_owned(), json!("changed"));
        }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The target's `meta`: compact JSON text; `None` where nothing changed.
    pub fn into_meta(self) -> Option<String> {
        (!self.0.is_empty()).then(|| json!({ "changes": self.0 }).to_string())
    }
}
