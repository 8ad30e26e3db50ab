//! Every capacity of the command line.

use std::time::Duration;

/// Front ends served at once.
pub(crate) const CLIENTS: usize = 32;
/// Longest line of the socket protocol: the largest body with every character escaped, and its fields.
pub(crate) const LINE_BYTES: usize = 512 * 1024;
/// Events that wait for one front end; beyond, it is told that it missed some and reads the store.
pub(crate) const CLIENT_EVENTS: usize = 1024;
/// Messages read from the store at a time.
pub(crate) const PAGE: usize = 200;
/// What `history` shows unless told otherwise.
pub(crate) const HISTORY_LAST: usize = 50;
/// What the files beside the store hold at most.
pub(crate) const SMALL_FILE_BYTES: u64 = 4096;
/// Tries to reach a contact that are remembered.
pub(crate) const TRIES: usize = 16;
/// Of these, how many `status` shows of each contact.
pub(crate) const TRIES_SHOWN: usize = 4;
/// How long `doctor` waits for answers from outside.
pub(crate) const EXAMINE: Duration = Duration::from_secs(8);
/// Proofs of delivery that a chat remembers, for a message whose answer comes after its proof.
pub(crate) const PROOFS: usize = 256;
/// Lines that a chat on a terminal begins with, unless more are unread.
pub(crate) const CHAT_LAST: usize = 10;
/// Characters of a message that is named and not shown.
pub(crate) const SHORT_TEXT: usize = 40;
/// How long a chat waits for a quick proof of delivery before it says `queued`.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(400);
/// Longest path of a Unix socket (`sun_path` of unix(7), without its end).
pub(crate) const SOCKET_PATH: usize = 107;
/// How long `send` waits for the proof of delivery, and `add` for the inviter.
pub(crate) const WAIT: Duration = Duration::from_secs(10);
/// How long a command waits for a profile that another process is just opening or closing.
pub(crate) const TAKE_OVER: Duration = Duration::from_secs(10);
/// How often it looks meanwhile.
pub(crate) const RETRY: Duration = Duration::from_millis(50);
/// How long an invitation is good for unless told otherwise.
pub(crate) const INVITE_EXPIRES: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest time that a user may set for anything.
pub(crate) const LONGEST_SPAN: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// A node that lets a front end wait this long for its first answer cannot serve.
pub(crate) const HELLO: Duration = Duration::from_secs(5);
/// Front ends are accepted again this long after the system had no room for one.
pub(crate) const ACCEPT_RETRY: Duration = Duration::from_millis(200);
/// How long the node may take to say that something is durable.
pub(crate) const DURABLE: Duration = Duration::from_secs(60);
