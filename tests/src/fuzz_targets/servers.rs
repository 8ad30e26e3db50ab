//! What servers and gateways say that nobody vouches for: STUN, PCP, NAT-PMP. Whatever reads is written to be read again
//! as the same, and no answer of ours is larger than a padded request.

use peerlink_core::limits::STUN_UNKNOWN;
use peerlink_core::wire::stun::{Failure, Message, Request, Success, is_stun};
use peerlink_core::wire::{natpmp, pcp};

/// A STUN message, and what a server answers to it.
pub fn stun(data: &[u8]) {
    let Ok(message) = Message::decode(data) else { return };
    assert!(is_stun(data));
    let mut again = Vec::new();
    match &message {
        Message::Request(request) => {
            assert!(request.unknown.len() <= STUN_UNKNOWN);
            request.encode(&mut again, data.len());
            assert!(again.len() >= data.len());
            answer(request, &again);
            // What was not understood is not written again.
            let known = Request { unknown: Default::default(), ..request.clone() };
            assert_eq!(Message::decode(&again), Ok(Message::Request(known)));
            return;
        }
        Message::Indication(_) => return,
        Message::Success(success) => success.encode(&mut again, usize::MAX),
        Message::Failure(failure) => failure.encode(&mut again),
    }
    assert_eq!(Message::decode(&again), Ok(message));
}

fn answer(request: &Request, padded: &[u8]) {
    let mut out = Vec::new();
    if let Some(failure) = Failure::unknown_attributes(request) {
        failure.encode(&mut out);
        assert_eq!(Message::decode(&out), Ok(Message::Failure(failure)));
        return;
    }
    let [a, .., b] = request.transaction;
    let mapped = if a % 2 == 0 { ([a, b, 1, 2], 4500).into() } else { ([u16::from(b); 8], 4500).into() };
    let elsewhere = Some(([198, 51, 100, a], 3479).into());
    let success = Success { transaction: request.transaction, mapped, other: elsewhere, origin: elsewhere };
    success.encode(&mut out, padded.len());
    assert!(out.len() <= padded.len().max(52));
    let Ok(Message::Success(read)) = Message::decode(&out) else { panic!("an answer of ours is refused") };
    assert_eq!((read.transaction, read.mapped), (success.transaction, success.mapped));
}

/// A message of either direction of PCP.
pub fn pcp(data: &[u8]) {
    let mut again = Vec::new();
    if let Ok(request) = pcp::Request::decode(data) {
        request.encode(&mut again);
        assert_eq!(pcp::Request::decode(&again), Ok(request));
        assert!(pcp::Answer::decode(data).is_err(), "a request is no answer");
    } else if let Ok(answer) = pcp::Answer::decode(data) {
        let pcp::Answer::Response(response) = answer else { return };
        response.encode(&mut again);
        assert_eq!(pcp::Answer::decode(&again), Ok(answer));
    }
}

/// A message of either direction of NAT-PMP.
pub fn natpmp(data: &[u8]) {
    let mut again = Vec::new();
    if let Ok(request) = natpmp::Request::decode(data) {
        request.encode(&mut again);
        assert_eq!(natpmp::Request::decode(&again), Ok(request));
        assert!(natpmp::Response::decode(data).is_err(), "a request is no answer");
    } else if let Ok(response) = natpmp::Response::decode(data) {
        response.encode(&mut again);
        assert!(again.len() <= data.len());
        assert_eq!(natpmp::Response::decode(&again), Ok(response));
    }
}
