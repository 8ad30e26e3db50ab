//! The core's reading side: a range of keys in, a page of raw records out.

use crate::error::ReadError;
use crate::open::Shared;
use crate::writer::OWN_TABLE;
use fjall::Readable;
use peerlink_core::api::{Answer, KeyRange, Loader, Page};
use peerlink_core::record::{CorruptRecord, KeyBytes};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Answers the loads of a node, from everything that was committed before each.
#[derive(Debug)]
pub struct PageReader {
    shared: Arc<Shared>,
}

impl PageReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn page(&self, range: &KeyRange) -> Result<Page, ReadError> {
        let mut page = Page { records: Vec::new(), complete: true };
        if range.first > range.last {
            return Ok(page);
        }
        let max_bytes = usize::try_from(range.max_bytes).unwrap_or(usize::MAX);
        let mut bytes = 0_usize;
        let bounds = range.first.as_slice()..=range.last.as_slice();
        for guard in self.shared.db.snapshot().range(&self.shared.records, bounds) {
            let (key, value) = guard.into_inner()?;
            if key.first() == Some(&OWN_TABLE) {
                break;
            }
            bytes = bytes.saturating_add(key.len()).saturating_add(value.len());
            if bytes > max_bytes && !page.records.is_empty() {
                page.complete = false;
                break;
            }
            let key = KeyBytes::from_slice(&key).map_err(|_| CorruptRecord::Key)?;
            page.records.push((key, value.into()));
        }
        Ok(page)
    }
}

impl Loader for PageReader {
    fn load(&mut self, range: &KeyRange) -> Answer {
        match catch_unwind(AssertUnwindSafe(|| self.page(range))) {
            Ok(Ok(page)) => Answer::Page(page),
            Ok(Err(_)) | Err(_) => Answer::Damaged,
        }
    }
}
