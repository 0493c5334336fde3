//! An event store in a directory, as the tests of queries want it.

use std::path::Path;
use std::sync::Arc;

use keyward_query::events::{self, Events};
use keyward_storage::disk::RealDisk;

/// Opens a store below a directory; its clock stands at `now_ms`.
pub fn open(directory: &Path, now_ms: u64) -> Arc<Events> {
    let options = events::Options {
        dir: directory.join("events"),
        disk: Arc::new(RealDisk),
        region: "local".to_owned(),
        clock: Arc::new(move || now_ms),
        queue_events: 4_096,
        min_free_bytes: 0,
        retention: None,
    };
    Arc::new(Events::open(options).expect("a store opens"))
}
