//! The command line.

use clap::{Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(
    name = "peerlink",
    version,
    about = "A peer-to-peer messenger that can prove what happened to your message."
)]
#[command(
    after_help = "Exit codes: 0 done, 1 internal error, 2 usage, 3 unknown or ambiguous contact, 4 accepted but not \
reached in time, 5 refused, 7 profile in use, 8 store damaged or unwritable; 128 and more: ended by a signal."
)]
pub(crate) struct Args {
    /// The profile directory (default: $XDG_DATA_HOME/peerlink)
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) profile: Option<PathBuf>,
    /// Print NDJSON, one object a line, each with "v":1
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wait {
    Queued,
    Delivered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Setting {
    /// How long a message is tried that does not say so itself, as 12h, 30d or 2w; or never
    Expire,
    /// Relays through which others reach you when they cannot directly, as PEER@ADDRESS:PORT,…; or none
    Relays,
    /// Servers that are asked from where you are seen, beside the relays (STUN), as HOST:PORT,…; or none
    Stun,
    /// Relay packets for others, who can then reach each other through you: on or off, from the next start on
    Relay,
    /// Use UDP beside TCP: on or off, from the next start on
    Udp,
    /// Ask your router to open a port, so that others reach you: on or off, from the next start on
    Mapping,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a profile (any command does that by itself) and set your nickname
    Init {
        /// What you call yourself; goes into tickets
        #[arg(long)]
        nickname: Option<String>,
        /// Listen here (may be given twice); without, a free port of all addresses, chosen once
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Vec<SocketAddr>,
    },
    /// Show who you are
    Id,
    /// Make a ticket for one person: whoever presents it becomes a contact
    Invite {
        /// An address at which others reach you and that this machine cannot know
        #[arg(long, value_name = "HOST:PORT")]
        addr: Vec<String>,
        /// How long the ticket is good for, as 30m, 12h, 7d or 2w
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// Add who made this ticket
    Add {
        /// The ticket, or - to read it from standard input
        ticket: String,
        /// What to call the contact (default: what he calls himself)
        #[arg(long)]
        name: Option<String>,
        /// How many seconds to wait for the inviter's answer
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// List your contacts
    Contacts,
    /// Give a contact another name
    Rename { contact: String, name: String },
    /// Take a contact off the list; what was said stays on disk
    Remove { contact: String },
    /// Refuse a contact's connections and messages
    Block {
        contact: String,
        /// Take it back
        #[arg(long)]
        undo: bool,
    },
    /// Compare the safety number with a contact, and store that you did
    Verify {
        contact: String,
        /// The numbers are the same: store it
        #[arg(long, conflicts_with = "no")]
        yes: bool,
        /// Take the mark away
        #[arg(long)]
        no: bool,
    },
    /// Send one message
    Send {
        contact: String,
        text: Option<String>,
        /// Read the message from standard input, but for one line feed at its end
        #[arg(long, conflicts_with = "text")]
        stdin: bool,
        /// What to wait for
        #[arg(long, value_enum, default_value = "delivered")]
        wait: Wait,
        /// How many seconds to wait for delivery
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
        /// Take it back if it is not delivered within this time, as 30m, 12h, 7d or 2w; or never (default: what
        /// `peerlink config expire` says)
        #[arg(long, value_name = "TIME")]
        expire: Option<String>,
        /// Your own id for the message (32 hexadecimal digits): sent again, it is the same message
        #[arg(long, value_name = "ID")]
        id: Option<String>,
    },
    /// Print messages as they come
    Listen {
        /// Begin after this arrival number (0: with the first ever); without, with what is unread
        #[arg(long, value_name = "N")]
        after: Option<u64>,
        /// Only from this contact
        #[arg(long)]
        from: Option<String>,
    },
    /// Talk with a contact
    Chat {
        contact: String,
        /// Take back what you write and is not delivered within this time, as 30m, 12h, 7d or 2w; or never
        #[arg(long, value_name = "TIME")]
        expire: Option<String>,
    },
    /// Show what was said
    History {
        contact: String,
        #[arg(long, value_name = "N")]
        last: Option<usize>,
    },
    /// Take back a message that was not delivered yet
    Cancel {
        contact: String,
        /// Which: its "message" in `history --json` (default: the newest that waits)
        message: Option<String>,
    },
    /// Delete what was said, on this device only; what was not delivered is taken back
    Delete {
        contact: String,
        /// One message: its "message" in `history --json`
        message: Option<String>,
        /// The whole conversation
        #[arg(long, conflicts_with = "message", required_unless_present = "message")]
        all: bool,
    },
    /// Show a setting, or change it
    Config {
        #[arg(value_enum)]
        setting: Option<Setting>,
        value: Option<String>,
    },
    /// Show what is connected, what waits, and why
    Status,
    /// Find out how you, or a contact, can be reached, why not, and what would help
    Doctor { contact: Option<String> },
    /// Run in the foreground: be reachable, deliver what waits
    Up {
        /// Listen here from now on (may be given twice)
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Vec<SocketAddr>,
    },
    /// Run in the foreground and relay packets for others; `peerlink config relay off` ends that
    Relay {
        /// Listen here from now on (may be given twice)
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Vec<SocketAddr>,
    },
    /// Go on from a damaged store: it is kept aside, and what can be read of it is not lost
    Repair,
    /// See the promise kept in ten seconds, on this machine
    Demo,
}
