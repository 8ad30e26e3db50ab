//! The store of one profile on disk: an ordered map of bytes in an LSM tree (`fjall`), written by the core in
//! batches, read back by the core page by page, and read by front ends as messages.
//!
//! | in the directory | what it is |
//! |---|---|
//! | `lock` | locked by the one process that holds the store |
//! | `format` | the format of the whole store, as text; read before anything else is touched |
//! | `witness` | how many commits were ever promised; a store that holds fewer has lost some |
//! | `db/` | the engine's own: journals, tables |
//!
//! [`open()`] gives an [`Opened`] store: [`Opened::restore`] streams what a node starts from, [`Opened::split`] hands
//! out the [`Writer`] (for the thread that commits), the [`PageReader`] (for the thread that answers the core's loads)
//! and the [`Reader`] (for as many front ends as there are). The lock is held until the last of them is dropped.
//!
//! A commit returns only after `fdatasync` did. A failed one ends the writer: what is on disk is then unknown until the
//! next [`open()`], which finds either all of it or nothing. Nothing is ever deleted or truncated to open a store that
//! is not what was promised; `open` says what it found instead, and [`repair()`] is the way on from there.
#![forbid(unsafe_code)]

mod error;
mod heads;
mod journal;
pub mod limits;
mod manifest;
mod mend;
mod message;
mod open;
mod pages;
mod reader;
mod repair;
mod salvage;
mod witness;
mod writer;

pub use error::{OpenError, ReadError};
pub use message::{ContactInfo, Counts, Gap, Message, State};
pub use open::{Opened, open};
pub use pages::PageReader;
pub use reader::Reader;
pub use repair::{Repaired, check, repair};
pub use writer::Writer;
