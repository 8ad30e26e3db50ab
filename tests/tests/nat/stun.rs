//! STUN with programs that are not ours: a client of coturn asks our relay, and our codec asks coturn's server, both from
//! behind a box, and both are told where that box is seen.

use crate::lab::{Lab, SERVERS, Site, alone, within};
use crate::meetings::{outside, relay};
use crate::people::{Process, wait_for};
use crate::rules::Rules;
use peerlink_core::wire::stun::{Change, Message, Request};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn coturn_and_we_tell_each_other_where_we_are() {
    alone("stun", "stun::inside");
}

/// Coturn's server, which tells addresses and relays nothing.
fn turnserver(address: SocketAddr, dir: &std::path::Path) -> Process {
    let mut command = Command::new("turnserver");
    command
        .args(["-n", "--stun-only", "--no-tls", "--no-dtls", "--no-cli", "--no-tcp", "--log-file=stdout"])
        .arg(format!("--listening-ip={}", address.ip()))
        .arg(format!("--listening-port={}", address.port()))
        .arg(format!("--pidfile={}", dir.join("turnserver.pid").display()))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    within("s2", || Process(command.spawn().unwrap()))
}

/// What coturn's client says when it asks this server.
fn client(site: &Site, server: SocketAddr) -> Option<SocketAddr> {
    // It would wait for ever.
    let mut command = Command::new("timeout");
    let asked = ["2", "turnutils_stunclient", "-p", &server.port().to_string(), &server.ip().to_string()];
    command.args(asked).stdin(Stdio::null());
    let said = within(&site.hosts[0], || command.output().unwrap());
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let told = said.lines().find_map(|line| line.split("UDP reflexive addr: ").nth(1))?;
    told.trim().parse().ok()
}

/// What our codec reads of what a server answers.
fn ask(socket: &UdpSocket, server: SocketAddr) -> Option<SocketAddr> {
    let transaction = *b"twelve bytes";
    let request = Request { transaction, change: Change::default(), unknown: Default::default() };
    let mut bytes = Vec::new();
    request.encode(&mut bytes, 0);
    socket.send_to(&bytes, server).unwrap();
    let mut buffer = [0; 1500];
    // Nobody is there yet: it is asked again.
    let (count, from) = socket.recv_from(&mut buffer).ok()?;
    match Message::decode(&buffer[..count]) {
        Ok(Message::Success(success)) if from == server && success.transaction == transaction => {
            Some(success.mapped)
        }
        other => panic!("{other:?} from {from}"),
    }
}

#[test]
#[ignore = "run by the test above, in namespaces of its own"]
fn inside() {
    let Some(lab) = Lab::enter() else { return };
    let site = lab.site(1, &[Rules::Masquerade]);
    let (_, _relaying) = relay(&lab.dir);
    let theirs = SocketAddr::new(SERVERS[1], 3478);
    let _turnserver = turnserver(theirs, &lab.dir);
    let ours = SocketAddr::new(SERVERS[0], 443);

    let socket = within(&site.hosts[0], || UdpSocket::bind("0.0.0.0:4711")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    // A box that keeps ports, and maps to all alike.
    let seen = SocketAddr::new(outside(1), 4711);
    assert_eq!(wait_for("coturn's answer", || ask(&socket, theirs)), seen);
    assert_eq!(wait_for("our answer", || ask(&socket, ours)), seen);
    let told = wait_for("what our relay tells coturn's client", || client(&site, ours));
    assert_eq!(told.ip(), outside(1));
    let told = wait_for("what coturn tells its own", || client(&site, theirs));
    assert_eq!(told.ip(), outside(1));
    // The control: where nobody serves, nothing is told.
    let nobody = SocketAddr::new(SERVERS[1], 3479);
    assert_eq!((client(&site, nobody), ask(&socket, nobody)), (None, None));
    println!(
        "RAN stun: coturn's client asks our relay, our codec asks coturn's server, both are seen at {seen}; control: silence"
    );
}
