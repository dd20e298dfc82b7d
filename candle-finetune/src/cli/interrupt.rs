//! Who asks the work to stop: Ctrl-C, and on Unix whoever ends the process, as `kill`, containers, clusters and closed terminals do. A second
//! Ctrl-C ends the program.

use std::sync::atomic::{AtomicBool, Ordering};

use super::screen;

/// Whether someone asked the work to stop.
#[derive(Clone)]
pub struct Interrupt(());

static PRESSED: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicBool = AtomicBool::new(false);
static TOLD: AtomicBool = AtomicBool::new(false);

/// Whether someone asked for it since anybody listens. Who learns of it first says so: a handler of signals must not.
pub fn asked() -> bool {
    let asked = ASKED.load(Ordering::SeqCst);
    if asked && !TOLD.swap(true, Ordering::SeqCst) {
        say!("stopping");
    }
    asked
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
    TOLD.store(true, Ordering::SeqCst);
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
    use std::mem::zeroed;
    use std::ptr::{null, null_mut};
    use std::sync::atomic::Ordering;

    use libc::{SA_RESTART, SIG_IGN, SIGHUP, SIGTERM, c_int, sigaction, sighandler_t};

    use super::ASKED;

    /// Listens to both, but where whoever started the program ignores them, as `nohup` does.
    pub fn listen() {
        for signal in [SIGTERM, SIGHUP] {
            // SAFETY: an action of zeros masks nothing, and `ask` does what a handler of signals may do.
            unsafe {
                let mut action: sigaction = zeroed();
                if sigaction(signal, null(), &mut action) == 0 && action.sa_sigaction != SIG_IGN {
                    action = zeroed();
                    action.sa_sigaction = ask as extern "C" fn(c_int) as sighandler_t;
                    action.sa_flags = SA_RESTART;
                    sigaction(signal, &action, null_mut());
                }
            }
        }
    }

    /// Stores into an atomic, and no more: it may interrupt anything.
    extern "C" fn ask(_: c_int) {
        ASKED.store(true, Ordering::SeqCst);
    }
}
