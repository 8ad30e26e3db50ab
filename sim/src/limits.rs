//! Every constant of the simulated world: how long, how many, how large. Times are microseconds of simulated time.

use peerlink_core::time::Duration;

pub const MICROS_PER_MILLI: u64 = 1_000;
pub const MICROS_PER_SECOND: u64 = 1_000_000;

/// Hosts of one world.
pub const HOSTS: usize = 6;
/// Relays among them.
pub const RELAYS: usize = 2;
/// Directed links, a host to itself included: there its own fates are drawn.
pub const LINKS: usize = HOSTS * HOSTS;

/// After the last fault everything must be delivered within this where people look at their conversations: a look tries
/// to reach a contact at once and asks a session that stands whether it lives, so the wait is for a look, for a dead
/// session to be found out, and for what is then to be said.
pub const HEALING: u64 = 120 * MICROS_PER_SECOND;
/// In worlds where a profile runs twice it takes longer: the two take turns, each until a contact hears of the other.
pub const TAKING_TURNS: u64 = 2 * HEALING;
/// Every so many seconds each of the two writes something of this many bytes, until it is told of the other.
pub const TWIN_WRITES: u64 = 3;
pub const TWIN_BYTES: usize = 40;
/// In such worlds each person looks within this.
pub const LOOKING: u64 = 60 * MICROS_PER_SECOND;
/// How much longer it may take in worlds where nobody looks. A node that failed to reach somebody tries again after a
/// backoff that doubles up to this, and a peer that nobody reaches is not asked more often than that: with two devices
/// that can find each other in one direction only, the faults may end just after a try, and the next one is that far.
pub const UNATTENDED: u64 = peerlink_core::limits::RETRY_MAX.as_secs() * MICROS_PER_SECOND;
/// An attempt to reach somebody takes no longer: the dial, the handshake, and a session on which nothing ever comes.
pub const ATTEMPT: u64 = (peerlink_core::limits::DIAL_TIMEOUT.as_secs()
    + peerlink_core::limits::HANDSHAKE_TIMEOUT.as_secs()
    + 2 * peerlink_core::limits::LIVENESS_MAX.as_secs())
    * MICROS_PER_SECOND;
/// How often the world looks whether everything was delivered.
pub const DONE_CHECK: u64 = 100 * MICROS_PER_MILLI;
/// The world goes on for this long after everything was delivered, to see that nothing comes twice.
pub const AFTERGLOW: u64 = 2 * MICROS_PER_SECOND;

/// Outputs of one drained node; more is a machine that feeds itself.
pub const OUTPUTS_PER_DRAIN: u32 = 100_000;
/// Ticks at one instant that neither move the deadline nor bring an output.
pub const IDLE_TICKS: u32 = 2;
/// Events of one world; more is a storm.
pub const EVENTS: u64 = 5_000_000;

/// A closed stream that its peer does not close either is dropped after this.
pub const LINGER: u64 = 2 * MICROS_PER_SECOND;
/// How much later than at its time a message may expire: some commits, and the time between two looks. And how much
/// earlier: each start may cut off a millisecond.
pub(crate) const EXPIRY_SLACK_MS: u64 = 20_000;
pub(crate) const EXPIRY_EARLY_MS: u64 = 50;
/// First retransmission of a SYN (RFC 6298, section 2.1), doubling.
pub const SYN_RETRY: u64 = MICROS_PER_SECOND;
/// Longest pause between a healed partition and the retransmission that notices it.
pub const RETRANSMISSION: u64 = 5 * MICROS_PER_SECOND;

/// Beyond what a node may hold unpersisted, the one step that crossed the line may add this much.
pub const UNPERSISTED_SLACK: usize = 1024 * 1024;

/// What somebody on the way remembers of the beginning of each direction of a connection.
pub const TAPE_BYTES: usize = 4096;
/// Most bytes that he makes up at once.
pub const INJECTED_BYTES: u64 = 100;

/// Headers of a datagram in IPv4.
pub const IP_UDP_HEADERS: usize = 28;
/// Headers of a segment in IPv4, without options.
pub const IP_TCP_HEADERS: usize = 40;
/// The second copy of a doubled datagram comes up to so much later.
pub const LATE_COPY: u64 = 100 * MICROS_PER_MILLI;
/// Datagrams of each way that somebody on it remembers, and addresses from which he begins sessions at once.
pub const TAPE_PACKETS: usize = 64;
pub const KNOCKS: u16 = 100;
/// Sessions over datagrams that are under watch; of more, those of the earliest runs are forgotten.
pub const WATCHED: usize = 4096;
/// Beyond the number from which on a cookie is asked for, so many may be answered that showed nothing: who is answered
/// in the same moment, and who is counted as gone a little later than by the node.
pub const SLACK_RESPONSES: usize = 8;
/// Bytes of what each person writes in worlds with datagrams, about: what passes in time however slow the way is.
pub const AIR_BYTES: u64 = 400_000;
/// A packet with nothing in it but a challenge, or an answer to one: its header, two pieces of ten bytes, and the seal.
pub const CHALLENGE_BYTES: usize = 13 + 2 * 10 + peerlink_core::limits::SEAL_BYTES;
/// The address of who is somewhere and says that he is elsewhere.
pub const FAR_AWAY: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));
/// Routers between two hosts, if nothing else is said.
pub const AIR_HOPS: u64 = 8;

/// A contact in bad faith looks after its sessions this often, and gives one up that is silent for longer.
pub const HOSTILE_WAIT: Duration = Duration::from_secs(2);
pub const HOSTILE_IDLE: Duration = Duration::from_secs(15);
/// What it writes at once.
pub const HOSTILE_WRITES: usize = 32 * 1024;
/// Most entries, records of a flood, frames of one record, and connections of one of its deeds.
pub const HOSTILE_ENTRIES: u64 = 20;
pub const FLOOD_RECORDS: u64 = 10;
pub const FLOOD_FRAMES: u64 = 100;
pub const HOSTILE_DIALS: u64 = 12;

/// Hops of a packet whose sender chose none, and of what boxes send themselves.
pub const HOPS: u8 = 64;
/// Bytes of a packet that has no size worth to speak of: headers and a short payload.
pub const SMALL_PACKET: usize = 100;
/// Largest packet of a link that has no reason for less.
pub const LINK_MTU: usize = 1500;
/// External ports of a box: from here on.
pub const PORT_FIRST: u16 = 1024;
/// Ports of one inside host, where each has its block.
pub const PORT_BLOCK: u16 = 1024;
/// Random ports that are tried before the rest is walked through.
pub const PORT_TRIES: u32 = 32;
/// Live mappings of one inside host, if a box says nothing else.
pub const MAPPINGS_PER_HOST: usize = 4096;
/// Remote endpoints that one mapping remembers; of more, the one that ends first is forgotten.
pub const FLOWS_PER_MAPPING: usize = 4096;
/// Flows between remote endpoints and the box itself; of more, the one that ends first is forgotten.
pub const LOCAL_FLOWS: usize = 4096;
/// How often a box looks for mappings that are over, beside those that a packet is for.
pub const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Boxes behind each other.
pub const BOXES_DEEP: usize = 8;
/// Packets under way in a network that runs by itself; more is a storm.
pub const PACKETS_UNDER_WAY: usize = 1_000_000;

/// A sleep from here on is counted as a long one.
pub const LONG_SLEEP: u64 = 2 * 24 * 3600 * MICROS_PER_SECOND;

/// People who write faster than a disk can follow begin when everybody has met.
pub const FLOOD_BEGINS: u64 = 5 * MICROS_PER_SECOND;
/// Longest message that nobody would call long.
pub const SHORT_BYTES: u64 = 300;

/// Turns of a world that are remembered: who was reached how, and when something came.
pub const MOMENTS: usize = 4096;

/// Worlds between two of which a sample is run twice.
pub const TWICE_EVERY: u64 = 16;
/// How often the threads are looked at, and after how many looks at the same seed a world is stuck. Ten minutes of
/// real time: the longest worlds take seconds.
pub const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(20);
pub const STUCK_LOOKS: u32 = 30_000;
/// So many worlds of the swarm come across every kind of fault; if one never struck, they proved little.
pub const EVERY_KIND: u64 = 500;
/// Longest trace line that is printed whole.
pub const TRACE_LINE_CHARS: usize = 400;
