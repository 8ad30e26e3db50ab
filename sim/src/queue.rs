//! What will happen, in a total order: by time, then by the order in which it was decided.

use peerlink_core::ids::{BatchId, LoadId, StreamId};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Which run of which host something is for. What is for an earlier run is nobody's business any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub(crate) host: usize,
    pub(crate) incarnation: u32,
}

/// One end of a connection: 0 dialled, 1 accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Side {
    pub(crate) conn: usize,
    pub(crate) side: usize,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        Self { conn: self.conn, side: 1 - self.side }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// The next fault or act of the script.
    Script(usize),
    /// A partition, a clog or a slow disk ends, if it is still the one that began then.
    LinkUp {
        link: usize,
        began: u64,
    },
    Boot {
        host: usize,
    },
    /// The deadline of a node is due.
    Timer {
        run: Run,
        generation: u64,
    },
    /// The driver gets round to what the node has to say.
    Drain {
        run: Run,
    },
    Committed {
        run: Run,
        upto: BatchId,
    },
    /// What was held for a host that stood still happens.
    Wake {
        host: usize,
    },
    /// The power goes in the middle of a commit.
    Cut {
        run: Run,
    },
    Told {
        run: Run,
        upto: BatchId,
        failed: bool,
    },
    Loaded {
        run: Run,
        load: LoadId,
    },
    /// The driver notices that an address or the wall clock changed.
    Surroundings {
        host: usize,
    },
    /// A person does something.
    Act {
        host: usize,
    },
    /// A person looks at each of its conversations.
    Look {
        host: usize,
    },
    /// A SYN reaches the other host.
    Syn {
        conn: usize,
        attempt: u32,
    },
    /// And its answer comes back.
    SynAck {
        conn: usize,
        attempt: u32,
    },
    DialFailed {
        conn: usize,
        refused: bool,
    },
    DialTimeout {
        conn: usize,
    },
    /// A datagram reaches whoever is there.
    Land {
        flight: u64,
    },
    /// The front segment of the pipe that begins at this end reaches the other.
    Arrive(Side),
    /// The driver reads at this end.
    Readable(Side),
    /// The driver learns that its write at this end was taken.
    Written(Side),
    /// An end that was closed by its own node is reported as over.
    Over {
        run: Run,
        stream: StreamId,
    },
    Linger(Side),
    /// Everything may be delivered by now.
    DoneCheck,
    /// The faults are over.
    Heal,
    /// The world ends.
    End,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    ordinal: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: u64, event: Event) {
        self.ordinal += 1;
        self.heap.push(Reverse((at, self.ordinal, event)));
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse((at, _, event))| (at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_instant_keep_their_order() {
        let mut queue = Queue::default();
        queue.push(5, Event::End);
        queue.push(1, Event::Heal);
        queue.push(5, Event::Boot { host: 0 });
        queue.push(5, Event::Act { host: 0 });
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let expected =
            [(1, Event::Heal), (5, Event::End), (5, Event::Boot { host: 0 }), (5, Event::Act { host: 0 })];
        assert_eq!(order, expected);
    }
}
