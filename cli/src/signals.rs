//! SIGINT, SIGTERM and SIGHUP end a node in good order. (SIGKILL ends it too, and loses nothing.)

use crate::fault::Fault;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

pub(crate) fn end_in_good_order() -> Result<(), Fault> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Fault::internal)?;
    let wait = move || {
        if signals.forever().next().is_some() {
            crate::host::shut_down_running();
            std::process::exit(0);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map_err(Fault::internal)?;
    Ok(())
}
