//! The laboratory: an internet, two servers on it, and sites of boxes and hosts.
//!
//! ```text
//! s1 9.9.9.9 ---+             +-- site n: box, outside 5.5.n.2 -- [box, outside 100.64.n.2 --] hosts 10.n.0.2, 10.n.0.3
//!               +-- internet -+
//! s2 8.8.4.4 ---+             +-- site m without translation: box, outside 5.5.m.2 -- hosts 5.105.m.2, 5.105.m.3
//! ```
//!
//! Addresses look public, because the program rightly believes no others; nobody outside is reached.

use crate::people::report;
use crate::rules::Rules;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};

const ENTERED: &str = "PEERLINK_TEST_LAB";
pub(crate) const SERVERS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];
pub(crate) const SERVERS_V6: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0x2a05, 9, 0, 0, 0, 0, 0, 9)),
    IpAddr::V6(Ipv6Addr::new(0x2a05, 8, 0, 0, 0, 0, 0, 8)),
];
pub(crate) const SERVER_SPACES: [&str; 2] = ["s1", "s2"];

/// Runs an ignored test of this program in namespaces of its own, and reports the lines that it prints as
/// `RAN name: ..`; or says that this is not possible here.
pub(crate) fn alone(name: &str, test: &str) {
    let dir = tempfile::tempdir().unwrap();
    // Built here, where the whole system can be seen.
    crate::people::program();
    let mut outside = Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        outside.args(["--user", "--map-root-user"]);
    }
    let inside = outside
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(ENTERED, dir.path())
        .stdin(Stdio::null())
        .output();
    let why = match inside {
        Ok(inside) if inside.status.success() => {
            let out = String::from_utf8_lossy(&inside.stdout).into_owned();
            let ran = out.lines().filter(|line| line.starts_with(&format!("RAN {name}: ")));
            let ran: Vec<&str> = ran.collect();
            assert!(!ran.is_empty(), "{out}");
            return ran.into_iter().for_each(report);
        }
        Ok(inside) if dir.path().join("entered").exists() => {
            let said =
                [&inside.stdout, &inside.stderr].map(|said| String::from_utf8_lossy(said).into_owned());
            panic!("{}\n{}", said[0], said[1]);
        }
        Ok(inside) => {
            let said = String::from_utf8_lossy(&inside.stderr).into_owned();
            said.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason was given").to_owned()
        }
        Err(error) => error.to_string(),
    };
    report(&format!("SKIPPED {name}: no laboratory can be built here: {why}"));
}

fn run(program: &str, args: &[&str], input: &str) -> Result<(), String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}\n{input}", String::from_utf8_lossy(&output.stderr)))
}

/// A command in the network of this thread.
pub(crate) fn command(program: &str, args: &str) {
    run(program, &args.split(' ').collect::<Vec<_>>(), "").unwrap();
}

/// More rules, in the network of this thread.
pub(crate) fn rules(text: &str) {
    run("nft", &["-f", "-"], text).unwrap();
}

/// Does something in the network of this namespace. What is opened or started there stays there.
pub(crate) fn within<T: Send>(space: &str, work: impl FnOnce() -> T + Send) -> T {
    let space = File::open(Path::new("/run/netns").join(space)).unwrap();
    let there = move || {
        move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(there).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A kernel setting of the network that this thread is in, if the kernel has it.
fn set(name: &str, value: &str) {
    let path = Path::new("/proc/sys/net").join(name);
    if path.exists() {
        fs::write(&path, value).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// A private place whose hosts and boxes stand side by side.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// From the internet inward.
    pub(crate) rules: Vec<Rules>,
    /// The namespaces of its two hosts, with their addresses.
    pub(crate) hosts: [String; 2],
    pub(crate) v4: [IpAddr; 2],
    pub(crate) v6: [IpAddr; 2],
}

#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) dir: std::path::PathBuf,
}

impl Lab {
    /// The internet and the servers; `None` if this process was not started to be one. Ends it with the reason if
    /// the system does not allow for a laboratory.
    pub(crate) fn enter() -> Option<Self> {
        let dir = std::path::PathBuf::from(std::env::var_os(ENTERED)?);
        if let Err(why) = Self::prepare() {
            eprintln!("{why}");
            std::process::exit(1);
        }
        fs::write(dir.join("entered"), "").unwrap();
        Self::spaces(&["inet", "s1", "s2"]);
        let mut links = String::new();
        for (space, [gateway, address], [gateway_v6, address_v6]) in [
            ("s1", ["9.9.9.1/24", "9.9.9.9/24"], ["2a05:9::1/64", "2a05:9::9/64"]),
            ("s2", ["8.8.4.1/24", "8.8.4.4/24"], ["2a05:8::1/64", "2a05:8::8/64"]),
        ] {
            join(["inet", &format!("i-{space}")], [space, "eth0"]);
            for each in [gateway, gateway_v6] {
                writeln!(links, "addr add {each} dev i-{space}{}", nodad(each)).unwrap();
            }
            host(space, [address, gateway], [address_v6, gateway_v6]);
        }
        ip("inet", &links);
        within("inet", routes);
        Some(Self { dir })
    }

    /// Makes the internet as wide as the real one is at least: what boxes send with few hops left does not get through.
    /// (The router is one, and such packets would go on to the boxes of others.)
    pub(crate) fn is_wide(&self) {
        let wide = "table inet wide {
  chain pre { type filter hook prerouting priority -300;
    ip ttl < 4 drop
    ip6 hoplimit < 4 drop
  }
}
";
        within("inet", || run("nft", &["-f", "-"], wide)).unwrap();
    }

    fn prepare() -> Result<(), String> {
        run("mount", &["-t", "tmpfs", "tmpfs", "/run"], "")?;
        fs::create_dir_all("/run/netns").map_err(|error| error.to_string())?;
        run("ip", &["netns", "add", "trial"], "")?;
        within("trial", || run("nft", &["-f", "-"], &Rules::FullCone.text("5.5.1.2")))
    }

    fn spaces(names: &[&str]) {
        let mut all = String::new();
        names.iter().for_each(|name| writeln!(all, "netns add {name}").unwrap());
        run("ip", &["-batch", "-"], &all).unwrap();
        for name in names {
            within(name, || {
                ip_here("link set lo up");
                for which in ["all", "default"] {
                    set(&format!("ipv6/conf/{which}/accept_dad"), "0");
                }
                set("ipv4/icmp_ratelimit", "0");
            });
        }
    }

    /// Site `number` (1 to 99): boxes with these rules, from the internet inward, and two hosts.
    pub(crate) fn site(&self, number: usize, rules: &[Rules]) -> Site {
        let inner = rules.len() - 1;
        assert!(inner <= 1 && (inner == 0 || rules.iter().all(|rules| !rules.is_public())));
        let boxes: Vec<String> = (0..rules.len()).map(|level| format!("n{number}-{level}")).collect();
        let hosts = ["a", "b"].map(|letter| format!("h{number}{letter}"));
        Self::spaces(&boxes.iter().chain(&hosts).map(String::as_str).collect::<Vec<_>>());
        let n = number;
        let lan = if rules[inner].is_public() { format!("5.105.{n}") } else { format!("10.{n}.0") };
        let lan_v6 = format!("2a05:105:{n}:");

        join(["inet", &format!("i-{n}")], [&boxes[0], "wan"]);
        let mut internet =
            format!("addr add 5.5.{n}.1/24 dev i-{n}\naddr add 2a05:5:{n}::1/64 dev i-{n} nodad\n");
        writeln!(internet, "route add {lan_v6}:/64 via 2a05:5:{n}::2").unwrap();
        if rules[inner].is_public() {
            writeln!(internet, "route add {lan}.0/24 via 5.5.{n}.2").unwrap();
        }
        ip("inet", &internet);
        let outer = [format!("5.5.{n}.2/24"), format!("5.5.{n}.1")];
        let outer_v6 = [format!("2a05:5:{n}::2/64"), format!("2a05:5:{n}::1")];
        if inner == 1 {
            let middle = [format!("100.64.{n}.1/24"), format!("2a05:64:{n}::1/64")];
            gateway(&boxes[0], [&outer, &outer_v6], &middle, rules[0]);
            join([&boxes[0], "p-inner"], [&boxes[1], "wan"]);
            ip(
                &boxes[0],
                &format!("link set p-inner master lan\nroute add {lan_v6}:/64 via 2a05:64:{n}::2\n"),
            );
            let wan = [format!("100.64.{n}.2/24"), format!("100.64.{n}.1")];
            let wan_v6 = [format!("2a05:64:{n}::2/64"), format!("2a05:64:{n}::1")];
            gateway(&boxes[1], [&wan, &wan_v6], &[format!("{lan}.1/24"), format!("{lan_v6}:1/64")], rules[1]);
        } else {
            gateway(
                &boxes[0],
                [&outer, &outer_v6],
                &[format!("{lan}.1/24"), format!("{lan_v6}:1/64")],
                rules[0],
            );
        }
        for (index, space) in hosts.iter().enumerate() {
            let (port, last) = (format!("p-{index}"), index + 2);
            join([&boxes[inner], &port], [space, "eth0"]);
            ip(&boxes[inner], &format!("link set {port} master lan\n"));
            let v4 = [&*format!("{lan}.{last}/24"), &*format!("{lan}.1/24")];
            let v6 = [&*format!("{lan_v6}:{last}/64"), &*format!("{lan_v6}:1/64")];
            host(space, v4, v6);
        }
        let v4 = [2, 3].map(|last| format!("{lan}.{last}").parse().unwrap());
        let v6 = [2, 3].map(|last| format!("{lan_v6}:{last}").parse().unwrap());
        Site { rules: rules.to_vec(), hosts, v4, v6 }
    }
}

/// Commands of `ip` in a namespace, one a line.
fn ip(space: &str, lines: &str) {
    within(space, || ip_here(lines));
}

fn ip_here(lines: &str) {
    run("ip", &["-batch", "-"], lines).unwrap();
}

/// IPv6 addresses can be used at once.
fn nodad(address: &str) -> &str {
    if address.contains(':') { " nodad" } else { "" }
}

/// A cable.
fn join([one, device]: [&str; 2], [other, other_device]: [&str; 2]) {
    let link = format!("link add {device} netns {one} type veth peer name {other_device} netns {other}\n");
    run("ip", &["-batch", "-"], &link).unwrap();
    ip(one, &format!("link set {device} up"));
    ip(other, &format!("link set {other_device} up"));
}

/// Address and gateway of a host, both with the length of their prefix.
fn host(space: &str, v4: [&str; 2], v6: [&str; 2]) {
    let mut lines = String::new();
    for [address, gateway] in [v4, v6] {
        let gateway = gateway.split('/').next().unwrap_or(gateway);
        let nodad = nodad(address);
        writeln!(lines, "addr add {address} dev eth0{nodad}\nroute add default via {gateway}").unwrap();
    }
    ip(space, &lines);
}

/// A box: on `wan` it has an address and a gateway in each family, on `lan` it is the gateway.
fn gateway(space: &str, wan: [&[String; 2]; 2], lan: &[String; 2], rules: Rules) {
    let mut lines = String::from("link add lan type bridge\nlink set lan up\n");
    for [address, gateway] in wan {
        let nodad = nodad(address);
        writeln!(lines, "addr add {address} dev wan{nodad}\nroute add default via {gateway}").unwrap();
    }
    for address in lan {
        writeln!(lines, "addr add {address} dev lan{}", nodad(address)).unwrap();
    }
    let own = wan[0][0].split('/').next().unwrap();
    within(space, || {
        ip_here(&lines);
        routes();
        run("nft", &["-f", "-"], &rules.text(own)).unwrap();
    });
}

/// Makes the machine of this thread's network a router.
fn routes() {
    set("ipv4/ip_forward", "1");
    set("ipv6/conf/all/forwarding", "1");
    for device in ["all", "default", "lan", "wan"] {
        set(&format!("ipv4/conf/{device}/rp_filter"), "0");
        set(&format!("ipv4/conf/{device}/send_redirects"), "0");
    }
    // Else what neighbours send each other would be translated as well.
    set("bridge/bridge-nf-call-iptables", "0");
    set("bridge/bridge-nf-call-ip6tables", "0");
}
