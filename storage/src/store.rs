//! The checkpoint: redb behind two plain ideas, a consistent snapshot to read and a batch to change.
//!
//! One redb table per record table, named after its number, so that a row of a table this build does not know can still
//! be applied. Commits are not durable (the log is); a durable commit is the checkpoint and carries the log position it
//! stands at.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use redb::{
    Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition,
    TableHandle,
};
use redb::{StorageBackend, TableError, WriteTransaction};

use crate::disk::{self, Disk, DiskFile};
use crate::error::{BadRow, ReadError};
use crate::ids::IdText;
use crate::pepper::{Peppered, Peppers};
use crate::position::{Position, Term};
use crate::records::{Effect, Row, TableNo};

/// A row as `range` gives it: key and value.
pub type RawRow = (Vec<u8>, Vec<u8>);

/// What can be read: a snapshot, or a transaction that also sees its own changes.
pub trait Read {
    /// The value of a row.
    fn bytes(&self, table: TableNo, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// At most `most` rows whose key begins with `prefix`, in key order, beginning at `from` where given.
    fn range(&self, table: TableNo, prefix: &[u8], from: Option<&[u8]>, most: usize) -> Result<Vec<RawRow>, ReadError>;

    /// The greatest key of a table.
    fn last_key(&self, table: TableNo) -> Result<Option<Vec<u8>>, ReadError>;

    /// A row, decoded.
    fn row<R: Row>(&self, key: &[u8]) -> Result<Option<R>, ReadError>
    where
        Self: Sized,
    {
        self.bytes(R::TABLE, key)?.map(|bytes| decode(&bytes)).transpose()
    }
}

/// Decodes a row, naming its table where it cannot be read.
pub fn decode<R: Row>(bytes: &[u8]) -> Result<R, ReadError> {
    R::from_bytes(bytes).map_err(|cause| ReadError::Row { table: R::TABLE, cause })
}

/// The id an index row holds.
pub(crate) fn id_from(bytes: &[u8]) -> Option<IdText> {
    IdText::from_bytes(bytes.try_into().ok()?)
}

const STATE: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("state");

/// A table's name in redb: `t` and its number.
struct TableName([u8; 6]);

impl TableName {
    fn new(table: TableNo) -> TableName {
        let mut name = *b"t00000";
        let mut rest = table;
        for digit in name[1..].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
        }
        TableName(name)
    }

    fn definition(&self) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
        TableDefinition::new(std::str::from_utf8(&self.0).expect("a letter and digits"))
    }
}

/// The store's own facts, beside the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub position: Position,
    pub term: Term,
    /// Names this store; a log or journal of another is refused.
    pub store_id: [u8; 16],
    /// Secret seed of the rate-limit subjects.
    pub seed: [u8; 16],
}

impl State {
    pub fn to_bytes(self) -> [u8; 49] {
        let mut out = [0; 49];
        out[0] = 1;
        out[1..9].copy_from_slice(&self.position.0.to_le_bytes());
        out[9..17].copy_from_slice(&self.term.0.to_le_bytes());
        out[17..33].copy_from_slice(&self.store_id);
        out[33..49].copy_from_slice(&self.seed);
        out
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<State> {
        let bytes: &[u8; 49] = bytes.try_into().ok()?;
        (bytes[0] == 1).then(|| State {
            position: Position(u64::from_le_bytes(bytes[1..9].try_into().expect("eight bytes"))),
            term: Term(u64::from_le_bytes(bytes[9..17].try_into().expect("eight bytes"))),
            store_id: bytes[17..33].try_into().expect("sixteen bytes"),
            seed: bytes[33..49].try_into().expect("sixteen bytes"),
        })
    }
}

/// redb's file, through the disk seam.
struct Backend(Arc<dyn DiskFile>);

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backend")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read_exact_at(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write_all_at(offset, data)
    }
}

/// The checkpoint's file in the data directory.
pub(crate) const FILE: &str = "records.redb";
/// The file while it is being made; a leftover of a crash is overwritten.
pub(crate) const FILE_ASIDE: &str = "records.redb.new";

/// The checkpoint store.
pub(crate) struct Store {
    db: Database,
    /// Held by the writer from a commit until that is published, and by whoever takes a snapshot for the hot views.
    unpublished: RwLock<()>,
    /// What digests of keys are turned into hashes with.
    pub peppers: Arc<Peppers>,
}

impl Store {
    pub(crate) fn over(file: Arc<dyn DiskFile>, cache_bytes: usize) -> Result<Store, redb::Error> {
        let db = Database::builder().set_cache_size(cache_bytes).create_with_backend(Backend(file))?;
        Ok(Store { db, unpublished: RwLock::new(()), peppers: Arc::new(Peppers::new(Vec::new())) })
    }

    /// Opens the store's file; `None` where there is none.
    pub fn open(disk: &dyn Disk, dir: &Path, cache_bytes: usize) -> Result<Option<(Store, State)>, redb::Error> {
        let file = match disk.open(&dir.join(FILE), false) {
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let store = Store::over(file, cache_bytes)?;
        let state = {
            let table = store.db.begin_read()?.open_table(STATE)?;
            table.get("state")?.and_then(|bytes| State::from_bytes(bytes.value()))
        };
        let state = state.ok_or_else(unreadable_state)?;
        Ok(Some((store, state)))
    }

    /// Makes the store's file whole before it has its name: redb refuses one whose making was interrupted, and a name
    /// that a power cut takes would be a checkpoint lost.
    pub fn create(disk: &dyn Disk, dir: &Path, cache_bytes: usize, state: State) -> Result<Store, redb::Error> {
        disk::replace(disk, &dir.join(FILE_ASIDE), &dir.join(FILE), |file| {
            let store = Store::over(file, cache_bytes)?;
            store.checkpoint(state)?;
            Ok(store)
        })
    }

    /// Reads the whole file and compares its checksums. Whether it was whole; where it was not, it was repaired. Nothing may be
    /// reading or writing it.
    pub fn check_integrity(&mut self) -> Result<bool, redb::Error> {
        Ok(self.db.check_integrity()?)
    }

    /// Applies rows in one commit, which is not durable and leaves the state as it is: for a store that is being made.
    pub fn fill(&self, effects: &[Effect]) -> Result<(), redb::Error> {
        let txn = self.begin()?;
        {
            let tables = Tables::new(&txn);
            for effect in effects {
                tables.apply(effect)?;
            }
        }
        Ok(txn.commit()?)
    }

    /// Says that what is committed from here on is not published yet, until the guard is dropped. Only the writer does.
    pub fn publishing(&self) -> RwLockWriteGuard<'_, ()> {
        self.unpublished.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same rows in a new file of the same name, durable, in which no space is left from rows that are gone. What is read
    /// and written from then on is that; an error leaves the old file in its place.
    pub fn written_anew(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        cache_bytes: usize,
        state: State,
    ) -> Result<Store, redb::Error> {
        let read = self.db.begin_read()?;
        let aside = dir.join(FILE_ASIDE);
        let made = disk::replace(disk, &aside, &dir.join(FILE), |file| {
            let store = Store::over(file, cache_bytes)?;
            for table in read.list_tables()?.filter(|table| table.name() != STATE.name()) {
                copy_table(&read, TableDefinition::new(table.name()), &store)?;
            }
            store.checkpoint(state)?;
            Ok(Store { peppers: Arc::clone(&self.peppers), ..store })
        });
        if made.is_err() {
            // It only takes room; the next one overwrites it.
            let _ = disk.remove(&aside);
        }
        made
    }

    /// A view of everything published so far: what hot views are read from. One of what is committed only would let a
    /// reader see part of a transaction, in what it fills, before the rest of it is published.
    pub fn published_snapshot(&self) -> Result<Snapshot, ReadError> {
        let _published = self.unpublished.read().unwrap_or_else(PoisonError::into_inner);
        self.snapshot()
    }

    /// A consistent view of everything committed so far.
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> {
        let txn = self.db.begin_read().map_err(redb::Error::from)?;
        let state = txn.open_table(STATE).map_err(redb::Error::from)?;
        let position = state
            .get("state")
            .map_err(redb::Error::from)?
            .and_then(|bytes| State::from_bytes(bytes.value()))
            .map_or(Position::START, |state| state.position);
        Ok(Snapshot { txn, position, peppers: Arc::clone(&self.peppers), open: RefCell::new(Vec::new()) })
    }

    /// Begins a batch. Exactly one thread, the writer, does this.
    pub fn begin(&self) -> Result<WriteTransaction, redb::Error> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(Durability::None)?;
        Ok(txn)
    }

    /// Makes everything committed so far durable.
    pub fn checkpoint(&self, state: State) -> Result<(), redb::Error> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        // Start-up after a crash then need not walk the file (0.3 s per GB otherwise).
        txn.set_quick_repair(true);
        put_state(&txn, state)?;
        txn.commit()?;
        Ok(())
    }
}

fn unreadable_state() -> redb::Error {
    redb::Error::Corrupted("the state row cannot be read".to_owned())
}

/// Rows copied in one commit.
const COPIED_AT_ONCE: usize = 50_000;

/// Copies a table as it stands, checksums and all.
fn copy_table(
    from: &ReadTransaction,
    table: TableDefinition<'_, &'static [u8], &'static [u8]>,
    to: &Store,
) -> Result<(), redb::Error> {
    let rows = from.open_table(table)?;
    let mut rows = rows.iter()?.peekable();
    while rows.peek().is_some() {
        let txn = to.begin()?;
        {
            let mut copy = txn.open_table(table)?;
            for row in rows.by_ref().take(COPIED_AT_ONCE) {
                let (key, value) = row?;
                copy.insert(key.value(), value.value())?;
            }
        }
        txn.commit()?;
    }
    Ok(())
}

/// Stores the position a batch ends at, in the batch itself.
pub(crate) fn put_state(txn: &WriteTransaction, state: State) -> Result<(), redb::Error> {
    txn.open_table(STATE)?.insert("state", state.to_bytes().as_slice())?;
    Ok(())
}

type ReadTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A consistent, immutable view of the records.
pub struct Snapshot {
    txn: ReadTransaction,
    position: Position,
    peppers: Arc<Peppers>,
    /// Tables opened so far: opening one anew for every read costs more than the read.
    open: RefCell<Vec<(TableNo, Option<ReadTable>)>>,
}

impl Snapshot {
    /// The position of the last transaction it shows.
    pub fn position(&self) -> Position {
        self.position
    }

    fn with_table<R>(
        &self,
        table: TableNo,
        empty: R,
        run: impl FnOnce(&ReadTable) -> Result<R, redb::Error>,
    ) -> Result<R, ReadError> {
        let mut open = self.open.borrow_mut();
        let at = match open.iter().position(|(no, _)| *no == table) {
            Some(at) => at,
            None => {
                let opened = match self.txn.open_table(TableName::new(table).definition()) {
                    Ok(opened) => Some(opened),
                    Err(TableError::TableDoesNotExist(_)) => None,
                    Err(error) => return Err(redb::Error::from(error).into()),
                };
                open.push((table, opened));
                open.len() - 1
            }
        };
        match &open[at].1 {
            Some(opened) => Ok(run(opened)?),
            None => Ok(empty),
        }
    }

    /// The next rows of a table, in the order of their keys, after that of the last one that was had: so many that they have
    /// `bytes` together, and one more at least.
    pub(crate) fn block(&self, table: TableNo, after: Option<&[u8]>, bytes: usize) -> Result<Vec<RawRow>, ReadError> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.with_table(table, Ok(Vec::new()), |opened| {
            let (mut rows, mut held) = (Vec::new(), 0);
            for row in opened.range::<&[u8]>((from, Bound::Unbounded))? {
                let (key, value) = row?;
                let Ok(whole) = checked(table, key.value(), value.value()) else {
                    let cause = BadRow::BadValue("bytes whose checksum does not fit");
                    return Ok(Err(ReadError::Row { table, cause }));
                };
                held += key.value().len() + whole.len();
                rows.push((key.value().to_vec(), whole.to_vec()));
                if held >= bytes {
                    break;
                }
            }
            Ok(Ok(rows))
        })?
    }

    /// The store's own facts at this moment.
    pub(crate) fn state(&self) -> Result<State, ReadError> {
        let state = self.txn.open_table(STATE).map_err(redb::Error::from)?;
        let row = state.get("state").map_err(redb::Error::from)?;
        row.and_then(|bytes| State::from_bytes(bytes.value())).ok_or_else(|| unreadable_state().into())
    }

    /// The numbers of all tables that have ever had a row, in order; those this build does not know among them.
    pub(crate) fn tables(&self) -> Result<Vec<TableNo>, ReadError> {
        let names = self.txn.list_tables().map_err(redb::Error::from)?;
        let number = |name: &str| name.strip_prefix('t').filter(|digits| digits.len() == 5)?.parse().ok();
        let mut tables: Vec<TableNo> = names.filter_map(|table| number(table.name())).collect();
        tables.sort_unstable();
        Ok(tables)
    }

    /// Calls `each` with every row of a table, in key order.
    pub(crate) fn scan(&self, table: TableNo, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), ReadError> {
        self.with_table(table, (), |opened| {
            for row in opened.iter()? {
                let (key, value) = row?;
                each(key.value(), checked(table, key.value(), value.value())?);
            }
            Ok(())
        })
    }

    /// At most `most` of what `pick` makes of the rows whose key begins with `prefix`, in key order, beginning at the key
    /// `prefix` + `from`. Rows are visited where they lie, so passing over one that `pick` makes nothing of costs no copy.
    ///
    /// `pick` is given the key without its prefix. It must not read this snapshot: gather ids, then resolve them.
    ///
    /// # Errors
    /// What reading says, and the first error of `pick`.
    pub fn select<T>(
        &self,
        table: TableNo,
        prefix: &[u8],
        from: &[u8],
        most: usize,
        mut pick: impl FnMut(&[u8], &[u8]) -> Result<Option<T>, ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        let start = [prefix, from].concat();
        self.with_table(table, Ok(Vec::new()), |opened| {
            let mut picked = Vec::new();
            if most == 0 {
                return Ok(Ok(picked));
            }
            for row in opened.range::<&[u8]>(start.as_slice()..)? {
                let (key, value) = row?;
                let Some(rest) = key.value().strip_prefix(prefix) else { break };
                match pick(rest, checked(table, key.value(), value.value())?) {
                    Ok(None) => continue,
                    Ok(Some(one)) => picked.push(one),
                    Err(error) => return Ok(Err(error)),
                }
                if picked.len() == most {
                    break;
                }
            }
            Ok(Ok(picked))
        })?
    }

    /// Calls `each` with the rows whose key begins with `prefix`, in key order, beginning at the key `prefix` + `from`, until
    /// it has seen enough. It is given the key without the prefix, and the value where that is whole: a damaged row is
    /// `None`, so that whoever looks for damage can go on behind it.
    pub(crate) fn visit(
        &self,
        table: TableNo,
        prefix: &[u8],
        from: &[u8],
        mut each: impl FnMut(&[u8], Option<&[u8]>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let start = [prefix, from].concat();
        self.with_table(table, (), |opened| {
            for row in opened.range::<&[u8]>(start.as_slice()..)? {
                let (key, value) = row?;
                let Some(rest) = key.value().strip_prefix(prefix) else { break };
                if each(rest, checked(table, key.value(), value.value()).ok()).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// How many rows a table has.
    pub fn count(&self, table: TableNo) -> Result<u64, ReadError> {
        use redb::ReadableTableMetadata;
        self.with_table(table, 0, |opened| Ok(opened.len()?))
    }
}

impl Peppered for Snapshot {
    fn peppers(&self) -> &Peppers {
        &self.peppers
    }
}

impl Read for Snapshot {
    fn bytes(&self, table: TableNo, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.with_table(table, None, |opened| match opened.get(key)? {
            Some(stored) => Ok(Some(checked(table, key, stored.value())?.to_vec())),
            None => Ok(None),
        })
    }

    fn range(&self, table: TableNo, prefix: &[u8], from: Option<&[u8]>, most: usize) -> Result<Vec<RawRow>, ReadError> {
        self.with_table(table, Vec::new(), |opened| range_of(table, opened, prefix, from, most))
    }

    fn last_key(&self, table: TableNo) -> Result<Option<Vec<u8>>, ReadError> {
        self.with_table(table, None, |opened| Ok(opened.last()?.map(|(key, _)| key.value().to_vec())))
    }
}

/// Bytes of checksum behind a value in redb, which itself notices damage only where it walks the whole file.
const CHECKSUM_BYTES: usize = 4;

/// CRC-32 over table, key and value, so that a value that belongs elsewhere is noticed too.
fn checksum(table: TableNo, key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&table.to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}

/// A stored value without its checksum; damage is an error, never data.
fn checked<'v>(table: TableNo, key: &[u8], stored: &'v [u8]) -> Result<&'v [u8], redb::Error> {
    let damaged = || redb::Error::Corrupted(format!("table {table} holds a row whose checksum does not fit"));
    let (value, sum) = stored.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(damaged)?;
    if *sum == checksum(table, key, value) { Ok(value) } else { Err(damaged()) }
}

fn range_of(
    no: TableNo,
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    prefix: &[u8],
    from: Option<&[u8]>,
    most: usize,
) -> Result<Vec<RawRow>, redb::Error> {
    let start = from.filter(|from| *from > prefix).unwrap_or(prefix);
    let mut rows = Vec::new();
    if most == 0 {
        return Ok(rows);
    }
    for row in table.range::<&[u8]>(start..)? {
        let (key, value) = row?;
        if !key.value().starts_with(prefix) {
            break;
        }
        rows.push((key.value().to_vec(), checked(no, key.value(), value.value())?.to_vec()));
        if rows.len() == most {
            break;
        }
    }
    Ok(rows)
}

type WriteTable<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

/// The tables of the batch being written, opened as they are needed.
pub(crate) struct Tables<'txn> {
    txn: &'txn WriteTransaction,
    open: RefCell<Vec<(TableNo, WriteTable<'txn>)>>,
}

impl<'txn> Tables<'txn> {
    pub fn new(txn: &'txn WriteTransaction) -> Tables<'txn> {
        Tables { txn, open: RefCell::new(Vec::with_capacity(16)) }
    }

    fn with_table<R>(
        &self,
        table: TableNo,
        run: impl FnOnce(&mut WriteTable<'txn>) -> Result<R, redb::Error>,
    ) -> Result<R, redb::Error> {
        let mut open = self.open.borrow_mut();
        let at = match open.iter().position(|(no, _)| *no == table) {
            Some(at) => at,
            None => {
                open.push((table, self.txn.open_table(TableName::new(table).definition())?));
                open.len() - 1
            }
        };
        run(&mut open[at].1)
    }

    /// Applies one effect: the only place in the product that changes a row. It refuses nothing and reads no clock, no
    /// randomness and no setting.
    pub fn apply(&self, effect: &Effect) -> Result<(), redb::Error> {
        self.with_table(effect.table, |table| {
            match &effect.value {
                Some(value) => {
                    let mut stored = Vec::with_capacity(value.len() + CHECKSUM_BYTES);
                    stored.extend_from_slice(value);
                    stored.extend_from_slice(&checksum(effect.table, &effect.key, value));
                    drop(table.insert(effect.key.as_slice(), stored.as_slice())?);
                }
                None => drop(table.remove(effect.key.as_slice())?),
            }
            Ok(())
        })
    }
}

impl Read for Tables<'_> {
    fn bytes(&self, table: TableNo, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.with_table(table, |opened| match opened.get(key)? {
            Some(stored) => Ok(Some(checked(table, key, stored.value())?.to_vec())),
            None => Ok(None),
        })?)
    }

    fn range(&self, table: TableNo, prefix: &[u8], from: Option<&[u8]>, most: usize) -> Result<Vec<RawRow>, ReadError> {
        Ok(self.with_table(table, |opened| range_of(table, opened, prefix, from, most))?)
    }

    fn last_key(&self, table: TableNo) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.with_table(table, |opened| Ok(opened.last()?.map(|(key, _)| key.value().to_vec())))?)
    }
}
