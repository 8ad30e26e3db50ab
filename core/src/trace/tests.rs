use super::*;
use crate::bounded::List;
use crate::ids::{BatchId, CallerId, Epoch, LoadId, MessageRef, Name, PeerId, StreamId};
use crate::record::KeyBytes;
use crate::rng::Rng;
use crate::ticket::TicketSecret;
use crate::time::{Duration, WallClock};
use crate::wire::peer_record::Relay;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::{format, vec};
use bytes::Bytes;
use core::fmt::Write as _;
use core::net::{SocketAddr, SocketAddrV6};

/// Draws values for fields: plain ones for people to read, or anything at all.
pub(super) struct Draw {
    rng: Rng,
    plain: bool,
}

impl Draw {
    fn pick<T: Clone>(&mut self, values: &[T]) -> T {
        let most = if self.plain { 0 } else { values.len() as u64 - 1 };
        values[self.rng.up_to(most) as usize].clone()
    }

    /// From none to three of them, of a plain kind two.
    fn few<T: Varied>(&mut self) -> Vec<T> {
        (0..self.pick(&[2, 0, 1, 3])).map(|_| T::one(self)).collect()
    }
}

/// Values of a type, for round trips: of an enum, each of its variants.
pub(super) trait Varied: Sized {
    fn varied(draw: &mut Draw) -> Vec<Self>;

    fn one(draw: &mut Draw) -> Self {
        let mut all = Self::varied(draw);
        let most = if draw.plain { 0 } else { all.len() as u64 - 1 };
        all.swap_remove(draw.rng.up_to(most) as usize)
    }
}

macro_rules! varied {
    ($($type:ty, |$draw:ident| $values:expr;)*) => {$(
        impl Varied for $type {
            fn varied($draw: &mut Draw) -> Vec<Self> {
                $values.into()
            }
        }
    )*};
}

fn array<const N: usize>(draw: &mut Draw) -> [u8; N] {
    let random = draw.rng.bytes();
    draw.pick(&[[N as u8; N], [0; N], [0xff; N], random])
}

fn blob(draw: &mut Draw) -> Vec<u8> {
    let mut random: [u8; 300] = draw.rng.bytes();
    random.sort_unstable();
    draw.pick(&[b"\x00\x7f\xff".to_vec(), vec![], b" \n=%,".to_vec(), random.to_vec()])
}

/// Every byte, several times over.
static BYTES: [u8; 1000] = {
    let mut bytes = [0; 1000];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = at as u8;
        at += 1;
    }
    bytes
};

varied! {
    bool, |draw| vec![draw.pick(&[true, false])];
    u8, |draw| vec![draw.pick(&[4, 0, 255])];
    u32, |draw| vec![draw.pick(&[65_536, 0, 1, u32::MAX])];
    u64, |draw| {
        let random = draw.rng.up_to(u64::MAX);
        vec![draw.pick(&[7, 0, 1, u64::MAX, random])]
    };
    BatchId, |draw| vec![Self(u64::one(draw))];
    LoadId, |draw| vec![Self(u64::one(draw))];
    StreamId, |draw| vec![Self(u64::one(draw))];
    CallerId, |draw| vec![Self(array(draw))];
    Epoch, |draw| vec![Self(array(draw))];
    TicketSecret, |draw| vec![Self(array(draw))];
    MessageRef, |draw| vec![Self { epoch: Epoch::one(draw), seq: u64::one(draw) }];
    WallClock, |draw| vec![Self(draw.pick(&[1_790_000_000_123, 0, u64::MAX]))];
    Instant, |draw| vec![draw.pick(&[Self::from_micros(12_000_034), Self::ZERO, Self::FAR])];
    Duration, |draw| vec![draw.pick(&[Self::from_secs(10), Self::ZERO, Self::MAX, Self::from_nanos(1)])];
    Bytes, |draw| vec![blob(draw).into()];
    KeyBytes, |draw| vec![draw.pick(&[&[1, 2, 3][..], &[], &[0xff; 40]]).try_into().unwrap()];
    Name, |draw| {
        let names = ["Alice", "-", "-%41,b/c:d=e", "Zo\u{eb} \u{4e2d}\u{6587} \u{1f980}", "%"];
        vec![Self::new(draw.pick(&names)).unwrap()]
    };
    String, |draw| {
        let texts = ["sent a frame twice", "", "-", "%2", "\u{0}\u{202e}\r\n", "a=b c,d/e:f~g"];
        vec![draw.pick(&texts).to_string()]
    };
    PeerId, |draw| {
        let seed = draw.pick(&[7, 8, 9]);
        let pair = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new([seed; 32]));
        vec![Self::new(*pair.pk).unwrap()]
    };
    SocketAddr, |draw| {
        let mut flow: SocketAddrV6 = "[fe80::1%3]:9".parse().unwrap();
        flow.set_flowinfo(u32::MAX);
        let texts = ["192.0.2.7:4711", "0.0.0.0:0", "[2001:db8::1]:65535", "[::ffff:192.0.2.7]:1", "[fe80::1%7]:2"];
        let plain = texts.map(|text| text.parse().unwrap());
        vec![if draw.pick(&[false, false, true]) { flow.into() } else { draw.pick(&plain) }]
    };
    Relay, |draw| vec![Self { peer: PeerId::one(draw), address: SocketAddr::one(draw) }];
    &'static [u8], |draw| vec![draw.pick(&[&BYTES[250..259], &[], &BYTES[..]])];
}

impl<T: Varied> Varied for Box<T> {
    fn varied(draw: &mut Draw) -> Vec<Self> {
        vec![Self::new(T::one(draw))]
    }
}

impl<T: Varied> Varied for Option<T> {
    fn varied(draw: &mut Draw) -> Vec<Self> {
        vec![Some(T::one(draw)), None]
    }
}

impl<A: Varied, B: Varied> Varied for (A, B) {
    fn varied(draw: &mut Draw) -> Vec<Self> {
        vec![(A::one(draw), B::one(draw))]
    }
}

impl<T: Varied> Varied for Vec<T> {
    fn varied(draw: &mut Draw) -> Vec<Self> {
        vec![draw.few()]
    }
}

impl<T: Varied, const N: usize> Varied for List<T, N> {
    fn varied(draw: &mut Draw) -> Vec<Self> {
        vec![Self::of(draw.few())]
    }
}

/// One of everything that has a line.
fn everything(seed: u8, plain: bool) -> Vec<Item<'static>> {
    let draw = &mut Draw { rng: Rng::from_seed([seed; 32]), plain };
    let mut all: Vec<_> = Input::varied(draw).into_iter().map(Item::Input).collect();
    all.extend(Command::varied(draw).into_iter().map(Item::Command));
    all.extend(Output::varied(draw).into_iter().map(Item::Output));
    all
}

#[test]
fn every_variant_has_its_line() {
    let mut lines = String::new();
    for item in everything(0, true) {
        writeln!(lines, "{}", Entry { at: Instant::from_micros(12_000_034), item }).unwrap();
    }
    insta::assert_snapshot!("lines", lines);
}

#[test]
fn every_word_has_its_text() {
    fn texts<T: Varied + for<'a> Field<'a>>(out: &mut String) {
        let draw = &mut Draw { rng: Rng::from_seed([0; 32]), plain: true };
        let texts: Vec<_> = T::varied(draw).iter().map(|value| text(value)).collect();
        writeln!(out, "{}: {}", core::any::type_name::<T>().rsplit(':').next().unwrap(), texts.join(" "))
            .unwrap();
    }
    let mut out = String::new();
    texts::<DialFailure>(&mut out);
    texts::<StreamEnd>(&mut out);
    texts::<Answer>(&mut out);
    texts::<Refusal>(&mut out);
    texts::<ContactChange>(&mut out);
    texts::<TicketRefusal>(&mut out);
    texts::<SessionEnd>(&mut out);
    texts::<AttemptOutcome>(&mut out);
    texts::<Rejection>(&mut out);
    texts::<NatMapping>(&mut out);
    texts::<NatFiltering>(&mut out);
    texts::<Kind>(&mut out);
    insta::assert_snapshot!("words", out);
}

fn text<T: for<'a> Field<'a>>(value: &T) -> String {
    fmt::from_fn(|f| value.write(f)).to_string()
}

#[test]
fn every_line_reads_back_without_loss() {
    let mut scratch = vec![1, 2, 3];
    let mut distinct = BTreeSet::new();
    for seed in 0..=255 {
        for item in everything(seed, false) {
            let entry = Entry { at: Instant::from_micros(u64::from(seed)), item };
            let line = entry.to_string();
            assert!(line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{line}");
            assert_eq!(parse(&line, &mut scratch).as_ref(), Ok(&entry), "{line}");
            distinct.insert(line);
        }
    }
    assert!(distinct.len() > 256 * 12, "the values hardly vary: {}", distinct.len());
}

#[test]
fn every_word_reads_back() {
    fn check<T: Varied + for<'a> Field<'a> + PartialEq + fmt::Debug>(count: usize) {
        let draw = &mut Draw { rng: Rng::from_seed([0; 32]), plain: true };
        let all = T::varied(draw);
        let texts: BTreeSet<_> = all.iter().map(text).collect();
        assert_eq!((texts.len(), all.len()), (count, count));
        for value in all {
            assert_eq!(field(&text(&value)), Some(value));
        }
    }
    check::<DialFailure>(4);
    check::<StreamEnd>(3);
    check::<Answer>(2);
    check::<Refusal>(14);
    check::<ContactChange>(11);
    check::<TicketRefusal>(4);
    check::<SessionEnd>(6);
    check::<AttemptOutcome>(5);
    check::<Rejection>(7);
    check::<NatMapping>(5);
    check::<NatFiltering>(4);
    check::<Kind>(4);
}

#[test]
fn an_event_by_itself_has_the_line_of_its_output() {
    let event = Event::Misbehaved { peer: PeerId::one(&mut plain()), what: "a b".to_string() };
    let output = Output::Event(event.clone());
    assert_eq!(line(Instant::ZERO, &event).to_string(), line(Instant::ZERO, &output).to_string());
}

fn plain() -> Draw {
    Draw { rng: Rng::from_seed([0; 32]), plain: true }
}

/// Whatever still reads after it was damaged is a value like any other: it has a line, which reads back to it.
fn survives(text: &str) {
    let (mut scratch, mut again) = (Vec::new(), Vec::new());
    if let Ok(entry) = parse(text, &mut scratch) {
        assert_eq!(parse(&entry.to_string(), &mut again).as_ref(), Ok(&entry), "{text}");
    }
}

#[test]
fn no_text_harms_the_reader() {
    let lines: Vec<_> = everything(1, true)
        .into_iter()
        .map(|item| Entry { at: Instant::from_micros(1_000_002), item }.to_string())
        .collect();
    for line in &lines {
        for at in 0..line.len() {
            survives(&line[..at]);
            survives(&line[at..]);
            for with in ["", " ", "=", "-", ",", "/", ":", "%", "~", ".", "+", "9", "z", "\0", "\n", "\u{e9}"]
            {
                survives(&format!("{}{with}{}", &line[..at], &line[at + 1..]));
                survives(&format!("{}{with}{}", &line[..at], &line[at..]));
            }
        }
        let mut scratch = Vec::new();
        for extra in [" ", " x=1", "\n"] {
            assert!(parse(&format!("{line}{extra}"), &mut scratch).is_err(), "{line}{extra:?}");
        }
    }
    let rng = &mut Rng::from_seed([5; 32]);
    for _ in 0..2_000 {
        let bytes: [u8; 40] = rng.bytes();
        survives(&String::from_utf8_lossy(&bytes));
        survives(&format!("1.000000 in stream_data stream=1 bytes={}", String::from_utf8_lossy(&bytes)));
    }
}

#[test]
fn a_field_that_is_missing_misplaced_or_too_long_is_named() {
    let read = |text: &str| parse(text, &mut Vec::new()).map(|_| ()).map_err(|error| error.0);
    assert_eq!(read(""), Err("its time"));
    assert_eq!(read("1.5 in tick"), Err("its time"));
    assert_eq!(read("18446744073709.551616 in tick"), Err("its time"));
    assert_eq!(read("18446744073709.551615 in tick"), Ok(()));
    assert_eq!(read("1.000000"), Err("its direction"));
    assert_eq!(read("1.000000 up tick"), Err("its direction"));
    assert_eq!(read("1.000000 in"), Err("its name"));
    assert_eq!(read("1.000000 in shutdown"), Err("its name"));
    assert_eq!(read("1.000000 out ready"), Err("its name"));
    assert_eq!(read("1.000000 out event.event.ready"), Err("its name"));
    assert_eq!(read("1.000000 in dial_failed why=refused stream=1"), Err("stream"));
    assert_eq!(read("1.000000 in dial_failed stream=1"), Err("why"));
    assert_eq!(read("1.000000 in stream_data stream=1 bytes=0"), Err("bytes"));
    assert_eq!(read("1.000000 in stream_data stream=1 bytes=AA"), Err("bytes"));
    let addresses = ["192.0.2.7:1"; 9].join(",");
    assert_eq!(read(&format!("1.000000 in local_addresses addresses={addresses}")), Err("addresses"));
}
