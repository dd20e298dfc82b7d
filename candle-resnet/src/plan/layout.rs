//! Sizes of all maps for images of one size, and how many images each segment takes at once.

use candle_core::{Result, bail};

use super::Plan;
use super::compile::{Operation, Segment, Slot, Step, pooled};
use super::run::Start;
use crate::features::Boundary;
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
    pub(super) start: Start,
    /// Of the images, or the maps, that runs begin with.
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
    /// Of the map before each step, and after it; none where runs begin behind the segment.
    pub(super) extents: Vec<(Extent, Extent)>,
    /// Of the map that the segment puts out.
    pub(super) output: Extent,
}

impl Layout {
    /// For runs of up to `images` images, or maps, of `channels` channels.
    ///
    /// # Errors
    /// If the network takes other channels there, or only larger images, or has no such boundary.
    pub(super) fn new<S: Stored>(
        plan: &Plan<S>,
        images: usize,
        start: Start,
        channels: usize,
        extent: Extent,
    ) -> Result<Layout> {
        let (what, wanted, passed) = match start {
            Start::Images => ("images", Some(plan.in_channels), 0),
            Start::Map(Boundary { stages }) => ("maps", plan.segments.get(stages).map(|s| s.channels), stages + 1),
        };
        if wanted != Some(channels) || extent.pixels() == 0 {
            let Extent { height, width } = extent;
            let wanted = wanted.map_or("no map".into(), |wanted| format!("({wanted}, H, W)"));
            bail!("{what} of shape ({channels}, {height}, {width}) where {wanted} is expected");
        }
        let mut of_slot = vec![extent; plan.slots];
        let mut layout = Layout { images, start, channels, extent, segments: Vec::new(), slots: vec![0; plan.slots] };
        layout.pass_over(passed);
        let mut at_once = 1;
        for segment in &plan.segments[passed..] {
            let (extents, values) = walk(segment, &mut of_slot)?;
            let largest = values.iter().map(|&(_, values)| values).max().unwrap_or(0);
            let output = extents.last().map_or(extent, |&(_, output)| output);
            at_once = fitting(largest * size_of::<S>(), output.pixels(), images, at_once);
            for (slot, values) in values {
                layout.slots[slot] = layout.slots[slot].max(values * at_once);
            }
            layout.segments.push(SegmentLayout { at_once, extents, output });
        }
        layout.widen_boundaries();
        Ok(layout)
    }

    /// Nothing goes through the first `segments` segments: the last of them holds maps that runs begin with.
    fn pass_over(&mut self, segments: usize) {
        self.segments.resize(segments, SegmentLayout { at_once: 1, extents: Vec::new(), output: self.extent });
        if let Some(last) = segments.checked_sub(1) {
            self.slots[last] = self.extent.values(blocks_of(self.channels));
        }
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
