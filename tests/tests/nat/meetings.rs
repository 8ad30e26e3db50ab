//! Real processes behind real boxes, with a relay in the open: who meets whom how, by the table of the oracle.
//!
//! Both are brought together by the relay, write at once, and write again when the way is the one that the oracle
//! names: straight between the two, or through the relay and no other. Both histories are compared in the end.

use crate::cells::PLACES;
use crate::lab::{Lab, SERVERS, Site, alone, within};
use crate::people::{Person, Process, answer, ask_until, introduce, judge, settle, times, try_ask, wait_for};
use crate::rules::Rules;
use peerlink_sim::nat::oracle::{Way, expected};
use peerlink_sim::nat::{Class, Class::*};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// Two hosts side by side behind one box, which turns packets back or does not.
const NEIGHBOURS: [(&str, Rules); 3] = [
    ("neighbours", Rules::Masquerade),
    ("neighbours with hairpin", Rules::TurningBack),
    ("neighbours in the open", Rules::Firewall),
];
/// Everybody can use the web.
const RELAY: SocketAddr = SocketAddr::new(SERVERS[0], 443);
const MESSAGES: usize = 3;
/// Pairs that meet at the same time.
const AT_ONCE: usize = 4;
/// After this, who was brought together by a relay tries nothing new for a while.
const SETTLED: Duration = Duration::from_secs(4);

/// On which way the packets of a session go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Going {
    /// Straight to the other, over either.
    Straight,
    Udp,
    Tcp,
    Relay,
}

impl Going {
    /// What the oracle says, without what is not built.
    fn by(way: Way, classes: [Class; 2]) -> Self {
        match way.without_search() {
            Way::Relay => Self::Relay,
            Way::DirectTcp | Way::ReverseTcp | Way::Direct443 | Way::Reverse443 => Self::Tcp,
            // Whichever is first.
            _ if classes.contains(&Open) => Self::Straight,
            _ => Self::Udp,
        }
    }

    const fn inverted(self) -> Self {
        match self {
            Self::Relay => Self::Straight,
            Self::Straight | Self::Udp | Self::Tcp => Self::Relay,
        }
    }
}

/// A host of a site, and the port that its person uses.
#[derive(Clone, Copy)]
pub(crate) struct Seat<'a> {
    pub(crate) site: &'a Site,
    pub(crate) host: usize,
    pub(crate) port: u16,
}

/// Two who are to meet; the second is invited by the first.
pub(crate) struct Meeting<'a> {
    pub(crate) name: String,
    pub(crate) seats: [Seat<'a>; 2],
    /// From where each is seen by the other, if not through the relay.
    pub(crate) seen: [IpAddr; 2],
    pub(crate) going: Going,
}

#[test]
fn real_processes_meet_as_the_oracle_says() {
    alone("meetings", "meetings::inside");
}

#[test]
#[ignore = "run by the test above, in namespaces of its own"]
fn inside() {
    let Some(lab) = Lab::enter() else { return };
    lab.is_wide();
    let sites: Vec<[Site; 2]> = (1..)
        .zip(PLACES)
        .map(|(number, place)| [number, number + 30].map(|number| lab.site(number, place.1)))
        .collect();
    let beside: Vec<Site> = (61..).zip(NEIGHBOURS).map(|(at, kind)| lab.site(at, &[kind.1])).collect();
    let (relay, _relaying) = relay(&lab.dir);

    let meetings = meetings(&sites, &beside);
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(meeting) = meetings.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let dir = lab.dir.join(meeting.name.replace(' ', "-"));
                    if let Err(why) = meeting.meet(&dir, Some(&relay)) {
                        failed.lock().unwrap().push(format!("{}: {why}", meeting.name));
                    }
                }
            });
        }
    });
    assert_eq!(failed.into_inner().unwrap(), [""; 0]);
    let mut ran = String::new();
    meetings.iter().for_each(|meeting| write!(ran, "{} {:?}, ", meeting.name, meeting.going).unwrap());

    let control = control(&meetings, &relay, &lab.dir);
    println!("RAN meetings: {ran}{} in all; control: {control}", meetings.len());
}

/// A relay that everybody reaches, and how everybody names it.
pub(crate) fn relay(dir: &Path) -> (String, Process) {
    let relay = Person { name: "relay", dir: dir.join("relay"), promised: Vec::new() };
    let listen = RELAY.to_string();
    let run = || {
        assert!(relay.run(&["init", "--listen", &listen]).status.success());
        Process(relay.command(&["relay"]).spawn().unwrap())
    };
    let running = within("s1", run);
    let id = ask_until(&relay.dir, &json!({ "do": "id" }));
    (format!("{}@{RELAY}", id["peer"].as_str().unwrap()), running)
}

/// Every place with every other, and with its like; neighbours.
fn meetings<'a>(sites: &'a [[Site; 2]], beside: &'a [Site]) -> Vec<Meeting<'a>> {
    let mut all = Vec::new();
    let mut port = 5000;
    for (a, b) in (0..PLACES.len()).flat_map(|a| (0..PLACES.len()).map(move |b| (a, b))) {
        // Once is enough if nothing depends on who begins. Of two in turns the one, and of the others the other one.
        let wanted = times(usize::from(a == b || (a < b) == ((a + b) % 2 == 0)), 1) > 0;
        let naive = [a, b].iter().any(|at| PLACES[*at].2 == Naiv);
        if !wanted && !naive {
            continue;
        }
        let classes = [PLACES[a].2, PLACES[b].2];
        // The caller is the second.
        let way = expected(classes[1], classes[0]);
        let web = classes.contains(&T443) && classes.contains(&Open);
        port += 1;
        let seat = |at: usize, which: usize| {
            let port = if web && PLACES[at].2 == Open { 443 } else { port };
            Seat { site: &sites[at][which], host: which, port }
        };
        let seats = [seat(a, 0), seat(b, 1)];
        let seen = [(a, 0), (b, 1)].map(|(at, which)| {
            let (number, site) = (at + 1 + 30 * which, &sites[at][which]);
            if site.rules[0].is_public() { site.v4[which] } else { outside(number) }
        });
        all.push(Meeting {
            name: format!("{} to {}", PLACES[b].0, PLACES[a].0),
            seats,
            seen,
            going: Going::by(way, classes),
        });
    }
    for ((name, _), site) in NEIGHBOURS.into_iter().zip(beside) {
        let seats = [0, 1].map(|host| Seat { site, host, port: 4711 });
        let seen = [site.v4[0], site.v4[1]];
        all.push(Meeting { name: name.to_owned(), seats, seen, going: Going::Straight });
    }
    all
}

/// What a site without public addresses is seen as.
pub(crate) fn outside(number: usize) -> IpAddr {
    format!("5.5.{number}.2").parse().unwrap()
}

impl Seat<'_> {
    pub(crate) fn person(&self, name: &'static str, dir: &Path, relay: Option<&str>) -> Person {
        let person = Person { name, dir: dir.join(name), promised: Vec::new() };
        let listen = SocketAddr::new(self.site.v4[self.host], self.port).to_string();
        within(&self.site.hosts[self.host], || {
            let made = person.run(&["init", "--nickname", name, "--listen", &listen]);
            assert!(made.status.success(), "{made:?}");
            let set = person.run(&["config", "relays", relay.unwrap_or("none")]);
            assert!(set.status.success(), "{set:?}");
        });
        person
    }

    pub(crate) fn up(&self, person: &Person) -> Process {
        within(&self.site.hosts[self.host], || person.up())
    }

    /// With the relay there, by datagrams if those get out. (On a machine that is busy a stream may be faster, and then
    /// nobody tells the node from where its datagrams come.)
    fn up_with_relay(&self, person: &Person) -> Process {
        let silent = |rules: &Rules| matches!(rules, Rules::UdpDropped | Rules::WebOnly);
        let wanted = if self.site.rules.iter().any(silent) { "tcp" } else { "udp" };
        wait_for("the relay", || {
            let running = self.up(person);
            let path = wait_for("a way to the relay", || {
                let status = try_ask(&person.dir, &json!({ "do": "status" }))?;
                status["relays"][0]["link"]["path"].as_str().map(str::to_owned)
            });
            (path == wanted).then_some(running)
        })
    }
}

impl Meeting<'_> {
    fn persons(&self, dir: &Path, relay: Option<&str>) -> [Person; 2] {
        fs::create_dir_all(dir).unwrap();
        [self.seats[0].person("alice", dir, relay), self.seats[1].person("bob", dir, relay)]
    }

    fn up(&self, persons: &[Person; 2]) -> [Process; 2] {
        [0, 1].map(|at| self.seats[at].up_with_relay(&persons[at]))
    }

    pub(crate) fn meet(&self, dir: &Path, relay: Option<&str>) -> Result<(), String> {
        let mut persons = self.persons(dir, relay);
        let running = self.up(&persons);
        introduce(&persons);
        for person in &mut persons {
            person.write(MESSAGES, || true);
        }
        settle(&persons);
        self.await_way(&persons)?;
        for person in &mut persons {
            person.write(MESSAGES, || true);
        }
        settle(&persons);
        // The way that was found is the one that stays.
        let stayed = [0, 1].map(|at| self.is_on(&persons[at], at, self.going));
        drop(running);
        judge(&persons)?;
        stayed.into_iter().collect()
    }

    /// Waits for the way that should be found; or, if none should, for as long as one is looked for.
    fn await_way(&self, persons: &[Person; 2]) -> Result<(), String> {
        if self.going == Going::Relay {
            sleep(SETTLED);
            return Ok(());
        }
        let mut last = Ok(());
        for _ in 0..3_000 {
            last = [0, 1].iter().try_for_each(|at| self.is_on(&persons[*at], *at, self.going));
            if last.is_ok() {
                break;
            }
            sleep(Duration::from_millis(10));
        }
        last
    }

    /// Whether the packets of one of them go as they should, and to where the other is.
    fn is_on(&self, person: &Person, which: usize, going: Going) -> Result<(), String> {
        let contact = ask_until(&person.dir, &json!({ "do": "contacts" }))[0].clone();
        let link = &contact["link"];
        let path = match link["path"].as_str() {
            Some("tcp") => Going::Tcp,
            Some("udp") => Going::Udp,
            Some("relay") => Going::Relay,
            _ => return Err(format!("not connected: {link}")),
        };
        let remote: Option<SocketAddr> = link["remote"].as_str().and_then(|remote| remote.parse().ok());
        let there = if path == Going::Relay { RELAY.ip() } else { self.seen[1 - which] };
        let fits = path == going || (going == Going::Straight && path != Going::Relay);
        if fits && remote.is_some_and(|remote| remote.ip() == there) {
            return Ok(());
        }
        Err(format!("{} is on {path:?} to {remote:?}, not {going:?} to {there}", person.name))
    }
}

/// Nobody meets by other means than a relay; and who holds the table upside down is told so.
fn control(meetings: &[Meeting<'_>], relay: &str, dir: &Path) -> &'static str {
    let of = |name: &str| meetings.iter().find(|meeting| meeting.name == name).unwrap();
    let alone = of("masquerade to masquerade");
    let persons = alone.persons(&dir.join("alone"), None);
    let running = [0, 1].map(|at| alone.seats[at].up(&persons[at]));
    let invite = json!({ "do": "invite", "expires_s": 3600, "addresses": [] });
    let ticket = ask_until(&persons[0].dir, &invite)["ticket"].clone();
    ask_until(&persons[1].dir, &json!({ "do": "contacts" }));
    let add = json!({ "do": "add", "ticket": ticket, "name": "peer", "timeout_ms": 1_500 });
    let said: Value = answer(&persons[1].dir, &add).unwrap();
    assert_ne!(said["ok"]["answered"], true, "{said}");
    assert_eq!(ask_until(&persons[0].dir, &json!({ "do": "contacts" })), json!([]));
    drop(running);
    for name in ["fully random to fully random", "masquerade to masquerade"] {
        let meeting = of(name);
        let persons = meeting.persons(&dir.join(format!("again-{}", name.len())), Some(relay));
        let running = meeting.up(&persons);
        introduce(&persons);
        meeting.await_way(&persons).unwrap();
        meeting.is_on(&persons[0], 0, meeting.going).unwrap();
        meeting.is_on(&persons[0], 0, meeting.going.inverted()).unwrap_err();
        drop(running);
    }
    "without a relay nobody is met, and the opposite of each is told"
}
