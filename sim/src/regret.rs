//! What people think better of: messages that they take back or delete, conversations that they delete.
//!
//! Who asked for it insists until it is answered, as with everything else.

use crate::fault::Fault;
use crate::world::World;
use peerlink_core::api::{Command, Refusal};
use peerlink_core::ids::MessageRef;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Cancel(MessageRef),
    Delete(MessageRef),
    /// Everything that is in the conversation.
    DeleteAll,
}

impl Wish {
    const fn fault(self) -> Fault {
        match self {
            Self::Cancel(_) => Fault::TakenBack,
            Self::Delete(_) => Fault::Deleted,
            Self::DeleteAll => Fault::ConversationDeleted,
        }
    }
}

/// A wish, and whether the node has taken it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Regret {
    pub(crate) with: usize,
    pub(crate) wish: Wish,
    pub(crate) asked: bool,
}

impl Regret {
    pub(crate) fn is_about(&self, message: &MessageRef) -> bool {
        match self.wish {
            Wish::Cancel(of) | Wish::Delete(of) => self.asked && of == *message,
            Wish::DeleteAll => false,
        }
    }

    pub(crate) fn is_about_all(&self) -> bool {
        self.wish == Wish::DeleteAll
    }
}

/// So many before the newest, and round again.
fn pick(messages: &[MessageRef], back: u32) -> Option<MessageRef> {
    let back = (back as usize).checked_rem(messages.len())?;
    messages.get(messages.len() - 1 - back).copied()
}

impl World {
    pub(crate) fn wishes_back(&mut self, host: usize, to: usize, back: u32) {
        let message = pick(&self.people[host].queued(to), back);
        self.wishes(host, to, message.map(Wish::Cancel));
    }

    pub(crate) fn wishes_away(&mut self, host: usize, with: usize, own: bool, back: u32) {
        let person = &self.people[host];
        let message = if own { pick(&person.queued(with), back) } else { pick(person.came(with), back) };
        self.wishes(host, with, message.map(Wish::Delete));
    }

    pub(crate) fn wishes(&mut self, host: usize, with: usize, wish: Option<Wish>) {
        if let Some(wish) = wish {
            self.people[host].regrets.push(Regret { with, wish, asked: false });
            self.undo(host);
        }
    }

    /// Asks for what was not asked for yet.
    pub(crate) fn undo(&mut self, host: usize) {
        let mut at = 0;
        while let Some(regret) = self.people[host].regrets.get(at).copied() {
            at += 1;
            let may_ask = self.hosts[host].is_up() && !regret.asked;
            // The ids go with the conversation: who has to ask for one of them again waits for that answer first.
            if !may_ask || (regret.is_about_all() && self.people[host].is_asking(regret.with)) {
                continue;
            }
            let peer = self.hosts[regret.with].peer;
            let command = match regret.wish {
                Wish::Cancel(message) => Command::Cancel { peer, message },
                Wish::Delete(message) => Command::Delete { peer, message },
                Wish::DeleteAll => Command::DeleteConversation { peer },
            };
            self.people[host].regrets[at - 1].asked = true;
            self.oracle.wished(host, &peer, regret.wish);
            match self.ask(host, command) {
                Ok(()) => {
                    self.counts.add(regret.wish.fault());
                    if regret.is_about_all() {
                        self.people[host].delete_all(regret.with);
                    }
                }
                Err(Refusal::Busy | Refusal::StoreFailed | Refusal::Stopping) => {
                    if let Some(regret) = self.people[host].regrets.get_mut(at - 1) {
                        regret.asked = false;
                    }
                }
                Err(why) => {
                    let asked = Regret { asked: true, ..regret };
                    if let Some(at) = self.people[host].regrets.iter().position(|other| *other == asked) {
                        self.people[host].regrets.remove(at);
                    }
                    at = at.saturating_sub(1);
                    let verdict = self.oracle.wish_refused(host, &peer, regret.wish, why);
                    self.judged(verdict);
                }
            }
        }
    }
}
