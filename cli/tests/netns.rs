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

/// Two namespaces and the cable; gone when dropped.
struct Lab {
    names: [String; 2],
    dir: PathBuf,
    running: [Option<Child>; 2],
}

impl Lab {
    fn new() -> Option<Self> {
        let tag = std::process::id();
        let names = [format!("plt{tag}a"), format!("plt{tag}b")];
        let dir = std::env::temp_dir().join(format!("plt{tag}"));
        let lab = Self { names, dir, running: [None, None] };
        let [a, b] = &lab.names;
        let steps = [
            format!("netns add {a}"),
            format!("netns add {b}"),
            format!("link add {a} type veth peer name {b}"),
            format!("link set {a} netns {a}"),
            format!("link set {b} netns {b}"),
            format!("-n {a} addr add 10.77.0.1/24 dev {a}"),
            format!("-n {b} addr add 10.77.0.2/24 dev {b}"),
            format!("-n {a} link set {a} up"),
            format!("-n {b} link set {b} up"),
        ];
        steps.iter().all(|step| ip(step).is_some_and(|output| output.status.success())).then_some(lab)
    }

    fn profile(&self, side: usize) -> PathBuf {
        self.dir.join(["alice", "bob"][side])
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
        let child = self.command(side, &["up"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
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
    for _ in 0..600 {
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
    let Some(mut lab) = Lab::new() else {
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
