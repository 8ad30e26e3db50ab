//! What a driver runs: the core's node, or a scripted stand-in that tests one rule of the contract.

use peerlink_core::Node;
use peerlink_core::api::{Command, Input, Output, Refused, Stats};
use peerlink_core::ids::StreamId;
use peerlink_core::time::Instant;

/// The contract of [`peerlink_core::Node`], where it is written.
pub trait Machine: Send + 'static {
    fn handle(&mut self, now: Instant, input: Input<'_>);
    /// # Errors
    /// The command, whole, and why it was refused.
    fn command(&mut self, now: Instant, command: Command) -> Result<(), Refused>;
    fn poll(&mut self) -> Option<Output>;
    fn deadline(&self) -> Option<Instant>;
    fn read_budget(&self, stream: StreamId) -> usize;
    fn stats(&self) -> Stats;
}

impl Machine for Node {
    fn handle(&mut self, now: Instant, input: Input<'_>) {
        Node::handle(self, now, input);
    }
    fn command(&mut self, now: Instant, command: Command) -> Result<(), Refused> {
        Node::command(self, now, command)
    }
    fn poll(&mut self) -> Option<Output> {
        Node::poll(self)
    }
    fn deadline(&self) -> Option<Instant> {
        Node::deadline(self)
    }
    fn read_budget(&self, stream: StreamId) -> usize {
        Node::read_budget(self, stream)
    }
    fn stats(&self) -> Stats {
        Node::stats(self)
    }
}
