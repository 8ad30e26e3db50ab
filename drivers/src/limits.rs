//! Every capacity and time of the drivers. What the core bounds, it bounds in its own `limits`.

use core::time::Duration;
use peerlink_core::limits as core_limits;

/// Addresses to listen on.
pub const LISTENERS: usize = 16;
/// Connections that the kernel completes for us before we accept them.
pub const BACKLOG: i32 = 1024;
/// Streams in all: those of the core, and some that it closed and that still take their last bytes. At this many,
/// nothing is accepted until some end.
pub const STREAMS: usize = core_limits::STREAMS + 256;
/// Socket events taken from the system at once.
pub const SOCKET_EVENTS: usize = 256;
/// One read. The buffer is shared by all streams, and holds every datagram whole.
pub const READ_BYTES: usize = 64 * 1024;
/// Reads of one turn; the rest waits for the next, so that no turn takes long.
pub const TURN_READS: usize = 64;
/// Datagrams of one family in one turn.
pub const TURN_DATAGRAMS: usize = 256;
/// What the system should hold of datagrams for a socket, each way.
pub const DATAGRAM_BUFFER_BYTES: usize = 1024 * 1024;
/// Connections accepted by one listener in one turn.
pub const TURN_ACCEPTS: usize = 32;
/// Rounds of outputs in one turn that may follow each other without looking at the sockets.
pub const TURN_ROUNDS: usize = 4;

/// Commands that wait for the loop; the next caller waits until there is room.
pub const REQUESTS: usize = 64;
/// Commands of one request, so that no turn takes long.
pub const COMMANDS: usize = 1024;
/// Answers to one request.
pub const REPLIES: usize = 1;
/// Events that wait for the front end, and the bytes they hold.
pub const EVENTS: usize = 4096;
pub const EVENT_BYTES: usize = 4 * 1024 * 1024;
/// What an event costs of `EVENT_BYTES` beside the text in it.
pub const EVENT_COST: usize = 256;

/// Batches on the way to the store. The core has at most `BATCHES` unconfirmed.
pub const COMMITS: usize = 2 * core_limits::BATCHES;
/// Loads on the way to the store, and as many that wait for a batch. The core has at most `LOADS` unanswered.
pub const LOADS: usize = 2 * core_limits::LOADS;
/// Answers of the store that wait for the loop; a full one makes the store's threads wait.
pub const ANSWERS: usize = COMMITS + LOADS;

/// A stream that is closed in good order has this long to take what was handed over.
pub const FLUSH_MAX: Duration = Duration::from_secs(5);
/// After our last byte and FIN, the peer has this long to close its side.
pub const LINGER_MAX: Duration = Duration::from_secs(1);
/// Accepting goes on this long after the system refused it (no descriptor, no memory).
pub const ACCEPT_RETRY: Duration = Duration::from_millis(500);
/// A wall clock that moved by more than this against the monotonic clock was set.
pub const WALL_JUMP: Duration = Duration::from_secs(1);
/// Interfaces are looked at again on a wake-up after this long, and, when there is reason to, after the shorter time.
pub const ADDRESSES_STALE: Duration = Duration::from_secs(60);
pub const ADDRESSES_RECHECK: Duration = Duration::from_secs(1);
/// Waits from this length on are also told to a clock that counts sleep.
pub const ALARM_MIN: Duration = Duration::from_secs(1);
/// Turns in a row in which nothing happened although the machine said that something was due: beyond, it is stuck.
/// Each further one waits for `REST`.
pub const IDLE_TURNS: u32 = 64;
pub const REST: Duration = Duration::from_millis(10);

const _: () = {
    assert!(COMMITS > core_limits::BATCHES && LOADS > core_limits::LOADS);
    assert!(STREAMS > core_limits::STREAMS);
    assert!(EVENT_BYTES > EVENT_COST + core_limits::BODY_BYTES, "the largest message fits an empty queue");
};
