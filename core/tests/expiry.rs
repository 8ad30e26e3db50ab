//! Messages whose time is over, and what both sides see of it, one scenario each.

mod pair;

use pair::{ALICE, BOB, Pair, caller, wall};
use peerlink_core::api::{Command, Event, Expire, Input};
use peerlink_core::ids::MessageRef;
use peerlink_core::record::{Dropped, Entry, Key, Kind, Record as _, Table};
use peerlink_core::time::{Duration, WallClock};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn queued(pair: &Pair, id: u32) -> MessageRef {
    let known = pair.sides[ALICE].events.iter().rev().find_map(|event| match event {
        Event::Queued { caller: named, message, .. } if *named == caller(id) => Some(*message),
        _ => None,
    });
    known.unwrap()
}

/// Why the entries on a disk have no body, of those that have none.
fn dropped(pair: &Pair, side: usize) -> Vec<Dropped> {
    let entries = pair.sides[side].disk.iter().filter(|(key, _)| key[0] == Table::Entry as u8);
    entries.filter_map(|(_, value)| Entry::decode(value).unwrap().dropped).collect()
}

/// How many messages are to expire.
fn awaited(pair: &Pair) -> usize {
    pair.sides[ALICE].disk.keys().filter(|key| key[0] == Table::Expiry as u8).count()
}

fn expired(pair: &Pair) -> usize {
    pair.count(ALICE, |event| matches!(event, Event::Expired { .. }))
}

fn all_acknowledged(pair: &Pair) -> bool {
    (0..2).all(|side| pair.feeds(side, true).iter().all(|feed| feed.acked == feed.head))
}

fn shown(pair: &Pair) -> Vec<String> {
    let texts = pair.sides[BOB].events.iter().filter_map(|event| match event {
        Event::Received { kind: Kind::Text, body, .. } => Some(String::from_utf8(body.to_vec()).unwrap()),
        Event::Received { kind: Kind::Tombstone, .. } => Some("(taken back)".to_owned()),
        _ => None,
    });
    texts.collect()
}

/// Time passes for everybody who runs.
fn pass(pair: &mut Pair, time: Duration) {
    let until = pair.now + time;
    loop {
        pair.settle();
        let next = pair.sides.iter().filter_map(|side| side.node.as_ref()?.deadline()).min();
        pair.now = next.map_or(until, |next| next.min(until));
        for side in 0..2 {
            pair.handle(side, Input::Tick);
        }
        if pair.now == until {
            pair.settle();
            return;
        }
    }
}

/// By the smallest steps, so that nothing happens beyond what is waited for.
fn step_until(pair: &mut Pair, done: impl Fn(&Pair) -> bool) {
    for _ in 0..1000 {
        for turn in 0..200 {
            if done(pair) {
                return;
            }
            pair.small_step(turn);
        }
        pair.now += Duration::from_millis(500);
        for side in 0..2 {
            pair.handle(side, Input::Tick);
        }
    }
    panic!("never");
}

#[test]
fn a_message_that_waits_too_long_expires_and_leaves_no_gap() {
    let mut pair = Pair::met();
    pair.crash(BOB);
    pair.send(ALICE, 0, "message 0");
    pair.send_until(ALICE, 1, Expire::After(DAY), "message 1");
    pair.send_until(ALICE, 2, Expire::After(3 * DAY), "message 2");
    pass(&mut pair, DAY - HOUR);
    assert_eq!((expired(&pair), awaited(&pair)), (0, 2));
    pass(&mut pair, 2 * HOUR);
    let message = queued(&pair, 1);
    let said = |event: &Event| matches!(event, Event::Expired { message: what, .. } if *what == message);
    assert_eq!((pair.count(ALICE, said), expired(&pair), awaited(&pair)), (1, 1, 1));
    assert_eq!(dropped(&pair, ALICE), [Dropped::Expired { settled: false }]);
    let left = pair.sides[ALICE].disk.values().any(|value| value.windows(9).any(|part| part == b"message 1"));
    assert!(!left, "nothing of the text is left on the disk");
    pair.crash(ALICE);
    pair.start(ALICE);
    pair.start(BOB);
    pair.drive_until("acknowledged", all_acknowledged);
    assert_eq!(shown(&pair), ["message 0", "(taken back)", "message 2"]);
    assert_eq!(pair.count(BOB, |event| matches!(event, Event::Gap { .. })), 0);
    assert_eq!(
        dropped(&pair, ALICE),
        [Dropped::Expired { settled: true }],
        "it is certain that it never came"
    );
    assert_eq!(dropped(&pair, BOB), [Dropped::ByAuthor]);
    assert_eq!(awaited(&pair), 0, "what was delivered in time does not expire");
    pass(&mut pair, 5 * DAY);
    assert_eq!(expired(&pair), 1);
}

#[test]
fn what_is_delivered_in_time_never_expires() {
    let mut pair = Pair::met();
    pair.sides[BOB].slow = true;
    for n in 0..5 {
        pair.send_until(ALICE, n, Expire::After(Duration::from_millis(5)), &format!("message {n}"));
    }
    pair.settle();
    // It is stored there, and the time is over before the acknowledgement arrives: both are due in the same turn.
    pair.sides[BOB].slow = false;
    pair.sync(BOB);
    pair.now += Duration::from_millis(5);
    pair.drive_until("acknowledged", all_acknowledged);
    pass(&mut pair, DAY);
    assert_eq!((expired(&pair), awaited(&pair)), (0, 0));
    assert!(dropped(&pair, ALICE).is_empty());
    assert_eq!((shown(&pair).len(), pair.delivered(ALICE)), (5, 5));
}

#[test]
fn what_expired_and_had_come_all_the_same_is_proven_delivered() {
    let mut pair = Pair::met();
    pair.sides[BOB].slow = true;
    pair.send_until(ALICE, 0, Expire::After(HOUR), "too late");
    pair.settle();
    pair.sync(BOB);
    // Stored there; the acknowledgement is lost.
    pair.crash(BOB);
    pair.sides[BOB].slow = false;
    pass(&mut pair, 2 * HOUR);
    assert_eq!((expired(&pair), pair.delivered(ALICE)), (1, 0));
    pair.send(ALICE, 1, "after it");
    pair.start(BOB);
    pair.drive_until("acknowledged", all_acknowledged);
    assert_eq!(dropped(&pair, ALICE), [Dropped::Expired { settled: false }], "acknowledged, so delivered");
    assert_eq!(pair.delivered(ALICE), 2);
    assert_eq!(pair.history(BOB).len(), 2);
    assert!(dropped(&pair, BOB).is_empty());
}

/// And stays proven, although the peer loses it after that and says that it does not have it.
#[test]
fn what_came_although_it_had_expired_stays_delivered_when_the_peer_loses_it() {
    let mut pair = Pair::met();
    pair.settle();
    let backup = pair.sides[BOB].disk.clone();
    pair.sides[BOB].slow = true;
    pair.send_until(ALICE, 0, Expire::After(HOUR), "too late");
    pair.settle();
    pair.sync(BOB);
    pair.crash(BOB);
    pair.sides[BOB].slow = false;
    pass(&mut pair, 2 * HOUR);
    pair.start(BOB);
    pair.drive_until("acknowledged", all_acknowledged);
    assert_eq!((expired(&pair), pair.delivered(ALICE)), (1, 1));
    pair.roll_back(BOB, &backup);
    pair.send(ALICE, 1, "after it");
    pair.drive_until("acknowledged", |pair| all_acknowledged(pair) && pair.history(BOB).len() == 2);
    assert_eq!(dropped(&pair, ALICE), [Dropped::Expired { settled: false }], "it was delivered");
    assert_eq!(dropped(&pair, BOB), [Dropped::ByAuthor], "what is left of it");
}

/// The peer has the message and waits for its disk, so it has not said so: what is offered in its place is a duplicate.
#[test]
fn it_expires_while_it_is_on_its_way() {
    for big in [false, true] {
        let mut pair = Pair::met();
        pair.settle();
        pair.sides[BOB].slow = true;
        let text = if big { "0123456789abcdef".repeat(2048) } else { "on its way".to_owned() };
        pair.send_until(ALICE, 0, Expire::After(Duration::from_millis(1)), &text);
        for _ in 0..2 {
            pair.step();
        }
        pass(&mut pair, Duration::from_millis(2));
        assert_eq!(expired(&pair), 1);
        pair.cut();
        pair.sides[BOB].slow = false;
        pair.drive_until("acknowledged", all_acknowledged);
        let came = shown(&pair) == [text.clone()];
        let settled = dropped(&pair, ALICE) == [Dropped::Expired { settled: true }];
        assert_ne!(came, settled, "big {big}: what is shown of it is what happened to it");
    }
}

/// The peer has the second message and not the first, beyond a gap: of both the time is over, and only of the first is it
/// certain that it never came.
#[test]
fn what_the_peer_has_beyond_a_gap_is_not_counted_as_never_come() {
    let mut pair = Pair::met();
    pair.settle();
    pair.send_until(ALICE, 0, Expire::After(HOUR), &"0123456789abcdef".repeat(4096));
    pair.send_until(ALICE, 1, Expire::After(HOUR), "overtakes it");
    // Both are written; nothing passes until the next turn of it.
    let has_it = |pair: &Pair| pair.feeds(BOB, false).iter().any(|feed| !feed.beyond.is_empty());
    for turn in 0..400 {
        if has_it(&pair) {
            break;
        }
        if turn % 5 == 4 && turn > 20 {
            pair.pass_some(200);
        } else {
            pair.small_step(turn);
        }
    }
    assert!(has_it(&pair));
    pair.crash(BOB);
    pass(&mut pair, 2 * HOUR);
    assert_eq!(expired(&pair), 2);
    pair.start(BOB);
    pair.drive_until("acknowledged", all_acknowledged);
    assert_eq!(
        dropped(&pair, ALICE),
        [Dropped::Expired { settled: true }, Dropped::Expired { settled: false }]
    );
    assert_eq!(pair.delivered(ALICE), 2, "the header of the one, and the other");
    assert_eq!(pair.history(BOB).len(), 2);
}

/// What counts is how long it was off in all, however short each look in between.
#[test]
fn a_short_look_now_and_then_loses_no_time() {
    let mut pair = Pair::met();
    pair.crash(BOB);
    pair.send_until(ALICE, 0, Expire::After(12 * DAY), "twelve days");
    pair.settle();
    for _ in 0..3 {
        assert_eq!(expired(&pair), 0);
        pair.crash(ALICE);
        pair.now += 5 * DAY;
        pair.start(ALICE);
        pair.settle();
    }
    assert_eq!(expired(&pair), 1);
}

/// Whatever comes first, what is shown of it stays true: proven to be delivered, it never expires after that.
#[test]
fn the_acknowledgement_and_the_end_of_its_time_come_at_once() {
    let (mut both, mut in_time) = (0, 0);
    for offset in 0..130 {
        let (early, offset) = (2 + offset / 5, 4 * (offset % 5));
        let mut pair = Pair::met();
        pair.settle();
        pair.send_until(ALICE, 0, Expire::After(HOUR), "just in time");
        // Somewhere on its way, or the acknowledgement is.
        for turn in 0..early {
            pair.small_step(turn);
        }
        pair.now += HOUR;
        pair.handle(ALICE, Input::Tick);
        for turn in offset..offset + 300 {
            pair.small_step(turn);
        }
        pair.drive_until("acknowledged", all_acknowledged);
        let at = |what: fn(&Event) -> bool| pair.sides[ALICE].events.iter().position(what);
        let proven = at(|event| matches!(event, Event::Delivered { .. })).unwrap();
        let over = at(|event| matches!(event, Event::Expired { .. }));
        assert!(over.is_none_or(|over| over < proven), "after {early} steps, from {offset} on");
        both += usize::from(over.is_some());
        in_time += usize::from(over.is_none());
    }
    assert!(both > 0 && in_time > 0, "{both} {in_time}");
}

/// Nothing of it goes out between the start and the moment at which it is taken back, although the peer is there.
#[test]
fn what_expired_while_the_node_was_off_is_never_offered() {
    let mut pair = Pair::met();
    pair.refuse = true;
    pair.cut();
    for n in 0..200 {
        // What was written first is due last: the order in which they expire is not that in which they are offered.
        let after = 3 * HOUR - Duration::from_secs(u64::from(n));
        pair.send_until(ALICE, n, Expire::After(after), &format!("message {n} {}", "x".repeat(3000)));
    }
    pair.send(ALICE, 900, "without end");
    pass(&mut pair, HOUR);
    pair.crash(ALICE);
    pair.now += 2 * HOUR;
    pair.refuse = false;
    pair.start(ALICE);
    pair.drive_until("acknowledged", all_acknowledged);
    assert_eq!(expired(&pair), 200);
    let texts: Vec<String> = shown(&pair).into_iter().filter(|text| text != "(taken back)").collect();
    assert_eq!(texts, ["without end"]);
    assert_eq!(shown(&pair).len(), 201);
    assert_eq!(pair.count(ALICE, |event| matches!(event, Event::Misbehaved { .. })), 0);
}

/// Many more than are in memory: they expire all the same, so many at a time.
#[test]
fn a_long_queue_expires_in_turns_of_a_bounded_size() {
    let mut pair = Pair::met();
    pair.refuse = true;
    pair.cut();
    for n in 0..3000 {
        let expire = if n % 10 == 3 { Expire::Never } else { Expire::After(HOUR) };
        pair.send_until(ALICE, n, expire, &format!("message {n} {}", "x".repeat(300)));
        if n % 100 == 0 {
            pair.settle();
        }
    }
    pass(&mut pair, HOUR - Duration::from_secs(1));
    assert_eq!((expired(&pair), awaited(&pair)), (0, 2700));
    pair.sides[ALICE].trace.clear();
    pass(&mut pair, Duration::from_secs(2));
    assert_eq!((expired(&pair), awaited(&pair)), (2700, 0));
    let longest = pair.sides[ALICE].trace.iter().map(String::len).max().unwrap();
    assert!(longest < 100_000, "one turn made a line of {longest}");
    pair.refuse = false;
    pair.drive_until("acknowledged", all_acknowledged);
    let texts: Vec<String> = shown(&pair).into_iter().filter(|text| text != "(taken back)").collect();
    assert_eq!((texts.len(), shown(&pair).len()), (300, 3000));
}

#[test]
fn the_profile_says_how_long_unless_the_message_does() {
    let mut pair = Pair::met();
    pair.crash(BOB);
    pair.send(ALICE, 0, "before it was set");
    pair.command(ALICE, Command::SetExpire { after: Some(DAY) }).unwrap();
    pair.settle();
    assert_eq!(pair.count(ALICE, |event| matches!(event, Event::ProfileChanged)), 1);
    pair.crash(ALICE);
    pair.start(ALICE);
    pair.send(ALICE, 1, "as the profile says");
    pair.send_until(ALICE, 2, Expire::Never, "never");
    pair.send_until(ALICE, 3, Expire::After(3 * DAY), "longer");
    // One whose id is looked up first.
    let (peer, body) = (pair.peer(BOB), "looked up".into());
    let send = Command::Send { peer, caller: caller(4), fresh: false, expire: Expire::Default, body };
    pair.command(ALICE, send).unwrap();
    pass(&mut pair, 2 * DAY);
    let gone = |pair: &Pair| {
        let of = |id: u32| {
            let message = queued(pair, id);
            pair.count(
                ALICE,
                |event| matches!(event, Event::Expired { message: what, .. } if *what == message),
            )
        };
        [0, 1, 2, 3, 4].map(of)
    };
    assert_eq!(gone(&pair), [0, 1, 0, 0, 1]);
    pair.command(ALICE, Command::SetExpire { after: None }).unwrap();
    pair.send(ALICE, 5, "without end again");
    pass(&mut pair, 9 * DAY);
    assert_eq!(gone(&pair), [0, 1, 0, 1, 1]);
    pair.start(BOB);
    pair.drive_until("acknowledged", all_acknowledged);
    let texts: Vec<String> = shown(&pair).into_iter().filter(|text| text != "(taken back)").collect();
    assert_eq!(texts, ["before it was set", "never", "without end again"]);
}

#[test]
fn a_crash_at_any_step_of_it_changes_nothing() {
    let mut worlds = 0;
    for steps in (0..900).step_by(3) {
        let mut pair = Pair::met();
        pair.refuse = true;
        pair.cut();
        for n in 0..12 {
            pair.send_until(ALICE, n, Expire::After(HOUR), &format!("message {n} {}", "x".repeat(2000)));
        }
        pair.send(ALICE, 90, "without end");
        pair.settle();
        pair.now += 2 * HOUR;
        for side in 0..2 {
            pair.handle(side, Input::Tick);
        }
        pair.refuse = false;
        let mut idle = 0;
        for turn in 0..steps {
            idle = if pair.small_step(turn) { 0 } else { idle + 1 };
        }
        pair.crash(ALICE);
        pair.start(ALICE);
        pair.drive_until("acknowledged", all_acknowledged);
        assert_eq!(awaited(&pair), 0);
        let texts: Vec<String> = shown(&pair).into_iter().filter(|text| text != "(taken back)").collect();
        assert_eq!((texts.as_slice(), shown(&pair).len()), (["without end".to_owned()].as_slice(), 13));
        let settled =
            dropped(&pair, ALICE).iter().filter(|why| **why == Dropped::Expired { settled: true }).count();
        assert_eq!(settled, 12, "after {steps} steps");
        worlds += 1;
        if idle >= 10 {
            break;
        }
    }
    assert!((15..300).contains(&worlds), "{worlds}");
}

#[test]
fn a_wall_clock_that_is_years_ahead_costs_a_week_at_most() {
    let year = 365 * 24 * 3_600_000_i64;
    let mut pair = Pair::met();
    pair.crash(BOB);
    pair.send_until(ALICE, 0, Expire::After(9 * DAY), "nine days");
    pair.send_until(ALICE, 1, Expire::After(30 * DAY), "thirty days");
    pass(&mut pair, HOUR);
    // It swings from start to start.
    for turn in 0..20 {
        pair.crash(ALICE);
        pair.sides[ALICE].wrong_ms = if turn % 2 == 0 { 30 * year } else { 0 };
        pair.start(ALICE);
        pass(&mut pair, HOUR);
        assert_eq!(expired(&pair), 0, "turn {turn}");
    }
    // It jumps while the node runs, and is set right.
    for wrong in [3 * year, -3 * year, 30 * year, 0] {
        let says = WallClock(wall(pair.now).0.saturating_add_signed(wrong));
        pair.handle(ALICE, Input::WallClock(says));
        pass(&mut pair, HOUR);
        assert_eq!(expired(&pair), 0, "wrong by {wrong}");
    }
    // One that stays wrong has brought it nearer by a week.
    let says = WallClock(wall(pair.now).0 + 30 * year as u64);
    pair.handle(ALICE, Input::WallClock(says));
    pass(&mut pair, DAY);
    assert_eq!(expired(&pair), 1);
    pass(&mut pair, 20 * DAY);
    assert_eq!(expired(&pair), 1);
    pass(&mut pair, 2 * DAY);
    assert_eq!(expired(&pair), 2);
}

#[test]
fn a_wall_clock_that_stands_still_makes_nothing_wait_for_ever() {
    let mut pair = Pair::met();
    pair.crash(BOB);
    pair.send_until(ALICE, 0, Expire::After(3 * DAY), "three days");
    pair.settle();
    let began = pair.now;
    for _ in 0..4 {
        pair.crash(ALICE);
        pair.now += DAY;
        let wrong = pair.now.saturating_since(began).as_millis();
        pair.sides[ALICE].wrong_ms = -i64::try_from(wrong).unwrap();
        pair.start(ALICE);
        pass(&mut pair, DAY);
    }
    assert_eq!(expired(&pair), 1, "four days of running are more than three");
}

/// A rollback gives what waits a new name; it expires under that.
#[test]
fn what_is_issued_again_expires_under_its_new_name() {
    for late in [false, true] {
        let mut pair = Pair::met();
        let backup = pair.sides[ALICE].disk.clone();
        for n in 0..5 {
            pair.send(ALICE, n, &format!("lost {n}"));
        }
        pair.drive_until("acknowledged", all_acknowledged);
        pair.refuse = true;
        pair.roll_back(ALICE, &backup);
        pair.sides[ALICE].events.clear();
        let long = if late { HOUR } else { 30 * DAY };
        for n in 0..5 {
            pair.send_until(ALICE, 50 + n, Expire::After(long), &format!("new {n}"));
        }
        pass(&mut pair, Duration::from_secs(1));
        if late {
            // It expires first, and is issued again as what is left of it.
            pass(&mut pair, 2 * HOUR);
        }
        pair.refuse = false;
        // Issued again, and not delivered yet.
        step_until(&mut pair, |pair| pair.count(ALICE, |event| matches!(event, Event::Reissued { .. })) == 5);
        pair.crash(BOB);
        pair.settle();
        let waited = if late { 5 } else { awaited(&pair) };
        assert!(waited >= 3);
        if !late {
            assert_eq!(expired(&pair), 0);
            pass(&mut pair, 30 * DAY);
        }
        assert_eq!((expired(&pair), awaited(&pair)), (waited, 0), "late {late}");
        pair.start(BOB);
        pair.drive_until("acknowledged", all_acknowledged);
        let news = shown(&pair).into_iter().filter(|text| text.starts_with("new")).count();
        assert_eq!(news, 5 - waited);
        assert_eq!(pair.history(ALICE).len(), 10);
    }
}

#[test]
fn what_the_user_took_away_before_does_not_expire_too() {
    let mut pair = Pair::met();
    pair.refuse = true;
    pair.cut();
    for n in 0..4 {
        pair.send_until(ALICE, n, Expire::After(HOUR), &format!("message {n}"));
    }
    pair.settle();
    let peer = pair.peer(BOB);
    pair.command(ALICE, Command::Cancel { peer, message: queued(&pair, 1) }).unwrap();
    pair.settle();
    assert_eq!(awaited(&pair), 3);
    // Taken back, and then the time is over in the same turn.
    pair.command(ALICE, Command::Cancel { peer, message: queued(&pair, 2) }).unwrap();
    pass(&mut pair, 2 * HOUR);
    assert_eq!((expired(&pair), awaited(&pair)), (2, 0));
    let cancelled = |event: &Event| matches!(event, Event::Dropped { cancelled: true, .. });
    assert_eq!(pair.count(ALICE, cancelled), 2);
    // Taking back what expired says that it is taken back, and changes nothing.
    pair.refuse = false;
    pair.drive_until("acknowledged", all_acknowledged);
    assert_eq!(dropped(&pair, ALICE).len(), 4);
    assert!(dropped(&pair, ALICE).iter().all(|why| {
        matches!(why, Dropped::Expired { settled: true } | Dropped::Cancelled { settled: true })
    }));
    // All of a conversation that is deleted leaves nothing to expire.
    pair.refuse = true;
    pair.cut();
    pair.send_until(ALICE, 9, Expire::After(HOUR), "deleted with all");
    pair.settle();
    pair.command(ALICE, Command::DeleteConversation { peer }).unwrap();
    pass(&mut pair, 2 * HOUR);
    assert_eq!((expired(&pair), awaited(&pair)), (2, 0));
}

/// The peer answers that it does not have it, and that is stored. If the user then takes it back once more, that it is certain
/// must not be forgotten: the acknowledgement of what is left of it would pass for one of the message.
#[test]
fn what_is_certain_of_a_message_taken_back_twice_stays() {
    for expires in [false, true] {
        let mut pair = Pair::met();
        pair.crash(BOB);
        let expire = if expires { Expire::After(HOUR) } else { Expire::Never };
        pair.send_until(ALICE, 0, expire, "never came");
        pair.settle();
        let (peer, message) = (pair.peer(BOB), queued(&pair, 0));
        if expires {
            pass(&mut pair, 2 * HOUR);
        } else {
            pair.command(ALICE, Command::Cancel { peer, message }).unwrap();
        }
        pair.start(BOB);
        let settled = |pair: &Pair| {
            dropped(pair, ALICE).iter().any(|why| {
                matches!(why, Dropped::Cancelled { settled: true } | Dropped::Expired { settled: true })
            })
        };
        step_until(&mut pair, settled);
        assert!(!all_acknowledged(&pair), "what is left of it is on its way");
        pair.command(ALICE, Command::Cancel { peer, message }).unwrap();
        pair.drive_until("acknowledged", all_acknowledged);
        assert!(settled(&pair), "expires {expires}: {:?}", dropped(&pair, ALICE));
        assert_eq!(shown(&pair), ["(taken back)"]);
    }
}

/// What of the index leads nowhere is taken out of it, and what is behind it expires.
#[test]
fn an_index_that_leads_nowhere_is_mended() {
    let mut pair = Pair::met();
    pair.crash(BOB);
    pair.send_until(ALICE, 0, Expire::After(HOUR), "message");
    pair.settle();
    pair.crash(ALICE);
    let (key, value) = pair.sides[ALICE].disk.iter().find(|(key, _)| key[0] == Table::Expiry as u8).unwrap();
    let (key, value) = (Key::decode(key).unwrap(), value.clone());
    let Key::Expiry { at, feed, seq } = key else { unreachable!() };
    for wrong in [
        Key::Expiry { at, feed: peerlink_core::ids::FeedNo(77), seq },
        Key::Expiry { at, feed, seq: seq + 5 },
        Key::Expiry { at: peerlink_core::time::Age(at.0 - 1), feed, seq },
    ] {
        pair.sides[ALICE].disk.insert(wrong.encode(), value.clone());
    }
    pair.start(ALICE);
    pass(&mut pair, 2 * HOUR);
    assert_eq!((expired(&pair), awaited(&pair)), (1, 0));
}
