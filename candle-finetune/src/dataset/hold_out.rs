//! Sets a part of the training images aside, class by class, the same way on every machine.

use crate::random::shuffled;

/// First stream of random numbers of the classes; epochs have those below.
const HOLD_OUT: u64 = 1 << 32;

/// Splits images, given by their labels, into indices of those to train on and of those to validate on, about
/// `fraction` of each class.
///
/// Stratified: of a class of n images, `n × fraction` are held out, rounded, but at least one, and at least one stays,
/// where n ≥ 2 and `fraction` > 0. A class of one image stays whole. A `fraction` that is not a number, or not above 0,
/// holds out nothing. Both parts are in ascending order.
///
/// The choice depends on `seed`, the label and the class's order among the images alone: it is the same on every
/// platform, and another class more does not change it. Labels must lie below `classes`; images of others stay.
pub fn hold_out(labels: &[usize], classes: usize, fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut held = vec![false; labels.len()];
    for (label, members) in by_label(labels, classes).into_iter().enumerate() {
        let order = shuffled(members.len() as u32, seed, HOLD_OUT + label as u64);
        for &position in &order[..held_out_of(members.len(), fraction)] {
            held[members[position as usize]] = true;
        }
    }
    (0..labels.len()).partition(|&index| !held[index])
}

/// Indices of the images of each class.
fn by_label(labels: &[usize], classes: usize) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        if let Some(members) = members.get_mut(label) {
            members.push(index);
        }
    }
    members
}

fn held_out_of(images: usize, fraction: f64) -> usize {
    if images < 2 || fraction.is_nan() || fraction <= 0.0 {
        return 0;
    }
    ((images as f64 * fraction).round() as usize).clamp(1, images - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn choice_is_pinned_for_all_platforms_and_releases() {
        let (_, val) = hold_out(&[0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1], 2, 0.34, 7);
        assert_eq!(val, [5, 6, 9, 10]);
    }

    #[test]
    fn seeds_differ_and_another_class_changes_nothing() {
        let labels: Vec<usize> = (0..200).map(|index| index % 2).collect();
        let val = |labels: &[usize], classes, seed| hold_out(labels, classes, 0.2, seed).1;
        assert_ne!(val(&labels, 2, 1), val(&labels, 2, 2));
        let more = [labels.clone(), vec![2; 10]].concat();
        let known: Vec<usize> = val(&more, 3, 1).into_iter().filter(|&index| more[index] < 2).collect();
        assert_eq!(known, val(&labels, 2, 1));
    }

    #[test]
    fn nonsense_fractions_hold_out_nothing_or_leave_one() {
        for fraction in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
            assert!(hold_out(&[0; 10], 1, fraction, 0).1.is_empty(), "{fraction}");
        }
        for fraction in [1.0, 7.0, f64::INFINITY] {
            assert_eq!(hold_out(&[0; 10], 1, fraction, 0).0.len(), 1, "{fraction}");
        }
    }

    proptest! {
        #[test]
        fn parts_are_disjoint_whole_ordered_and_stratified(
            labels in prop::collection::vec(0usize..6, 0..120), fraction in 0.001f64..0.999, seed: u64,
        ) {
            let (train, val) = hold_out(&labels, 6, fraction, seed);
            prop_assert!(train.is_sorted() && val.is_sorted());
            let mut merged = [train.clone(), val.clone()].concat();
            merged.sort();
            prop_assert_eq!(merged, (0..labels.len()).collect::<Vec<_>>());
            for label in 0..6 {
                let count = |part: &[usize]| part.iter().filter(|&&index| labels[index] == label).count();
                let (kept, held) = (count(&train), count(&val));
                let total = kept + held;
                if total < 2 {
                    prop_assert_eq!(held, 0);
                } else {
                    prop_assert!(kept >= 1 && held >= 1);
                    prop_assert!((held as f64 - total as f64 * fraction).abs() <= 1.0);
                }
            }
        }
    }
}
