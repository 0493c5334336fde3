//! What can be found: the texts of a key and of an audit event.

use keyward_storage::ids::KeyId;
use keyward_storage::records::audit::AuditEvent;
use keyward_storage::records::key::KeyRow;

use super::words::Texts;

/// A key's texts: id, start, name, external id, metadata (EXT-16).
pub fn of_key(id: KeyId, row: &KeyRow, external_id: Option<&str>) -> Texts {
    let mut texts = Texts::default();
    texts.push_id(&id.spell());
    texts.push_start(&row.start);
    texts.push(row.name.as_deref().unwrap_or_default());
    texts.push(external_id.unwrap_or_default());
    texts.push_meta(row.meta.as_deref().unwrap_or_default());
    texts
}

/// An event's texts: description, actor, resources, metadata (EXT-15).
pub fn of_event(event: &AuditEvent) -> Texts {
    let mut texts = Texts::default();
    texts.push(&event.description);
    for text in [&event.actor.kind, &event.actor.id, &event.actor.name] {
        texts.push(text);
    }
    for target in &event.targets {
        for text in [&target.kind, &target.id, &target.name] {
            texts.push(text);
        }
        texts.push_meta(target.meta.as_deref().unwrap_or_default());
    }
    texts
}
