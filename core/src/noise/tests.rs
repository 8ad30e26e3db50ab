use super::*;
use alloc::format;

const PROLOGUE: &[u8] = b"a prologue";

fn key(seed: u8) -> StaticKey {
    StaticKey::generate(&mut Rng::from_seed([seed; 32]))
}

fn handshake(role: Role, prologue: &[u8], key: &StaticKey) -> Handshake {
    let seed = [if role == Role::Initiator { 3 } else { 4 }; 32];
    Handshake::new(role, prologue, key, &mut Rng::from_seed(seed)).unwrap()
}

fn pair() -> (Handshake, Handshake) {
    (handshake(Role::Initiator, PROLOGUE, &key(1)), handshake(Role::Responder, PROLOGUE, &key(2)))
}

fn write(from: &mut Handshake, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    from.write(payload, &mut message).unwrap();
    message
}

/// Runs a handshake and lets `change` alter each message (numbered from 0) on its way. An error comes with the number
/// of the message that it came from.
fn run(
    (mut initiator, mut responder): (Handshake, Handshake),
    mut change: impl FnMut(usize, &mut Vec<u8>),
) -> Result<(Split, Split), (usize, NoiseError)> {
    for (at, payload) in [&b"one"[..], b"two", b"three"].into_iter().enumerate() {
        let (from, to) =
            if at == 1 { (&mut responder, &mut initiator) } else { (&mut initiator, &mut responder) };
        let mut message = Vec::new();
        from.write(payload, &mut message).map_err(|error| (at, error))?;
        change(at, &mut message);
        if let Err(error) = to.read(&message) {
            assert!(!to.is_finished() && to.remote_static().is_none());
            return Err((at, error));
        }
    }
    Ok((initiator.split().unwrap(), responder.split().unwrap()))
}

fn split() -> (Split, Split) {
    run(pair(), |_, _| {}).unwrap()
}

fn sealed(seal: &mut Sealer, plaintext: &[u8]) -> Vec<u8> {
    let mut record = plaintext.to_vec();
    seal.seal(&mut record, 0).unwrap();
    record
}

#[test]
fn two_sides_learn_each_others_keys_and_talk_both_ways() {
    let (mut initiator, mut responder) = pair();
    let first = write(&mut initiator, b"in the clear");
    assert_eq!(first.len(), 32 + 12);
    assert_eq!(responder.read(&first).unwrap(), b"in the clear");
    assert_eq!(responder.remote_static(), None);
    let second = write(&mut responder, b"who I am");
    assert_eq!(second.len(), OVERHEAD + 8);
    assert_eq!(initiator.read(&second).unwrap(), b"who I am");
    assert_eq!(initiator.remote_static(), Some(*key(2).public()));
    assert!(!initiator.is_finished());
    let mut third = b"before it".to_vec();
    initiator.write(b"", &mut third).unwrap();
    assert!(initiator.is_finished() && !responder.is_finished());
    assert_eq!(third.split_off(9).len(), 32 + 16 + 16);
    assert_eq!(third, b"before it");

    let (mut a, mut b) = split();
    assert_eq!(a.hash, b.hash);
    for number in 0..3 {
        assert_eq!(a.seal.number(), number);
        let mut record = b"head".to_vec();
        record.extend_from_slice(b"plaintext");
        a.seal.seal(&mut record, 4).unwrap();
        assert_eq!(record.len(), 4 + 9 + SEAL_BYTES);
        assert!(record.starts_with(b"head") && !record.windows(9).any(|part| part == b"plaintext"));
        assert_eq!(b.open.open(&mut record[4..]).unwrap(), b"plaintext");
        assert_eq!(a.open.open(&mut sealed(&mut b.seal, b"")).unwrap(), b"");
    }
    // A record does not open in the direction it came from.
    assert_eq!(a.open.open(&mut sealed(&mut a.seal, b"mine")), Err(NoiseError::Rejected));
}

#[test]
fn a_payload_up_to_the_limit_passes_and_a_longer_one_does_not() {
    let (mut initiator, mut responder) = pair();
    let mut out = b"kept".to_vec();
    assert_eq!(initiator.write(&[7; HANDSHAKE_BYTES - OVERHEAD + 1], &mut out), Err(NoiseError::TooLong));
    assert_eq!(out, b"kept");
    // Refusing a payload does not end the handshake.
    let payload = [7; HANDSHAKE_BYTES - OVERHEAD];
    assert_eq!(responder.read(&write(&mut initiator, &payload)).unwrap(), payload);
    let second = write(&mut responder, &payload);
    assert_eq!(second.len(), HANDSHAKE_BYTES);
    assert_eq!(initiator.read(&second).unwrap(), payload);

    let (_, mut responder) = pair();
    assert_eq!(responder.read(&[7; HANDSHAKE_BYTES + 1]), Err(NoiseError::TooLong));
}

#[test]
fn another_prologue_is_another_protocol() {
    let initiator = handshake(Role::Initiator, PROLOGUE, &key(1));
    let responder = handshake(Role::Responder, b"another", &key(2));
    // The second message is the first that proves anything.
    assert_eq!(run((initiator, responder), |_, _| {}).unwrap_err(), (1, NoiseError::Rejected));
}

#[test]
fn a_wrong_bit_or_a_cut_anywhere_ends_the_handshake() {
    let mut lengths = [0; 3];
    run(pair(), |at, message| lengths[at] = message.len()).unwrap();
    for (wrong, length) in lengths.into_iter().enumerate() {
        for byte in 0..length {
            // The bits of the first message prove nothing by themselves: the answer to it does.
            for bit in [1, 0x80] {
                let result = run(pair(), |at, message| {
                    if at == wrong {
                        message[byte] ^= bit;
                    }
                });
                assert_eq!(result.unwrap_err(), (wrong.max(1), NoiseError::Rejected), "{wrong}: {byte}");
            }
            let result = run(pair(), |at, message| {
                message.truncate(if at == wrong { byte } else { usize::MAX });
            });
            let (at, error) = result.unwrap_err();
            assert!((wrong..=1.max(wrong)).contains(&at), "{wrong} cut to {byte} got to {at}");
            assert_eq!(error, NoiseError::Rejected);
        }
    }
}

#[test]
fn a_handshake_that_failed_is_over() {
    let (mut initiator, mut responder) = pair();
    let first = write(&mut initiator, b"");
    assert_eq!(responder.read(&first[..31]), Err(NoiseError::Rejected));
    assert_eq!(responder.read(&first), Err(NoiseError::Misused));
    assert_eq!(responder.write(b"", &mut Vec::new()), Err(NoiseError::Misused));
    assert_eq!(responder.split().unwrap_err(), NoiseError::Misused);
}

#[test]
fn a_call_out_of_turn_is_refused_and_changes_nothing() {
    let (mut initiator, mut responder) = pair();
    let mut out = Vec::new();
    assert_eq!(responder.write(b"", &mut out), Err(NoiseError::Misused));
    assert_eq!(initiator.read(&[0; 64]), Err(NoiseError::Misused));
    let first = write(&mut initiator, b"");
    assert_eq!(initiator.write(b"", &mut out), Err(NoiseError::Misused));
    assert!(out.is_empty());
    responder.read(&first).unwrap();
    assert_eq!(responder.read(&first), Err(NoiseError::Misused));
    initiator.read(&write(&mut responder, b"")).unwrap();
    responder.read(&write(&mut initiator, b"")).unwrap();
    assert_eq!(responder.read(&first), Err(NoiseError::Misused));
    assert!(initiator.split().is_ok() && responder.split().is_ok());
    let (unfinished, _) = pair();
    assert!(unfinished.split().is_err());
}

/// Every public key of small order, canonical or not, with and without the unused bit (as listed by D. J. Bernstein,
/// <https://cr.yp.to/ecdh.html#validate>).
fn small_order() -> Vec<[u8; 32]> {
    let point = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap();
    let mut points: Vec<[u8; 32]> = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ]
    .map(point)
    .to_vec();
    for mut high in points.clone() {
        high[31] |= 0x80;
        points.push(high);
    }
    points
}

#[test]
fn a_key_of_small_order_is_refused_wherever_it_stands() {
    for point in small_order() {
        // As the initiator's ephemeral key: the responder has nothing to answer with.
        let (_, mut responder) = pair();
        responder.read(&point).unwrap();
        let mut out = Vec::new();
        assert_eq!(responder.write(b"", &mut out), Err(NoiseError::Rejected));
        assert!(out.is_empty());
        // As the responder's.
        let result = run(pair(), |at, message| {
            if at == 1 {
                message[..32].copy_from_slice(&point);
            }
        });
        assert_eq!(result.unwrap_err(), (1, NoiseError::Rejected));
        // As a static key, sealed as it should be.
        let hostile = StaticKey(KeyPair { public: point, ..key(1).0 });
        let initiator = handshake(Role::Initiator, PROLOGUE, &hostile);
        let result = run((initiator, handshake(Role::Responder, PROLOGUE, &key(2))), |_, _| {});
        assert_eq!(result.unwrap_err(), (2, NoiseError::Rejected));
        let responder = handshake(Role::Responder, PROLOGUE, &hostile);
        let result = run((handshake(Role::Initiator, PROLOGUE, &key(2)), responder), |_, _| {});
        assert_eq!(result.unwrap_err(), (1, NoiseError::Rejected));
        assert!(key(1).0.agree(&point).is_none());
    }
}

#[test]
fn a_record_that_does_not_check_out_moves_nothing() {
    let (mut a, mut b) = split();
    let mut records: Vec<_> = (0u8..3).map(|n| sealed(&mut a.seal, &[n; 5])).collect();
    for byte in 0..records[0].len() {
        let mut wrong = records[0].clone();
        wrong[byte] ^= 1;
        let before = wrong.clone();
        assert_eq!(b.open.open(&mut wrong), Err(NoiseError::Rejected), "byte {byte}");
        assert_eq!(wrong, before);
        assert_eq!(b.open.open(&mut before[..byte].to_vec()), Err(NoiseError::Rejected));
    }
    let repeated = records[0].clone();
    assert_eq!(b.open.open(&mut records[1].clone()), Err(NoiseError::Rejected), "one is missing");
    assert_eq!(b.open.open(&mut records[0]).unwrap(), [0; 5]);
    assert_eq!(b.open.open(&mut repeated.clone()), Err(NoiseError::Rejected), "repeated");
    assert_eq!(b.open.open(&mut records[1]).unwrap(), [1; 5]);
    assert_eq!(b.open.open(&mut records[2]).unwrap(), [2; 5]);
}

#[test]
fn the_last_number_of_a_key_is_used_and_none_comes_after() {
    let (mut a, mut b) = split();
    a.seal.number = SESSION_RECORDS - 1;
    b.open.number = SESSION_RECORDS - 1;
    let mut last = sealed(&mut a.seal, b"last");
    assert_eq!(a.seal.number(), SESSION_RECORDS);
    let mut record = b"one more".to_vec();
    assert_eq!(a.seal.seal(&mut record, 0), Err(NoiseError::Exhausted));
    assert_eq!(record, b"one more");
    let again = last.clone();
    assert_eq!(b.open.open(&mut last).unwrap(), b"last");
    assert_eq!(b.open.open(&mut again.clone()), Err(NoiseError::Exhausted));
}

#[test]
fn a_record_longer_than_its_length_field_can_say_is_not_sealed() {
    let (mut a, _) = split();
    let mut record = alloc::vec![0; RECORD_BYTES - SEAL_BYTES + 1];
    assert_eq!(a.seal.seal(&mut record, 0), Err(NoiseError::TooLong));
    assert_eq!(record.len(), RECORD_BYTES - SEAL_BYTES + 1);
    assert_eq!(a.seal.seal(&mut record, RECORD_BYTES), Err(NoiseError::Misused));
    assert_eq!(a.seal.number(), 0);
    a.seal.seal(&mut record, 1).unwrap();
    assert_eq!(record.len(), 1 + RECORD_BYTES);
}

#[test]
fn the_same_seed_says_the_same_and_no_ephemeral_key_comes_twice() {
    let first =
        |rng: &mut Rng| write(&mut Handshake::new(Role::Initiator, PROLOGUE, &key(1), rng).unwrap(), b"");
    let mut rng = Rng::from_seed([9; 32]);
    let one = first(&mut rng);
    assert_ne!(one, first(&mut rng));
    assert_eq!(one, first(&mut Rng::from_seed([9; 32])));
}

#[test]
fn no_secret_is_printed() {
    let key = key(1);
    assert_eq!(format!("{key:?}"), "StaticKey(..)");
    let (initiator, _) = pair();
    assert_eq!(format!("{initiator:?}"), "Handshake { finished: false, .. }");
    let (a, _) = split();
    assert_eq!(
        format!("{a:?}"),
        format!(
            "Split {{ seal: Sealer {{ number: 0, .. }}, open: Opener {{ number: 0, .. }}, hash: {:?} }}",
            a.hash
        )
    );
}
