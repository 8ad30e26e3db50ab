//! The self-check: do heads and cursors, as stored, agree with the entries that are there?
//!
//! A batch holds entries together with the heads and counters that they move, and is there whole or not at all. So
//! where the two disagree, a part of the engine's files is gone or older than the rest. Only the ends are looked at,
//! one entry for each run that a feed holds: what it costs depends on how many feeds there are, not on how long.

use crate::error::ReadError;
use crate::limits::CHECKED_FEEDS;
use crate::open::Shared;
use crate::reader::View;
use peerlink_core::ids::{EntryHash, FeedNo};
use peerlink_core::record::{CorruptRecord, Counters, Entry, Feed, Key, Place, Record as _, Table};

/// Looks at every feed's newest entry and at the newest arrival.
pub(crate) fn check(shared: &Shared) -> Result<(), ReadError> {
    let view = View::new(shared);
    let mut feeds = Vec::new();
    view.newest(Table::Feed, CHECKED_FEEDS, |key, value| {
        let Key::Feed(no) = key else { return Err(CorruptRecord::Key.into()) };
        feeds.push((no, Feed::decode(value)?));
        Ok(())
    })?;
    for (no, feed) in feeds {
        check_feed(&view, no, &feed)?;
    }
    check_arrivals(&view)
}

fn check_feed(view: &View<'_>, no: FeedNo, feed: &Feed) -> Result<(), ReadError> {
    // What was delivered may have been deleted since, up to the last.
    let may_be_deleted = feed.mine && feed.acked >= feed.head;
    if feed.head > 0 && !may_be_deleted {
        expect(view, no, feed.head, feed.hash)?;
    }
    let mut end = feed.head;
    for range in feed.beyond.iter() {
        expect(view, no, range.last, range.hash)?;
        end = end.max(range.last);
    }
    let Some(next) = end.checked_add(1) else { return Ok(()) };
    if view.any(&Key::Entry { feed: no, seq: next }, &Key::Entry { feed: no, seq: u64::MAX })? {
        return Err(dangling("an entry that no head knows"));
    }
    Ok(())
}

fn expect(view: &View<'_>, feed: FeedNo, seq: u64, hash: EntryHash) -> Result<(), ReadError> {
    let entry: Option<Entry> = view.record(&Key::Entry { feed, seq })?;
    match entry {
        Some(entry) if entry.hash == hash => Ok(()),
        Some(_) => Err(dangling("a head whose entry is another one")),
        None => Err(dangling("a head whose entry")),
    }
}

fn check_arrivals(view: &View<'_>) -> Result<(), ReadError> {
    let counted = view.record::<Counters>(&Key::Counters)?.unwrap_or_default().arrival;
    view.newest(Table::Arrival, 1, |key, value| {
        let Key::Arrival(number) = key else { return Err(CorruptRecord::Key.into()) };
        if number > counted {
            return Err(dangling("an arrival that was not counted"));
        }
        let Place { feed, seq } = Place::decode(Table::Arrival, value)?;
        let entry: Option<Entry> = view.record(&Key::Entry { feed, seq })?;
        if entry.is_none_or(|entry| entry.arrival != number) {
            return Err(dangling("the entry that came last"));
        }
        Ok(())
    })
}

fn dangling(what: &'static str) -> ReadError {
    CorruptRecord::Dangling(what).into()
}
