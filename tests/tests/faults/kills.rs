//! SIGKILL of either side at any moment, while both write and receive.

use crate::people::{
    Choices, Image, Person, ask_until, judge, judge_held, pair, report, settle, times, wait_for,
};
use peerlink_storage::{Message, State};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

/// Writes messages one after the other, each until it was accepted.
struct Writer {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    thread: JoinHandle<Person>,
}

impl Writer {
    fn start(mut person: Person) -> Self {
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (stop.clone(), accepted.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                person.write(1, || true);
                count.store(person.promised.len(), Ordering::Relaxed);
            }
            person
        });
        Self { stop, accepted, thread }
    }

    /// Waits for so many more to be accepted.
    fn wait(&self, more: usize) {
        let enough = self.accepted.load(Ordering::Relaxed) + more;
        wait_for("the next message", || {
            assert!(!self.thread.is_finished(), "the writer gave up");
            (self.accepted.load(Ordering::Relaxed) >= enough).then_some(())
        });
    }

    fn end(self) -> Person {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn kills_in_a_conversation_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let persons = pair(dir.path());
    let early = persons.each_ref().map(|person| Image::of(&person.dir));
    let dirs = persons.each_ref().map(|person| person.dir.clone());
    let restart = |side: usize| Person { name: "", dir: dirs[side].clone(), promised: Vec::new() }.up();
    let running = [0, 1].map(|side| Mutex::new(Some(restart(side))));
    let writers = persons.map(Writer::start);
    let mut choices = Choices(0x9e37_79b9);
    let mut received = [0; 2];
    let cycles = times(25, 2_000);
    for cycle in 0..cycles {
        let side = choices.below(2);
        writers[side].wait(3 + choices.below(12));
        if cycle % 2 == 0 {
            // Not before messages came in since the last time: it dies in the middle of receiving.
            received[side] = wait_for("a message from the other side", || {
                let unread = ask_until(&dirs[side], &json!({ "do": "contacts" }))[0]["unread"].as_u64();
                unread.filter(|unread| *unread > received[side])
            });
        }
        sleep(Duration::from_micros(choices.next() & 0x3fff));
        let mut slot = running[side].lock().unwrap();
        slot.take().unwrap().kill();
        *slot = Some(restart(side));
    }
    writers.iter().for_each(|writer| writer.wait(5));
    let persons = writers.map(Writer::end);
    settle(&persons);
    // They end as they lived.
    drop(running);
    assert!(persons.iter().all(|person| person.promised.len() >= 25), "there was a conversation");
    assert_eq!(judge(&persons), Ok(()));
    let held = persons.each_ref().map(|person| person.history().unwrap());
    the_judge_finds_what_is_wrong(&persons.each_ref().map(|person| person.promised.clone()), &held);

    // The control: both stores as they were when there was only a contact.
    for (image, dir) in early.iter().zip(&dirs) {
        image.put(dir);
    }
    let running = [0, 1].map(restart);
    settle(&persons);
    drop(running);
    let found = judge(&persons).unwrap_err();
    let [alice, bob] = persons.each_ref().map(|person| person.promised.len());
    report(&format!("RAN kills: {cycles}, {alice} and {bob} messages; control: {found}"));
}

/// The same verdict, asked about a conversation that went wrong.
fn the_judge_finds_what_is_wrong(promised: &[Vec<String>; 2], held: &[Vec<Message>; 2]) {
    type Change<'a> = &'a dyn Fn(&mut [Vec<String>; 2], &mut [Vec<Message>; 2]);
    let wrong = |change: Change<'_>| {
        let (mut promised, mut held) = (promised.clone(), held.clone());
        change(&mut promised, &mut held);
        judge_held(&promised, &held).is_err()
    };
    assert!(wrong(&|promised, _| drop(promised[0].remove(3))), "one that nobody wrote");
    assert!(wrong(&|promised, _| promised[1].swap(2, 3)), "two in the wrong order");
    assert!(wrong(&|_, held| drop(held[0].remove(4))), "one lost on one side");
    assert!(wrong(&|_, held| held.iter_mut().for_each(|all| drop(all.remove(4)))), "one lost on both sides");
    assert!(wrong(&|_, held| held.iter_mut().for_each(|all| all.insert(4, all[4].clone()))), "one doubled");
    let queue = |message: &mut Message| message.state = State::Queued;
    assert!(wrong(&|_, held| held[0].iter_mut().take(1).for_each(queue)), "one not delivered");
}
