//! What a hostile contact does.

use super::{Hostile, Stage, forge, some};
use crate::fate::{Dice, Fates, Purpose};
use crate::limits::{FLOOD_FRAMES, FLOOD_RECORDS, HOSTILE_DIALS, HOSTILE_ENTRIES};
use crate::op::Mischief;
use forge::Position;
use peerlink_core::api::Output;
use peerlink_core::bounded::List;
use peerlink_core::ids::{EntryHash, Epoch, StreamId, Tag};
use peerlink_core::limits::{BODY_BYTES, LAMPORT_LIMIT, RANGES};
use peerlink_core::wire::entry::{Author, Body, Chunk, Gone, Item};
use peerlink_core::wire::frame::{CloseReason, Frame, Have, HaveFeed, HaveRange};

/// Draws for one deed.
struct Choice(Dice);

impl Choice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.below(Purpose::Attack, 0, bound)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        some(&mut self.0)
    }

    /// A number of an entry that means something, or is far off.
    fn number(&mut self, near: u64) -> u64 {
        match self.below(5) {
            0 => near.saturating_sub(self.below(3)),
            1 => near.saturating_add(1 + self.below(3)),
            2 => near.saturating_add(self.below(1 << 20)),
            3 => u64::MAX - self.below(2),
            _ => self.below(near.saturating_add(2)),
        }
    }
}

impl Hostile {
    pub(super) fn perform(&mut self, stream: StreamId, index: usize, deed: Mischief, salt: u64) {
        let mut choice = Choice(Dice::new(Fates::new(salt)));
        match deed {
            Mischief::Write => self.write(stream, index, &mut choice),
            Mischief::Fork => self.fork(stream, index, &mut choice),
            Mischief::BreakChain => self.break_chain(stream, index, &mut choice),
            Mischief::ClaimWrongHash => self.claim(stream, index, &mut choice, true),
            Mischief::ClaimTooMuch => self.claim(stream, index, &mut choice, false),
            Mischief::Epochs => self.epochs(stream, index, &mut choice),
            Mischief::Flood => self.flood(stream, index, &mut choice),
            Mischief::Holes => self.holes(stream, index, &mut choice),
            Mischief::Times => self.times(stream, index, &mut choice),
            Mischief::Noise => self.noise(stream, &mut choice),
            Mischief::Chunks => self.chunks(stream, index, &mut choice),
            Mischief::Knock => self.knock(index, &mut choice),
            Mischief::Pose => self.introduce_as_another(index, &mut choice),
            Mischief::GiveBack => self.give_back(stream, index, &mut choice),
            Mischief::Leave => self.leave(stream, &mut choice),
        }
    }

    fn entry(&mut self, index: usize, choice: &mut Choice, text: &[u8]) -> (Vec<u8>, EntryHash) {
        let victim = &self.victims[index];
        let item = forge::item(victim.lamport + 1, choice.bytes(), Body::Inline(text));
        let (seq, prev) = (victim.next, victim.prev);
        let position = Position {
            conversation: &victim.conversation,
            author: &self.peer,
            epoch: &victim.epoch,
            seq,
            prev,
        };
        let hash = forge::entry_hash(position, &item);
        (forge::run(Author::Sender, victim.epoch, seq, prev, &[item]), hash)
    }

    /// Messages as good as any.
    fn write(&mut self, stream: StreamId, index: usize, choice: &mut Choice) {
        for _ in 0..=choice.below(HOSTILE_ENTRIES) {
            let text = vec![b'x'; 1 + choice.below(2000) as usize];
            let (run, hash) = self.entry(index, choice, &text);
            self.say(stream, &run);
            let victim = &mut self.victims[index];
            (victim.next, victim.prev, victim.lamport) = (victim.next + 1, hash, victim.lamport + 1);
        }
    }

    /// Another entry under a number that was used, or two at once under the next.
    fn fork(&mut self, stream: StreamId, index: usize, choice: &mut Choice) {
        let (one, _) = self.entry(index, choice, b"one");
        let (other, _) = self.entry(index, choice, b"other");
        self.say(stream, &[one, other].concat());
        self.write(stream, index, choice);
        let victim = &self.victims[index];
        let (epoch, seq) = (victim.epoch, 1 + choice.below(victim.next));
        let items: Vec<Item<'_>> = (0..1 + choice.below(4))
            .map(|n| forge::item(victim.lamport + n, choice.bytes(), Body::Inline(b"instead")))
            .collect();
        let run = forge::run(Author::Sender, epoch, seq, victim.prev, &items);
        self.say(stream, &run);
    }

    fn break_chain(&mut self, stream: StreamId, index: usize, choice: &mut Choice) {
        let victim = &self.victims[index];
        let item = forge::item(victim.lamport + 1, choice.bytes(), Body::Inline(b"torn off"));
        let seq = choice.number(victim.next);
        let run = forge::run(Author::Sender, victim.epoch, seq, EntryHash(choice.bytes()), &[item]);
        self.say(stream, &run);
    }

    /// Claims to have what it was never sent: under a wrong hash, or under a number that nobody wrote.
    fn claim(&mut self, stream: StreamId, index: usize, choice: &mut Choice, real: bool) {
        let victim = &mut self.victims[index];
        let epoch = victim.heard.keys().next().copied().unwrap_or(Epoch(choice.bytes()));
        let sent = victim.heard.get(&epoch).map_or(0, Vec::len) as u64;
        let upto =
            if real { 1 + choice.below(sent.max(1)) } else { sent + 1 + choice.number(sent) % (1 << 40) };
        let hash = EntryHash(choice.bytes());
        let range = |choice: &mut Choice| {
            let (first, last) = (choice.number(sent), choice.number(sent));
            HaveRange { first, last, hash: EntryHash(choice.bytes()) }
        };
        let beyond = List::of((0..choice.below(RANGES as u64)).map(|_| range(choice)));
        victim.version += 1;
        let feed = HaveFeed { author: Author::Receiver, epoch, upto, hash, beyond, gone: List::new() };
        let have = Have {
            holder: victim.epoch,
            version: if choice.below(4) == 0 { u64::MAX } else { victim.version },
            credit: [0, 1, u32::MAX][choice.below(3) as usize],
            feeds: List::of([feed]),
            closed: List::new(),
        };
        self.say(stream, &forge::frame(&Frame::Have(have)));
    }

    fn epochs(&mut self, stream: StreamId, index: usize, choice: &mut Choice) {
        for _ in 0..=choice.below(HOSTILE_ENTRIES) {
            let lamport = self.victims[index].lamport + 1;
            let item = forge::item(lamport, choice.bytes(), Body::Inline(b"once more"));
            let run = forge::run(Author::Sender, Epoch(choice.bytes()), 1, EntryHash::NONE, &[item]);
            self.say(stream, &run);
        }
    }

    /// Many frames that each want an answer.
    fn flood(&mut self, stream: StreamId, index: usize, choice: &mut Choice) {
        let (same, _) = self.entry(index, choice, b"again and again");
        for _ in 0..=choice.below(FLOOD_RECORDS) {
            let version = &mut self.victims[index].version;
            let mut frames = Vec::new();
            for _ in 0..=choice.below(FLOOD_FRAMES) {
                *version += 1;
                match choice.below(3) {
                    0 => frames.extend(forge::frame(&Frame::Ping(*version))),
                    1 => frames.extend(forge::have(Epoch(choice.bytes()), *version, 1 << 19, Vec::new())),
                    _ => frames.extend_from_slice(&same),
                }
            }
            self.say(stream, &frames);
        }
    }

    /// Numbers with more gaps between them than anybody keeps.
    fn holes(&mut self, stream: StreamId, index: usize, choice: &mut Choice) {
        for _ in 0..=choice.below(HOSTILE_ENTRIES) {
            let victim = &self.victims[index];
            let item = forge::item(victim.lamport + 1, choice.bytes(), Body::Inline(b"somewhere"));
            let near = victim.next + 2 * choice.below(30);
            let seq = choice.number(near);
            let run = forge::run(Author::Sender, victim.epoch, seq, EntryHash(choice.bytes()), &[item]);
            self.say(stream, &run);
        }
    }

    fn times(&mut self, stream: StreamId, index: usize, choice: &mut Choice) {
        let lamport = [0, 1, LAMPORT_LIMIT, LAMPORT_LIMIT + 1, u64::MAX][choice.below(5) as usize];
        let item = forge::item(lamport, choice.bytes(), Body::Inline(b"when"));
        let epoch = if choice.below(2) == 0 { Epoch(choice.bytes()) } else { self.victims[index].epoch };
        let (seq, prev) = if epoch == self.victims[index].epoch {
            (self.victims[index].next, self.victims[index].prev)
        } else {
            (1, EntryHash::NONE)
        };
        self.say(stream, &forge::run(Author::Sender, epoch, seq, prev, &[item]));
    }

    /// Frames that are none, sealed well.
    fn noise(&mut self, stream: StreamId, choice: &mut Choice) {
        let bytes: [u8; 96] = choice.bytes();
        let mut frames =
            vec![[0x02, 0x04, 0x06, 0x08, 0x0a, 0x0c, 0x10, 0x3e, 0x3f][choice.below(9) as usize]];
        frames.extend_from_slice(&bytes[..1 + choice.below(95) as usize]);
        self.say(stream, &frames);
    }

    /// Bodies that are announced and do not come, or come otherwise.
    fn chunks(&mut self, stream: StreamId, index: usize, choice: &mut Choice) {
        for _ in 0..=choice.below(6) {
            let victim = &self.victims[index];
            let (epoch, seq, prev) = (victim.epoch, victim.next, victim.prev);
            let len = [1, 1000, BODY_BYTES as u32, BODY_BYTES as u32 + 1, u32::MAX][choice.below(5) as usize];
            let body = Body::Chunked { len, hash: EntryHash(choice.bytes()) };
            let announced = forge::item(victim.lamport + 1, choice.bytes(), body);
            let mut frames = forge::run(Author::Sender, epoch, seq, prev, &[announced]);
            let bytes = vec![b'c'; 1 + choice.below(9000) as usize];
            let offset = [0, 1, u32::MAX][choice.below(3) as usize];
            frames.extend(forge::frame(&Frame::Chunk(Chunk {
                author: Author::Sender,
                epoch,
                seq,
                offset,
                bytes: &bytes,
            })));
            self.say(stream, &frames);
        }
    }

    /// Bytes of any kind, or none, on the port.
    fn knock(&mut self, index: usize, choice: &mut Choice) {
        for _ in 0..=choice.below(HOSTILE_DIALS) {
            let bytes: [u8; 64] = choice.bytes();
            let garbage = match choice.below(4) {
                0 => vec![0],
                1 => [&[0, 49, 1][..], &bytes[..48]].concat(),
                2 => [&[0xff, 0xff][..], &bytes[..]].concat(),
                _ => bytes.to_vec(),
            };
            self.dial(index, None, Some(garbage));
        }
    }

    /// Comes as another of the victim's contacts.
    fn introduce_as_another(&mut self, index: usize, choice: &mut Choice) {
        let others: Vec<_> =
            self.victims.iter().filter(|other| other.peer != self.victims[index].peer).collect();
        if let Some(other) = others.get(choice.below(others.len() as u64) as usize) {
            let posing = other.peer;
            self.dial(index, Some(posing), None);
        }
    }

    /// What it says in the name of another, in case somebody listens.
    pub(super) fn pose(&mut self, stream: StreamId, index: usize) {
        let caller = some(&mut self.dice);
        let item = forge::item(self.victims[index].lamport + 1, caller, Body::Inline(b"it is me"));
        let run = forge::run(Author::Sender, Epoch(some(&mut self.dice)), 1, EntryHash::NONE, &[item]);
        self.say(stream, &run);
    }

    /// Claims to give the victim back what it never wrote.
    fn give_back(&mut self, stream: StreamId, index: usize, choice: &mut Choice) {
        let victim = &self.victims[index];
        let heard = victim.heard.iter().next().map(|(epoch, hashes)| (*epoch, hashes.clone()));
        let (epoch, hashes) = heard.unwrap_or((Epoch(choice.bytes()), Vec::new()));
        let epoch = if choice.below(3) == 0 { Epoch(choice.bytes()) } else { epoch };
        let seq = choice.number(hashes.len() as u64);
        let at = usize::try_from(seq).unwrap_or(usize::MAX).wrapping_sub(2);
        let prev = hashes.get(at).copied().unwrap_or(EntryHash(choice.bytes()));
        let mut item = forge::item(victim.lamport + 1, choice.bytes(), Body::Inline(b"you said so"));
        item.tag = Tag(choice.bytes());
        let mut frames = forge::run(Author::Receiver, epoch, seq, prev, &[item]);
        let (first, last) = (choice.number(seq), choice.number(seq));
        let author = if choice.below(2) == 0 { Author::Sender } else { Author::Receiver };
        frames.extend(forge::frame(&Frame::Gone(Gone {
            author,
            epoch,
            first,
            last,
            hash: prev,
            lamport: last,
        })));
        self.say(stream, &frames);
    }

    /// Ends the session: with any reason, or with none.
    fn leave(&mut self, stream: StreamId, choice: &mut Choice) {
        let reasons = [
            CloseReason::Goodbye,
            CloseReason::Replaced,
            CloseReason::Stranger,
            CloseReason::TicketUnknown,
            CloseReason::TicketExpired,
            CloseReason::TicketSpent,
            CloseReason::Full,
            CloseReason::Misbehaved,
            CloseReason::Unsupported,
        ];
        let reason = reasons.get(choice.below(reasons.len() as u64 + 1) as usize);
        if let Some(reason) = reason {
            self.say(stream, &forge::frame(&Frame::Close(*reason)));
            if let Some(talk) = self.talks.get_mut(&stream) {
                talk.stage = Stage::Mute;
            }
        } else {
            self.talks.remove(&stream);
            self.out.push_back(Output::Close { stream, flush: false });
        }
    }
}
