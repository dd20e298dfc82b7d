//! Ctrl-C: the first asks the work to stop, the second ends the program.

use std::sync::atomic::{AtomicBool, Ordering};

use super::screen;

/// Whether someone pressed Ctrl-C.
#[derive(Clone)]
pub struct Interrupt(());

static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether someone pressed Ctrl-C since anybody listens.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

impl Interrupt {
    /// Starts to listen.
    pub fn listen() -> anyhow::Result<Interrupt> {
        match ctrlc::set_handler(stop) {
            // One command after another, as in `finetune demo`: the first listens for all.
            Ok(()) | Err(ctrlc::Error::MultipleHandlers) => Ok(Interrupt(())),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether to stop.
    pub fn asked(&self) -> bool {
        asked()
    }
}

fn stop() {
    if ASKED.swap(true, Ordering::SeqCst) {
        screen::leave();
        std::process::exit(130);
    }
    // A bar takes the place of what the terminal echoes; elsewhere it stands on a line of its own.
    let echoed = if screen::has_bars() { "" } else { "\n" };
    say!("{echoed}stopping (again to stop at once)");
}
