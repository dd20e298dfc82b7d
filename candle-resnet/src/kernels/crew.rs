//! Threads of the pool that stay with one run, so that sharing a layer costs a microsecond and not a wake-up.
//!
//! A layer takes some ten microseconds; to wake a sleeping thread takes as long. Helpers wait for the next layer by spinning for a
//! moment, then they sleep. Whoever is there takes the next share of the work: nobody waits for a helper that the pool has
//! not sent yet, or that the system has put aside before it took one.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Looks at the clock-work before a helper goes to sleep: some 50 µs.
const SPINS: usize = 3000;
/// Looks before a thread that waits for others lets the system run something else.
const PATIENCE: usize = 300;
/// The low half of a ticket: shares of a job that nobody has taken yet. The high half counts jobs.
const SHARES: u64 = u32::MAX as u64;

type Job<'a> = &'a (dyn Fn(usize) + Sync);

/// What the threads of a run have in common.
pub(super) struct Crew {
    ticket: AtomicU64,
    /// Shares of the job that are not done.
    pending: AtomicUsize,
    /// Valid while a share of it is pending.
    job: UnsafeCell<Option<Job<'static>>>,
    dismissed: AtomicBool,
    asleep: AtomicUsize,
    door: Mutex<()>,
    bell: Condvar,
}

// SAFETY: the job is written only while no share is pending, and read only by who holds a share (see `run` and `take`).
unsafe impl Sync for Crew {}

impl Crew {
    pub(super) fn new() -> Crew {
        Crew {
            ticket: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            dismissed: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            door: Mutex::new(()),
            bell: Condvar::new(),
        }
    }

    /// Runs `job` for every share, with whoever helps, and returns when all are done. For one thread at a time: the one
    /// that leads the run.
    pub(super) fn run(&self, shares: usize, job: Job) {
        debug_assert_eq!(self.pending.load(Ordering::Relaxed), 0);
        // SAFETY: only the lifetime changes; `Finish` does not let this function end while a share is pending.
        let job = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
        // SAFETY: no share is pending, so nobody reads.
        unsafe { *self.job.get() = Some(job) };
        self.pending.store(shares, Ordering::Relaxed);
        let number = self.ticket.load(Ordering::Relaxed) >> 32;
        let ticket = (number.wrapping_add(1) << 32) | shares as u64 & SHARES;
        self.ticket.store(ticket, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            self.ring();
        }
        let _finish = Finish(self);
        while self.work() {}
    }

    /// Takes a share and does it; `false` if there is none.
    fn work(&self) -> bool {
        let Some(share) = self.take() else { return false };
        let _done = Done(&self.pending);
        // SAFETY: the share that was taken is pending, so the job is that of its ticket and lives.
        if let Some(job) = unsafe { *self.job.get() } {
            job(share);
        }
        true
    }

    fn take(&self) -> Option<usize> {
        let taken = self
            .ticket
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |ticket| (ticket & SHARES != 0).then(|| ticket - 1));
        // A ticket of another job would have had another number, and the update would have failed.
        taken.ok().map(|ticket| (ticket & SHARES) as usize - 1)
    }

    /// What a helper does until the crew is dismissed.
    pub(super) fn help(&self) {
        let mut spins = 0;
        while !self.dismissed.load(Ordering::Acquire) {
            if self.work() {
                spins = 0;
            } else if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                self.sleep();
                spins = 0;
            }
        }
    }

    fn sleep(&self) {
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.fetch_add(1, Ordering::SeqCst);
        // Looked at once more now that whoever has news rings: what came before is seen, what comes later wakes.
        let news = || self.ticket.load(Ordering::SeqCst) & SHARES != 0 || self.dismissed.load(Ordering::SeqCst);
        drop(self.bell.wait_while(door, |()| !news()).unwrap_or_else(PoisonError::into_inner));
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }

    fn ring(&self) {
        drop(self.door.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.notify_all();
    }

    /// Sends the helpers home.
    pub(super) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::SeqCst);
        self.ring();
    }
}

/// Counts a share as done, however it ended.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Waits until no share is pending; where a job panicked, what nobody has taken is not done.
struct Finish<'a>(&'a Crew);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        while self.0.take().is_some() {
            self.0.pending.fetch_sub(1, Ordering::AcqRel);
        }
        let mut looks = 0;
        while self.0.pending.load(Ordering::Acquire) > 0 {
            looks += 1;
            if looks < PATIENCE { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

/// Dismisses a crew, however the work with it ended.
pub(super) struct Dismissal<'a>(pub(super) &'a Crew);

impl Drop for Dismissal<'_> {
    fn drop(&mut self) {
        self.0.dismiss();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Leads a crew of `helpers` threads.
    fn with_helpers<T>(helpers: usize, lead: impl FnOnce(&Crew) -> T) -> T {
        let crew = Crew::new();
        std::thread::scope(|scope| {
            let _dismissal = Dismissal(&crew);
            for _ in 0..helpers {
                scope.spawn(|| {
                    // A job's panic is its leader's to see.
                    let _ = catch_unwind(AssertUnwindSafe(|| crew.help()));
                });
            }
            lead(&crew)
        })
    }

    #[test]
    fn every_share_is_done_once_before_the_next_job() {
        for helpers in [0, 1, 3, 7] {
            with_helpers(helpers, |crew| {
                for round in 0..2000 {
                    let shares = 1 + round % 9;
                    let done: Vec<AtomicUsize> = (0..shares).map(|_| AtomicUsize::new(0)).collect();
                    crew.run(shares, &|share| {
                        done[share].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1), "{helpers} helpers");
                }
            });
        }
    }

    #[test]
    fn helpers_that_fell_asleep_are_woken() {
        with_helpers(2, |crew| {
            for _ in 0..5 {
                std::thread::sleep(std::time::Duration::from_millis(20));
                let threads = Mutex::new(std::collections::HashSet::new());
                crew.run(64, &|_| {
                    threads.lock().unwrap().insert(std::thread::current().id());
                    std::thread::sleep(std::time::Duration::from_millis(1));
                });
                assert!(threads.into_inner().unwrap().len() > 1, "only one thread worked");
            }
        });
    }

    #[test]
    fn a_job_that_panics_leaves_nobody_waiting() {
        let panicked = catch_unwind(|| {
            with_helpers(2, |crew| crew.run(16, &|share| assert_ne!(share, 7)));
        });
        // Either the leader saw it, or a helper did and went.
        let _ = panicked;
        with_helpers(1, |crew| crew.run(4, &|_| {}));
    }
}
