//! What promises something waits here on the batch that makes it true. Nothing leaves before that batch is confirmed,
//! and everything leaves in the order in which it was promised.

use crate::api::Gauge;
use crate::bounded::Queue;
use crate::ids::BatchId;
use crate::limits::PROMISES;

#[derive(Debug)]
pub(crate) struct Gate<P> {
    waiting: Queue<(BatchId, P)>,
}

impl<P> Gate<P> {
    pub(crate) const fn new() -> Self {
        Self { waiting: Queue::new(PROMISES) }
    }

    /// Whether promises should stop being made until some are kept: half the queue is for those under way.
    pub(crate) fn is_pressed(&self) -> bool {
        self.waiting.len() >= PROMISES / 2
    }

    /// # Errors
    /// The promise, if the gate is full: its maker must then not rely on it.
    pub(crate) fn promise(&mut self, batch: BatchId, promise: P) -> Result<(), P> {
        self.waiting.push((batch, promise)).map_err(|(_, promise)| promise)
    }

    /// The next promise that batches up to `durable` make true.
    pub(crate) fn keep(&mut self, durable: BatchId) -> Option<P> {
        if self.waiting.front()?.0 > durable {
            return None;
        }
        self.waiting.pop().map(|(_, promise)| promise)
    }

    /// The store failed: nothing that waits will ever be said.
    pub(crate) fn break_all(&mut self) {
        self.waiting.clear();
    }

    pub(crate) fn held(&self) -> Gauge {
        Gauge::new("promises", self.waiting.len(), PROMISES)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_before_its_batch() {
        let mut gate = Gate::new();
        gate.promise(BatchId(1), 'a').unwrap();
        gate.promise(BatchId(3), 'b').unwrap();
        assert_eq!(gate.keep(BatchId(0)), None);
        assert_eq!(gate.keep(BatchId(2)), Some('a'));
        assert_eq!(gate.keep(BatchId(2)), None);
        assert_eq!(gate.keep(BatchId(9)), Some('b'));
        gate.promise(BatchId(10), 'c').unwrap();
        gate.break_all();
        assert_eq!(gate.keep(BatchId(10)), None);
    }
}
