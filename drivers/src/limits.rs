//! Every capacity of the drivers.

use std::time::Duration;

/// Requests of front ends that wait for the event loop.
pub const COMMANDS: usize = 64;
/// Events that wait for the front end; beyond, it is told that it missed some.
pub const EVENTS: usize = 4096;
/// Batches that wait for the committing thread: the core gives no more than this.
pub const BATCHES: usize = peerlink_core::limits::BATCHES;
/// Questions that wait for the loading thread: the core gives no more than this.
pub const LOADS: usize = peerlink_core::limits::LOADS;
/// Answers of both threads that wait for the event loop.
pub const ANSWERS: usize = BATCHES + LOADS;
/// Socket events taken from the kernel at a time.
pub const POLL_EVENTS: usize = 256;
/// Bytes read from a socket at a time.
pub const READ_BYTES: usize = 64 * 1024;
/// Bytes read from one stream before the others have their turn.
pub const READ_TURN_BYTES: usize = 256 * 1024;
/// Connections accepted in one turn.
pub const ACCEPT_TURN: usize = 64;
/// Connections that wait in the kernel to be accepted.
pub const BACKLOG: i32 = 1024;
/// A listener that could not accept (no descriptor is free) tries again after this.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// A stream that was closed in good order waits at most this long for its last bytes to go.
pub const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// Wall and monotonic clock drifting apart by more than this is told to the core.
pub const CLOCK_JUMP_MS: u64 = 1000;
