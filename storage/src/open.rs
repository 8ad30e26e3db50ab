//! Opening a store: the directory, the lock, the format, the checks that come before the engine, the engine.

use crate::error::{OpenError, ReadError, panic_text};
use crate::heads;
use crate::journal::{self, Found};
use crate::limits;
use crate::manifest;
use crate::pages::PageReader;
use crate::reader::Reader;
use crate::salvage;
use crate::witness::Witness;
use crate::writer::{COMMIT_KEY, Mark, OWN_TABLE, Writer};
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, Readable, SeqNo};
use peerlink_core::limits::KEY_BYTES;
use peerlink_core::record::{
    Contact, Conversation, CorruptRecord, Counters, Entry, FORMAT, Feed, Invite, Key, Lived, Place, Profile,
    RESTORE_END, Record as _, Shown, Table,
};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The engine's directory, and the one in which it is made.
pub(crate) const DB: &str = "db";
const UNFINISHED: &str = "db.new";
const KEYSPACE: &str = "records";
const FORMAT_PREFIX: &str = "peerlink store ";
/// Up to this format, the file `format` had its line once.
const FORMATS_SAID_ONCE: u64 = 2;

/// What every part of an open store shares. The order of the fields is the order in which they go: the lock last.
pub(crate) struct Shared {
    pub(crate) records: Keyspace,
    pub(crate) db: Database,
    pub(crate) witness: Witness,
    /// The engine's directory.
    pub(crate) dir: PathBuf,
    _lock: File,
}

impl Shared {
    /// The number of the newest commit whose sequence number is below `end`.
    fn newest_commit(&self, path: &Path, end: SeqNo) -> Result<u64, OpenError> {
        let read = catch_unwind(AssertUnwindSafe(|| self.records.tree.get(COMMIT_KEY, end)))
            .map_err(|panic| OpenError::damaged(path, panic_text(&*panic)))?
            .map_err(|error| OpenError::engine(path, error.into()))?;
        let Some(bytes) = read else { return Ok(0) };
        let mark = Mark::decode(&bytes);
        Ok(mark.ok_or_else(|| OpenError::damaged(path, "its count of commits is not one"))?.commit)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A store that this process holds.
#[derive(Debug)]
pub struct Opened {
    shared: Arc<Shared>,
    path: PathBuf,
    commits: u64,
}

/// Opens the store in the directory `path`, or makes one if there is none.
///
/// # Errors
/// [`OpenError`], which says what to do. Nothing that was ever promised is deleted or truncated.
pub fn open(path: &Path) -> Result<Opened, OpenError> {
    let io = |error| OpenError::io(path, error);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io)?;
    let lock = lock(path)?;
    let marked = read_format(path)?;
    let (witness, seen) = Witness::open(&path.join("witness")).map_err(io)?;
    let db = path.join(DB);
    let mut first = None;
    if db.try_exists().map_err(io)? {
        first = check_before(path, &db, marked, seen)?;
    } else if marked || seen.unwrap_or(0) > 0 {
        return Err(OpenError::damaged(path, "its directory `db` is missing"));
    } else {
        create(path, &db)?;
    }
    let (engine, records) = open_engine(path, &db)?;
    let shared = Shared { records, db: engine, witness, dir: db, _lock: lock };
    let commits = check_after(path, &shared, marked, seen.unwrap_or(0), first)?;
    shared.witness.saw(commits).and_then(|()| shared.witness.sync()).map_err(io)?;
    if !marked {
        write_format(path).map_err(io)?;
    }
    protect(path).map_err(io)?;
    Ok(Opened { shared: Arc::new(shared), path: path.to_owned(), commits })
}

impl Opened {
    /// Streams every record that a node starts from, in the order of their keys.
    ///
    /// # Errors
    /// What `record` returned, as an [`OpenError`], or that the store cannot be read.
    pub fn restore(
        &self,
        mut record: impl FnMut(&[u8], &[u8]) -> Result<(), CorruptRecord>,
    ) -> Result<(), OpenError> {
        let mut step = || {
            for guard in self.shared.db.snapshot().range(&self.shared.records, ..[RESTORE_END]) {
                let (key, value) =
                    guard.into_inner().map_err(|error| OpenError::engine(&self.path, error))?;
                record(&key, &value).map_err(|error| OpenError::record(&self.path, error))?;
            }
            Ok(())
        };
        catch_unwind(AssertUnwindSafe(&mut step))
            .unwrap_or_else(|panic| Err(OpenError::damaged(&self.path, panic_text(&*panic))))
    }

    /// Compares heads and counters with the entries that they name, at the ends only. What a node starts from must
    /// have passed.
    ///
    /// # Errors
    /// [`OpenError::Damaged`]: a part of the store is gone or older than the rest.
    pub fn check_heads(&self) -> Result<(), OpenError> {
        catch_unwind(AssertUnwindSafe(|| heads::check(&self.shared)))
            .map_err(|panic| OpenError::damaged(&self.path, panic_text(&*panic)))?
            .map_err(|error| OpenError::read(&self.path, error))
    }

    /// Reads and decodes every record.
    pub(crate) fn read_all(&self) -> Result<(), OpenError> {
        let read = || -> Result<(), ReadError> {
            for guard in self.shared.db.snapshot().iter(&self.shared.records) {
                let (key, value) = guard.into_inner()?;
                if key.first() != Some(&OWN_TABLE) {
                    decode(&key, &value)?;
                }
            }
            Ok(())
        };
        catch_unwind(AssertUnwindSafe(read))
            .map_err(|panic| OpenError::damaged(&self.path, panic_text(&*panic)))?
            .map_err(|error| OpenError::read(&self.path, error))
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// The parts, for the threads that need them.
    #[must_use]
    pub fn split(self) -> (Writer, PageReader, Reader) {
        let Self { shared, commits, .. } = self;
        (Writer::new(shared.clone(), commits), PageReader::new(shared.clone()), Reader::new(shared))
    }
}

pub(crate) fn lock(path: &Path) -> Result<File, OpenError> {
    let io = |error| OpenError::io(path, error);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join("lock"))
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(io(error)),
    }
}

/// Whether the store is marked as finished, in a format that we know.
pub(crate) fn read_format(path: &Path) -> Result<bool, OpenError> {
    let mut text = String::new();
    match File::open(path.join("format")) {
        Ok(file) => {
            let read = file.take(limits::SMALL_FILE_BYTES).read_to_string(&mut text);
            if read.is_err_and(|error| error.kind() != io::ErrorKind::InvalidData) {
                return Err(OpenError::damaged(path, "its file `format` cannot be read"));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(OpenError::io(path, error)),
    }
    match format_of(&text) {
        Some(found) if found == u64::from(FORMAT) => Ok(true),
        Some(found) if found > u64::from(FORMAT) => {
            Err(OpenError::Newer { path: path.to_owned(), found, known: FORMAT })
        }
        Some(found) => Err(OpenError::Older { path: path.to_owned(), found, known: FORMAT }),
        None => Err(OpenError::damaged(path, "its file `format` does not say which format it has")),
    }
}

/// What the file `format` says. The line is there twice: one wrong bit makes another number of a number, and a damaged
/// store is not to be taken for one of another program, which nobody repairs.
fn format_of(text: &str) -> Option<u64> {
    let (first, rest) = text.split_once('\n')?;
    let number = first.strip_prefix(FORMAT_PREFIX)?.parse().ok()?;
    let once = rest.is_empty() && (1..=FORMATS_SAID_ONCE).contains(&number);
    (once || rest.strip_suffix('\n') == Some(first)).then_some(number)
}

/// The last step of making a store: without it, nothing was ever promised.
fn write_format(path: &Path) -> io::Result<()> {
    let unfinished = path.join("format.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    let line = format!("{FORMAT_PREFIX}{FORMAT}\n");
    file.write_all(line.repeat(2).as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path.join("format"))?;
    File::open(path)?.sync_all()
}

/// Makes an empty store beside its final place and moves it there: the engine cannot go on with a half-made one.
fn create(path: &Path, db: &Path) -> Result<(), OpenError> {
    let io = |error| OpenError::io(path, error);
    let unfinished = path.join(UNFINISHED);
    // Left by a start that was killed here; it never held anything.
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&unfinished).map_err(io)?;
    drop(open_engine(path, &unfinished)?);
    fs::rename(&unfinished, db).map_err(io)?;
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io)
}

/// What the engine would "repair" by dropping it must be found before the engine starts. The first commit that is in
/// a journal.
fn check_before(path: &Path, db: &Path, marked: bool, seen: Option<u64>) -> Result<Option<u64>, OpenError> {
    let io = |error| OpenError::io(path, error);
    let mut keyspaces = 0_usize;
    let folder = db.join("keyspaces");
    let entries = fs::read_dir(&folder)
        .map_err(|error| OpenError::damaged(path, format!("{}: {error}", folder.display())))?;
    for entry in entries {
        let keyspace = entry.map_err(io)?.path();
        if !manifest::is_whole(&keyspace).map_err(io)? {
            return Err(OpenError::damaged(
                path,
                format!("the index of {} cannot be read", keyspace.display()),
            ));
        }
        keyspaces += 1;
    }
    if keyspaces < 2 || !db.join("version").try_exists().map_err(io)? {
        return Err(OpenError::damaged(path, "a part of its directory `db` is missing"));
    }
    let (found, torn) = journal::look(db).map_err(io)?;
    let promised = seen.unwrap_or(0);
    let first = match found {
        Found::Hole(number) => {
            return Err(OpenError::damaged(path, format!("commit {number} is not what was written")));
        }
        Found::Commits(_, last) if last < promised => {
            return Err(OpenError::damaged(
                path,
                format!("{promised} commits were made, and only {last} can be read"),
            ));
        }
        Found::Unreadable if promised > salvage::newest_in_tables(db) => {
            return Err(OpenError::damaged(path, "its journal cannot be read"));
        }
        Found::Commits(..) if !marked => {
            return Err(OpenError::damaged(path, "its file `format` is missing"));
        }
        Found::Commits(first, _) => Some(first),
        Found::Nothing | Found::Unreadable => None,
    };
    // The engine cuts most of what is torn, and refuses the rest as damage: what has an end and no middle. Without a
    // witness nobody knows whether it was promised.
    if let Some(torn) = torn.filter(|_| seen.is_some()) {
        let cut = || {
            let file = OpenOptions::new().write(true).open(&torn.path)?;
            file.set_len(torn.at)?;
            file.sync_all()
        };
        cut().map_err(io)?;
    }
    Ok(first)
}

/// What the engine found must be what was promised. `first` is the first commit in its journals: the tables must reach
/// it.
fn check_after(
    path: &Path,
    shared: &Shared,
    marked: bool,
    seen: u64,
    first: Option<u64>,
) -> Result<u64, OpenError> {
    let commits = shared.newest_commit(path, SeqNo::MAX)?;
    let tables = shared.records.tree.get_highest_persisted_seqno();
    let in_tables = tables.map_or(Ok(0), |newest| shared.newest_commit(path, newest + 1))?;
    // A flush that ended just now may have taken that version away, for a newer one.
    let unmoved = tables == shared.records.tree.get_highest_persisted_seqno();
    if let Some(first) = first.filter(|first| unmoved && *first > in_tables + 1) {
        return Err(OpenError::damaged(
            path,
            format!("commits {} to {} cannot be read", in_tables + 1, first - 1),
        ));
    }
    if commits < seen {
        return Err(OpenError::damaged(
            path,
            format!("{seen} commits were made, and only {commits} are there"),
        ));
    }
    if commits > 0 && !marked {
        return Err(OpenError::damaged(path, "its file `format` is missing"));
    }
    Ok(commits)
}

fn open_engine(path: &Path, db: &Path) -> Result<(Database, Keyspace), OpenError> {
    let open = || {
        let engine = Database::builder(db)
            .cache_size(limits::CACHE_BYTES)
            .max_cached_files(Some(limits::OPEN_FILES))
            .max_journaling_size(limits::JOURNAL_BYTES)
            .worker_threads(limits::WORKER_THREADS)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(limits::MEMTABLE_BYTES);
        let records = engine.keyspace(KEYSPACE, options)?;
        Ok((engine, records))
    };
    // The engine panics on some of the damage that it meets while it opens.
    catch_unwind(AssertUnwindSafe(open))
        .map_err(|panic| OpenError::damaged(path, panic_text(&*panic)))?
        .map_err(|error| OpenError::engine(path, error))
}

fn decode(key: &[u8], value: &[u8]) -> Result<(), CorruptRecord> {
    match Key::decode(key)? {
        Key::Profile => Profile::decode(value).map(drop),
        Key::Counters => Counters::decode(value).map(drop),
        Key::Contact(_) => Contact::decode(value).map(drop),
        Key::Invite(_) => Invite::decode(value).map(drop),
        Key::Conversation(_) => Conversation::decode(value).map(drop),
        Key::Feed(_) => Feed::decode(value).map(drop),
        Key::Lived => Lived::decode(value).map(drop),
        Key::Entry { .. } => Entry::decode(value).map(drop),
        Key::Order(_) => Place::decode(Table::Order, value).map(drop),
        Key::Arrival(_) => Place::decode(Table::Arrival, value).map(drop),
        Key::Caller { .. } => Place::decode(Table::Caller, value).map(drop),
        Key::Shown { .. } => Shown::decode(value).map(drop),
        Key::Expiry { .. } => Place::decode(Table::Expiry, value).map(drop),
    }
}

/// Directories for the owner alone, and files too, whatever the umask was. The engine makes more files later: for
/// those, the directories are the wall.
fn protect(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            protect(&entry.path())?;
        } else if kind.is_file() {
            match fs::set_permissions(entry.path(), Permissions::from_mode(0o600)) {
                // The engine's thread may have replaced the file just now.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

const _: () = assert!(COMMIT_KEY.len() <= KEY_BYTES && COMMIT_KEY[0] == 0xff);
