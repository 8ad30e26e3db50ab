//! What a node costs that does nothing: memory, wake-ups, processor time.

use crate::measure::{Mark, Report};
use crate::pair::Node;
use peerlink_core::api::{Batch, Store as _};
use peerlink_core::identity::{Identity, IdentitySecret};
use peerlink_core::ids::{BatchId, PeerId};
use peerlink_core::ticket::Ticket;
use peerlink_core::wire::frame::{Frame, Frames};
use peerlink_tests::bench::contact;
use peerlink_tests::speaker::{Speaker, record, take_record};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

const CONTACTS: u16 = 1000;
const SESSIONS: u16 = 600;
/// Longer than a session may be silent, so that what keeps it is counted too.
const WATCHED_S: u64 = 110;

fn seed(number: u16) -> [u8; 32] {
    let mut seed = [77; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    seed
}

fn peer(number: u16) -> PeerId {
    let secret = IdentitySecret::new(seed(number)).expect("a seed");
    Identity::new(&secret).expect("a good key").peer()
}

fn status(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = text.lines().find(|line| line.starts_with(name)).expect("a field of it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// Times that any of its threads was woken from a wait.
fn wakeups(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    let texts = tasks.map(|task| std::fs::read_to_string(task.expect("a thread").path().join("status")));
    let counts = texts.flatten().filter_map(|text| {
        let line = text.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?.to_owned();
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    counts.sum()
}

/// A session of the contact `number`, as the node has it.
fn session(number: u16, ticket: &Ticket) -> (TcpStream, Speaker) {
    let peer: PeerId = ticket.peer;
    let mut speaker = Speaker::of(seed(number), [1; 32], &peer);
    let mut stream = TcpStream::connect(ticket.addresses[0]).expect("it listens");
    stream.write_all(&record(&speaker.first(&peer))).expect("it is there");
    let second = hear(&mut stream).expect("message 2");
    let payload = [speaker.introduction(false), vec![0, 0, 0]].concat();
    let third = speaker.third(&second, &payload).expect("it checks out");
    let mut ping = Vec::new();
    Frame::Ping(1).encode(&mut ping);
    let bytes = [record(&third), speaker.say(&ping)].concat();
    stream.write_all(&bytes).expect("it is there");
    // Until the answer, so that the session stands.
    while !pongs(&mut speaker, &hear(&mut stream).expect("an answer")).1 {}
    (stream, speaker)
}

fn hear(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 2];
    stream.read_exact(&mut bytes).ok()?;
    let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    bytes.resize(2 + length, 0);
    stream.read_exact(&mut bytes[2..]).ok()?;
    take_record(&mut bytes)
}

/// What must be answered, and whether this is an answer.
fn pongs(speaker: &mut Speaker, sealed: &[u8]) -> (Vec<u8>, bool) {
    let frames = speaker.hear(sealed).expect("a good seal");
    let (mut answers, mut answered) = (Vec::new(), false);
    for frame in Frames(&frames) {
        match frame.expect("a good frame") {
            Frame::Ping(nonce) => Frame::Pong(nonce).encode(&mut answers),
            Frame::Pong(_) => answered = true,
            _ => {}
        }
    }
    (answers, answered)
}

pub(crate) fn measure(report: &Report, dir: &Path) {
    report.section("A node that does nothing");
    let empty = dir.join("idle0").to_string_lossy().into_owned();
    let mut node = Node::start(&empty, 1, 1);
    node.ask("stats");
    report.line("resident, no contacts", status(node.pid(), "VmRSS") as f64 / 1024.0, "MiB", Mark::None);
    node.stop();
    let path = dir.join("idle1000");
    Node::start(&path.to_string_lossy(), 1, 1).stop();
    let (mut writer, ..) = peerlink_storage::open(&path).expect("room").split();
    let writes = (0..CONTACTS).flat_map(|number| {
        let records = contact(peer(number), u32::from(number) + 1, &format!("contact {number}"), None);
        records.map(|(key, value)| (key, Some(value)))
    });
    writer.commit(&[Batch { id: BatchId(1), writes: writes.collect() }]).expect("room");
    writer.close();
    drop(writer);
    let mut node = Node::start(&path.to_string_lossy(), 1, 2);
    let ticket: Ticket = node.ask("ticket").parse().expect("a ticket");
    let before = status(node.pid(), "VmRSS");
    report.line("resident, 1,000 contacts", before as f64 / 1024.0, "MiB", Mark::AtMost(16.0));
    let mut sessions: Vec<_> = (0..SESSIONS).map(|number| session(number, &ticket)).collect();
    node.ask("stats");
    let grown = status(node.pid(), "VmRSS").saturating_sub(before) as f64;
    report.line("resident, each of 600 idle sessions", grown / f64::from(SESSIONS), "KiB", Mark::AtMost(8.0));
    let cpu = node.numbers("stats")[2];
    let woken = wakeups(node.pid());
    watch(&mut sessions);
    let woken = (wakeups(node.pid()) - woken) as f64 / WATCHED_S as f64 / f64::from(SESSIONS);
    let cpu = (node.numbers("stats")[2] - cpu) as f64 / WATCHED_S as f64;
    report.line("wake-ups of 600 sessions, a session and second", woken, "", Mark::AtMost(0.2));
    report.line("processor time of 600 sessions", cpu / 1e4, "%", Mark::None);
    drop(sessions);
    node.stop();
}

/// Answers whatever the node asks meanwhile.
fn watch(sessions: &mut [(TcpStream, Speaker)]) {
    for (stream, _) in sessions.iter() {
        stream.set_nonblocking(true).expect("a socket");
    }
    for _ in 0..WATCHED_S * 2 {
        std::thread::sleep(Duration::from_millis(500));
        for (stream, speaker) in sessions.iter_mut() {
            let mut byte = [0];
            if !matches!(stream.peek(&mut byte), Ok(1)) {
                continue;
            }
            stream.set_nonblocking(false).expect("a socket");
            let (answers, _) = pongs(speaker, &hear(stream).expect("a record"));
            if !answers.is_empty() {
                stream.write_all(&speaker.say(&answers)).expect("it is there");
            }
            stream.set_nonblocking(true).expect("a socket");
        }
    }
}
