//! Sizes of all maps for images of one size, and how many images each segment takes at once.

use candle_core::{Result, bail};

use super::Plan;
use super::compile::{Operation, Segment, Slot, Step, pooled};
use crate::kernels::{Extent, Stored, Unfolding, Window, blocks_of};

/// Maps of a segment, in bytes, that should stay in the caches.
const CACHED_BYTES: usize = 3 << 20;

/// Pixels of a segment's output that are wanted at once even where maps leave the caches: fewer do not pay for reading the weights, which
/// are the heaviest where maps are smallest. The number of images is rounded down to a multiple of the segment's before.
const ENOUGH_PIXELS: usize = 240;

/// What of a run depends on the size and number of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) images: usize,
    pub(super) channels: usize,
    pub(super) extent: Extent,
    pub(super) segments: Vec<SegmentLayout>,
    /// Values of each slot.
    pub(super) slots: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentLayout {
    /// Images that pass through the segment at once.
    pub(super) at_once: usize,
    /// Of the map before each step, and after it.
    pub(super) extents: Vec<(Extent, Extent)>,
}

impl SegmentLayout {
    /// Of the segment's output.
    pub(super) fn output(&self) -> Extent {
        self.extents.last().map_or(Extent { height: 0, width: 0 }, |&(_, output)| output)
    }
}

impl Layout {
    /// For runs of up to `images` images of `channels` channels.
    ///
    /// # Errors
    /// If the network takes other channels, or only larger images.
    pub(super) fn new<S: Stored>(plan: &Plan<S>, images: usize, channels: usize, extent: Extent) -> Result<Layout> {
        if channels != plan.in_channels || extent.pixels() == 0 {
            let Extent { height, width } = extent;
            let wanted = plan.in_channels;
            bail!("images of shape ({channels}, {height}, {width}) where ({wanted}, H, W) is expected");
        }
        let mut of_slot = vec![extent; plan.slots];
        let mut layout = Layout { images, channels, extent, segments: Vec::new(), slots: vec![0; plan.slots] };
        let mut at_once = 1;
        for segment in &plan.segments {
            let (extents, values) = walk(segment, &mut of_slot)?;
            let largest = values.iter().map(|&(_, values)| values).max().unwrap_or(0);
            let pixels = extents.last().map_or(0, |(_, output)| output.pixels());
            at_once = fitting(largest * size_of::<S>(), pixels, images, at_once);
            for (slot, values) in values {
                layout.slots[slot] = layout.slots[slot].max(values * at_once);
            }
            layout.segments.push(SegmentLayout { at_once, extents });
        }
        layout.widen_boundaries();
        Ok(layout)
    }

    /// What a segment puts out is kept until the next one has all the images that it takes at once.
    fn widen_boundaries(&mut self) {
        for index in 1..self.segments.len() {
            self.slots[index - 1] =
                self.slots[index - 1] / self.segments[index - 1].at_once * self.segments[index].at_once;
        }
    }
}

/// Images that fit the caches, given the bytes of a map, or have enough pixels: a multiple of what the segment before takes at once, not more
/// than there are.
fn fitting(bytes: usize, pixels: usize, images: usize, before: usize) -> usize {
    let fit = (CACHED_BYTES / (3 * bytes).max(1)).max(ENOUGH_PIXELS.div_ceil(pixels.max(1)));
    (fit.min(images) / before * before).max(before)
}

type Extents = Vec<(Extent, Extent)>;

/// Extents before and after each step, and the values of each slot that it writes for one image.
fn walk<S: Stored>(segment: &Segment<S>, of_slot: &mut [Extent]) -> Result<(Extents, Vec<(Slot, usize)>)> {
    let mut extents = Vec::new();
    let mut values = Vec::new();
    for step in &segment.steps {
        let input = of_slot[step.from];
        let output = output(step, input);
        if output.pixels() == 0 || cannot_reflect(step, input) {
            bail!(
                "an image is too small for this network: in {} a map of {}×{} is left",
                segment.name,
                input.height,
                input.width
            );
        }
        of_slot[step.to] = output;
        extents.push((input, output));
        values.push((step.to, output.values(blocks_of(step.channels))));
    }
    Ok((extents, values))
}

/// A blur needs a neighbour to reflect.
fn cannot_reflect<S: Stored>(step: &Step<S>, input: Extent) -> bool {
    matches!(step.operation, Operation::Pool { window: Window::Blur, .. }) && input.height.min(input.width) < 2
}

fn output<S: Stored>(step: &Step<S>, input: Extent) -> Extent {
    match &step.operation {
        Operation::Unfold { factor } => Unfolding { channels: 1, factor: *factor, extent: input }.unfolded_extent(),
        Operation::Convolve { convolution, .. } => convolution.geometry.output(input),
        Operation::Pool { output, .. } => pooled(*output, input),
        Operation::ShiftChannels { stride, .. } => {
            Extent { height: input.height.div_ceil(*stride), width: input.width.div_ceil(*stride) }
        }
        Operation::Attend { .. } | Operation::Normalise { .. } => input,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_images_fit_as_the_caches_hold_or_weights_are_worth_reading_for() {
        const KB: usize = 1 << 10;
        for (kilobytes, pixels, images, before, expected) in [
            (3136, 56 * 56, 8, 1, 1), // ResNet-50's layer1
            (784, 14 * 14, 8, 1, 2),  // layer3
            (392, 7 * 7, 8, 2, 4),    // layer4
            (98, 7 * 7, 8, 1, 8),     // ResNet-18's
            (98, 7 * 7, 32, 1, 10),
            (392, 7 * 7, 3, 2, 2),
            (392, 7 * 7, 1, 1, 1),
            (1, 1, 1000, 1, 1000),
            (0, 0, 8, 1, 8),
        ] {
            assert_eq!(
                fitting(kilobytes * KB, pixels, images, before),
                expected,
                "{kilobytes} {pixels} {images} {before}"
            );
        }
    }
}
