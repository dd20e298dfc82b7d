//! Which images an index holds where all would be too many: as many of each class, as far as it has them.

use candle_resnet::preprocess::Photo;

use super::MAX_BYTES;
use crate::images::{ImageError, LabelledImages};
use crate::random::shuffled;

/// Decides which images are drawn: the same whenever an index is made of the same ones.
const SEED: u64 = 0;

/// Images of `width` features whose longest name is among `names`, so that they take [`MAX_BYTES`] at most.
pub(super) fn limit<'a>(width: usize, names: impl Iterator<Item = impl AsRef<str> + 'a>) -> usize {
    /// Of a label in u32, and of what stands between names in the file.
    const BESIDE: usize = 4 + 5;
    let longest = names.map(|name| name.as_ref().len()).max().unwrap_or(0);
    MAX_BYTES / (2 * width + longest + BESIDE)
}

/// At most `limit` images, given by their labels, in ascending order: first one of each class, then a second, and so on, drawn at random.
pub(super) fn balanced(labels: &[usize], limit: usize) -> Vec<usize> {
    if labels.len() <= limit {
        return (0..labels.len()).collect();
    }
    let classes = labels.iter().max().map_or(0, |largest| largest + 1);
    let mut members = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        members[label].push(index);
    }
    let drawn = members.iter().enumerate().flat_map(|(label, members)| {
        let order = shuffled(members.len() as u32, SEED, label as u64).into_iter().enumerate();
        order.map(move |(turn, position)| (turn, label, members[position as usize]))
    });
    let mut drawn: Vec<_> = drawn.collect();
    drawn.sort_unstable();
    let mut kept: Vec<usize> = drawn.into_iter().take(limit).map(|(.., index)| index).collect();
    kept.sort_unstable();
    kept
}

/// Images of a data set that an index holds: all of them, or as many of each class as it has room for.
pub struct Chosen<'a> {
    images: &'a dyn LabelledImages,
    indices: Vec<usize>,
}

impl<'a> Chosen<'a> {
    /// Of `images`, as many as an index of so wide features holds.
    pub fn of(images: &'a dyn LabelledImages, width: usize) -> Chosen<'a> {
        let labels: Vec<usize> = (0..images.len()).map(|index| images.label(index)).collect();
        let limit = limit(width, (0..images.len()).map(|index| images.name(index)));
        Chosen { images, indices: balanced(&labels, limit) }
    }

    /// Index of each in the data set, ascending.
    pub(crate) fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// Images that they were chosen from.
    pub fn total(&self) -> usize {
        self.images.len()
    }
}

impl LabelledImages for Chosen<'_> {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn label(&self, index: usize) -> usize {
        self.images.label(self.indices[index])
    }

    fn photo(&self, index: usize) -> Result<Photo, ImageError> {
        self.images.photo(self.indices[index])
    }

    fn name(&self, index: usize) -> String {
        self.images.name(self.indices[index])
    }

    fn digest(&self, index: usize) -> [u8; 32] {
        self.images.digest(self.indices[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_give_as_many_as_they_have() {
        let labels: Vec<usize> = [vec![0; 100], vec![2; 3], vec![1; 50]].concat();
        let kept = balanced(&labels, 24);
        let count = |label: usize| kept.iter().filter(|&&index| labels[index] == label).count();
        assert_eq!([count(0), count(1), count(2)], [11, 10, 3]);
        assert!(kept.is_sorted_by(|a, b| a < b));
        assert_ne!(kept[..11], (0..11).collect::<Vec<_>>(), "drawn, not the first");
        assert_eq!(balanced(&labels, 24), kept);
    }

    #[test]
    fn all_are_kept_where_there_is_room() {
        assert_eq!(balanced(&[1, 0, 1], 3), [0, 1, 2]);
        assert_eq!(balanced(&[1, 0, 1], 0), [0; 0]);
        assert!(balanced(&[], 3).is_empty());
    }

    #[test]
    fn an_index_fits_its_bounds() {
        let count = limit(512, ["photos/a.jpg", "b"].into_iter());
        assert_eq!(count, 64_000_000 / (1024 + 12 + 9));
    }
}
