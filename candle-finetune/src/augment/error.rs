//! Why an augmentation cannot be.

/// An augmentation that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AugmentError {
    /// A step that nothing is named.
    #[error(
        "no augmentation is named `{0}`, expected crop, padcrop, flip, vflip, randaugment, trivial, color or erase"
    )]
    Unknown(String),
    /// Steps of which there can be one only.
    #[error("`{0}` and `{1}` do not go together")]
    Conflict(&'static str, &'static str),
    /// Text where a number should be.
    #[error("`{step}` has `{found}`, expected a number")]
    NotANumber {
        /// The step.
        step: &'static str,
        /// The text.
        found: String,
    },
    /// More numbers than a step has.
    #[error("`{step}` has {found} numbers, expected at most {most}")]
    TooMany {
        /// The step.
        step: &'static str,
        /// How many there are.
        found: usize,
        /// How many there can be.
        most: usize,
    },
    /// A number that is out of range.
    #[error("`{step}` has a {what} of {found}, expected {low} to {high}")]
    Number {
        /// The step.
        step: &'static str,
        /// Which of its numbers.
        what: &'static str,
        /// The number.
        found: f64,
        /// The lowest.
        low: f64,
        /// The highest.
        high: f64,
    },
    /// A number that has to be whole.
    #[error("`{step}` has a {what} of {found}, expected a whole number")]
    NotWhole {
        /// The step.
        step: &'static str,
        /// Which of its numbers.
        what: &'static str,
        /// The number.
        found: f64,
    },
    /// A policy that changes nothing.
    #[error("the augmentation policy changes nothing")]
    Empty,
    /// Views that nobody sees, or too many.
    #[error("`views` is {0}, expected 1 to {MAX_VIEWS}")]
    Views(usize),
}

/// The most augmented views of an image.
pub(super) const MAX_VIEWS: usize = 1000;
