//! SIGINT, SIGTERM and SIGHUP end a node in good order. (SIGKILL ends it too, and loses nothing.)

use crate::fault::Fault;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// How the terminal was before a line was edited on it.
static TERMINAL: Mutex<Option<Termios>> = Mutex::new(None);

static ENDING: AtomicBool = AtomicBool::new(false);

/// For who is about to end the process: if a signal does that already, it does, and this never returns.
pub(crate) fn yield_to_signal() {
    while ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// From now on, [`restore_terminal`] brings the terminal back to how it is now.
pub(crate) fn remember_terminal() {
    *TERMINAL.lock().unwrap_or_else(PoisonError::into_inner) = tcgetattr(std::io::stdin()).ok();
}

pub(crate) fn restore_terminal() {
    if let Some(before) = TERMINAL.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _gone = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}

/// `until_told`: the command has no other end than a signal, so that one is a success. Others end like a program
/// that was killed by it: 128 and its number.
pub(crate) fn end_in_good_order(until_told: bool) -> Result<(), Fault> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Fault::internal)?;
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            ENDING.store(true, Ordering::SeqCst);
            crate::host::shut_down_running();
            crate::demo::take_down();
            restore_terminal();
            std::process::exit(if until_told { 0 } else { 128 + signal });
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map_err(Fault::internal)?;
    Ok(())
}
