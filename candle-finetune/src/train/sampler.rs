//! In which order an epoch visits images so that every class comes equally often, however rare it is.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;

use crate::random::{keyed_generator, shuffle};

/// As many draws as there are images, by index: of each class that occurs the same number, or one more for some.
///
/// All images of a class come before one of them comes again; of a class with more images than draws, others come in each epoch.
/// The order depends on the arguments alone.
pub fn balanced(labels: &[u32], seed: u64, epoch: u64) -> Vec<u32> {
    let mut generator = keyed_generator(b"balance.", [seed, epoch, 0]);
    let mut classes: Vec<Vec<u32>> = by_label(labels).into_values().collect();
    shuffle(&mut generator, &mut classes); // who is drawn once more changes from epoch to epoch
    let count = classes.len().max(1);
    let (share, more) = (labels.len() / count, labels.len() % count);
    let mut order = Vec::with_capacity(labels.len());
    for (index, members) in classes.iter_mut().enumerate() {
        order.extend(draws(members, share + usize::from(index < more), &mut generator));
    }
    shuffle(&mut generator, &mut order);
    order
}

/// Indices of the images of each class that occurs.
fn by_label(labels: &[u32]) -> BTreeMap<u32, Vec<u32>> {
    let mut classes: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (index, &label) in (0..).zip(labels) {
        classes.entry(label).or_default().push(index);
    }
    classes
}

/// So many of `members`, again and again all of them in another order.
fn draws(members: &mut [u32], count: usize, generator: &mut ChaCha8Rng) -> Vec<u32> {
    let mut drawn = Vec::with_capacity(count);
    while drawn.len() < count {
        shuffle(generator, members);
        drawn.extend(members.iter().take(count - drawn.len()));
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 60 images of class 0, 7 of class 1, one of class 5.
    fn labels() -> Vec<u32> {
        [vec![0; 30], vec![1; 7], vec![5], vec![0; 30]].concat()
    }

    /// How often each image of a class comes.
    fn times(order: &[u32], class: u32) -> Vec<usize> {
        let members = (0..).zip(labels()).filter(|&(_, label)| label == class);
        members.map(|(index, _)| order.iter().filter(|&&drawn| drawn == index).count()).collect()
    }

    #[test]
    fn every_class_comes_equally_often_and_every_image_of_it_as_evenly_as_can_be() {
        let sums: Vec<[usize; 3]> = (0..20)
            .map(|epoch| {
                let order = balanced(&labels(), 3, epoch);
                [0, 1, 5].map(|class| {
                    let times = times(&order, class);
                    assert!(times.iter().max().unwrap() - times.iter().min().unwrap() <= 1, "{times:?}");
                    times.into_iter().sum()
                })
            })
            .collect();
        // 68 = 22 + 23 + 23
        assert!(sums.iter().all(|sums| sums.iter().all(|&sum| sum == 22 || sum == 23)));
        assert!([0, 1, 2].into_iter().all(|class| sums.iter().any(|sums| sums[class] == 22)));
    }

    #[test]
    fn all_images_of_a_large_class_come_in_time_and_classes_are_mixed() {
        let orders: Vec<Vec<u32>> = (0..30).map(|epoch| balanced(&labels(), 0, epoch)).collect();
        assert!(times(&orders.concat(), 0).into_iter().all(|times| times > 0));
        let labels = labels();
        let changes = orders[0].windows(2).filter(|pair| labels[pair[0] as usize] != labels[pair[1] as usize]).count();
        assert!(changes > 25, "{changes} changes of class");
    }

    #[test]
    fn order_depends_on_seed_and_epoch_alone() {
        assert_eq!(balanced(&labels(), 1, 2), balanced(&labels(), 1, 2));
        assert_ne!(balanced(&labels(), 1, 2), balanced(&labels(), 1, 3));
        assert_ne!(balanced(&labels(), 1, 2), balanced(&labels(), 2, 2));
    }

    #[test]
    fn classes_of_one_size_come_as_they_are() {
        let mut order = balanced(&[0, 1, 2, 0, 1, 2], 0, 0);
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3, 4, 5]);
        assert!(balanced(&[], 0, 0).is_empty());
    }
}
