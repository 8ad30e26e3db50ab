//! The way on from a store that [`open()`](crate::open()) refuses: it is kept aside, whole, and a new one in its place
//! holds what could still be read of it.

use crate::error::{OpenError, panic_text};
use crate::manifest;
use crate::mend::{Loss, mend};
use crate::open::{DB, lock, open, read_format};
use crate::salvage::{self, Into};
use crate::witness::Witness;
use crate::writer::Writer;
use peerlink_core::api::Store as _;
use peerlink_core::ids::PeerId;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// What came of a repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// Contacts and messages that were found.
    pub contacts: usize,
    pub entries: u64,
    /// Messages that were promised and are not among them, as far as what was found tells.
    pub missing: u64,
    /// Commits whose numbers show that they are lost, with whatever was in them.
    pub lost_commits: u64,
    /// What could not be read, in words.
    pub unreadable: Vec<String>,
}

/// Reads all of the store in `path`, as [`open()`](crate::open()) does not.
///
/// # Errors
/// [`OpenError`]: why it cannot be opened, or that a part of it cannot be read.
pub fn check(path: &Path) -> Result<(), OpenError> {
    let opened = open(path)?;
    opened.check_heads()?;
    opened.read_all()
}

/// Makes a new store of what can be read of the one in `path`, which is that of `me`. The damaged one becomes `aside`,
/// unchanged. Both change places in one step, at the end; until then the store is as it was.
///
/// The new one is an older state for the protocol. A node that starts from it draws a new epoch.
///
/// # Errors
/// [`OpenError`]: the store is in use, of another format, or a new one cannot be written.
pub fn repair(path: &Path, aside: &Path, me: PeerId) -> Result<Repaired, OpenError> {
    let _lock = lock(path)?;
    match read_format(path) {
        Ok(_) | Err(OpenError::Damaged { .. }) => {}
        Err(error) => return Err(error),
    }
    let io = |error| OpenError::io(path, error);
    let work = path.with_extension("repair");
    // Left by a repair that was killed; all in it was a copy.
    match fs::remove_dir_all(&work) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let new = work.join("store");
    DirBuilder::new().recursive(true).mode(0o700).create(&work).map_err(io)?;
    let repaired = catch_unwind(AssertUnwindSafe(|| make(path, &new, me)))
        .unwrap_or_else(|panic| Err(OpenError::damaged(&new, panic_text(&*panic))))?;
    // The new store under the name of the old one, which for an instant is the wrong one, and then both at once: a
    // kill in between leaves the old one where it was.
    let exchange = || -> io::Result<()> {
        fs::rename(&new, aside)?;
        renameat_with(CWD, aside, CWD, path, RenameFlags::EXCHANGE)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    exchange().map_err(io)?;
    // What stays of it is in nobody's way.
    let _copies = fs::remove_dir_all(&work);
    Ok(repaired)
}

fn make(path: &Path, new: &Path, me: PeerId) -> Result<Repaired, OpenError> {
    let opened = open(new)?;
    let shared = opened.shared();
    let mut writer = Writer::new(shared.clone(), 0);
    let mut into = Into::new(new, &mut writer);
    let read = salvage::read(&path.join(DB), &mut into)?;
    let lost_commits = Witness::read(&path.join("witness")).unwrap_or(0).saturating_sub(read.newest);
    let known = !read.unreadable.is_empty() || lost_commits > 0;
    // A table that is not there leaves no other trace than that nothing else is wrong.
    let explained = known || !matches!(read_format(path), Ok(true)) || !lists_are_whole(&path.join(DB));
    let anywhere = read.journals_damaged || lost_commits > 0 || !explained;
    let loss = Loss { any: known || !explained, anywhere, gaps: read.gaps };
    let mended = mend(&shared, &mut into, me, &loss)?;
    writer.close();
    drop((writer, shared, opened));
    check(new)?;
    let (contacts, entries, missing) = (mended.contacts, mended.entries, mended.missing);
    Ok(Repaired { contacts, entries, missing, lost_commits, unreadable: read.unreadable })
}

fn lists_are_whole(db: &Path) -> bool {
    ["0", "1"].iter().all(|keyspace| {
        manifest::is_whole(&db.join("keyspaces").join(keyspace)).is_ok_and(|is_whole| is_whole)
    })
}
