//! From records on disk to a running node.

use crate::identity::IdentitySecret;
use crate::node::{Config, Node};
use crate::record::CorruptRecord;
use crate::time::{Instant, WallClock};

/// Collects what was stored, then starts. Records up to [`crate::record::RESTORE_END`] are given in any order.
#[derive(Debug)]
pub struct Restore {}

impl Restore {
    /// `seed` must be fresh entropy at every start.
    #[must_use]
    pub fn new(_config: Config, _secret: &IdentitySecret, _seed: [u8; 32]) -> Self {
        Self {}
    }

    /// # Errors
    /// `CorruptRecord`: the store is damaged or newer; the caller ends and says so.
    pub fn record(&mut self, _key: &[u8], _value: &[u8]) -> Result<(), CorruptRecord> {
        Ok(())
    }

    /// # Errors
    /// `CorruptRecord::Dangling` if records that belong together are not all there.
    pub fn start(self, _now: Instant, _wall: WallClock) -> Result<Node, CorruptRecord> {
        Ok(Node {})
    }
}
