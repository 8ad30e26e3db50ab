//! The node: dispatch only.

use crate::api::{Command, Input, Output, Refused, Stats};
use crate::ids::{PeerId, StreamId};
use crate::time::Instant;

/// What differs between installations beside their secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Nodes of different networks do not speak to each other. 1 is the one network that people use.
    pub network: u32,
    #[cfg(peerlink_planted)]
    pub planted: Option<crate::planted::Planted>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: 1,
            #[cfg(peerlink_planted)]
            planted: None,
        }
    }
}

#[derive(Debug)]
pub struct Node {}

impl Node {
    pub fn handle(&mut self, _now: Instant, _input: Input<'_>) {}
    /// # Errors
    /// The command, whole, and why it was refused.
    pub fn command(&mut self, _now: Instant, _command: Command) -> Result<(), Refused> {
        Ok(())
    }
    pub fn poll(&mut self) -> Option<Output> {
        None
    }
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        None
    }
    #[must_use]
    pub fn read_budget(&self, _stream: StreamId) -> usize {
        0
    }
    #[must_use]
    pub fn peer(&self) -> PeerId {
        unreachable!()
    }
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}
