//! What can go wrong with a store, sorted by what a person can do about it.

use peerlink_core::record::CorruptRecord;
use std::io;
use std::path::{Path, PathBuf};

/// Why a store could not be opened. Nothing was deleted, truncated or repaired before any of these.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the store, or this one does.
    #[error(
        "the store {} is in use by another process. Only one process at a time can hold a profile: \
         use that one, or end it and try again",
        .path.display()
    )]
    InUse { path: PathBuf },
    /// A newer program wrote it.
    #[error(
        "the store {} has format {found}, and this program knows only format {known}. \
         Use the newer program that wrote it; nothing was changed",
        .path.display()
    )]
    Newer { path: PathBuf, found: u64, known: u8 },
    /// A program from before 1.0 wrote it, in a format that changed since.
    #[error(
        "the store {} has format {found} of an earlier program, and this program knows only format {known}: before 1.0 \
         formats may change. Use the program that wrote it, or begin with a new profile; nothing was changed",
        .path.display()
    )]
    Older { path: PathBuf, found: u64, known: u8 },
    /// Something in it is not what was written.
    #[error(
        "the store {} is damaged: {detail}. Nothing was changed",
        .path.display()
    )]
    Damaged { path: PathBuf, detail: String },
    /// The directory or the file system does not let us write.
    #[error(
        "the store {} cannot be written: {source}. Make the directory and what is in it writable \
         for this user, on a file system that is not mounted read-only",
        .path.display()
    )]
    Unwritable { path: PathBuf, source: io::Error },
    /// No space is left.
    #[error("the disk that holds the store {} is full: {source}. Free some space and try again", .path.display())]
    Full { path: PathBuf, source: io::Error },
    /// The operating system failed otherwise.
    #[error("the store {} cannot be read: {source}. Check the disk, then try again", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl OpenError {
    pub(crate) fn damaged(path: &Path, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), detail: detail.into() }
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Unwritable { path, source }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { path, source }
            }
            _ => Self::Io { path, source },
        }
    }

    /// The engine's own error while it opened `path`.
    pub(crate) fn engine(path: &Path, error: fjall::Error) -> Self {
        match error {
            fjall::Error::Locked => Self::InUse { path: path.to_owned() },
            fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => {
                match source.kind() {
                    // The engine reports what it cannot parse, and files that are not there, this way too.
                    io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidData
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::NotFound
                    | io::ErrorKind::Other => Self::damaged(path, source.to_string()),
                    _ => Self::io(path, source),
                }
            }
            other => Self::damaged(path, format!("{other:?}")),
        }
    }

    pub(crate) fn read(path: &Path, error: ReadError) -> Self {
        match error {
            ReadError::Record(error) => Self::record(path, error),
            ReadError::Engine(detail) => Self::damaged(path, detail),
        }
    }

    pub(crate) fn record(path: &Path, error: CorruptRecord) -> Self {
        match error {
            CorruptRecord::Newer { found, .. } => Self::Newer {
                path: path.to_owned(),
                found: u64::from(found),
                known: peerlink_core::record::FORMAT,
            },
            other => Self::damaged(path, other.to_string()),
        }
    }
}

/// Why something stored could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("the store is damaged: {0}")]
    Record(#[from] CorruptRecord),
    #[error("the store cannot be read: {0}")]
    Engine(String),
}

impl From<fjall::Error> for ReadError {
    fn from(error: fjall::Error) -> Self {
        Self::Engine(describe(&error))
    }
}

/// One line about an error of the engine, which has no text form of its own.
pub(crate) fn describe(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => source.to_string(),
        other => format!("{other:?}"),
    }
}

/// What a panic inside the engine said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the engine stopped: {}", text.unwrap_or("no reason given"))
}
