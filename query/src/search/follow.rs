//! The thread that keeps the index: it reads the log, notes what changed, and commits on a timer.
//!
//! The index carries the log position it stands at, in its own commit, so the two cannot disagree. Where it is missing,
//! damaged, of another version or another store, or its part of the log is gone, it is made anew: from the records as they
//! are, and then from the log since the beginning of that. The log has every row whole. A change that is seen twice, or late,
//! does no harm: rows carry the position at which they were written to the index, and the newest one stays (`superseded`).
//!
//! Nothing here may stop the server. What fails is logged and tried again, later each time; searches go on with the last
//! commit that could be read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyward_storage::disk::Disk;
use keyward_storage::ids::{ApiId, IdText, IdentityId, KeyId, WorkspaceNo};
use keyward_storage::position::Position;
use keyward_storage::records::audit::AuditRow;
use keyward_storage::records::{self, Effect, api, api::ApiRow, identity, key::KeyRow, workspace::WorkspaceRow};
use keyward_storage::{Feed, FeedError, Read, ReadError, Snapshot, Source};
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::store::Compressor;
use tantivy::{Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, TantivyError};

use super::directory::Seam;
use super::schema::{self, Fields, Kind, Tag, VERSION};
use super::shared::{Shared, Standing};
use super::superseded::Superseded;
use super::view::View;
use crate::priority::{self, Priority};

/// Between two commits while there are changes. A commit has its price, whatever is in it, and what is committed in smaller
/// parts is merged more often.
const COMMIT_EVERY: Duration = Duration::from_millis(1000);
/// How often an idle index is looked after.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the index says where it stands while nothing that could be found changes.
const MARK_EVERY: Duration = Duration::from_secs(10);
/// Noted changes at which they are written to the index without waiting for the time.
const CHANGES_MAX: usize = 8192;
/// The same for the bytes of their rows.
const CHANGES_BYTES_MAX: usize = 16 << 20;
/// Rows read at once while the index is made anew.
const ROWS_AT_ONCE: usize = 1000;
/// What the index may keep in memory before it writes a segment, bytes, while it is made anew: a part of that is touched
/// at once, whatever comes.
const HEAP_MAKING_BYTES: usize = 64 << 20;
/// The same while it is followed. No commit has so much.
const HEAP_BYTES: usize = 16 << 20;
/// Segments of about the same size that are merged into one.
const SEGMENTS_MERGED: usize = 10;
/// Failures in a row after which the index is made anew rather than opened again.
const FAILURES_MAX: usize = 3;
/// First and longest wait after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Why the index is left for now.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It has to be made anew.
    #[error("{0}")]
    Unusable(String),
    /// The same, and what searches have open of it is not to be trusted either.
    #[error("{0}")]
    Damaged(String),
    /// The index could not be read or written.
    #[error("the index cannot be read or written")]
    Index(#[from] TantivyError),
    /// The disk.
    #[error("the directory of the index cannot be used")]
    Disk(#[from] io::Error),
    /// The records.
    #[error("the records cannot be read")]
    Records(#[from] ReadError),
    /// The log.
    #[error("the log cannot be followed")]
    Feed(#[source] FeedError),
    /// No room on the disk.
    #[error("the disk has less free than storage.min_free_bytes asks for")]
    NoRoom,
    /// A defect, or damage that only showed in use.
    #[error("a step panicked; the lines above say where")]
    Panicked,
}

impl From<FeedError> for Failure {
    fn from(error: FeedError) -> Failure {
        match error {
            FeedError::Behind(position) => Failure::Unusable(format!("its part of the log, after {position}, is gone")),
            error => Failure::Feed(error),
        }
    }
}

/// Where the index is and what it is made of.
pub struct Follower {
    pub dir: PathBuf,
    pub disk: Arc<dyn Disk>,
    pub source: Source,
    pub min_free_bytes: u64,
    pub shared: Arc<Shared>,
}

/// The index while it is followed.
struct Open {
    index: Index,
    fields: Fields,
    writer: IndexWriter,
    reader: IndexReader,
    feed: Feed,
    changes: Changes,
    superseded: Superseded,
    /// Up to here the log may tell of rows that are in the index already.
    seen_twice: Position,
    /// The log position of what was last handed to the index.
    written: Position,
    /// The log position of the last commit.
    marked: Position,
    /// Whether it has everything up to its position.
    complete: bool,
    /// Whether something was handed to the index since the last commit.
    pending: bool,
    committed: Instant,
    /// When the log was last read to its end.
    as_of: Instant,
}

/// What the log told and the index does not have yet.
#[derive(Default)]
struct Changes {
    keys: BTreeMap<(WorkspaceNo, KeyId), KeyChange>,
    /// Events; `None` where one is gone.
    events: BTreeMap<(WorkspaceNo, u64), Option<AuditRow>>,
    apis: BTreeSet<(WorkspaceNo, ApiId)>,
    workspaces: BTreeSet<WorkspaceNo>,
    /// Of the rows that came, those included that others took the place of.
    bytes: usize,
}

#[derive(Default)]
struct KeyChange {
    /// Whether the key came to be.
    is_new: bool,
    /// Its row, as it is stored; `None` where it is gone.
    row: Option<Vec<u8>>,
}

impl Changes {
    fn len(&self) -> usize {
        self.keys.len() + self.events.len() + self.apis.len() + self.workspaces.len()
    }

    fn are_many(&self) -> bool {
        self.len() >= CHANGES_MAX || self.bytes >= CHANGES_BYTES_MAX
    }

    fn note(&mut self, effect: Effect) {
        let Some(workspace) = workspace_of(&effect.key) else { return };
        let id = |at: usize| effect.key.get(at..at + 16).and_then(|id| IdText::from_bytes(id.try_into().ok()?));
        match effect.table {
            records::KEY => {
                if let Some(id) = id(4) {
                    self.bytes += effect.value.as_ref().map_or(0, Vec::len);
                    self.keys.entry((workspace, KeyId(id))).or_default().row = effect.value;
                }
            }
            // Put when a key is made, with its row, and never again.
            records::KEY_BY_API if effect.value.is_some() => {
                if let Some(id) = id(20) {
                    self.keys.entry((workspace, KeyId(id))).or_default().is_new = true;
                }
            }
            records::AUDIT => {
                if let Some(sequence) = sequence_of(&effect.key) {
                    self.bytes += effect.value.as_ref().map_or(0, Vec::len);
                    // A row that this build cannot read is not found; whoever asks for all events hears of it.
                    let row = effect.value.as_deref().and_then(|row| keyward_storage::store::decode(row).ok());
                    self.events.insert((workspace, sequence), row);
                }
            }
            records::API => {
                let row = effect.value.as_deref().map(keyward_storage::store::decode::<ApiRow>);
                if let (Some(id), Some(Ok(row))) = (id(4), row)
                    && row.deleted_at.is_some()
                {
                    self.apis.insert((workspace, ApiId(id)));
                }
            }
            records::WORKSPACE => {
                let row = effect.value.as_deref().map(keyward_storage::store::decode::<WorkspaceRow>);
                if row.is_none_or(|row| row.is_ok_and(|row| row.deleted_at.is_some())) {
                    self.workspaces.insert(workspace);
                }
            }
            _ => {}
        }
    }
}

/// What writes to an index, with so much memory.
fn writer(index: &Index, heap_bytes: usize) -> Result<IndexWriter, TantivyError> {
    let options = IndexWriterOptions::builder()
        .memory_budget_per_thread(heap_bytes)
        .num_worker_threads(1)
        .num_merge_threads(1)
        .build();
    let writer: IndexWriter = index.writer_with_options(options)?;
    let mut policy = LogMergePolicy::default();
    policy.set_min_num_segments(SEGMENTS_MERGED);
    writer.set_merge_policy(Box::new(policy));
    Ok(writer)
}

/// The workspace a row key begins with.
fn workspace_of(key: &[u8]) -> Option<WorkspaceNo> {
    Some(WorkspaceNo(u32::from_be_bytes(key.get(..4)?.try_into().ok()?)))
}

/// The sequence number in the key of an event's row.
fn sequence_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(4..)?.try_into().ok()?))
}

/// What a commit says of itself.
pub struct Mark {
    store_id: [u8; 16],
    /// The log record up to which it has everything, if it is complete.
    pub position: Position,
    complete: bool,
}

impl Mark {
    fn text(&self) -> String {
        let id: String = self.store_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let state = if self.complete { "complete" } else { "partial" };
        format!("keyward search {VERSION} {id} {} {state}", self.position)
    }

    fn read(text: &str) -> Option<Mark> {
        let mut words = text.strip_prefix("keyward search ")?.split(' ');
        if words.next()?.parse() != Ok(VERSION) {
            return None;
        }
        let id = u128::from_str_radix(words.next()?, 16).ok()?;
        let position = Position(words.next()?.parse().ok()?);
        Some(Mark { store_id: id.to_be_bytes(), position, complete: words.next()? == "complete" })
    }
}

/// The mark of the index in a directory; `None` where there is none that can be used.
pub fn mark(disk: &Arc<dyn Disk>, dir: &Path) -> Option<Mark> {
    let seam = Seam::new(Arc::clone(disk), dir.to_owned());
    let look = || Mark::read(&Index::open(seam).ok()?.load_metas().ok()?.payload?);
    catch_unwind(AssertUnwindSafe(look)).ok().flatten().filter(|mark| mark.complete)
}

/// Whether a file's name is one that an index gives: lists, locks, and segments by their 32 hexadecimal digits.
fn is_of_an_index(name: &str) -> bool {
    let is_listed = [".managed.json", "meta.json", ".tantivy-"].iter().any(|own| name.starts_with(own));
    let is_segment =
        name.split('.').next().is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    is_listed || is_segment
}

impl Follower {
    /// Works until it is told to stop.
    pub fn run(self) {
        priority::set(Priority::Background);
        let (mut wait, mut anew, mut failures) = (BACKOFF.0, false, 0);
        while !self.shared.stops() {
            let began = Instant::now();
            self.shared.stand(Standing::Opening);
            let ended = catch_unwind(AssertUnwindSafe(|| self.work(anew)));
            let failure = match ended {
                Ok(Ok(())) => return,
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Panicked,
            };
            if began.elapsed() > BACKOFF.1 {
                (wait, failures) = (BACKOFF.0, 0);
            }
            // What could be followed was whole.
            anew &= !self.shared.is(Standing::Following);
            self.shared.stand(Standing::Failing);
            let error: &dyn std::error::Error = &failure;
            if let Failure::Unusable(_) | Failure::Damaged(_) = failure {
                tracing::warn!(error, "the search index is made anew; searches find less meanwhile");
                if let Failure::Damaged(_) = failure {
                    self.shared.hide();
                }
                anew = true;
                failures += 1;
                // At once, but for one that keeps failing.
                if failures == 1 {
                    continue;
                }
            } else {
                let again_in_s = wait.as_secs();
                tracing::error!(error, again_in_s, "the search index cannot be kept; searches fall behind");
                // What fails again and again while the disk has room is not going to be readable.
                failures += usize::from(!matches!(failure, Failure::NoRoom | Failure::Records(_) | Failure::Feed(_)));
                anew |= failures >= FAILURES_MAX;
            }
            self.shared.sleep(wait);
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// Opens the index, or makes it, and follows the log. One that is there is used, unless it is to be made `anew`.
    fn work(&self, anew: bool) -> Result<(), Failure> {
        // In a thread of its own, because a priority cannot be raised again: to make an index is long work that may be
        // late, and the index's own threads, which merge what was written, take their priority from whoever opens it.
        let opened = std::thread::scope(|scope| {
            let patiently = || {
                priority::set(Priority::Patient);
                self.open_or_make(anew)
            };
            let thread = std::thread::Builder::new().name("search-open".to_owned()).spawn_scoped(scope, patiently)?;
            thread.join().unwrap_or(Err(Failure::Panicked))
        });
        let mut open = opened?;
        if self.shared.stops() {
            return Ok(());
        }
        self.follow(&mut open)
    }

    fn open_or_make(&self, anew: bool) -> Result<Open, Failure> {
        self.disk.create_dir_all(&self.dir)?;
        if !anew && self.exists()? {
            return self.resume();
        }
        self.need_room()?;
        self.rebuild()
    }

    fn need_room(&self) -> Result<(), Failure> {
        match self.disk.free_bytes(&self.dir) {
            Ok(free) if free < self.min_free_bytes => Err(Failure::NoRoom),
            _ => Ok(()),
        }
    }

    fn seam(&self) -> Seam {
        Seam::new(Arc::clone(&self.disk), self.dir.clone())
    }

    fn exists(&self) -> Result<bool, Failure> {
        Ok(Index::exists(&self.seam()).map_err(TantivyError::from)?)
    }

    /// Opens the index that is there, if it is whole and the log goes on from it.
    fn resume(&self) -> Result<Open, Failure> {
        let unusable = |error: TantivyError| match error {
            // The disk's own errors. What can be read and makes no sense, such as the end of a file that says what is in it, is
            // another thing.
            TantivyError::OpenReadError(tantivy::directory::error::OpenReadError::IoError { ref io_error, .. })
                if !matches!(io_error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Failure::Index(error)
            }
            error => Failure::Unusable(format!("it cannot be opened: {error}")),
        };
        let guarded = catch_unwind(AssertUnwindSafe(|| {
            let index = Index::open(self.seam()).map_err(unusable)?;
            let (schema, fields) = schema::schema();
            let mark = index.load_metas().map_err(unusable)?.payload.as_deref().and_then(Mark::read);
            let mark = mark.filter(|_| index.schema() == schema);
            let mark = mark.ok_or_else(|| Failure::Unusable("it is of another version".to_owned()))?;
            if mark.store_id != self.source.store_id() {
                return Err(Failure::Unusable("it belongs to another store".to_owned()));
            }
            if !mark.complete {
                return Err(Failure::Unusable("its making was interrupted".to_owned()));
            }
            let feed = self.source.resume(mark.position)?;
            let judged = |failure| match failure {
                Failure::Index(error) => unusable(error),
                failure => failure,
            };
            let mut open = self.open(index, fields, feed, HEAP_BYTES).map_err(judged)?;
            open.complete = true;
            self.publish(&open).map_err(unusable)?;
            check(&open.index, &self.disk.list(&self.dir)?).map_err(judged)?;
            Ok(open)
        }));
        guarded.unwrap_or_else(|_| Err(Failure::Damaged("reading it panicked".to_owned())))
    }

    fn open(&self, index: Index, fields: Fields, feed: Feed, heap_bytes: usize) -> Result<Open, Failure> {
        let writer = writer(&index, heap_bytes)?;
        let reader: IndexReader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let (now, position) = (Instant::now(), feed.position());
        Ok(Open {
            index,
            fields,
            writer,
            reader,
            feed,
            changes: Changes::default(),
            superseded: Superseded::default(),
            seen_twice: Position::START,
            written: position,
            marked: position,
            complete: false,
            pending: false,
            committed: now,
            as_of: now,
        })
    }

    /// Makes the index from the records as they are. Commits now and then, so that a part is found meanwhile.
    fn rebuild(&self) -> Result<Open, Failure> {
        // What looks like no file of an index is somebody's, in a directory that is perhaps not what it seems.
        for name in self.disk.list(&self.dir)?.into_iter().filter(|name| is_of_an_index(name)) {
            self.disk.remove(&self.dir.join(name))?;
        }
        let (schema, fields) = schema::schema();
        let settings = IndexSettings {
            // Nothing is stored.
            docstore_compression: Compressor::None,
            docstore_compress_dedicated_thread: false,
            ..IndexSettings::default()
        };
        let index = Index::create(self.seam(), schema, settings)?;
        // Whatever changes from here on is in the log of this reader.
        let feed = self.source.begin();
        let mut open = self.open(index, fields, feed, HEAP_MAKING_BYTES)?;
        self.commit(&mut open)?;
        let began = Instant::now();
        self.read_all(&mut open, records::KEY, |open, snapshot, known, (key, row)| {
            let Some((workspace, id)) = key_of(&key) else { return Ok(()) };
            add_key(open, snapshot, known, workspace, id, &keyward_storage::store::decode::<KeyRow>(&row)?, 0)
        })?;
        self.read_all(&mut open, records::AUDIT, |open, _, _, (key, row)| {
            let (Some(workspace), Some(sequence)) = (workspace_of(&key), sequence_of(&key)) else { return Ok(()) };
            let row: AuditRow = keyward_storage::store::decode(&row)?;
            open.writer.add_document(open.fields.event_document(workspace, sequence, &row.event, 0))?;
            Ok(())
        })?;
        if self.shared.stops() {
            return Ok(open);
        }
        let seen_twice = self.source.position();
        open.complete = true;
        self.commit(&mut open)?;
        let rows = open.reader.searcher().num_docs();
        tracing::info!(rows, took_ms = began.elapsed().as_millis() as u64, "the search index was made");
        let Open { index, fields, feed, writer, .. } = open;
        // There is one writer at a time. Segments that it was just joining are joined by the next.
        drop(writer);
        let open = self.open(index, fields, feed, HEAP_BYTES)?;
        Ok(Open { seen_twice, complete: true, ..open })
    }

    /// Gives every row of a table to `each`, some at a time: no view of the records is held for long.
    fn read_all(
        &self,
        open: &mut Open,
        table: records::TableNo,
        mut each: impl FnMut(&mut Open, &Snapshot, &mut Known, (Vec<u8>, Vec<u8>)) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut from: Vec<u8> = Vec::new();
        while !self.shared.stops() {
            let snapshot = self.source.snapshot()?;
            let rows = snapshot.range(table, &[], Some(&from), ROWS_AT_ONCE)?;
            let Some((last, _)) = rows.last() else { break };
            from.clone_from(last);
            // The key behind the last one.
            from.push(0);
            let mut known = Known::default();
            for row in rows {
                each(open, &snapshot, &mut known, row)?;
            }
            if open.committed.elapsed() >= LOOK_EVERY {
                self.need_room()?;
                self.commit(open)?;
            }
        }
        Ok(())
    }

    /// Follows the log until it is told to stop.
    fn follow(&self, open: &mut Open) -> Result<(), Failure> {
        self.shared.stand(Standing::Following);
        loop {
            let stops = self.shared.stops();
            let now = Instant::now();
            let all = open.read()?;
            if all {
                // Whatever was durable before that is in what was read.
                open.as_of = now;
            }
            let due = stops || open.committed.elapsed() >= COMMIT_EVERY;
            if open.changes.len() > 0 && (due || !all) {
                self.need_room()?;
                self.write(open)?;
            }
            if due && (open.pending || open.superseded.is_due(stops) || open.is_to_be_marked(stops)) {
                self.commit(open)?;
                self.look_after()?;
            }
            if stops {
                return Ok(());
            }
            if !all {
                continue;
            }
            if open.changes.len() == 0 && !open.pending {
                // Nothing that could be found has changed since the last commit.
                self.shared.catch_up(open.feed.position(), open.as_of);
                self.look_after()?;
                open.feed.wait(LOOK_EVERY);
            } else {
                // More may come until then, and is written with it.
                self.shared.sleep(COMMIT_EVERY.saturating_sub(open.committed.elapsed()));
            }
        }
    }

    /// Notices what no step would stumble over.
    fn look_after(&self) -> Result<(), Failure> {
        if self.shared.take_damage() {
            return Err(Failure::Damaged("a search met damage".to_owned()));
        }
        if !self.exists()? {
            return Err(Failure::Unusable("its files are gone".to_owned()));
        }
        Ok(())
    }

    /// Hands the changes that were noted to the index.
    fn write(&self, open: &mut Open) -> Result<(), Failure> {
        let changes = std::mem::take(&mut open.changes);
        let snapshot = self.source.snapshot()?;
        let twice = open.written < open.seen_twice;
        open.written = open.feed.position();
        open.pending = true;
        let (fields, stamp) = (open.fields, open.written.0);
        for &workspace in &changes.workspaces {
            for kind in [Kind::Key, Kind::Event] {
                open.writer.delete_term(fields.term(kind, Tag::Any, workspace, &[]));
            }
        }
        for &(workspace, api) in &changes.apis {
            open.writer.delete_term(fields.api(workspace, api));
        }
        for ((workspace, sequence), row) in changes.events {
            if twice || row.is_none() {
                open.superseded.event(workspace, sequence, stamp);
            }
            if let Some(row) = row {
                open.writer.add_document(fields.event_document(workspace, sequence, &row.event, stamp))?;
            }
        }
        let mut known = Known::default();
        for ((workspace, id), change) in changes.keys {
            if twice || !change.is_new {
                open.superseded.key(workspace, id, stamp);
            }
            if let Some(row) = change.row {
                add_key(
                    open,
                    &snapshot,
                    &mut known,
                    workspace,
                    id,
                    &keyward_storage::store::decode::<KeyRow>(&row)?,
                    stamp,
                )?;
            }
        }
        Ok(())
    }

    /// Commits what the index was given, with the position it stands at, and shows it to searches.
    fn commit(&self, open: &mut Open) -> Result<(), Failure> {
        let mark = Mark { store_id: self.source.store_id(), position: open.feed.position(), complete: open.complete };
        if open.superseded.is_due(self.shared.stops()) {
            open.writer.delete_query(open.superseded.take(&open.fields))?;
        }
        let mut prepared = open.writer.prepare_commit()?;
        prepared.set_payload(&mark.text());
        prepared.commit()?;
        open.reader.reload()?;
        self.publish(open)?;
        if open.complete {
            open.feed.release(mark.position);
        }
        open.committed = Instant::now();
        open.marked = mark.position;
        open.pending = false;
        Ok(())
    }

    fn publish(&self, open: &Open) -> Result<(), TantivyError> {
        if !open.complete && self.shared.view().is_some_and(|view| view.complete) {
            // An older commit that had everything is better than the beginning of a new one.
            return Ok(());
        }
        let view = View::open(open.reader.searcher(), open.fields, open.complete)?;
        self.shared.show(view, open.feed.position(), open.as_of);
        Ok(())
    }
}

impl Open {
    /// Notes what the log tells. Whether that was all for now.
    fn read(&mut self) -> Result<bool, Failure> {
        while !self.changes.are_many() {
            let changes = &mut self.changes;
            if self.feed.take(|effect| changes.note(effect))?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the log has moved on without a change that could be found, for so long that the index should say so: what is
    /// before its mark is kept in the log.
    fn is_to_be_marked(&self, stops: bool) -> bool {
        self.feed.position() > self.marked && (stops || self.committed.elapsed() >= MARK_EVERY)
    }
}

/// What the keys of a batch refer to, each read once.
#[derive(Default)]
struct Known {
    live: HashMap<(WorkspaceNo, ApiId), bool>,
    external_ids: HashMap<(WorkspaceNo, IdentityId), Option<String>>,
}

/// Adds a key as it was at a log position, if it is live.
fn add_key(
    open: &Open,
    snapshot: &Snapshot,
    known: &mut Known,
    workspace: WorkspaceNo,
    id: KeyId,
    row: &KeyRow,
    stamp: u64,
) -> Result<(), Failure> {
    if row.deleted_at.is_some() {
        return Ok(());
    }
    let live = match known.live.get(&(workspace, row.api)) {
        Some(live) => *live,
        None => {
            let live = api::get_live(snapshot, workspace, row.api)?.is_some();
            known.live.insert((workspace, row.api), live);
            live
        }
    };
    if !live {
        return Ok(());
    }
    let external_id = match row.identity {
        None => None,
        Some(identity) => match known.external_ids.get(&(workspace, identity)) {
            Some(external_id) => external_id.clone(),
            None => {
                let row = identity::get_live(snapshot, workspace, identity)?;
                let external_id = row.map(|row| row.external_id);
                known.external_ids.insert((workspace, identity), external_id.clone());
                external_id
            }
        },
    };
    open.writer.add_document(open.fields.key_document(workspace, id, row, external_id.as_deref(), stamp))?;
    Ok(())
}

fn key_of(key: &[u8]) -> Option<(WorkspaceNo, KeyId)> {
    let id = IdText::from_bytes(key.get(4..)?.try_into().ok()?)?;
    Some((workspace_of(key)?, KeyId(id)))
}

/// Reads all files of the index: whether they are what was written.
fn check(index: &Index, names: &[String]) -> Result<(), Failure> {
    let segments = index.searchable_segment_metas()?;
    let segments: Vec<String> = segments.iter().map(|segment| segment.id().uuid_string()).collect();
    for name in names.iter().filter(|name| segments.iter().any(|segment| name.starts_with(segment.as_str()))) {
        if !index.directory().validate_checksum(Path::new(name)).map_err(TantivyError::from)? {
            return Err(Failure::Damaged(format!("{name} is damaged")));
        }
    }
    Ok(())
}
