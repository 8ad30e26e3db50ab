//! Two nodes that converse, and a third who is a contact of both, has good keys, and says anything at all.

use super::Draw;
use super::story::pair::{ALICE, BOB, Pair};
use super::story::{frames, heal, send};
use crate::speaker::{Speaker, record, take_record};
use peerlink_core::api::{Command, Event, Input};
use peerlink_core::ids::{PeerId, StreamId};
use peerlink_core::record::{Conversation, Key, Kind, Record as _};
use peerlink_core::time::Duration;

/// Seed of the third. Those of the two are 1 and 2.
const THIRD: u8 = 50;
const STEPS: usize = 64;

struct Third {
    sessions: [Option<(StreamId, Speaker)>; 2],
    tickets: [[u8; 16]; 2],
}

/// Whatever the third says to either: the two blame each other for nothing, everything that they said arrives once, and
/// nothing of what the third said is part of it.
pub fn third(data: &[u8]) {
    let mut draw = Draw(data);
    let mut pair = Pair::met();
    let tickets = [ALICE, BOB].map(|side| {
        let number = 50 + u8::try_from(side).unwrap_or_default();
        pair.ticket(side, number).secret.0
    });
    pair.settle();
    let mut third = Third { sessions: [None, None], tickets };
    let mut sent: [Vec<Command>; 2] = Default::default();
    for side in [ALICE, BOB] {
        third.connect(&mut pair, side, true);
        assert!(third.sessions[side].is_some(), "who was invited comes in");
    }
    for step in 0..STEPS {
        if draw.is_over() {
            break;
        }
        let what = draw.byte();
        let side = usize::from(what >> 7);
        match what % 10 {
            0..=2 => send(&mut pair, &mut sent[side], &mut draw, side, step),
            3..=6 => third.speak(&mut pair, &mut draw, side),
            7 => {
                let invited = draw.one_in(2);
                third.connect(&mut pair, side, invited);
            }
            8 => {
                pair.crash(side);
                pair.start(side);
            }
            _ => {
                pair.now += Duration::from_millis(u64::from(draw.byte()) * 100);
                pair.handle(ALICE, Input::Tick);
                pair.handle(BOB, Input::Tick);
            }
        }
        if draw.one_in(2) {
            pair.settle();
        }
    }
    heal(&mut pair, &sent);
    for side in [ALICE, BOB] {
        alone_in_his_conversation(&pair, side, &Speaker::peer(THIRD));
    }
}

/// What came from the third is counted in his conversation, and nothing else is.
fn alone_in_his_conversation(pair: &Pair, side: usize, third: &PeerId) {
    let received =
        |event: &Event| matches!(event, Event::Received { peer, kind: Kind::Text, .. } if peer == third);
    let shown = pair.count(side, received);
    let contact = pair.sides[side].disk.get(&Key::Contact(*third).encode());
    let conversations = pair.sides[side].disk.iter().filter_map(|(key, value)| {
        let conversation = matches!(Key::decode(key), Ok(Key::Conversation(_)));
        conversation.then(|| Conversation::decode(value).expect("the node's own"))
    });
    let counted: u64 =
        conversations.filter(|conversation| conversation.peer == *third).map(|one| one.received).sum();
    // What was not yet shown when a node crashed is shown to whoever reads the store.
    assert!(shown as u64 <= counted, "{shown} shown, {counted} counted");
    assert!(contact.is_some(), "who came in is a contact");
}

impl Third {
    /// A session of his, if he gets one. `invited`: he presents his ticket.
    fn connect(&mut self, pair: &mut Pair, side: usize, invited: bool) {
        let peer = pair.peer(side);
        let mut speaker = Speaker::new(THIRD, &peer);
        let stream = pair.accept_stray(side);
        pair.say(side, stream, &record(&speaker.first(&peer)));
        pair.settle();
        let Some(second) = pair.strays.get_mut(&(side, stream)).and_then(take_record) else { return };
        let secret = if invited { [&[1], &self.tickets[side][..]].concat() } else { vec![0] };
        let payload = [speaker.introduction(false), vec![0], secret, vec![0]].concat();
        let Some(third) = speaker.third(&second, &payload) else { return };
        pair.say(side, stream, &record(&third));
        pair.settle();
        self.sessions[side] = Some((stream, speaker));
    }

    fn speak(&mut self, pair: &mut Pair, draw: &mut Draw<'_>, side: usize) {
        let frames = frames(&pair.sides[side].disk, draw);
        let Some((stream, speaker)) = &mut self.sessions[side] else { return };
        if pair.strays.contains_key(&(side, *stream)) {
            pair.say(side, *stream, &speaker.say(&frames));
        }
    }
}
