//! From which confidence on answers are given, so that not too many of them are wrong.

use serde::{Deserialize, Serialize};

use super::Answer;

/// Points that are kept: enough for every error rate that so many images can tell apart, few enough for a small file.
const MOST_POINTS: usize = 1000;

/// Confidences are kept to so many parts of one.
const PARTS: f64 = 1e6;

/// How many answers there are above a confidence, and how many of them are wrong.
///
/// Points with as many answers as there can be before a further wrong one, from the highest confidence down; the last is of all
/// answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RiskCoverage(Vec<Point>);

/// `(confidence, answered, wrong)`: the answers of at least that confidence, and the wrong ones among them.
type Point = (f64, usize, usize);

/// From which confidence on to answer, and what that was worth on the images that it was chosen on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Selection {
    /// Answers of at least this confidence are given.
    pub threshold: f64,
    /// How many there were.
    pub answered: usize,
    /// How many of them were wrong.
    pub wrong: usize,
    /// Images in all.
    pub images: usize,
}

impl Selection {
    /// Fraction of the images that got an answer.
    pub fn coverage(&self) -> f64 {
        self.answered as f64 / self.images.max(1) as f64
    }
}

impl RiskCoverage {
    /// That of `answers`, in any order.
    pub fn of(mut answers: Vec<Answer>) -> RiskCoverage {
        for answer in &mut answers {
            answer.confidence = (answer.confidence * PARTS).floor() / PARTS;
        }
        answers.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        let (mut points, mut wrong, mut answered) = (Vec::new(), 0, 0);
        // Equal confidences are answered together or not at all.
        for group in answers.chunk_by(|a, b| a.confidence == b.confidence) {
            let wrong_here = group.iter().filter(|answer| !answer.right).count();
            if wrong_here == 0 {
                points.pop_if(|&mut (_, _, before)| before == wrong);
            }
            wrong += wrong_here;
            answered += group.len();
            points.push((group[0].confidence, answered, wrong));
        }
        if let Some((confidence, ..)) = points.last_mut() {
            *confidence = 0.0; // Whoever answers all of these answers anything.
        }
        RiskCoverage(thinned(points))
    }

    /// Images that it was measured on.
    pub fn images(&self) -> usize {
        self.0.last().map_or(0, |&(_, answered, _)| answered)
    }

    /// The most answers of which not more than `max_error`, a fraction, should be wrong; nothing where no confidence is high enough.
    ///
    /// One wrong answer more than there was is reckoned with, so that what was seen of few images promises little.
    pub fn select(&self, max_error: f64) -> Option<Selection> {
        let keeps = |&&(_, answered, wrong): &&Point| (wrong + 1) as f64 <= max_error * (answered + 1) as f64;
        let &(threshold, answered, wrong) = self.0.iter().rfind(keeps)?;
        Some(Selection { threshold, answered, wrong, images: self.images() })
    }
}

/// One line, in files of which programs put each number of a list into a line of its own: `0.9997 1926 0, 0.9971 4105 1`.
impl From<RiskCoverage> for String {
    fn from(RiskCoverage(points): RiskCoverage) -> String {
        let point = |(confidence, answered, wrong): &Point| format!("{confidence} {answered} {wrong}");
        points.iter().map(point).collect::<Vec<_>>().join(", ")
    }
}

impl TryFrom<String> for RiskCoverage {
    type Error = String;

    fn try_from(text: String) -> Result<RiskCoverage, String> {
        let points = text.split(", ").filter(|point| !point.is_empty()).map(|point| {
            let wrong = || format!("`{point}` is no `confidence answered wrong`");
            parsed(point).filter(|&(_, answered, wrong)| wrong <= answered).ok_or_else(wrong)
        });
        points.collect::<Result<_, _>>().map(RiskCoverage)
    }
}

fn parsed(point: &str) -> Option<Point> {
    let mut numbers = point.split(' ');
    let (confidence, answered, wrong) = (numbers.next()?, numbers.next()?, numbers.next()?);
    Some((confidence.parse().ok()?, answered.parse().ok()?, wrong.parse().ok()?))
}

/// At most [`MOST_POINTS`] and the last; any of them may be left out, and a rate then has a few answers less.
fn thinned(points: Vec<Point>) -> Vec<Point> {
    let (count, step) = (points.len(), points.len().div_ceil(MOST_POINTS).max(1));
    let kept = |(index, point)| ((index + 1) % step == 0 || index + 1 == count).then_some(point);
    points.into_iter().enumerate().filter_map(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers in falling confidence; `w` is a wrong one.
    fn curve(answers: &str) -> RiskCoverage {
        let confidence = |index: usize| 0.99 - 0.001 * index as f64;
        let answer = |(index, mark)| Answer { confidence: confidence(index), right: mark != 'w' };
        RiskCoverage::of(answers.chars().enumerate().map(answer).collect())
    }

    #[test]
    fn points_lie_before_each_wrong_answer_and_at_the_end() {
        assert_eq!(curve("rrwrrwwr").0, [(0.989, 2, 0), (0.986, 5, 1), (0.985, 6, 2), (0.0, 8, 3)]);
        assert_eq!(curve("wr").0, [(0.0, 2, 1)]);
        assert_eq!(curve("rrr").0, [(0.0, 3, 0)]);
        assert_eq!(curve("").0, []);
    }

    #[test]
    fn the_most_answers_are_given_that_keep_the_rate() {
        let curve = curve(&format!("{}w{}w{}", "r".repeat(30), "r".repeat(29), "rw".repeat(20)));
        let select = |rate| curve.select(rate).map(|selection| (selection.answered, selection.wrong));
        assert_eq!(select(0.05), Some((62, 2)), "3 of 63, and the next wrong one would make it 4 of 65");
        assert_eq!(select(0.034), Some((60, 1)));
        assert_eq!(select(0.0325), Some((30, 0)), "1 of 31");
        assert_eq!(select(0.03), None, "30 right answers do not show it");
        let all = curve.select(1.0).unwrap();
        assert_eq!((all.threshold, all.coverage(), all.images), (0.0, 1.0, 101));
    }

    #[test]
    fn equal_confidences_are_answered_together() {
        let answers = [(0.9, true), (0.8, true), (0.8, false), (0.7, true)];
        let answers = answers.map(|(confidence, right)| Answer { confidence, right });
        assert_eq!(RiskCoverage::of(answers.to_vec()).0, [(0.9, 1, 0), (0.0, 4, 1)]);
    }

    #[test]
    fn a_line_of_text_is_the_same_curve_again() {
        for curve in [curve("rrwrrwwr"), curve("")] {
            assert_eq!(RiskCoverage::try_from(String::from(curve.clone())), Ok(curve));
        }
        for wrong in ["0.5 3", "high 3 1", "0.5 3 4", "0.5 3 1, ,"] {
            assert!(RiskCoverage::try_from(wrong.to_string()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_measured_promises_nothing() {
        assert_eq!(RiskCoverage::of(Vec::new()).select(0.5), None);
    }

    #[test]
    fn many_points_are_thinned_and_what_is_kept_is_true() {
        let full = "rw".repeat(2500);
        let thin = curve(&full);
        assert!(thin.0.len() <= MOST_POINTS + 1 && thin.images() == 5000);
        for &(_, answered, wrong) in &thin.0 {
            assert_eq!(full[..answered].matches('w').count(), wrong);
        }
    }
}
