//! Ctrl-C: the first asks the work to stop, the second ends the program.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether someone pressed Ctrl-C.
#[derive(Clone)]
pub struct Interrupt(());

static ASKED: AtomicBool = AtomicBool::new(false);

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
        ASKED.load(Ordering::SeqCst)
    }
}

fn stop() {
    if ASKED.swap(true, Ordering::SeqCst) {
        std::process::exit(130);
    }
    say!("\nstopping (again to stop at once)");
}
