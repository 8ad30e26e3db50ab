//! What people and front ends hand over as text: tickets, and lines of the socket protocol.

use crate::proto;
use peerlink_core::ids::PeerId;
use peerlink_core::ticket::{BadTicket, Ticket};

/// A ticket whose checksum is right, whatever is in it: the checksum tells a mistake of a hand, not a lie. What reads is
/// written to be read again as the same.
pub fn ticket(data: &[u8]) {
    let mut content = data.to_vec();
    // A PeerId that is no key is refused before the rest is looked at.
    if data.first().is_some_and(|byte| byte % 2 == 1)
        && let Some(peer) = content.get_mut(1..33)
    {
        peer.copy_from_slice(crate::speaker::Speaker::peer(2).as_bytes());
    }
    let check = blake3::hash(&content);
    content.extend_from_slice(&check.as_bytes()[..4]);
    let text = format!("pl1{}", data_encoding::BASE32_NOPAD.encode(&content).to_ascii_lowercase());
    match text.parse::<Ticket>() {
        Ok(ticket) => {
            assert_eq!(ticket.to_string().parse(), Ok(ticket.clone()));
            assert_eq!(ticket.peer.to_string().parse::<PeerId>(), Ok(ticket.peer));
            // A hand that errs in one place is noticed.
            let at = 3 + usize::from(data.last().copied().unwrap_or(0)) % (text.len() - 3);
            let mut wrong = text.into_bytes();
            wrong[at] = if wrong[at] == b'q' { b'w' } else { b'q' };
            let wrong = String::from_utf8(wrong).expect("ASCII");
            assert!(wrong.parse::<Ticket>().is_err(), "{wrong}");
        }
        Err(BadTicket::NotATicket) => panic!("it begins like one"),
        Err(BadTicket::Damaged | BadTicket::Newer(_)) => {}
    }
}

/// A line of the socket protocol: what reads is written to be read again as the same, and every answer is one line.
pub fn socket(data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data) else { return };
    let answer = match proto::parse(line) {
        Ok((id, request)) => {
            let envelope = proto::Envelope { v: proto::VERSION, id, request: request.clone() };
            let again = serde_json::to_string(&envelope).expect("plain data");
            assert_eq!(proto::parse(&again), Ok((id, request)));
            proto::answer(id, &Ok(serde_json::json!({ "echo": line })))
        }
        Err((id, fault)) => proto::answer(id, &Err(fault)),
    };
    let text = answer.to_string();
    assert!(!text.contains('\n'), "an answer is one line");
    let read = serde_json::from_str(&text).expect("JSON");
    assert_eq!(proto::unwrap(read).is_ok(), answer.get("ok").is_some());
}
