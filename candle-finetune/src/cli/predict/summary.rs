//! How a run over photos went.

use super::confidence::Confidence;
use crate::cli::Outcome;
use crate::cli::text::percent;

/// What became of one photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Unreadable,
    Read {
        /// Whether it got an answer, where that depends.
        sure: Option<bool>,
        /// Whether the likeliest label is the true one, where that is known.
        right: Option<bool>,
    },
}

impl Verdict {
    pub fn right(self) -> Option<bool> {
        match self {
            Verdict::Unreadable => None,
            Verdict::Read { right, .. } => right,
        }
    }
}

/// Photos of each kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub photos: usize,
    pub unreadable: usize,
    pub answered: usize,
    labelled: Share,
    labelled_answered: Share,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Share {
    all: usize,
    right: usize,
}

impl Share {
    fn add(&mut self, right: bool) {
        self.all += 1;
        self.right += usize::from(right);
    }

    fn of(&self, part: usize) -> String {
        percent(part as f64 / self.all.max(1) as f64)
    }
}

impl Counts {
    /// Adds one more.
    pub fn add(&mut self, verdict: Verdict) {
        self.photos += 1;
        let Verdict::Read { sure, right } = verdict else {
            self.unreadable += 1;
            return;
        };
        let answered = sure != Some(false);
        self.answered += usize::from(answered);
        if let Some(right) = right {
            self.labelled.add(right);
            if answered {
                self.labelled_answered.add(right);
            }
        }
    }
}

/// Says what there is to say at the end; `is_labelled` where labels were given.
pub fn print(counts: &Counts, confidence: &Confidence, is_labelled: bool) -> Outcome {
    let Counts { photos, unreadable, answered, labelled, labelled_answered } = counts;
    if labelled.all > 0 {
        say!("top-1 {} of {} labelled photos", labelled.of(labelled.right), labelled.all);
    } else if is_labelled {
        say!("no accuracy: none of the photos that could be read has a label");
    }
    if let Some((selection, max_error)) = &confidence.selection {
        say!(
            "answers from {} on, so that at most {} are wrong: {} of {} validation images got one, {} of them wrong",
            percent(selection.threshold),
            percent(*max_error),
            percent(selection.coverage()),
            selection.images,
            selection.wrong
        );
        let read = Share { all: photos - unreadable, right: 0 };
        say!(
            "answered {answered} of {} photos ({}), not sure of {}",
            read.all,
            read.of(*answered),
            read.all - answered
        );
        if labelled_answered.all > 0 {
            let wrong = labelled_answered.all - labelled_answered.right;
            say!("{wrong} of {} answers wrong ({})", labelled_answered.all, labelled_answered.of(wrong));
        }
    }
    if *unreadable == 0 {
        return Outcome::Done;
    }
    say!("{unreadable} of {photos} photos could not be read");
    Outcome::Unsatisfied
}
