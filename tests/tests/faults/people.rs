//! Two people, the real program that each of them runs, what they were promised, and the judge of it.

use peerlink_storage::{Message, State};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

/// Looks, some milliseconds apart, after which something that must come is taken as never coming.
const FAILSAFE: usize = 30_000;

/// The program under test, of the same build.
pub(crate) fn program() -> &'static Path {
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

/// How often something is done: `short` times, or, with `PEERLINK_FAULTS=long`, `long` times.
pub(crate) fn times(short: usize, long: usize) -> usize {
    if std::env::var_os("PEERLINK_FAULTS").is_some_and(|value| value == "long") { long } else { short }
}

/// Says that something was done and met, or why it was not, also to whoever reads the log of these tests in the build's
/// `tmp`: `faults.log`, `nat.log`.
pub(crate) fn report(line: &str) {
    println!("{line}");
    let log = concat!(env!("CARGO_CRATE_NAME"), ".log");
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(log);
    let mut log = File::options().create(true).append(true).open(log).unwrap();
    writeln!(log, "{line}").unwrap();
}

/// Numbers that are the same in every run of one seed. xorshift64 (Marsaglia 2003).
pub(crate) struct Choices(pub(crate) u64);

impl Choices {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}

/// One request over the socket of whoever holds the profile. `None`: nobody does, it went away, or it refused.
pub(crate) fn try_ask(dir: &Path, request: &Value) -> Option<Value> {
    answer(dir, request)?.get("ok").cloned()
}

/// The whole answer, with what a refusal says.
pub(crate) fn answer(dir: &Path, request: &Value) -> Option<Value> {
    let mut stream = UnixStream::connect(dir.join("socket")).ok()?;
    let mut request = request.clone();
    request["v"] = json!(1);
    request["id"] = json!(1);
    writeln!(stream, "{request}").ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

pub(crate) fn ask_until(dir: &Path, request: &Value) -> Value {
    wait_for("an answer", || try_ask(dir, request))
}

pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..FAILSAFE {
        if let Some(found) = look() {
            return found;
        }
        sleep(Duration::from_millis(5));
    }
    panic!("{what} never came");
}

/// A request to queue message `number`, under the same id every time.
pub(crate) fn send(name: &str, number: usize, text: &str) -> Value {
    let id = format!("{:x}{number:030x}", name.len());
    json!({
        "do": "send", "contact": "peer", "text": text, "message_id": format!("{id:0>32}"),
        "wait": "queued", "timeout_ms": 0
    })
}

/// A process that is killed when it is let go.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ended_already = self.0.wait();
    }
}

/// A person: a profile, and what it was promised.
pub(crate) struct Person {
    pub(crate) name: &'static str,
    pub(crate) dir: PathBuf,
    pub(crate) promised: Vec<String>,
}

impl Person {
    pub(crate) fn new(name: &'static str, dir: PathBuf) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let person = Self { name, dir, promised: Vec::new() };
        let listen = format!("127.0.0.1:{port}");
        assert!(person.run(&["init", "--nickname", name, "--listen", &listen]).status.success());
        person
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.wrapped(&[], args)
    }

    /// The program, started by another one.
    pub(crate) fn wrapped(&self, wrapper: &[&str], args: &[&str]) -> Command {
        let mut command = match wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program());
                command
            }
            None => Command::new(program()),
        };
        command.arg("--profile").arg(&self.dir).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
    }

    pub(crate) fn up(&self) -> Process {
        Process(self.command(&["up"]).spawn().unwrap())
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// Asks for message after message to be queued, each until it is, as long as `go_on` says so.
    pub(crate) fn write(&mut self, texts: usize, mut go_on: impl FnMut() -> bool) {
        for _ in 0..texts {
            let number = self.promised.len();
            // Every tenth is too large for one frame.
            let text = format!(
                "{} {number} {}",
                self.name,
                "x".repeat(if number % 10 == 9 { 20_000 } else { number % 100 })
            );
            let request = send(self.name, number, &text);
            while try_ask(&self.dir, &request).is_none() {
                if !go_on() {
                    return;
                }
                sleep(Duration::from_millis(2));
            }
            self.promised.push(text);
        }
    }

    /// What the store says, read without the program.
    pub(crate) fn history(&self) -> Result<Vec<Message>, String> {
        let opened = peerlink_storage::open(&self.store()).map_err(|error| error.to_string())?;
        opened.check_heads().map_err(|error| error.to_string())?;
        let (_, _, reader) = opened.split();
        let contacts = reader.contacts().map_err(|error| error.to_string())?;
        let contact = contacts.first().ok_or("no contact is there")?;
        reader.latest(contact.contact.conversation, usize::MAX).map_err(|error| error.to_string())
    }
}

/// Alice and Bob, each known to the other as `peer`, with nobody running.
pub(crate) fn pair(dir: &Path) -> [Person; 2] {
    pair_in([dir.join("alice"), dir.join("bob")])
}

pub(crate) fn pair_in([alice, bob]: [PathBuf; 2]) -> [Person; 2] {
    let persons = [Person::new("alice", alice), Person::new("bob", bob)];
    let _up = persons.each_ref().map(Person::up);
    introduce(&persons);
    persons
}

/// The first invites the second, while both run: then each is known to the other as `peer`.
pub(crate) fn introduce(persons: &[Person; 2]) {
    let invite = json!({ "do": "invite", "expires_s": 3600, "addresses": [] });
    let ticket = ask_until(&persons[0].dir, &invite)["ticket"].clone();
    let add = json!({ "do": "add", "ticket": ticket, "name": "peer", "timeout_ms": 30_000 });
    assert_eq!(ask_until(&persons[1].dir, &add)["answered"], true);
    // The inviter knows the other by a name of its own making.
    let name = ask_until(&persons[0].dir, &json!({ "do": "contacts" }))[0]["name"].clone();
    ask_until(&persons[0].dir, &json!({ "do": "rename", "contact": name, "name": "peer" }));
}

/// Waits until both have everything, as they say themselves.
pub(crate) fn settle(persons: &[Person; 2]) {
    for person in persons {
        wait_for("delivery of everything", || {
            let contact = try_ask(&person.dir, &json!({ "do": "contacts" }))?[0].clone();
            (contact["queued"] == 0 && contact["missing"] == 0).then_some(())
        });
    }
}

/// Compares what both were promised with what both stores hold.
pub(crate) fn judge(persons: &[Person; 2]) -> Result<(), String> {
    let [alice, bob] = persons.each_ref().map(Person::history);
    judge_held(&persons.each_ref().map(|person| person.promised.clone()), &[alice?, bob?])
}

/// The same, after a repair: what was issued again stands where it was issued again.
pub(crate) fn judge_in_any_order(persons: &[Person; 2]) -> Result<(), String> {
    let [mut alice, mut bob] =
        persons.each_ref().map(|person| person.history().map(|held| (held, person.promised.clone())));
    let numbered = |text: &[u8]| text.split(|byte| *byte == b' ').nth(1).map(<[u8]>::to_vec);
    let order =
        |bytes: &[u8]| numbered(bytes).and_then(|it| String::from_utf8(it).ok()?.parse::<usize>().ok());
    for side in [&mut alice, &mut bob] {
        let Ok((held, _)) = side else { continue };
        held.sort_by_key(|message| (order(&message.body), message.body.clone()));
    }
    let (alice, bob) = (alice?, bob?);
    judge_held(&[alice.1, bob.1], &[alice.0, bob.0])
}

pub(crate) fn judge_held(promised: &[Vec<String>; 2], held: &[Vec<Message>; 2]) -> Result<(), String> {
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

/// The files of a profile while nobody runs it. Unused ends are left out, and told by the length.
#[derive(Clone)]
pub(crate) struct Image(pub(crate) BTreeMap<PathBuf, (Vec<u8>, u64)>);

impl Image {
    pub(crate) fn of(dir: &Path) -> Self {
        let (mut found, mut open) = (BTreeMap::new(), vec![dir.to_owned()]);
        while let Some(next) = open.pop() {
            for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    open.push(entry.path());
                } else if kind.is_file() {
                    let mut bytes = fs::read(entry.path()).unwrap();
                    let len = bytes.len() as u64;
                    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
                    found.insert(entry.path().strip_prefix(dir).unwrap().to_owned(), (bytes, len));
                }
            }
        }
        Self(found)
    }

    /// Makes `dir` what it was.
    pub(crate) fn put(&self, dir: &Path) {
        let _not_there = fs::remove_dir_all(dir);
        for (path, (bytes, len)) in &self.0 {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            File::options().write(true).open(&path).unwrap().set_len(*len).unwrap();
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&path, private).unwrap();
        }
    }
}
