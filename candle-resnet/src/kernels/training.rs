//! Whole layers of a training step over a batch, shared between the threads of a team: what [`layers`](super::layers) is for the forward
//! pass. Lengths are checked here.
//!
//! How work is cut depends on shapes alone, and sums are put together in one order: no bit depends on the number of threads.

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::buffer::Buffer;
use super::convolution::ConvolutionShape;
use super::lanes::LANES;
use super::layers::{Scratch, Team, part, pieces};
use super::map::{Extent, Writable, blocks_of};
use super::norm::{Moments, NormGradient, NormSums};
use super::pack::{DenseWeights, pack_column};
use super::pool::Window;
use super::pool_gradient::PoolGradient;
use super::weight_gradient::{Planes, WeightGradient};
use super::winograd::{Scheme, TransformWeights};

/// Parts that a weight gradient is cut into where there is enough to cut.
const TASKS: usize = 16;
/// Input blocks of a 1×1 kernel that are taken together.
const BLOCKS_OF_ONE_TAP: usize = 3;

/// Tasks that threads take one after the other.
struct Queue {
    next: AtomicUsize,
    count: usize,
}

impl Queue {
    fn new(count: usize) -> Queue {
        Queue { next: AtomicUsize::new(0), count }
    }

    /// Does what nobody else has taken.
    fn each(&self, mut work: impl FnMut(usize)) {
        let take = || Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|&task| task < self.count);
        std::iter::from_fn(take).for_each(&mut work);
    }
}

/// What a batch norm's gradient is made from.
pub(crate) struct NormInput<'a> {
    pub(crate) extent: Extent,
    /// What came out of the ReLU; `None` without one. (planes, pixels, 16).
    pub(crate) output: Option<&'a [f32]>,
    /// What went into the norm; (planes, pixels, 16).
    pub(crate) input: &'a [f32],
    /// The mean that the norm takes away; (channel blocks, 16).
    pub(crate) centres: &'a [f32],
}

impl Team<'_> {
    /// Runs `work` for every task, whoever is free takes the next, with memory of its thread's own.
    fn tasks(&self, count: usize, scratch: &mut Vec<Mutex<Buffer>>, work: impl Fn(usize, &mut Buffer) + Sync) {
        let queue = Queue::new(count);
        self.share_with(scratch, |_, own| queue.each(|task| work(task, own)));
    }

    /// Weights of a network → the order that [`Team::convolve`] reads.
    pub(crate) fn pack(&self, weights: &DenseWeights, column_blocks: usize, to: &mut [f32]) {
        let of_column = weights.of_column(column_blocks);
        let columns = blocks_of(weights.out_channels()) / column_blocks;
        let to = Writable::new(&mut to[..columns * of_column]);
        let queue = Queue::new(columns);
        self.share(|_| {
            queue.each(|column| {
                // SAFETY: within the buffer; each column's part is written by one thread.
                let to = unsafe { std::slice::from_raw_parts_mut(to.at(column * of_column), of_column) };
                pack_column(weights, column, column_blocks, to);
            });
        });
    }

    /// Packed weights of 3×3 kernels → the order that [`Team::winograd`] reads.
    pub(crate) fn transform_weights(
        &self,
        scheme: Scheme,
        (blocks, columns): (usize, usize),
        column_blocks: usize,
        weights: &[f32],
        to: &mut [f32],
    ) {
        let of_column = blocks * LANES * column_blocks * LANES;
        assert!(scheme.takes_plain_weights() && weights.len() >= 9 * columns * of_column);
        assert!(to.len() >= scheme.products() * columns * of_column);
        let transformed = Writable::new(to);
        self.share(|share| {
            let range = part(columns, share, self.width());
            let call = TransformWeights { scheme, weights, blocks, column_blocks, columns, range, transformed };
            // SAFETY: lengths were checked; columns differ between threads.
            unsafe { (self.kernels.training.transform_weights)(&call) }
        });
    }

    /// What a convolution was given, and the gradient of what it put out → the gradient of its weights, (out, in / groups, k, k).
    pub(crate) fn weight_gradient(
        &self,
        shape: &ConvolutionShape,
        images: usize,
        (input, gradient): (&[f32], &[f32]),
        scratch: &mut Scratch,
        to: &mut [f32],
    ) {
        let (input_blocks, output_blocks) = (blocks_of(shape.in_channels), blocks_of(shape.out_channels));
        assert!(input.len() >= images * shape.input.values(input_blocks));
        assert!(gradient.len() >= images * shape.output.values(output_blocks));
        let planes = Planes::new(shape);
        let sums = WeightSums::new(shape, images);
        scratch.shared.reserve(sums.values());
        let shared = Writable::new(&mut scratch.shared.as_mut_slice()[..sums.values()]);
        self.tasks(sums.tasks.len(), &mut scratch.own, |index, own| {
            let task = &sums.tasks[index];
            let columns = planes.columns(task.blocks.len());
            let copy = planes.values() * task.blocks.len();
            own.reserve(copy);
            let copy = &mut own.as_mut_slice()[..copy];
            copy.fill(0.0);
            // SAFETY: within the buffer; each task's part is written by one thread.
            let sums = unsafe { std::slice::from_raw_parts_mut(shared.at(task.first), task.values(sums.area)) };
            sums.fill(0.0);
            let mut call = WeightGradient {
                planes: &planes,
                columns: &columns,
                input,
                input_blocks,
                gradient,
                output_blocks,
                images: task.images.clone(),
                blocks: task.blocks.clone(),
                outputs: task.outputs.clone(),
                copy,
                sums,
            };
            // SAFETY: lengths were checked and the columns are the planes' own.
            unsafe { (self.kernels.training.weight_gradient)(&mut call) };
        });
        sums.collect(self, shape, scratch.shared.as_slice(), to);
    }

    /// Planes → (planes, 2, 16): the mean of each channel, and the mean of squared distances from it.
    pub(crate) fn moments(&self, extent: Extent, from: &[f32], to: &mut [f32]) {
        let planes = to.len() / (2 * LANES);
        assert!(extent.pixels() > 0 && from.len() >= planes * extent.values(1));
        let to = Writable::new(to);
        self.share(|share| {
            let planes = part(planes, share, self.width());
            // SAFETY: planes lie within the buffers and differ between threads.
            unsafe { (self.kernels.training.moments)(&Moments { extent, from, planes, to }) };
        });
    }

    /// Makes the gradient behind a ReLU the one before it, and gives (planes, 2, 16): its sums, and those of it times the distance of
    /// the norm's input from its centre.
    pub(crate) fn norm_sums(&self, norm: &NormInput, gradient: &mut [f32], to: &mut [f32]) {
        let &NormInput { extent, output, input, centres } = norm;
        let (planes, plane) = (to.len() / (2 * LANES), extent.values(1));
        assert!(gradient.len() >= planes * plane && input.len() >= planes * plane);
        assert!(output.is_none_or(|output| output.len() >= planes * plane));
        assert!(centres.len() >= LANES && centres.len().is_multiple_of(LANES));
        let (gradient, to) = (Writable::new(gradient), Writable::new(to));
        self.share(|share| {
            let planes = part(planes, share, self.width());
            // SAFETY: planes lie within the buffers and differ between threads.
            unsafe {
                (self.kernels.training.norm_sums)(&NormSums { extent, output, input, centres, planes, gradient, to })
            };
        });
    }

    /// `gradient * factor + input * slope + shift` with coefficients (planes, 3, 16).
    pub(crate) fn norm_gradient(
        &self,
        extent: Extent,
        (gradient, input): (&[f32], &[f32]),
        coefficients: &[f32],
        to: &mut [f32],
    ) {
        let (planes, plane) = (coefficients.len() / (3 * LANES), extent.values(1));
        assert!([gradient.len(), input.len(), to.len()].into_iter().all(|length| length >= planes * plane));
        let to = Writable::new(to);
        self.share(|share| {
            let planes = part(planes, share, self.width());
            // SAFETY: planes lie within the buffers and differ between threads.
            unsafe {
                (self.kernels.training.norm_gradient)(&NormGradient {
                    extent,
                    gradient,
                    input,
                    coefficients,
                    planes,
                    to,
                })
            };
        });
    }

    /// Planes whose pixels come to lie `stride` pixels apart, on top of `onto` or of zeros.
    pub(crate) fn spread_pixels(
        &self,
        (from, small): (&[f32], Extent),
        stride: usize,
        onto: Option<&[f32]>,
        (to, large): (&mut [f32], Extent),
    ) {
        let (of_small, of_large) = (small.values(1), large.values(1));
        let planes = to.len() / of_large;
        assert!(from.len() >= planes * of_small && onto.is_none_or(|onto| onto.len() >= planes * of_large));
        assert!((small.height - 1) * stride < large.height && (small.width - 1) * stride < large.width);
        let to = Writable::new(to);
        self.share(|share| {
            for plane in part(planes, share, self.width()) {
                // SAFETY: within the buffer; planes differ between threads.
                let to = unsafe { std::slice::from_raw_parts_mut(to.at(plane * of_large), of_large) };
                match onto {
                    Some(onto) => to.copy_from_slice(&onto[plane * of_large..][..of_large]),
                    None => to.fill(0.0),
                }
                let rows = from[plane * of_small..][..of_small].chunks_exact(small.width * LANES);
                for (row, to) in rows.zip(to.chunks_exact_mut(large.width * LANES).step_by(stride)) {
                    let pixels = row.chunks_exact(LANES).zip(to.chunks_exact_mut(LANES).step_by(stride));
                    pixels.for_each(|(from, to)| to.iter_mut().zip(from).for_each(|(to, from)| *to += from));
                }
            }
        });
    }

    /// Calls `work` for every image, with its part of `to`.
    pub(crate) fn each_image(&self, images: usize, to: &mut [f32], work: impl Fn(usize, &mut [f32]) + Sync) {
        let of_image = to.len() / images;
        let to = Writable::new(to);
        self.share(|share| {
            for image in part(images, share, self.width()) {
                // SAFETY: within the buffer; images differ between threads.
                work(image, unsafe { std::slice::from_raw_parts_mut(to.at(image * of_image), of_image) });
            }
        });
    }

    /// What a pool was given and the gradient of what it put out → the gradient of what it was given.
    pub(crate) fn pool_gradient(
        &self,
        (window, stride): (Window, usize),
        (input, output): (Extent, Extent),
        (from, gradient): (&[f32], &[f32]),
        to: &mut [f32],
    ) {
        let planes = to.len() / input.values(1);
        assert!(from.len() >= planes * input.values(1) && gradient.len() >= planes * output.values(1));
        assert!(window != Window::Blur || (input.height > 1 && input.width > 1));
        let centres = |size: usize, count: usize| count > 0 && (count - 1) * stride < size;
        assert!(centres(input.height, output.height) && centres(input.width, output.width));
        let to = Writable::new(to);
        self.share(|share| {
            let planes = part(planes, share, self.width());
            // SAFETY: planes lie within the buffers and differ between threads; every window's centre is a pixel.
            unsafe {
                (self.kernels.training.pool_gradient)(&PoolGradient {
                    window,
                    stride,
                    input,
                    output,
                    from,
                    gradient,
                    planes,
                    to,
                })
            };
        });
    }
}

/// How the gradient of weights is cut into tasks, and where each leaves its sums.
struct WeightSums {
    /// Parts of the images; the tasks of a part come one after another.
    parts: usize,
    tasks: Vec<WeightTask>,
    /// Taps of a kernel.
    area: usize,
}

struct WeightTask {
    images: Range<usize>,
    /// Of the input.
    blocks: Range<usize>,
    /// Output blocks that see them.
    outputs: Range<usize>,
    /// Where its sums begin: (outputs, blocks, taps, 16 out, 16 in).
    first: usize,
}

impl WeightTask {
    fn values(&self, area: usize) -> usize {
        self.outputs.len() * self.blocks.len() * area * LANES * LANES
    }
}

impl WeightSums {
    fn new(shape: &ConvolutionShape, images: usize) -> WeightSums {
        let area = shape.kernel * shape.kernel;
        let each = if area == 1 { BLOCKS_OF_ONE_TAP } else { 1 };
        let blocks: Vec<Range<usize>> = pieces(0..blocks_of(shape.in_channels), each).collect();
        let parts = TASKS.div_ceil(blocks.len()).min(images).max(1);
        let mut sums = WeightSums { parts, tasks: Vec::new(), area };
        for index in 0..parts {
            for blocks in blocks.iter().cloned() {
                let outputs = output_blocks(shape, &blocks);
                let task = WeightTask { images: part(images, index, parts), blocks, outputs, first: sums.values() };
                sums.tasks.push(task);
            }
        }
        sums
    }

    /// Of all tasks.
    fn values(&self) -> usize {
        self.tasks.last().map_or(0, |task| task.first + task.values(self.area))
    }

    /// Adds up what the parts of the images gave, in their order.
    fn collect(&self, team: &Team, shape: &ConvolutionShape, sums: &[f32], to: &mut [f32]) {
        let of_output = shape.in_channels / shape.groups * self.area;
        assert!(to.len() >= shape.out_channels * of_output);
        let to = Writable::new(to);
        team.share(|share| {
            for output in part(shape.out_channels, share, team.width()) {
                // SAFETY: within the buffer; each output channel's part is written by one thread.
                let to = unsafe { std::slice::from_raw_parts_mut(to.at(output * of_output), of_output) };
                self.collect_output(shape, sums, output, to);
            }
        });
    }

    fn collect_output(&self, shape: &ConvolutionShape, sums: &[f32], output: usize, to: &mut [f32]) {
        let of_part = self.tasks.len() / self.parts;
        let of_group = shape.in_channels / shape.groups;
        let group = output / (shape.out_channels / shape.groups);
        let first = group * of_group;
        for (index, task) in self.tasks[..of_part].iter().enumerate() {
            if !task.outputs.contains(&(output / LANES)) {
                continue;
            }
            for (position, block) in task.blocks.clone().enumerate() {
                for tap in 0..self.area {
                    let column = position * self.area + tap;
                    let columns = task.blocks.len() * self.area;
                    let place = (output / LANES - task.outputs.start) * columns + column;
                    let at = (place * LANES + output % LANES) * LANES;
                    let mut total = [0.0; LANES];
                    for task in self.tasks.iter().skip(index).step_by(of_part) {
                        let sums = &sums[task.first + at..][..LANES];
                        total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
                    }
                    let channels = (block * LANES..).zip(total).take(shape.in_channels - block * LANES);
                    for (channel, sum) in channels {
                        if channel >= first && channel < first + of_group {
                            to[(channel - first) * self.area + tap] = sum;
                        }
                    }
                }
            }
        }
    }
}

/// Output blocks that see any of `blocks`: all, or those of their groups.
fn output_blocks(shape: &ConvolutionShape, blocks: &Range<usize>) -> Range<usize> {
    if shape.groups == 1 {
        return 0..blocks_of(shape.out_channels);
    }
    let (into, out) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    let groups = blocks.start * LANES / into..(blocks.end * LANES).min(shape.in_channels).div_ceil(into);
    groups.start * out / LANES..(groups.end * out).div_ceil(LANES)
}
