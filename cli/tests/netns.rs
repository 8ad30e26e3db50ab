//! Two people on two machines: two network namespaces with a cable between them, one profile in each, the real
//! program. Needs root and iproute2; says whether it ran.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_peerlink");

fn ip(args: &str) -> Option<Output> {
    Command::new("ip").args(args.split(' ')).output().ok()
}

/// Namespaces and the cables between them; gone when dropped.
struct Lab {
    names: Vec<String>,
    who: &'static [&'static str],
    dir: PathBuf,
    running: Vec<Option<Child>>,
}

impl Lab {
    /// A machine for each of these people. `cables` are commands of `ip`, given the names of the namespaces.
    fn new(
        tag: &str,
        who: &'static [&'static str],
        cables: impl Fn(&[String]) -> Vec<String>,
    ) -> Option<Self> {
        let tag = format!("p{tag}{}", std::process::id());
        let names: Vec<String> = (0..who.len()).map(|at| format!("{tag}{}", ['a', 'b', 'r'][at])).collect();
        let dir = std::env::temp_dir().join(&tag);
        let running = names.iter().map(|_| None).collect();
        let lab = Self { names, who, dir, running };
        let made = lab.names.iter().map(|name| format!("netns add {name}"));
        let lo = lab.names.iter().map(|name| format!("-n {name} link set lo up"));
        let steps = made.chain(lo).chain(cables(&lab.names));
        let done = |step: String| ip(&step).is_some_and(|output| output.status.success());
        steps.into_iter().all(done).then_some(lab)
    }

    /// Two, with a cable between them.
    fn two() -> Option<Self> {
        Self::new("t", &["alice", "bob"], |names| {
            let (a, b) = (&names[0], &names[1]);
            vec![
                format!("link add {a} type veth peer name {b}"),
                format!("link set {a} netns {a}"),
                format!("link set {b} netns {b}"),
                format!("-n {a} addr add 10.77.0.1/24 dev {a}"),
                format!("-n {b} addr add 10.77.0.2/24 dev {b}"),
                format!("-n {a} link set {a} up"),
                format!("-n {b} link set {b} up"),
            ]
        })
    }

    /// Two that have no way to each other, and a third that both reach.
    fn two_and_a_relay() -> Option<Self> {
        Self::new("r", &["alice", "bob", "relay"], |names| {
            let r = &names[2];
            let mut steps = Vec::new();
            for (at, name) in names[..2].iter().enumerate() {
                let at = at + 1;
                steps.extend([
                    format!("link add {name} type veth peer name {name}r"),
                    format!("link set {name} netns {name}"),
                    format!("link set {name}r netns {r}"),
                    format!("-n {name} addr add 10.78.{at}.2/24 dev {name}"),
                    format!("-n {r} addr add 10.78.{at}.1/24 dev {name}r"),
                    format!("-n {name} link set {name} up"),
                    format!("-n {r} link set {name}r up"),
                    format!("-n {name} route add default via 10.78.{at}.1"),
                ]);
            }
            steps
        })
    }

    fn profile(&self, side: usize) -> PathBuf {
        self.dir.join(self.who[side])
    }

    fn command(&self, side: usize, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.names[side], PROGRAM, "--profile"])
            .arg(self.profile(side))
            .args(args);
        command
    }

    fn run(&self, side: usize, args: &[&str]) -> (i32, String) {
        let output = self.command(side, args).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap_or(-1), said)
    }

    fn up(&mut self, side: usize) {
        self.start(side, &["up"]);
    }

    fn start(&mut self, side: usize, args: &[&str]) {
        let child = self.command(side, args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.running[side] = Some(child);
        until("the node runs", || self.run(side, &["status"]).1.contains("Listening on"));
    }

    /// SIGKILL. (`ip netns exec` became the program by exec(2), so it is the child.)
    fn kill(&mut self, side: usize) {
        let mut child = self.running[side].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn history(&self, side: usize, contact: &str) -> Vec<(String, String)> {
        let (code, lines) = self.run(side, &["history", contact, "--last", "1000", "--json"]);
        assert_eq!(code, 0, "{lines}");
        let field = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
        let values = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        values.map(|value| (field(&value, "message"), field(&value, "text"))).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in &self.names {
            let _ = ip(&format!("netns del {name}"));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    // A failsafe, not a measurement.
    for _ in 0..1_800 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("never: {what}");
}

fn make(lab: &Lab, side: usize, name: &str) {
    assert!(Path::new(PROGRAM).exists());
    let (code, said) = lab.run(side, &["init", "--nickname", name]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn two_machines_talk_through_a_kill_and_a_changed_address() {
    let Some(mut lab) = Lab::two() else {
        println!("SKIPPED: network namespaces cannot be made here");
        return;
    };
    println!("RAN in namespaces {:?}", lab.names);
    make(&lab, 0, "Alice");
    make(&lab, 1, "Bob");
    lab.up(0);
    let (code, ticket) = lab.run(0, &["invite", "--json"]);
    assert_eq!(code, 0, "{ticket}");
    let ticket: Value = serde_json::from_str(ticket.lines().next().unwrap()).unwrap();
    lab.up(1);
    let (code, said) = lab.run(1, &["add", ticket["ticket"].as_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    for n in 0..5 {
        assert_eq!(lab.run(0, &["send", "Bob", &format!("from Alice {n}")]), (0, "delivered\n".into()));
        assert_eq!(lab.run(1, &["send", "Ali", &format!("from Bob {n}")]), (0, "delivered\n".into()));
    }
    lab.kill(1);
    let (code, said) = lab.run(0, &["send", "Bob", "while you are away", "--timeout", "1"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("queued"), "{said}");
    // Bob comes back at another address, and Alice at none that Bob would not know: he finds her.
    let b = lab.names[1].clone();
    assert!(ip(&format!("-n {b} addr flush dev {b}")).unwrap().status.success());
    assert!(ip(&format!("-n {b} addr add 10.77.0.99/24 dev {b}")).unwrap().status.success());
    lab.up(1);
    until("delivered", || {
        lab.run(0, &["status"]).1.lines().any(|line| line.contains("Bob") && !line.contains("queued"))
    });
    // And now Alice knows where he is: she finds him when he went without a word.
    lab.kill(1);
    lab.up(1);
    assert_eq!(lab.run(0, &["send", "Bob", "found you", "--timeout", "60"]), (0, "delivered\n".into()));
    let (alice, bob) = (lab.history(0, "Bob"), lab.history(1, "Alice"));
    assert_eq!(alice.len(), 12);
    assert_eq!(alice, bob);
}

#[test]
fn two_machines_without_a_way_to_each_other_talk_through_a_third() {
    let Some(mut lab) = Lab::two_and_a_relay() else {
        println!("SKIPPED: network namespaces cannot be made here");
        return;
    };
    println!("RAN in namespaces {:?}", lab.names);
    for (side, name) in ["Alice", "Bob", "Relay"].into_iter().enumerate() {
        make(&lab, side, name);
    }
    let (_, id) = lab.run(2, &["id", "--json"]);
    let id: Value = serde_json::from_str(id.lines().last().unwrap()).unwrap();
    lab.start(2, &["relay", "--listen", "0.0.0.0:7777"]);
    // Each knows the relay by an address of its own network.
    for side in 0..2 {
        let relay = format!("{}@10.78.{}.1:7777", id["peer"].as_str().unwrap(), side + 1);
        let (code, said) = lab.run(side, &["config", "relays", &relay]);
        assert_eq!(code, 0, "{said}");
        lab.up(side);
        until("the relay serves", || lab.run(side, &["status"]).1.contains("7777: connected to"));
    }
    let (code, ticket) = lab.run(0, &["invite", "--json"]);
    assert_eq!(code, 0, "{ticket}");
    let ticket: Value = serde_json::from_str(ticket.lines().next().unwrap()).unwrap();
    let (code, said) = lab.run(1, &["add", ticket["ticket"].as_str().unwrap(), "--timeout", "60"]);
    assert_eq!(code, 0, "{said}");
    for n in 0..5 {
        assert_eq!(lab.run(0, &["send", "Bob", &format!("from Alice {n}")]), (0, "delivered\n".into()));
        assert_eq!(lab.run(1, &["send", "Ali", &format!("from Bob {n}")]), (0, "delivered\n".into()));
    }
    assert!(lab.run(0, &["status"]).1.contains("connected through the relay at 10.78.1.1:7777"));
    let (code, said) = lab.run(0, &["doctor", "Bob"]);
    assert_eq!(code, 0, "{said}");
    for words in [
        "You are seen at 10.78.1.2:",
        "no router translates your address",
        "Bob: connected through the relay",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // The relay dies and comes back; what was written meanwhile arrives, once.
    lab.kill(2);
    let (code, said) = lab.run(0, &["send", "Bob", "while the relay is away", "--timeout", "1"]);
    assert_eq!(code, 4, "{said}");
    let (code, said) = lab.run(0, &["doctor", "Bob"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("7777 does not answer: is it running"), "{said}");
    lab.start(2, &["relay"]);
    until("delivered", || {
        lab.run(0, &["status"]).1.lines().any(|line| line.contains("Bob") && !line.contains("queued"))
    });
    let (alice, bob) = (lab.history(0, "Bob"), lab.history(1, "Alice"));
    assert_eq!(alice.len(), 11);
    assert_eq!(alice, bob);
}
