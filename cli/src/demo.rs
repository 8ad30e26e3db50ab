//! The promise in ten seconds, on one machine, with real processes, sockets and disks: Alice writes to Bob, Bob is
//! killed in the middle, Alice goes on writing, Bob comes back. Then both stores are opened and counted.

use crate::client::Session;
use crate::commands::line;
use crate::fault::{Code, Fault};
use crate::profile::Profile;
use crate::proto::Request;
use peerlink_core::ids::PeerId;
use peerlink_storage::{Message, State};
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const BEFORE: u32 = 6;
const WHILE_AWAY: u32 = 6;
const AFTER: u32 = 3;
/// A message comes about this often.
const PACE: Duration = Duration::from_millis(350);
/// A part of the story that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a signal takes down: every node that was started, and the directory of both profiles. Whoever starts a node or
/// writes there holds the lock meanwhile.
#[derive(Debug, Default)]
struct Stage {
    dir: Option<PathBuf>,
    nodes: Vec<Arc<Mutex<Child>>>,
}

fn stage() -> MutexGuard<'static, Stage> {
    static STAGE: Mutex<Stage> = Mutex::new(Stage { dir: None, nodes: Vec::new() });
    STAGE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end(node: &Mutex<Child>) {
    let mut node = node.lock().unwrap_or_else(PoisonError::into_inner);
    let _ended_already = node.kill();
    let _ended_already = node.wait();
}

/// A signal ends the process: nothing of the demo stays. Nothing, if none runs. Nothing can be started any more.
pub(crate) fn take_down() {
    let stage = stage();
    stage.nodes.iter().for_each(|node| end(node));
    if let Some(dir) = &stage.dir {
        let _never_made = std::fs::remove_dir_all(dir);
    }
    std::mem::forget(stage);
}

/// A node in a process of its own; killed if the demo ends early.
struct Running(Arc<Mutex<Child>>);

impl Running {
    fn start(profile: &Profile) -> Result<Self, Fault> {
        let program = std::env::current_exe().map_err(Fault::internal)?;
        let mut command = Command::new(program);
        command.arg("--profile").arg(&profile.dir).args(["up", "--json"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // A terminal's Ctrl-C is for the demo, which ends its nodes itself.
        command.process_group(0);
        let mut stage = stage();
        let running = Self(Arc::new(Mutex::new(command.spawn().map_err(Fault::internal)?)));
        stage.nodes.push(running.0.clone());
        drop(stage);
        until("a node to answer", || Ok(Session::another(profile).is_ok()))?;
        Ok(running)
    }

    /// SIGKILL: no goodbye, no flush.
    fn kill(self) {
        drop(self);
    }

    fn end(self) -> Result<(), Fault> {
        let mut node = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = i32::try_from(node.id()).ok().and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(Fault::internal)?;
        }
        node.wait().map_err(Fault::internal).map(|_| ())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&self.0);
    }
}

fn until(what: &str, mut done: impl FnMut() -> Result<bool, Fault>) -> Result<(), Fault> {
    let end = crate::clock::monotonic() + PATIENCE;
    while !done()? {
        if crate::clock::monotonic() > end {
            return Err(Fault::internal(format!("the demo waited too long for {what}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

struct Story {
    began: Duration,
    alice: Profile,
    sent: u32,
    json: bool,
}

impl Story {
    fn tell(&self, text: &str) {
        let at = crate::clock::monotonic().saturating_sub(self.began);
        if self.json {
            let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
            line(&serde_json::json!({ "v": 1, "kind": "step", "at_ms": at_ms, "text": text }).to_string());
        } else {
            line(&format!("{:5.1} s  {text}", at.as_secs_f64()));
        }
    }

    fn write(&mut self, wait: &str) -> Result<String, Fault> {
        self.sent += 1;
        let request = Request::Send {
            expire: None,
            contact: "Bob".into(),
            text: format!("message {}", self.sent),
            message_id: None,
            wait: wait.into(),
            timeout_ms: 2000,
        };
        let value = Session::another(&self.alice)?.call(request)?;
        let state = value.get("state").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.tell(&format!("Alice: message {}  [{state}]", self.sent));
        Ok(state)
    }

    fn queued(&self) -> Result<u64, Fault> {
        let contacts = Session::another(&self.alice)?.call(Request::Contacts)?;
        let queued = contacts.get(0).and_then(|contact| contact.get("queued")).and_then(Value::as_u64);
        Ok(queued.unwrap_or(u64::MAX))
    }
}

pub(crate) fn run(json: bool) -> Result<(), Fault> {
    let mut name = [0; 8];
    getrandom::fill(&mut name).map_err(Fault::internal)?;
    let dir = std::env::temp_dir().join(format!("peerlink-demo-{}", data_encoding::HEXLOWER.encode(&name)));
    stage().dir = Some(dir.clone());
    crate::signals::end_in_good_order(false)?;
    let result = play(&dir, json);
    // If a node failed because a signal just ended it, that is no failure of the demo.
    crate::signals::yield_to_signal();
    match &result {
        Ok(()) => {
            let _left_behind = std::fs::remove_dir_all(&dir);
        }
        Err(_) => eprintln!("Both profiles were left in {}.", dir.display()),
    }
    result
}

fn make(dir: &Path, name: &str) -> Result<Profile, Fault> {
    let _stage = stage();
    let profile = Profile { dir: dir.join(name) };
    profile.init()?;
    let listen = vec![(std::net::Ipv4Addr::LOCALHOST, free_port()?).into()];
    profile.write_settings(&crate::profile::Settings::new(listen))?;
    Ok(profile)
}

fn free_port() -> Result<u16, Fault> {
    let listener =
        std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).map_err(Fault::internal)?;
    listener.local_addr().map(|address| address.port()).map_err(Fault::internal)
}

fn play(dir: &Path, json: bool) -> Result<(), Fault> {
    let (alice, bob) = (make(dir, "alice")?, make(dir, "bob")?);
    let mut story = Story { began: crate::clock::monotonic(), alice: alice.clone(), sent: 0, json };
    story.tell("Two people, two processes, two disks, a network between them.");
    let alice_runs = Running::start(&alice)?;
    let bob_runs = Running::start(&bob)?;
    for (profile, name) in [(&alice, "Alice"), (&bob, "Bob")] {
        Session::another(profile)?.call(Request::Nickname { nickname: Some(name.into()) })?;
    }
    let invite = Request::Invite { expires_s: 3600, addresses: Vec::new() };
    let invite = Session::another(&alice)?.call(invite)?;
    let ticket = invite.get("ticket").and_then(Value::as_str).unwrap_or_default().to_owned();
    story.tell("Alice makes a ticket; Bob adds it.");
    Session::another(&bob)?.call(Request::Add { ticket, name: None, timeout_ms: 10_000 })?;
    story.tell("They are contacts.");
    for _ in 0..BEFORE {
        story.write("delivered")?;
        std::thread::sleep(PACE);
    }
    // The last one is on its way while its recipient dies.
    story.write("queued")?;
    bob_runs.kill();
    story.tell("Bob is killed (SIGKILL), in the middle of it.");
    for _ in 0..WHILE_AWAY {
        story.write("queued")?;
        std::thread::sleep(PACE);
    }
    story.tell("Bob comes back.");
    let bob_runs = Running::start(&bob)?;
    until("everything to be delivered", || Ok(story.queued()? == 0))?;
    story.tell("Everything that waited is delivered.");
    for _ in 0..AFTER {
        story.write("delivered")?;
        std::thread::sleep(PACE);
    }
    alice_runs.end()?;
    bob_runs.end()?;
    story.tell("Both have stopped. Their stores say:");
    count(&alice, &bob, json)
}

/// Counts from both stores, and says so in the last line.
fn count(alice: &Profile, bob: &Profile, json: bool) -> Result<(), Fault> {
    let _stage = stage();
    let alices = messages(alice, bob.peer()?)?;
    let bobs = messages(bob, alice.peer()?)?;
    let sent: Vec<&Message> = alices.iter().filter(|message| message.mine).collect();
    let delivered = sent.iter().filter(|message| message.state == State::Delivered).count();
    let mut held: BTreeMap<&[u8], usize> = BTreeMap::new();
    for message in bobs.iter().filter(|message| !message.mine) {
        *held.entry(&message.body).or_default() += 1;
    }
    let lost = sent.iter().filter(|message| !held.contains_key(&*message.body)).count();
    let doubled: usize = held.values().map(|count| count - 1).sum();
    let order = |all: &[Message]| all.iter().map(|message| message.message).collect::<Vec<_>>();
    let equal = order(&alices) == order(&bobs);
    if json {
        let counts = serde_json::json!({
            "v": 1, "kind": "counts", "sent": sent.len(), "delivered": delivered, "lost": lost,
            "doubled": doubled, "equal": equal,
        });
        line(&counts.to_string());
        return verdict(lost == 0 && doubled == 0 && delivered == sent.len() && equal);
    }
    line(&format!("Both histories are {}.", if equal { "equal" } else { "NOT equal" }));
    line(&format!("sent {}, delivered {delivered}, lost {lost}, doubled {doubled}", sent.len()));
    verdict(lost == 0 && doubled == 0 && delivered == sent.len() && equal)
}

fn verdict(kept: bool) -> Result<(), Fault> {
    if kept { Ok(()) } else { Err(Fault::new(Code::Internal, "the promise was not kept")) }
}

fn messages(profile: &Profile, with: PeerId) -> Result<Vec<Message>, Fault> {
    let opened = peerlink_storage::open(&profile.store()).map_err(|error| Fault::new(Code::Store, error))?;
    let (_, _, reader) = opened.split();
    let Some(info) = reader.contact(with)? else { return Ok(Vec::new()) };
    Ok(reader.latest(info.contact.conversation, crate::limits::PAGE)?)
}
