//! What front ends read.

mod support;

use bytes::Bytes;
use peerlink_core::api::Store;
use peerlink_core::bounded::List;
use peerlink_core::ids::{ConversationNo, FeedNo, MessageRef};
use peerlink_core::record::{Conversation, Key, OrderKey, Record};
use peerlink_storage::{Counts, Message, Reader, State};
use support::{
    CONVERSATION, MINE, PEERS, batch, caller, conversation, entry, epoch, feed, open, order, peer, range,
};

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8(message.body.to_vec()).unwrap()).collect()
}

#[test]
fn pages_go_back_and_forth_through_a_conversation_without_loss_or_repetition() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _pages, reader) = open(dir.path());
    writer.commit(&[conversation(25)]).unwrap();
    let all = reader.latest(CONVERSATION, usize::MAX).unwrap();
    let want: Vec<String> = (1..=25).flat_map(|n| [format!("mine {n}"), format!("theirs {n}")]).collect();
    assert_eq!(texts(&all), want);
    assert!(all.iter().all(|message| message.peer == peer(2)));

    assert_eq!(reader.latest(CONVERSATION, 7).unwrap(), all[43..]);
    assert_eq!(reader.latest(CONVERSATION, 0).unwrap(), []);
    assert_eq!(reader.latest(ConversationNo(9), 7).unwrap(), []);

    let mut back = reader.latest(CONVERSATION, 7).unwrap();
    while let Some(first) = back.first() {
        let page = reader.before(first.order, 7).unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 7);
        back.splice(0..0, page);
    }
    assert_eq!(back, all);

    let mut forth = reader.after(OrderKey::first(CONVERSATION), 7).unwrap();
    loop {
        let page = reader.after(forth.last().unwrap().order, 7).unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 7);
        forth.extend(page);
    }
    assert_eq!(forth, all);

    // A place where nothing stands is as good as any.
    let between = OrderKey { seq: 999, ..order(true, 9, 5) };
    assert_eq!(reader.before(between, 3).unwrap(), all[6..9]);
    assert_eq!(reader.after(between, 3).unwrap(), all[9..12]);
    assert_eq!(reader.before(OrderKey::first(CONVERSATION), 3).unwrap(), []);
    assert_eq!(reader.after(OrderKey::last(CONVERSATION), 3).unwrap(), []);
}

#[test]
fn arrivals_resume_after_a_number() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _pages, reader) = open(dir.path());
    writer.commit(&[conversation(12)]).unwrap();
    let found = reader.arrivals(0, 100).unwrap();
    assert_eq!(texts(&found), (1..=12).map(|n| format!("theirs {n}")).collect::<Vec<_>>());
    assert_eq!(found.iter().map(|message| message.arrival).collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
    assert_eq!(reader.arrivals(4, 3).unwrap(), found[4..7]);
    assert_eq!(reader.arrivals(12, 3).unwrap(), []);
    assert_eq!(reader.arrivals(u64::MAX, 3).unwrap(), []);
    assert_eq!(found[3].order, order(false, 8, 4));
}

#[test]
fn a_message_is_found_by_what_its_caller_and_what_both_sides_call_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _pages, reader) = open(dir.path());
    writer.commit(&[conversation(3)]).unwrap();
    let found = reader.by_caller(CONVERSATION, caller(2)).unwrap().unwrap();
    assert_eq!(texts(std::slice::from_ref(&found)), ["mine 2"]);
    assert_eq!(found.message, MessageRef { epoch: epoch(true), seq: 2 });
    assert_eq!(reader.message(CONVERSATION, found.message).unwrap(), Some(found));
    assert_eq!(reader.by_caller(CONVERSATION, caller(4)).unwrap(), None);
    assert_eq!(reader.by_caller(ConversationNo(2), caller(2)).unwrap(), None);
    assert_eq!(reader.message(CONVERSATION, MessageRef { epoch: epoch(true), seq: 4 }).unwrap(), None);
    let theirs = reader.message(CONVERSATION, MessageRef { epoch: epoch(false), seq: 1 }).unwrap().unwrap();
    assert_eq!((theirs.state, theirs.mine, theirs.arrival), (State::Received, false, 1));
}

fn states(reader: &Reader) -> Vec<State> {
    let all = reader.latest(CONVERSATION, 100).unwrap();
    all.into_iter().filter(|message| message.mine).map(|message| message.state).collect()
}

#[test]
fn states_counts_and_gaps_follow_the_cursors() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _pages, reader) = open(dir.path());
    writer.commit(&[conversation(4)]).unwrap();
    assert_eq!(states(&reader), [State::Queued; 4]);
    let counts = Counts { sent: 4, queued: 4, received: 4, unread: 4, missing: 0 };
    assert_eq!(reader.counts(CONVERSATION).unwrap(), counts);

    let mut mine = feed(true, 4);
    mine.acked = 1;
    mine.acked_beyond = List::of([range(3, 3)]);
    let mut theirs = feed(false, 4);
    theirs.beyond = List::of([range(7, 7)]);
    let read = Conversation { peer: peer(2), received: 5, read: 3, erase: None };
    let mut writes = vec![
        (Key::Feed(FeedNo(MINE)).encode(), Some(mine.encode())),
        (Key::Feed(FeedNo(PEERS)).encode(), Some(theirs.encode())),
        (Key::Conversation(CONVERSATION).encode(), Some(read.encode())),
    ];
    writes.extend(entry(false, 7, 20, 5));
    writer.commit(&[batch(2, writes)]).unwrap();

    assert_eq!(states(&reader), [State::Delivered, State::Queued, State::Delivered, State::Queued]);
    let counts = Counts { sent: 4, queued: 2, received: 5, unread: 2, missing: 2 };
    assert_eq!(reader.counts(CONVERSATION).unwrap(), counts);
    let info = reader.contact(peer(2)).unwrap().unwrap();
    assert_eq!((info.counts, info.contact.petname.as_str()), (counts, "Bob"));
    assert_eq!(reader.contacts().unwrap(), [info]);
    assert_eq!(reader.contact(peer(3)).unwrap(), None);

    let gaps = reader.gaps(CONVERSATION).unwrap();
    assert_eq!(gaps.iter().map(|gap| (gap.first, gap.last)).collect::<Vec<_>>(), [(5, 6)]);
    let last = reader.latest(CONVERSATION, 1).unwrap().remove(0);
    assert_eq!((last.message, last.missing_before), (gaps[0].before(), 2));
    let others: u64 =
        reader.before(last.order, 100).unwrap().iter().map(|message| message.missing_before).sum();
    assert_eq!(others, 0);
}

#[test]
fn an_index_that_points_nowhere_is_an_error_and_not_a_shorter_list() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _pages, reader) = open(dir.path());
    writer.commit(&[conversation(3)]).unwrap();
    writer.commit(&[batch(2, vec![(support::entry_key(PEERS, 2), None)])]).unwrap();
    assert!(reader.latest(CONVERSATION, 10).is_err());
    assert!(reader.arrivals(0, 10).is_err());
    assert_eq!(reader.latest(CONVERSATION, 2).unwrap().len(), 2);
    let garbage = (Key::Contact(peer(2)).encode(), Some(Bytes::from_static(b"\x01\x00garbage")));
    writer.commit(&[batch(3, vec![garbage])]).unwrap();
    assert!(reader.contacts().is_err());
}
