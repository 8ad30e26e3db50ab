//! Ports that a real router's daemon opens: `miniupnpd`, which speaks PCP and NAT-PMP, on boxes that nobody gets through.
//!
//! Of two hosts behind boxes with mappings that cannot be guessed, one is let in by its router: then they meet straight.
//! Without the daemon the same two only ever meet through a relay, as the oracle says of them (`meetings`).

use crate::lab::{Lab, Site, alone, command, within};
use crate::meetings::{Going, Meeting, Seat, outside, relay};
use crate::people::{Person, Process, ask_until, try_ask, wait_for};
use crate::rules::Rules;
use serde_json::{Value, json};
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_port_that_a_router_opens_leads_in() {
    alone("ports", "ports::inside");
}

/// Chains that the daemon fills, in tables of its own: what it lets in passes the guard of [`Rules`] as translated.
const CHAINS: &str = "
table inet filter {
  chain forward { type filter hook forward priority 0; policy accept;
    jump miniupnpd
  }
  chain miniupnpd { }
  chain prerouting { type nat hook prerouting priority -100;
    jump prerouting_miniupnpd
  }
  chain postrouting { type nat hook postrouting priority 110;
    jump postrouting_miniupnpd
  }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
}
";

/// Runs the daemon on the box of a site: it speaks both languages.
fn daemon(dir: &Path, number: usize) -> Process {
    let space = format!("n{number}-0");
    let config = dir.join(format!("miniupnpd-{number}.conf"));
    let lines = [
        "ext_ifname=wan".to_owned(),
        "listening_ip=lan".to_owned(),
        "enable_natpmp=yes".to_owned(),
        "enable_upnp=no".to_owned(),
        "secure_mode=yes".to_owned(),
        "min_lifetime=60".to_owned(),
        "max_lifetime=86400".to_owned(),
        format!("lease_file={}", dir.join(format!("leases-{number}")).display()),
        format!("uuid=00000000-0000-0000-0000-{number:012}"),
        "allow 1024-65535 10.0.0.0/8 1024-65535".to_owned(),
        "deny 0-65535 0.0.0.0/0 0-65535".to_owned(),
    ];
    fs::write(&config, lines.join("\n") + "\n").unwrap();
    within(&space, || {
        crate::lab::rules(CHAINS);
        let child = Command::new("miniupnpd")
            .arg("-d")
            .arg("-f")
            .arg(&config)
            .arg("-P")
            .arg(dir.join(format!("miniupnpd-{number}.pid")))
            .stdin(Stdio::null())
            .stdout(fs::File::create(dir.join(format!("miniupnpd-{number}.log"))).unwrap())
            .stderr(fs::File::create(dir.join(format!("miniupnpd-{number}.err"))).unwrap())
            .spawn()
            .unwrap();
        Process(child)
    })
}

fn mapped(person: &Person) -> Vec<Value> {
    let status = ask_until(&person.dir, &json!({ "do": "status" }));
    status["mapped"].as_array().cloned().unwrap_or_default()
}

#[test]
#[ignore = "run by the test above, in namespaces of its own"]
fn inside() {
    let Some(lab) = Lab::enter() else { return };
    lab.is_wide();
    let rules = [Rules::FullyRandom];
    let sites: Vec<Site> = (1..=2).map(|number| lab.site(number, &rules)).collect();
    let (relay, _relaying) = relay(&lab.dir);
    let seats = [0, 1].map(|at| Seat { site: &sites[at], host: 0, port: 4711 });
    let meeting =
        Meeting { name: "mapped".to_owned(), seats, seen: [outside(1), outside(2)], going: Going::Straight };

    // The control: nothing opens a port, and so nobody is let in.
    let dir = lab.dir.join("control");
    let alone = Meeting { going: Going::Relay, name: "unmapped".to_owned(), ..meeting };
    alone.meet(&dir, Some(&relay)).unwrap();

    let _daemon = daemon(&lab.dir, 1);
    let foreign = foreign(&sites[0]);
    let meeting = Meeting { going: Going::Straight, name: "mapped".to_owned(), ..alone };
    let dir = lab.dir.join("mapped");
    fs::create_dir_all(&dir).unwrap();
    let person = seats[0].person("alice", &dir.join("alone"), None);
    let running = seats[0].up(&person);
    let ports = wait_for("two ports", || {
        let status = try_ask(&person.dir, &json!({ "do": "status" }))?;
        status["mapped"].as_array().filter(|mapped| mapped.len() == 2).cloned()
    });
    let external: Vec<SocketAddr> =
        ports.iter().map(|port| port["external"].as_str().unwrap().parse().unwrap()).collect();
    assert!(external.iter().all(|external| external.ip() == outside(1)), "{ports:?}");
    // Once the record that says so is on disk.
    wait_for("others are told", || {
        let status = try_ask(&person.dir, &json!({ "do": "status" }))?;
        status["reachable"].as_array()?.contains(&json!(external[0].to_string())).then_some(())
    });
    // They are given back when it ends in good order.
    let opened = forwards();
    assert!(opened.contains("4711"), "{opened}");
    end(running);
    wait_for("an end of the mapping", || (!forwards().contains("4711")).then_some(()));

    meeting.meet(&dir, Some(&relay)).unwrap();
    let older = older_language(&lab.dir, &sites[1]);
    // Switched off, nothing is asked for.
    let silent = Seat { port: 4712, ..seats[0] };
    let off = silent.person("alice", &lab.dir.join("off"), None);
    within(&sites[0].hosts[0], || assert!(off.run(&["config", "mapping", "off"]).status.success()));
    let _running = silent.up(&off);
    ask_until(&off.dir, &json!({ "do": "status" }));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(mapped(&off), [0; 0]);
    assert!(!forwards().contains("4712"));
    println!(
        "RAN ports: {} by miniupnpd, met straight, given back; {older}; {foreign}; control: without it through the relay alone",
        ports.len()
    );
}

/// A router that takes no notice of the newer language is asked in the older one.
fn older_language(dir: &Path, site: &Site) -> &'static str {
    let _daemon = daemon(dir, 2);
    let deaf = "table inet deaf {
  chain input { type filter hook input priority -10; policy accept;
    udp dport 5351 @th,64,8 2 drop
  }
}
";
    within("n2-0", || crate::lab::rules(deaf));
    let seat = Seat { site, host: 1, port: 4713 };
    let person = seat.person("alice", &dir.join("older"), None);
    let running = seat.up(&person);
    wait_for("two ports", || (mapped(&person).len() == 2).then_some(()));
    end(running);
    let said = |number: usize| fs::read_to_string(dir.join(format!("miniupnpd-{number}.err"))).unwrap();
    // The first one speaks the newer language with us, and this one never heard of it.
    assert!(said(1).contains("PCP MAP") && !said(2).contains("PCP MAP"), "{}", said(2));
    assert!(said(2).contains("NAT-PMP port mapping request : 4713->"), "{}", said(2));
    "in NAT-PMP as well"
}

/// What the daemon has let in.
fn forwards() -> String {
    within("n1-0", || {
        let shown = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
        let all = String::from_utf8_lossy(&shown.stdout).into_owned();
        all.lines().filter(|line| line.contains("dnat")).collect::<Vec<_>>().join("\n")
    })
}

/// Ends in good order.
fn end(mut process: Process) {
    let pid = rustix::process::Pid::from_raw(process.0.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    process.0.wait().unwrap();
}

/// Another program asks the daemon for the same, and a packet comes in: the laboratory works without us.
fn foreign(site: &Site) -> &'static str {
    let asked = || {
        let asked =
            Command::new("natpmpc").args(["-g", "10.1.0.1", "-a", "5999", "5999", "udp", "120"]).output();
        asked.unwrap().status.success().then_some(())
    };
    within(&site.hosts[0], || wait_for("natpmpc", asked));
    let inside = within(&site.hosts[0], || UdpSocket::bind("0.0.0.0:5999")).unwrap();
    inside.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let server = within("s1", || UdpSocket::bind("9.9.9.9:6000")).unwrap();
    server.send_to(b"in", SocketAddr::new(outside(1), 5999)).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(inside.recv(&mut buffer).unwrap(), 2);
    within("n1-0", || command("conntrack", "-F"));
    "natpmpc agrees"
}
