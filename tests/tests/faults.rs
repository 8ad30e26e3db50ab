//! Two real processes in a conversation over loopback, and SIGKILL of either at any moment, ten times. At the end both
//! stores hold the same conversation: nothing lost, nothing doubled, everything in its author's order.

use peerlink_storage::{Message, State};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

const CYCLES: u64 = 10;
/// Looks, some milliseconds apart, after which something that must come is taken as never coming.
const FAILSAFE: usize = 30_000;

/// The program under test, of the same build.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let release = if cfg!(debug_assertions) { &[][..] } else { &["--release"][..] };
        let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
        let built = Command::new(cargo)
            // The selection of `cargo test --workspace`: another would unify features anew and build everything again.
            .args(["build", "--quiet", "--locked", "--workspace", "--bins", "--tests"])
            .args(release)
            .arg("--target-dir")
            .arg(&target)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
            .status()
            .unwrap();
        assert!(built.success());
        target.join(if cfg!(debug_assertions) { "debug" } else { "release" }).join("peerlink")
    })
}

/// A person: a profile, and the process that runs its node.
struct Person {
    dir: PathBuf,
    up: Child,
}

impl Person {
    fn new(dir: PathBuf) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let up = start(&dir, &["--listen", &format!("127.0.0.1:{port}")]);
        Self { dir, up }
    }

    /// No goodbye, no flush; then it starts again.
    fn kill_and_restart(&mut self) {
        self.up.kill().unwrap();
        self.up.wait().unwrap();
        self.up = start(&self.dir, &[]);
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ended_already = self.up.kill();
        let _ended_already = self.up.wait();
    }
}

fn start(dir: &Path, args: &[&str]) -> Child {
    let mut up = Command::new(program());
    up.arg("--profile").arg(dir).arg("up").args(args);
    up.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// One request over the socket of whoever holds the profile. `None`: nobody does, or it went away.
fn ask(dir: &Path, request: &Value) -> Option<Value> {
    let mut stream = UnixStream::connect(dir.join("socket")).ok()?;
    let mut request = request.clone();
    request["v"] = json!(1);
    request["id"] = json!(1);
    writeln!(stream, "{request}").ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    let answer: Value = serde_json::from_str(&line).ok()?;
    assert_eq!(answer.get("error"), None, "{request}");
    answer.get("ok").cloned()
}

fn ask_until(dir: &Path, request: &Value) -> Value {
    wait_for("an answer", || ask(dir, request))
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..FAILSAFE {
        if let Some(found) = look() {
            return found;
        }
        sleep(Duration::from_millis(5));
    }
    panic!("{what} never came");
}

/// Writes messages one after the other, each until it was accepted, by the same id every time.
struct Writer {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<String>>,
}

impl Writer {
    fn start(dir: PathBuf, name: &'static str) -> Self {
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (stop.clone(), accepted.clone());
        let thread = std::thread::spawn(move || {
            let mut texts = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let number = texts.len();
                // Every tenth is too large for one frame.
                let text =
                    format!("{name} {number} {}", "x".repeat(if number % 10 == 9 { 20_000 } else { number }));
                let id = format!("{:x}{number:030x}", name.len());
                ask_until(
                    &dir,
                    &json!({
                        "do": "send", "contact": "peer", "text": text, "message_id": format!("{id:0>32}"),
                        "wait": "queued", "timeout_ms": 0
                    }),
                );
                texts.push(text);
                count.fetch_add(1, Ordering::Relaxed);
            }
            texts
        });
        Self { stop, accepted, thread }
    }

    /// Waits for so many more to be accepted.
    fn wait(&self, more: usize) {
        let enough = self.accepted.load(Ordering::Relaxed) + more;
        wait_for("the next message", || {
            assert!(!self.thread.is_finished(), "the writer gave up");
            (self.accepted.load(Ordering::Relaxed) >= enough).then_some(())
        });
    }

    fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// What a store says, read without the program.
fn history(dir: &Path) -> Vec<Message> {
    let (_, _, reader) = peerlink_storage::open(&dir.join("store")).unwrap().split();
    let contacts = reader.contacts().unwrap();
    assert_eq!(contacts.len(), 1);
    reader.latest(contacts[0].contact.conversation, usize::MAX).unwrap()
}

/// Compares what both persons were promised with what both stores hold.
fn judge(promised: &[Vec<String>; 2], held: &[Vec<Message>; 2]) -> Result<(), String> {
    let named = |side: usize| held[side].iter().map(|message| (message.message, &message.body));
    if !named(0).eq(named(1)) {
        return Err("the two histories differ".to_owned());
    }
    for (author, texts) in promised.iter().enumerate() {
        for (side, messages) in held.iter().enumerate() {
            let by_author = messages.iter().filter(|message| message.mine == (side == author));
            let found: Vec<&[u8]> = by_author.map(|message| &*message.body).collect();
            let wanted: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
            if found != wanted {
                let (found, wanted) = (found.len(), wanted.len());
                return Err(format!(
                    "of author {author}, side {side} holds {found}, and {wanted} were promised"
                ));
            }
        }
    }
    let undelivered = held.iter().flatten().filter(|message| message.state == State::Queued).count();
    if undelivered > 0 {
        return Err(format!("{undelivered} are not delivered"));
    }
    Ok(())
}

#[test]
fn ten_kills_in_a_conversation_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut persons = ["alice", "bob"].map(|name| Person::new(dir.path().join(name)));
    let dirs = persons.each_ref().map(|person| person.dir.clone());
    let invite = json!({ "do": "invite", "expires_s": 3600, "addresses": [] });
    let ticket = ask_until(&dirs[0], &invite)["ticket"].clone();
    let add = json!({ "do": "add", "ticket": ticket, "name": "peer", "timeout_ms": 30_000 });
    assert_eq!(ask_until(&dirs[1], &add)["answered"], true);
    // The inviter knows the other by a name of its own making.
    let name = ask_until(&dirs[0], &json!({ "do": "contacts" }))[0]["name"].clone();
    ask_until(&dirs[0], &json!({ "do": "rename", "contact": name, "name": "peer" }));

    let writers = [Writer::start(dirs[0].clone(), "alice"), Writer::start(dirs[1].clone(), "bob")];
    let mut moment = 0x9e37_79b9_u64;
    let mut received = [0; 2];
    for cycle in 0..CYCLES {
        // xorshift64 (Marsaglia 2003).
        moment ^= moment << 13;
        moment ^= moment >> 7;
        moment ^= moment << 17;
        let side = usize::from(moment & 1 == 1);
        writers[side].wait(3 + usize::try_from(moment >> 8 & 15).unwrap());
        if cycle % 2 == 0 {
            // Not before messages came in since the last time: it dies in the middle of receiving.
            received[side] = wait_for("a message from the other side", || {
                let unread = ask_until(&dirs[side], &json!({ "do": "contacts" }))[0]["unread"].as_u64();
                unread.filter(|unread| *unread > received[side])
            });
        }
        sleep(Duration::from_micros(moment >> 16 & 0x3fff));
        persons[side].kill_and_restart();
    }
    writers.iter().for_each(|writer| writer.wait(5));
    let promised = writers.map(Writer::end);
    for dir in &dirs {
        wait_for("delivery of everything", || {
            let contact = ask_until(dir, &json!({ "do": "contacts" }))[0].clone();
            (contact["queued"] == 0 && contact["missing"] == 0).then_some(())
        });
    }
    // They end as they lived.
    drop(persons);
    let held = dirs.each_ref().map(|dir| history(dir));
    println!("{} and {} messages through {CYCLES} kills", promised[0].len(), promised[1].len());
    assert!(promised.iter().all(|texts| texts.len() >= 10), "there was a conversation");
    assert_eq!(judge(&promised, &held), Ok(()));
    the_judge_finds_what_is_wrong(&promised, &held);
}

/// The same verdict, asked about a conversation that went wrong.
fn the_judge_finds_what_is_wrong(promised: &[Vec<String>; 2], held: &[Vec<Message>; 2]) {
    type Change<'a> = &'a dyn Fn(&mut [Vec<String>; 2], &mut [Vec<Message>; 2]);
    let wrong = |change: Change<'_>| {
        let (mut promised, mut held) = (promised.clone(), held.clone());
        change(&mut promised, &mut held);
        judge(&promised, &held).is_err()
    };
    assert!(wrong(&|promised, _| drop(promised[0].remove(3))), "one that nobody wrote");
    assert!(wrong(&|promised, _| promised[1].swap(2, 3)), "two in the wrong order");
    assert!(wrong(&|_, held| drop(held[0].remove(4))), "one lost on one side");
    assert!(wrong(&|_, held| held.iter_mut().for_each(|all| drop(all.remove(4)))), "one lost on both sides");
    assert!(wrong(&|_, held| held.iter_mut().for_each(|all| all.insert(4, all[4].clone()))), "one doubled");
    let queue = |message: &mut Message| message.state = State::Queued;
    assert!(wrong(&|_, held| held[0].iter_mut().take(1).for_each(queue)), "one not delivered");
}
