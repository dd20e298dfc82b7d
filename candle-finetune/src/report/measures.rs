//! Judgements → what is measured by class: pure counting.

use std::collections::BTreeMap;

use super::rate::Rate;
use crate::calibration::{Answer, Judgement};

/// Points of a curve that a drawing can show.
const CURVE_POINTS: usize = 400;

/// How often images of a class were taken for a class; only what occurs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confusion(BTreeMap<(usize, usize), usize>);

/// How well one class is told from the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassMeasures {
    /// The class.
    pub class: usize,
    /// Images of it.
    pub images: usize,
    /// Images that were taken for it.
    pub answers: usize,
    /// Images of both kinds.
    pub right: usize,
    /// Of what was taken for it, how much is of it; nothing where nothing was.
    pub precision: Option<Rate>,
    /// Of its images, how many were taken for it; nothing where there are none.
    pub recall: Option<Rate>,
    /// The harmonic mean of both.
    pub f1: Option<Rate>,
}

/// Images of one class that got one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// What they are.
    pub label: usize,
    /// What they were taken for.
    pub answer: usize,
    /// How many.
    pub images: usize,
}

impl Confusion {
    /// Counts `judgements`.
    pub fn of(judgements: &[Judgement]) -> Confusion {
        let mut counts = BTreeMap::new();
        for judgement in judgements {
            *counts.entry((judgement.label, judgement.answer)).or_insert(0) += 1;
        }
        Confusion(counts)
    }

    /// Images of the class `label` that were taken for `answer`.
    pub fn count(&self, label: usize, answer: usize) -> usize {
        self.0.get(&(label, answer)).copied().unwrap_or(0)
    }

    /// Every class that an image is of or was taken for, in order, measured.
    pub fn classes(&self) -> Vec<ClassMeasures> {
        let (mut images, mut answers) = (BTreeMap::new(), BTreeMap::new());
        for (&(label, answer), &count) in &self.0 {
            *images.entry(label).or_insert(0) += count;
            *answers.entry(answer).or_insert(0) += count;
            images.entry(answer).or_insert(0);
        }
        let measures = |(class, images)| {
            let (answers, right) = (answers.get(&class).copied().unwrap_or(0), self.count(class, class));
            ClassMeasures {
                class,
                images,
                answers,
                right,
                precision: Rate::of(right, answers),
                recall: Rate::of(right, images),
                f1: Rate::f1(right, images + answers - right),
            }
        };
        images.into_iter().map(measures).collect()
    }

    /// Every pair that occurs, in order of the labels.
    pub fn pairs(&self) -> impl Iterator<Item = Pair> {
        self.0.iter().map(|(&(label, answer), &images)| Pair { label, answer, images })
    }

    /// What is taken for something else, the most frequent first.
    pub fn confused(&self) -> Vec<Pair> {
        let mut pairs: Vec<Pair> = self.pairs().filter(|pair| pair.label != pair.answer).collect();
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.images));
        pairs
    }
}

/// The part of wrong answers over the part of images that is answered, from the surest answer to all; equal confidences together.
pub fn risk_coverage(answers: &[Answer]) -> Vec<(f64, f64)> {
    let mut sorted = answers.to_vec();
    sorted.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let (mut wrong, mut answered, mut curve) = (0, 0, Vec::new());
    for group in sorted.chunk_by(|a, b| a.confidence == b.confidence) {
        answered += group.len();
        wrong += group.iter().filter(|answer| !answer.right).count();
        curve.push((answered as f64 / sorted.len() as f64, wrong as f64 / answered as f64));
    }
    let step = curve.len().div_ceil(CURVE_POINTS).max(1);
    let last = curve.len().saturating_sub(1);
    curve
        .into_iter()
        .enumerate()
        .filter(|(index, _)| index % step == 0 || *index == last)
        .map(|(_, point)| point)
        .collect()
}

/// Indices of the wrong answers that cost the most loss, the worst first, at most `count`.
pub fn top_losses(judgements: &[Judgement], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..judgements.len()).filter(|&index| !judgements[index].is_right()).collect();
    order.sort_by(|&a, &b| judgements[b].loss.total_cmp(&judgements[a].loss));
    order.truncate(count);
    order
}

/// Indices of the answers of the least confidence, the least sure first, at most `count`.
pub fn least_certain(judgements: &[Judgement], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..judgements.len()).collect();
    order.sort_by(|&a, &b| judgements[a].confidence.total_cmp(&judgements[b].confidence));
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judgements(pairs: &[(usize, usize)]) -> Vec<Judgement> {
        let judgement = |(index, &(label, answer))| Judgement {
            label,
            answer,
            confidence: 0.9 - 0.1 * index as f64,
            loss: index as f64,
        };
        pairs.iter().enumerate().map(judgement).collect()
    }

    #[test]
    fn classes_are_counted_from_both_sides() {
        let confusion = Confusion::of(&judgements(&[(0, 0), (0, 0), (0, 1), (1, 1), (1, 4), (1, 4)]));
        let classes = confusion.classes();
        let counts: Vec<_> = classes.iter().map(|c| (c.class, c.images, c.answers, c.right)).collect();
        assert_eq!(counts, [(0, 3, 2, 2), (1, 3, 2, 1), (4, 0, 2, 0)]);
        let values = |rate: Option<Rate>| rate.map(|rate| rate.value);
        assert_eq!((values(classes[0].precision), values(classes[0].recall)), (Some(1.0), Some(2.0 / 3.0)));
        assert_eq!((values(classes[2].precision), classes[2].recall), (Some(0.0), None));
        assert_eq!(values(classes[0].f1), Some(0.8));
    }

    #[test]
    fn pairs_are_ranked_by_how_often_they_are_confused() {
        let confusion = Confusion::of(&judgements(&[(0, 1), (1, 4), (1, 4), (2, 2)]));
        let pair = |label, answer, images| Pair { label, answer, images };
        assert_eq!(confusion.confused(), [pair(1, 4, 2), pair(0, 1, 1)]);
    }

    #[test]
    fn risk_is_that_of_all_answers_that_are_as_sure() {
        let answer = |(confidence, right)| Answer { confidence, right };
        let answers = [(0.5, true), (0.9, false), (0.7, true), (0.5, false)].map(answer);
        assert_eq!(risk_coverage(&answers), [(0.25, 1.0), (0.5, 0.5), (1.0, 0.5)]);
        assert_eq!(risk_coverage(&[]), []);
        let many: Vec<Answer> = (0..5000).map(|index| answer((f64::from(index) / 5000.0, index > 9))).collect();
        let curve = risk_coverage(&many);
        assert!(curve.len() <= CURVE_POINTS + 1 && curve.last() == Some(&(1.0, 10.0 / 5000.0)));
    }

    #[test]
    fn only_mistakes_are_top_losses_and_anything_may_be_uncertain() {
        let judgements = judgements(&[(0, 1), (0, 0), (2, 1), (0, 0)]);
        assert_eq!(top_losses(&judgements, 5), [2, 0]);
        assert_eq!(least_certain(&judgements, 2), [3, 2]);
    }
}
