//! Which images, in which order and views, the steps of an epoch see, and how fast they learn.
//!
//! Pure functions of settings, seed and epoch.

use std::collections::HashMap;

use crate::augment::ViewCount;
use crate::random::shuffled;
use crate::reading::{Sight, View};
use crate::train::mixup::Mix;
use crate::train::sampler::balanced;
use crate::train::schedule::Schedule;
use crate::train::tail::{BatchNorm, Sampler, TailSettings};

/// How epochs go.
pub(super) struct Course {
    /// With derived values filled in.
    pub(super) settings: TailSettings,
    pub(super) seed: u64,
    /// Augmented views of each image; without them it is seen as it is.
    pub(super) views: Option<ViewCount>,
    /// The label of each image to train on.
    pub(super) labels: Vec<u32>,
}

impl Course {
    /// Batches of one epoch.
    ///
    /// Where batch norms follow the batch, what does not fill one is left out (others in each epoch): its statistics would
    /// be those of few images.
    pub(super) fn batches(&self) -> usize {
        let full = self.labels.len() / self.settings.batch_size;
        match self.settings.batch_norm {
            BatchNorm::Train if full > 0 => full,
            _ => self.labels.len().div_ceil(self.settings.batch_size),
        }
    }

    /// Steps of one epoch; the last may be of fewer batches.
    pub(super) fn steps(&self) -> usize {
        self.batches().div_ceil(self.settings.accumulate)
    }

    /// Whether a step is taken after the batch `batch`, counted from 0, of an epoch.
    pub(super) fn ends_step(&self, batch: usize) -> bool {
        (batch + 1).is_multiple_of(self.settings.accumulate) || batch + 1 == self.batches()
    }

    /// The step, counted from 0 over the whole run, that the batch `batch` of an epoch, counted from 1, is of.
    pub(super) fn step_of(&self, epoch: usize, batch: usize) -> usize {
        (epoch - 1) * self.steps() + batch / self.settings.accumulate
    }

    /// How a batch of an epoch is mixed, of maps or images of `size` (height, width).
    pub(super) fn mix(&self, epoch: usize, batch: usize, size: (usize, usize)) -> Option<Mix> {
        self.settings.mixup.map(|mixup| mixup.draw(self.seed, epoch as u64, batch as u64, size))
    }

    /// Images of one epoch.
    pub(super) fn images_seen(&self) -> usize {
        self.labels.len().min(self.batches() * self.settings.batch_size)
    }

    pub(super) fn schedule(&self) -> Schedule {
        Schedule {
            shape: self.settings.schedule,
            peak: self.settings.lr.unwrap_or(0.0),
            warmup: self.settings.warmup_epochs.saturating_mul(self.steps()),
            steps: self.settings.epochs.saturating_mul(self.steps()),
            steps_per_epoch: self.steps(),
        }
    }

    /// What an epoch, counted from 1, sees of the images `indices`, in order.
    pub(super) fn sights(&self, epoch: usize, indices: &[usize]) -> impl Iterator<Item = Sight> {
        let order = match self.settings.sampler {
            Sampler::Shuffled => shuffled(indices.len() as u32, self.seed, epoch as u64),
            Sampler::Balanced => balanced(&self.labels, self.seed, epoch as u64),
        };
        let mut seen: HashMap<usize, u64> = HashMap::new();
        order.into_iter().take(self.images_seen()).map(move |row| {
            let image = indices[row as usize];
            let before = seen.entry(image).or_insert(0);
            *before += 1;
            Sight { image, view: self.view(epoch, image, *before - 1) }
        })
    }

    /// All that any epoch may see of the images `indices`; nothing where every epoch sees something new.
    pub(super) fn all_sights(&self, indices: &[usize]) -> Option<Vec<Sight>> {
        let views: Vec<View> = match self.views {
            None => vec![View::Plain],
            Some(ViewCount::Kept(views)) => (0..views as u64).map(View::Augmented).collect(),
            Some(ViewCount::Fresh) => return None,
        };
        let of_image = |&image: &usize| views.iter().map(move |&view| Sight { image, view });
        Some(indices.iter().flat_map(of_image).collect())
    }

    /// What each of its batches sees.
    pub(super) fn batches_of(&self, epoch: usize, indices: &[usize]) -> Vec<Vec<Sight>> {
        let sights: Vec<Sight> = self.sights(epoch, indices).collect();
        sights.chunks(self.settings.batch_size).map(<[Sight]>::to_vec).collect()
    }

    /// How an image is seen in an epoch, counted from 1, that has seen it so often `before`. Of views that are kept every image goes
    /// through all in turn.
    fn view(&self, epoch: usize, image: usize, before: u64) -> View {
        match self.views {
            None => View::Plain,
            Some(ViewCount::Fresh) => View::Augmented(epoch as u64 + (before << 32)),
            Some(ViewCount::Kept(views)) => {
                View::Augmented((epoch as u64 - 1 + image as u64 + before) % views.max(1) as u64)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::train::tail::TrainFrom;

    fn course(images: usize, batch_size: usize, batch_norm: BatchNorm, views: Option<ViewCount>) -> Course {
        let settings = TailSettings { batch_size, batch_norm, ..TailSettings::pretrained(TrainFrom::All) };
        Course { settings, seed: 3, views, labels: vec![0; images] }
    }

    #[test]
    fn what_fills_no_batch_trains_only_where_norms_are_frozen() {
        let steps = |images, batch_norm| course(images, 4, batch_norm, None).steps();
        assert_eq!((steps(9, BatchNorm::Frozen), steps(9, BatchNorm::Train)), (3, 2));
        assert_eq!((steps(3, BatchNorm::Frozen), steps(3, BatchNorm::Train)), (1, 1), "all there is");
        assert_eq!(course(9, 4, BatchNorm::Train, None).images_seen(), 8);
    }

    #[test]
    fn a_step_is_of_several_batches_and_the_last_of_what_is_left() {
        let mut course = course(18, 4, BatchNorm::Frozen, None);
        course.settings.accumulate = 2;
        assert_eq!((course.batches(), course.steps()), (5, 3));
        let ends: Vec<bool> = (0..5).map(|batch| course.ends_step(batch)).collect();
        assert_eq!(ends, [false, true, false, true, true]);
        assert_eq!([(1, 0), (1, 1), (1, 4), (2, 0)].map(|(epoch, batch)| course.step_of(epoch, batch)), [0, 0, 2, 3]);
    }

    #[test]
    fn a_balanced_epoch_sees_the_rare_class_as_often_as_the_other() {
        let mut course = course(8, 4, BatchNorm::Frozen, None);
        course.labels = vec![0, 0, 0, 0, 0, 0, 0, 1];
        course.settings.sampler = Sampler::Balanced;
        let indices: Vec<usize> = (10..18).collect();
        let rare = |course: &Course| -> Vec<View> {
            let sights = course.sights(1, &indices).filter(|sight| sight.image == 17);
            sights.map(|sight| sight.view).collect()
        };
        assert_eq!((rare(&course).len(), course.sights(1, &indices).count()), (4, 8));
        for views in [ViewCount::Fresh, ViewCount::Kept(4)] {
            course.views = Some(views);
            let different: HashSet<View> = rare(&course).into_iter().collect();
            assert_eq!(different.len(), 4, "no view of it comes twice");
        }
    }

    #[test]
    fn every_epoch_has_an_order_of_its_own_and_every_image_in_it() {
        let course = course(9, 4, BatchNorm::Frozen, None);
        let indices: Vec<usize> = (10..19).collect();
        let images =
            |epoch| -> Vec<usize> { course.batches_of(epoch, &indices).concat().iter().map(|s| s.image).collect() };
        assert_ne!(images(1), images(2));
        assert_eq!(images(1), images(1));
        let mut sorted = images(1);
        sorted.sort();
        assert_eq!(sorted, indices);
    }

    #[test]
    fn kept_views_come_round_and_fresh_ones_never() {
        let view = |views, epoch, image| course(9, 4, BatchNorm::Frozen, views).view(epoch, image, 0);
        let kept = Some(ViewCount::Kept(3));
        let seen: Vec<View> = (1..=4).map(|epoch| view(kept, epoch, 7)).collect();
        assert_eq!(seen, [1, 2, 0, 1].map(View::Augmented));
        assert_ne!(view(kept, 1, 7), view(kept, 1, 8), "images of one epoch show different ones");
        assert_eq!(view(Some(ViewCount::Fresh), 5, 7), View::Augmented(5));
        assert_eq!(view(None, 5, 7), View::Plain);
    }
}
