//! Which labels the other images speak against: probabilities from heads that never saw the image.
//!
//! Five heads on frozen features, each trained without a fifth of every class and asked about it. Knows no files.

use std::ops::ControlFlow;

use candle_core::{D, Device, Tensor};
use candle_nn::ops::softmax;

use crate::error::{Error, Result};
use crate::random::shuffled;
use crate::train::{self, FeatureSet, Head, HeadSettings};

/// Parts that images are divided into.
const FOLDS: usize = 5;

/// First stream of random numbers of the classes.
const FOLD_STREAM: u64 = 1 << 33;

/// Images that a class needs for anything to be said about its labels: one for each fold.
const FEWEST: usize = FOLDS;

/// The probability below which a label is doubted.
const DOUBTFUL: f32 = 0.1;

/// The probability from which another label is proposed.
const CONVINCING: f32 = 0.5;

/// What the other images say of a label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// The probability of the label: the lower, the more likely it is wrong.
    pub own: f32,
    /// The most probable of the other labels.
    pub other: usize,
    /// Its probability.
    pub probability: f32,
}

impl Verdict {
    /// Whether the label is likely wrong.
    pub fn is_against(&self) -> bool {
        self.own < DOUBTFUL && self.probability >= CONVINCING
    }
}

/// A verdict on each image of `features` (N, D); none where its class has fewer than five, or there is one such class only.
///
/// `proceed` is asked in each epoch whether to go on.
///
/// # Errors
/// [`Error::Interrupted`], and those of training.
pub(super) fn verdicts(
    features: &Tensor,
    labels: &[usize],
    classes: usize,
    proceed: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Option<Verdict>>> {
    let folds = folds(labels, classes);
    let mut verdicts = vec![None; labels.len()];
    let judged: Vec<usize> = (0..labels.len()).filter(|&index| folds[index].is_some()).collect();
    if judged.iter().all(|&index| labels[index] == labels[judged[0]]) {
        return Ok(verdicts);
    }
    for fold in 0..FOLDS {
        let (asked, learned): (Vec<usize>, Vec<usize>) = judged.iter().partition(|&&index| folds[index] == Some(fold));
        let set = FeatureSet::new(&rows(features, &learned)?, labels_of(labels, &learned), classes)?;
        let head = fit(&set, proceed)?;
        let probabilities = probabilities(&head, &rows(features, &asked)?)?;
        for (&index, probabilities) in asked.iter().zip(probabilities) {
            verdicts[index] = Some(verdict(&probabilities, labels[index]));
        }
    }
    Ok(verdicts)
}

/// The part that each image is in: every class is spread over all, in an order that depends on class and number alone.
fn folds(labels: &[usize], classes: usize) -> Vec<Option<usize>> {
    let mut folds = vec![None; labels.len()];
    let mut members = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        members[label].push(index);
    }
    for (label, members) in members.iter().enumerate().filter(|(_, members)| members.len() >= FEWEST) {
        let order = shuffled(members.len() as u32, 0, FOLD_STREAM + label as u64);
        for (position, member) in order.into_iter().enumerate() {
            folds[members[member as usize]] = Some(position % FOLDS);
        }
    }
    folds
}

fn rows(features: &Tensor, indices: &[usize]) -> Result<Tensor> {
    let indices: Vec<u32> = indices.iter().map(|&index| index as u32).collect();
    let indices = Tensor::from_vec(indices.clone(), indices.len(), features.device())?;
    Ok(features.index_select(&indices, 0)?)
}

fn labels_of(labels: &[usize], indices: &[usize]) -> Vec<u32> {
    indices.iter().map(|&index| labels[index] as u32).collect()
}

/// A head as training makes it, in fewer and larger steps where images are many: a ranking needs no last tenth of a point.
fn fit(set: &FeatureSet, proceed: &mut dyn FnMut() -> Result<()>) -> Result<Head> {
    let (epochs, batch_size) = if set.images() < 2000 { (60, 32) } else { (20, 128) };
    let settings = HeadSettings { epochs, batch_size, ..HeadSettings::default() };
    let mut stopped = None;
    let trained = train::refit(set, &settings, epochs, &mut |_| match proceed() {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            stopped = Some(error);
            ControlFlow::Break(())
        }
    })?;
    stopped.map_or(Ok(trained.head), Err::<Head, Error>)
}

/// (N, D) → N × C.
fn probabilities(head: &Head, features: &Tensor) -> Result<Vec<Vec<f32>>> {
    Ok(softmax(&head.logits(features)?, D::Minus1)?.to_device(&Device::Cpu)?.to_vec2()?)
}

fn verdict(probabilities: &[f32], label: usize) -> Verdict {
    let others = probabilities.iter().copied().enumerate().filter(|&(class, _)| class != label);
    let (other, probability) = others.max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap_or((label, 0.0));
    Verdict { own: probabilities[label], other, probability }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 40 images of two classes, far apart on a line, and where they are.
    fn two_classes() -> (Tensor, Vec<usize>) {
        let places: Vec<f32> = (0..40).map(|index| (index % 2) as f32 * 4.0 + (index / 2) as f32 * 0.05).collect();
        let labels = (0..40).map(|index| index % 2).collect();
        (Tensor::from_vec(places, (40, 1), &Device::Cpu).unwrap(), labels)
    }

    #[test]
    fn a_wrong_label_is_found_and_the_right_one_proposed() {
        let (features, mut labels) = two_classes();
        labels[6] = 1;
        let verdicts = verdicts(&features, &labels, 2, &mut || Ok(())).unwrap();
        let against: Vec<usize> = (0..40).filter(|&index| verdicts[index].unwrap().is_against()).collect();
        assert_eq!(against, [6]);
        assert_eq!(verdicts[6].unwrap().other, 0);
    }

    #[test]
    fn of_few_images_nothing_is_said() {
        let (features, mut labels) = two_classes();
        labels[..4].fill(2);
        let verdicts = verdicts(&features, &labels, 3, &mut || Ok(())).unwrap();
        assert!(verdicts[..4].iter().all(Option::is_none) && verdicts[4..].iter().all(Option::is_some));
        let one_class = super::verdicts(&features, &[0; 40], 1, &mut || Ok(())).unwrap();
        assert!(one_class.iter().all(Option::is_none));
    }

    #[test]
    fn folds_share_every_class_out() {
        let labels: Vec<usize> = (0..60).map(|index| index % 3).collect();
        let folds = folds(&labels, 3);
        for (label, fold) in (0..3).flat_map(|label| (0..FOLDS).map(move |fold| (label, fold))) {
            let members = (0..60).filter(|&index| labels[index] == label && folds[index] == Some(fold));
            assert_eq!(members.count(), 4);
        }
    }

    #[test]
    fn whoever_stops_it_is_heard() {
        let (features, labels) = two_classes();
        let result = verdicts(&features, &labels, 2, &mut || Err(Error::Interrupted));
        assert!(matches!(result, Err(Error::Interrupted)));
    }
}
