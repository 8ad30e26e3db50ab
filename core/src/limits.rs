//! Every capacity of the core, and what must hold between them. Nothing elsewhere may name one of its own.

use crate::time::Duration;

// --- what people write -------------------------------------------------------------------------------------------

/// Largest message body, in bytes of UTF-8.
pub const BODY_BYTES: usize = 64 * 1024;
/// Longest nickname or petname, in bytes of UTF-8.
pub const NAME_BYTES: usize = 32;
/// Contacts of one profile, removed ones included: their heads are kept.
pub const CONTACTS: usize = 1024;
/// Invitations that are open or spent and not yet expired.
pub const INVITES: usize = 64;
/// Messages to one contact that are queued and not yet acknowledged.
pub const UNACKNOWLEDGED: u64 = 100_000;
/// Addresses in a ticket, a peer record, or a local configuration.
pub const ADDRESSES: usize = 8;
/// Home relays named in a peer record.
pub const RELAYS: usize = 4;

// --- feeds -------------------------------------------------------------------------------------------------------

/// Ranges beyond the first gap of a feed, on disk and in a have-vector.
pub const RANGES: usize = 8;
/// Numbers of a feed that are held only as gone: ranges, on disk and in a have-vector.
pub const HOLES: usize = 8;
/// Ranges beyond the first number that is not there, in a have-vector.
pub const HAVE_RANGES: usize = RANGES + HOLES;
/// Feeds in one have-vector: both authors' open epochs.
pub const HAVE_FEEDS: usize = 16;
/// Open epochs of one author in one conversation.
pub const OPEN_EPOCHS: usize = 8;
/// New epochs that an author may begin in a conversation within a day of this run, and epochs in all.
pub const EPOCHS_A_DAY: usize = 4;
pub const EPOCHS_WINDOW: Duration = Duration::from_secs(24 * 3600);
pub const EPOCHS: usize = 64;
/// Heads of other feeds named in an entry's header.
pub const ENTRY_HEADS: usize = 4;
/// Longest header of an entry as it is hashed: some 120 bytes that are always there, 56 for each head that it names, for
/// the epoch before, and for the entry that it replaces.
pub const HEADER_BYTES: usize = 1024;
/// Entries of one page or one run.
pub const RUN_ENTRIES: usize = 512;
/// Highest number of an entry that is taken from a peer: what is beyond it can always be counted.
pub const SEQ_LIMIT: u64 = u64::MAX / 2;
/// Highest logical time that is taken from a peer: far beyond what counting can reach, far from overflow.
pub const LAMPORT_LIMIT: u64 = u64::MAX / 2;

// --- carriers ----------------------------------------------------------------------------------------------------

/// Largest sealed record on a stream, its length field not counted: Noise messages end at 65,535 bytes.
pub const RECORD_BYTES: usize = 65_535;
/// Length field in front of every record on a stream.
pub const RECORD_PREFIX: usize = 2;
/// Authentication tag of a sealed record.
pub const SEAL_BYTES: usize = 16;
/// Largest plaintext of a sealed record that we make.
pub const PLAINTEXT_BYTES: usize = 32 * 1024;
/// Largest body of one frame.
pub const FRAME_BYTES: usize = 16 * 1024;
/// Frames of one record; more is misbehaviour.
pub const RECORD_FRAMES: usize = 4096;
/// A body longer than this travels in chunks.
pub const INLINE_BODY_BYTES: usize = 8 * 1024;
/// Bytes of body in one chunk.
pub const CHUNK_BYTES: usize = 15 * 1024;
/// Largest handshake message; what an unauthenticated peer can make us hold is one of them.
pub const HANDSHAKE_BYTES: usize = 1024;
/// Largest signed peer record (fits a BEP 44 value).
pub const PEER_RECORD_BYTES: usize = 1000;
/// What one stream buffers of ciphertext: one record in full and its length.
pub const STREAM_BUFFER_BYTES: usize = RECORD_BYTES + RECORD_PREFIX;

/// Streams accepted whose peer is not yet known: in all, and from one IPv4 address or IPv6 /64.
pub const HALF_OPEN: usize = 256;
pub const HALF_OPEN_PER_SOURCE: usize = 8;
/// Streams in all.
pub const STREAMS: usize = 4096;
/// Sessions with one peer at once, while an overlap is being resolved.
pub const SESSIONS_PER_PEER: usize = 4;
/// Addresses of one peer tried at the same time.
pub const PARALLEL_DIALS: usize = 8;

// --- datagrams ---------------------------------------------------------------------------------------------------

/// Largest packet that we send in one datagram: what every path of the Internet carries (RFC 9000, section 14).
pub const PACKET_BYTES: usize = 1200;
/// How far behind the highest number a packet may arrive: a multiple of 64.
pub const REPLAY_NUMBERS: u64 = 2048;
/// Packets of one session that are remembered until they are acknowledged or lost.
pub const SENT_PACKETS: usize = 2048;
/// Of these, kept free for probes.
pub const PROBE_PACKETS: usize = 16;
/// Packets that nothing is awaited for and that are remembered all the same: they may give a round trip.
pub const SETTLED_PACKETS: usize = 64;
/// Ranges of numbers in one acknowledgement.
pub const ACK_RANGES: usize = 32;
/// Acknowledgements of packets with gaps that are sent alone before one asks to be acknowledged itself.
pub const ACKS_ALONE: u32 = 16;
/// Longest that an acknowledgement is held back (RFC 9000, section 18.2).
pub const ACK_DELAY: Duration = Duration::from_millis(25);
/// A round trip before the first is measured (RFC 9002, section 6.2.2).
pub const INITIAL_RTT: Duration = Duration::from_millis(333);
/// What a timer can tell apart (RFC 9002, section 6.1.2).
pub const TIMER_GRANULARITY: Duration = Duration::from_millis(1);
/// Packets acknowledged beyond one that is therefore lost (RFC 9002, section 6.1.1); how far this rises on a path that
/// was seen to reorder more.
pub const PACKET_THRESHOLD: u64 = 3;
pub const PACKET_THRESHOLD_MAX: u64 = 512;
/// Probes of one timeout (RFC 9002, section 6.2.4).
pub const PROBES: u8 = 2;
/// Bytes in flight at the start of a path, at least, and at most (RFC 9002, section 7.2).
pub const INITIAL_WINDOW_BYTES: u64 = 10 * PACKET_BYTES as u64;
pub const MINIMUM_WINDOW_BYTES: u64 = 2 * PACKET_BYTES as u64;
pub const MAXIMUM_WINDOW_BYTES: u64 = (SENT_PACKETS * PACKET_BYTES) as u64;
/// What a pacer may send in one go, beside the initial window: what its rate gives in this time. Less could not keep up
/// with timers that are coarse.
pub const PACING_BURST: Duration = Duration::from_millis(2);

/// Bytes of records of one session that the peer's packets did not yet acknowledge, sent or not.
pub const OUTBOUND_BYTES: usize = 256 * 1024;
/// Of these, not yet sent: more would grow stale.
pub const OUTBOUND_UNSENT_BYTES: usize = 16 * 1024;
/// Bytes of records that one session holds because something before them is missing, or because they are not read.
pub const INBOUND_BYTES: usize = 256 * 1024;
/// Gaps in them.
pub const INBOUND_RANGES: usize = 64;
/// Packets of somebody who used an invitation that are kept until that is written down.
pub const EARLY_PACKETS: usize = 8;
/// Ways of one session: places that its peer was heard on or may be at.
pub const WAYS: usize = 24;
/// Places that one session tries because its peer named them: at once; after that, one a second.
pub const NAMED_PLACES: u32 = 2 * CANDIDATES as u32;
/// How far the first packet of a punched way goes: beyond the boxes in front of us, not to those in front of the peer.
pub const OPENER_TTL: u8 = 4;
/// How many packets go so far, one right behind the other.
pub const OPENERS: u8 = 3;
/// How often that is done while the peer does not know yet where to send.
pub const OPENER_TRIES: u32 = CHALLENGE_TRIES - 2;
/// How many times what came from a way may be sent to it before it is proven (RFC 9000, section 8.1).
pub const AMPLIFICATION: usize = 3;
/// A challenge that is not answered is repeated after this, so many times.
pub const CHALLENGE_WAIT: Duration = Duration::from_millis(500);
pub const CHALLENGE_TRIES: u32 = 6;
/// Probes without an answer after which the way in use is doubted.
pub const SILENT_PROBES: u32 = 2;
/// Sessions over datagrams whose peer is not yet known, beyond which who begins must show that he receives where he
/// says he is.
pub const COOKIE_ABOVE: usize = HALF_OPEN / 4;
/// How long a cookie is good, at least; at most twice that.
pub const COOKIE_LIFETIME: Duration = Duration::from_secs(120);
/// An unanswered message of a handshake over datagrams is repeated after this, doubling.
pub const HANDSHAKE_RETRY: Duration = Duration::from_millis(350);

// --- servers and gateways ------------------------------------------------------------------------------------------

/// Gateways that are asked to open ports: one for each family of addresses.
pub const GATEWAYS: usize = 2;
/// Ports that they open: each may open one for either transport.
pub const MAPPED: usize = 2 * GATEWAYS;
/// How long a port is asked for (RFC 6886, section 3.3). What lives shorter than the least would have to be asked for without
/// end, and nothing is believed to live longer than the most.
pub const MAPPING_LIFETIME: Duration = Duration::from_secs(7200);
pub const MAPPING_LIFETIME_MIN: Duration = Duration::from_secs(60);
pub const MAPPING_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// A gateway that refuses is asked again after the time that it says, between these; one that is silent after the longer.
pub const MAPPING_AGAIN_MIN: Duration = Duration::from_secs(60);
pub const MAPPING_AGAIN: Duration = Duration::from_secs(1800);
/// The first wait for an answer, doubling to the most, and how often it is asked: in PCP (RFC 6887, section 8.1.1), less
/// often while nothing shows that the gateway speaks it, and in NAT-PMP (RFC 6886, section 3.1).
pub const PCP_WAIT: Duration = Duration::from_secs(3);
pub const MAPPING_WAIT_MAX: Duration = Duration::from_secs(1024);
pub const PCP_TRIES: u32 = 2;
pub const PCP_TRIES_SPOKEN: u32 = 8;
pub const NATPMP_WAIT: Duration = Duration::from_millis(250);
pub const NATPMP_TRIES: u32 = 9;
/// Attributes of a STUN request that are named as not understood.
pub const STUN_UNKNOWN: usize = 8;
/// STUN servers that a node is told of, beside its relays.
pub const STUN_SERVERS: usize = 4;
/// Questions of one round to servers: one to each relay and server, and three about what they have elsewhere.
pub const OBSERVERS: usize = RELAYS + STUN_SERVERS + 3;
/// A question is asked this many times; again after this, doubling (RFC 8489, section 6.2.1).
pub const STUN_TRIES: u32 = 3;
pub const STUN_FIRST: Duration = Duration::from_millis(500);
/// What a relay says begins a round of questions at most this often.
pub const STUN_REST: Duration = Duration::from_secs(30);

// --- relays ------------------------------------------------------------------------------------------------------

/// Addresses that a peer says it may be reached at by datagrams, and that are tried for it.
pub const CANDIDATES: usize = 16;
/// Relays that one node keeps a session with: its own, and those of peers that it wants to reach.
pub const RELAYS_USED: usize = 64;
/// Of these, for the sake of one peer: as many as its record names, and those that it named before.
pub const RELAYS_EACH: usize = 2 * RELAYS;
/// Packets that wait for one relay to take them.
pub const TO_RELAY: usize = 256;
/// A relay that was used for a peer is left when nothing went over it for this long.
pub const RELAY_IDLE: Duration = Duration::from_secs(120);
/// Clients that one relay serves, queues of one client, and ways through it that end at one client.
pub const CLIENTS: usize = 16_384;
pub const QUEUES: usize = CONTACTS + INVITES;
/// Queues of all of them.
pub const QUEUES_SERVED: usize = 512 * 1024;
pub const BACK_PORTS: usize = 256;
/// Packets that wait for one client to take them, of each sender.
pub const FORWARDED: usize = 64;
/// Bytes of all that wait for one client.
pub const FORWARDED_BYTES: usize = 128 * 1024;
/// Senders whose packets wait for one client.
pub const FORWARDERS: usize = 64;
/// Bytes of packets that one client may send through a relay: in a second, and at once.
pub const FORWARD_RATE: u32 = 4 * 1024 * 1024;
pub const FORWARD_BURST: u32 = 4 * 1024 * 1024;
/// The same through a queue for somebody who is no contact yet.
pub const KNOCK_RATE: u32 = 16 * 1024;
pub const KNOCK_BURST: u32 = 128 * 1024;
/// Requests for the own address (STUN) that a relay answers: in a second, and at once.
pub const STUN_RATE: u32 = 1_000;
pub const STUN_BURST: u32 = 2_000;

// --- queues ------------------------------------------------------------------------------------------------------

/// Bytes of entries that one peer may have on the way to us beyond what we acknowledged.
pub const CREDIT_BYTES: u32 = 512 * 1024;
/// What an entry costs of the credit beside its body.
pub const ENTRY_COST: u32 = 256;
/// Entries on the way to one peer and not yet acknowledged.
pub const IN_FLIGHT: usize = 4096;
/// Bytes of entries held ready for one peer; the rest waits on disk.
pub const READY_BYTES: usize = 256 * 1024;
/// Bodies in chunks that later entries may overtake.
pub const OVERTAKEN: usize = 4;
/// Bodies in chunks that one stream may have begun: one of each open epoch of the sender, and one that it gives back.
pub const PARTIALS: usize = OPEN_EPOCHS + 1;
/// Batches given to storage and not yet confirmed.
pub const BATCHES: usize = 4;
/// Bytes of writes that are not yet durable; beyond, streams are not read and commands are refused.
pub const UNPERSISTED_BYTES: usize = 8 * 1024 * 1024;
/// Promises that wait for a batch.
pub const PROMISES: usize = 65_536;
/// Sends whose caller's id is being looked up.
pub const LOOKUPS: usize = 256;
/// Messages that expire at a time: the next are looked for when these are done.
pub const EXPIRED_AT_ONCE: usize = 64;
/// Questions to storage under way: in all, and for one peer.
pub const LOADS: usize = 16;
/// Bytes of one answered page.
pub const PAGE_BYTES: usize = 64 * 1024;
/// Room on the stack in which a stored record is made, if it fits.
pub const SHORT_BYTES: usize = 512;
/// Longest key of a stored record.
pub const KEY_BYTES: usize = 40;

// --- time --------------------------------------------------------------------------------------------------------

/// A handshake that takes longer is closed.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A driver gives up a dial after this.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Head start of one address of a peer over the next (RFC 8305, section 5).
pub const DIAL_STAGGER: Duration = Duration::from_millis(250);
/// Head start of a stream over datagrams to the same address, or the other way round.
pub const TWIN_STAGGER: Duration = Duration::from_millis(50);
/// What is offered and unanswered for three round trips, and at least this long, sends a ping; so long again without
/// an answer ends the session.
pub const LIVENESS_MIN: Duration = Duration::from_secs(5);
/// And at most this long: a round trip that was measured while the machine slept says nothing about the way.
pub const LIVENESS_MAX: Duration = Duration::from_secs(15);
/// A session that heard nothing for this long sends a ping, so that "connected" stays true.
pub const IDLE_PING: Duration = Duration::from_secs(90);
/// The same on a way over datagrams that leads out of the own network: boxes on it forget who was silent for 30 s (RFC 4787,
/// section 4.3, asks for 2 minutes; many do not).
pub const KEEPALIVE: Duration = Duration::from_secs(25);
/// Retry of an unanswered offer and of a failed dial: from, doubling to, with full jitter.
pub const RETRY_FIRST: Duration = Duration::from_secs(5);
pub const RETRY_MAX: Duration = Duration::from_secs(15 * 60);
/// A session that stood this long, or on which something was acknowledged, proved that the way is good: the backoff of
/// its dials begins anew. One that breaks at once counts as a failure.
pub const SESSION_PROVEN: Duration = Duration::from_secs(5);
/// The losing session of an overlap waits at most this long for the winner to prove itself.
pub const OVERLAP_MAX: Duration = Duration::from_secs(10);
/// Orderly shutdown waits at most this long for streams to take their last bytes.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(2);
/// A session seals at most this many records with one key.
pub const SESSION_RECORDS: u64 = 1 << 32;
/// By how much the numbers of the own peer records leap after a rollback: more than are made in a life of moving about.
pub const RECORD_LEAP: u64 = 1 << 20;
/// A pause between two starts of which only the wall clock knows is believed to be this long at most.
pub const PAUSE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The count of the profile's age is stored again with what is written this long after it was stored.
pub const LIVED_EVERY: Duration = Duration::from_secs(60);
/// While a message waits that is to expire, the store is looked at and the count is stored this often.
pub const EXPIRY_LOOK: Duration = Duration::from_secs(3600);
/// A peer record is renewed this long before it expires.
pub const RECORD_LIFETIME: Duration = Duration::from_secs(72 * 3600);

const _: () = {
    assert!(PLAINTEXT_BYTES + SEAL_BYTES <= RECORD_BYTES, "a record holds the plaintext and its tag");
    assert!(FRAME_BYTES < PLAINTEXT_BYTES, "a frame fits a record with room for another");
    assert!(CHUNK_BYTES < FRAME_BYTES, "a chunk and its header fit a frame");
    assert!(INLINE_BODY_BYTES + 1024 < FRAME_BYTES, "an inline body and its header fit a frame");
    assert!(BODY_BYTES + (ENTRY_COST as usize) <= CREDIT_BYTES as usize, "the largest body fits the credit");
    assert!(
        (CREDIT_BYTES / ENTRY_COST) as usize <= IN_FLIGHT,
        "the credit ends before the table of what is in flight"
    );
    assert!(HANDSHAKE_BYTES <= STREAM_BUFFER_BYTES);
    // Numbers have nine bytes at most, hashes 32; two epochs are closed at most.
    assert!(
        HAVE_FEEDS * (HAVE_RANGES * 50 + HOLES * 18 + 61) + 2 * 40 + 40 <= FRAME_BYTES,
        "the longest have-vector fits a frame"
    );
    assert!(256 + 56 * (ENTRY_HEADS + 2) <= HEADER_BYTES, "the longest header of an entry fits");
    assert!(PEER_RECORD_BYTES < FRAME_BYTES);
    assert!(REPLAY_NUMBERS.is_multiple_of(64), "the window moves by words");
    assert!(REPLAY_NUMBERS >= SENT_PACKETS as u64, "no packet that is awaited is too old when it comes");
    assert!(
        INITIAL_WINDOW_BYTES <= 14_720 && INITIAL_WINDOW_BYTES >= MINIMUM_WINDOW_BYTES,
        "as RFC 9002 bounds it"
    );
    assert!(
        SETTLED_PACKETS + PROBE_PACKETS + (PROBES as usize) < SENT_PACKETS,
        "what is only remembered does not keep packets from being sent"
    );
    assert!(MAPPED < ADDRESSES, "what gateways open leaves room in a record");
    assert!(MAPPING_LIFETIME_MIN.as_secs() < MAPPING_LIFETIME.as_secs());
    assert!(MAPPING_LIFETIME.as_secs() <= MAPPING_LIFETIME_MAX.as_secs());
    assert!(MAPPING_AGAIN_MIN.as_secs() <= MAPPING_AGAIN.as_secs());
    assert!(PCP_TRIES <= PCP_TRIES_SPOKEN, "who answered once is waited for longer");
    assert!(FORWARDED * PACKET_BYTES < FORWARDED_BYTES, "one sender does not fill what may wait");
    assert!(PACKET_THRESHOLD <= PACKET_THRESHOLD_MAX);
    assert!(QUEUES < QUEUES_SERVED && CLIENTS < QUEUES_SERVED, "a client more or less is not felt");
    assert!(RELAYS + RELAYS_EACH < RELAYS_USED, "no peer takes the places of all others");
    assert!(CANDIDATES < WAYS, "what is tried leaves room for what works");
    assert!(OUTBOUND_BYTES >= 2 * (PLAINTEXT_BYTES + RECORD_PREFIX), "a record fits beside another");
    assert!(INBOUND_BYTES >= 2 * (PLAINTEXT_BYTES + RECORD_PREFIX));
    assert!(INBOUND_BYTES >= OUTBOUND_BYTES, "what may be sent may be held");
    assert!(HALF_OPEN_PER_SOURCE <= HALF_OPEN && HALF_OPEN < STREAMS);
    assert!(2 * OPEN_EPOCHS <= HAVE_FEEDS, "a have-vector names every open epoch of both");
    assert!(
        OPEN_EPOCHS < EPOCHS && EPOCHS_A_DAY < OPEN_EPOCHS,
        "no epoch of one day closes the door to another"
    );
    assert!(READY_BYTES >= BODY_BYTES + PAGE_BYTES);
    assert!(UNPERSISTED_BYTES > CREDIT_BYTES as usize);
    assert!(
        LIVENESS_MAX.as_secs() >= 3 * HANDSHAKE_TIMEOUT.as_secs(),
        "the slowest way that a handshake takes is not cut off"
    );
    assert!(LIVENESS_MIN.as_secs() < LIVENESS_MAX.as_secs());
};
