//! Who asks the work to stop: Ctrl-C, and on Unix whoever ends the process, as `kill`, containers, clusters and closed terminals do. A second
//! Ctrl-C ends the program.

use std::sync::atomic::{AtomicBool, Ordering};

use super::screen;

/// Whether someone asked the work to stop.
#[derive(Clone)]
pub struct Interrupt(());

static PRESSED: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether someone asked for it since anybody listens.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

impl Interrupt {
    /// Starts to listen.
    pub fn listen() -> anyhow::Result<Interrupt> {
        match ctrlc::set_handler(press) {
            Ok(()) => {
                #[cfg(unix)]
                termination::listen();
                Ok(Interrupt(()))
            }
            // One command after another, as in `finetune demo`: the first listens for all.
            Err(ctrlc::Error::MultipleHandlers) => Ok(Interrupt(())),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether to stop.
    pub fn asked(&self) -> bool {
        asked()
    }
}

fn press() {
    ASKED.store(true, Ordering::SeqCst);
    if PRESSED.swap(true, Ordering::SeqCst) {
        screen::leave();
        std::process::exit(130);
    }
    // A bar takes the place of what the terminal echoes; elsewhere it stands on a line of its own.
    let echoed = if screen::has_bars() { "" } else { "\n" };
    say!("{echoed}stopping (again to stop at once)");
}

/// SIGTERM and SIGHUP. Any number of them asks once: `timeout` sends two.
#[cfg(unix)]
mod termination {
    use std::sync::atomic::Ordering;

    use libc::{SIG_IGN, SIGHUP, SIGTERM, c_int, sighandler_t, signal};

    use super::ASKED;

    pub fn listen() {
        let ask = ask as extern "C" fn(c_int) as sighandler_t;
        for sent in [SIGTERM, SIGHUP] {
            // SAFETY: `ask` does what a handler of signals may do.
            unsafe {
                if signal(sent, ask) == SIG_IGN {
                    signal(sent, SIG_IGN); // As `nohup` wants it.
                }
            }
        }
    }

    /// Stores into an atomic, and no more: it may interrupt anything.
    extern "C" fn ask(_: c_int) {
        ASKED.store(true, Ordering::SeqCst);
    }
}
