//! How another thread gets the loop's attention, and how a thread's death becomes known instead of a hang.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rings at most once until the loop has heard it, so that many messages cost one wake-up.
pub(crate) struct Bell {
    rung: AtomicBool,
    died: AtomicBool,
    abandoned: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Bell {
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            rung: AtomicBool::new(false),
            died: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            wake: Box::new(wake),
        })
    }

    /// After something was put where the loop looks.
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            (self.wake)();
        }
    }

    /// Before the loop looks.
    pub(crate) fn heard(&self) {
        self.rung.store(false, Ordering::SeqCst);
    }

    /// A thread of this driver panicked.
    pub(crate) fn died(&self) -> bool {
        self.died.load(Ordering::SeqCst)
    }

    /// Nobody holds a handle any more.
    pub(crate) fn abandoned(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }

    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        self.ring();
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("died", &self.died()).finish_non_exhaustive()
    }
}

/// Held by each thread: tells the loop if the thread panics.
#[derive(Debug)]
pub(crate) struct Watchman(pub(crate) Arc<Bell>);

impl Drop for Watchman {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.died.store(true, Ordering::SeqCst);
            self.0.ring();
        }
    }
}
