//! Images through a plan.

use std::ops::Range;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use candle_core::{Result, bail};
use rayon::prelude::*;

use super::compile::{GroupNorm, Operation, PackedAttention, Slot, SqueezeExcite, Step};
use super::convolution::Maps;
use super::layout::Layout;
use super::{Compiled, Images, Plan};
use crate::architecture::GlobalPool;
use crate::blueprint::NORM_EPSILON;
use crate::features::Boundary;
use crate::kernels::{
    Buffer, Change, Extent, LANES, Reduction, Scratch, Stored, Team, Unfolding, blocks_of, refold, shift_channels,
};

/// Memory of one team, kept from run to run.
#[derive(Debug)]
pub(super) struct Workspace<S: Stored> {
    /// What it has room for.
    layout: Option<Layout>,
    slots: Vec<Buffer<S>>,
    scratch: Scratch,
    /// Per channel of every image: means, scales, shifts.
    channelwise: [Buffer; 3],
    /// Time of each step of each segment, where it is asked for.
    times: Option<Vec<Vec<Duration>>>,
}

impl<S: Stored> Default for Workspace<S> {
    fn default() -> Workspace<S> {
        Workspace {
            layout: None,
            slots: Vec::new(),
            scratch: Scratch::default(),
            channelwise: Default::default(),
            times: None,
        }
    }
}

/// Where a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With images.
    Images,
    /// With maps at a boundary.
    Map(Boundary),
}

/// Where a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Behind the last stage, pooled.
    Features,
    /// At a boundary.
    Map(Boundary),
}

impl<S: Stored> Compiled for Plan<S> {
    fn run(&self, images: &Images, start: Start, end: End) -> Result<(Vec<f32>, Vec<usize>)> {
        let threads = rayon::current_num_threads();
        let teams = teams(images.count, threads);
        let (width, of_team) = (threads / teams.max(1), images.count.div_ceil(teams.max(1)));
        let layout = Layout::new(self, of_team.max(1), start, images.channels, images.extent)?;
        let mut shape = self.output_shape(&layout, end)?;
        let each: usize = shape.iter().product();
        shape.insert(0, images.count);
        let mut output = vec![0.0; images.count * each];
        let run = |(index, output): (usize, &mut [f32])| {
            let first = index * of_team;
            let call = Call { layout: &layout, images, range: first..first + output.len() / each, end };
            Team::gather(self.kernels, width, |team| self.run_team(team, &call, output));
        };
        match teams {
            0 => {}
            1 => run((0, &mut output)),
            _ => output.par_chunks_mut(of_team * each).enumerate().with_max_len(1).for_each(run),
        }
        Ok((output, shape))
    }

    fn profile(&self, images: &Images) -> Result<Vec<StepTime>> {
        let layout = Layout::new(self, images.count, Start::Images, images.channels, images.extent)?;
        let times = self.segments.iter().map(|segment| vec![Duration::ZERO; segment.steps.len()]).collect();
        let mut workspace = Workspace { times: Some(times), ..Workspace::default() };
        let mut output = vec![0.0; images.count * self.features()];
        let call = Call { layout: &layout, images, range: 0..images.count, end: End::Features };
        self.run_in(&mut workspace, &Team::alone(self.kernels), &call, &mut output);
        let times = workspace.times.unwrap_or_default();
        let steps = self.segments.iter().zip(&times).zip(&layout.segments);
        let steps = steps.flat_map(|((segment, times), layout)| {
            segment.steps.iter().zip(times).zip(&layout.extents).map(|((step, &time), &(input, output))| {
                let (name, operations) = step.describe(&segment.name, input);
                StepTime { name, output, channels: step.channels, operations: operations * images.count, time }
            })
        });
        Ok(steps.collect())
    }
}

/// Images of one team, and what is asked of them.
struct Call<'a> {
    layout: &'a Layout,
    images: &'a Images<'a>,
    range: Range<usize>,
    end: End,
}

impl<S: Stored> Plan<S> {
    /// What a run puts out for each image: (D), or (C, H, W).
    fn output_shape(&self, layout: &Layout, end: End) -> Result<Vec<usize>> {
        let End::Map(boundary) = end else { return Ok(vec![self.features()]) };
        let Some((segment, layout)) = self.segments.iter().zip(&layout.segments).nth(boundary.stages) else {
            bail!("the network has {} stages and no `{boundary}`", self.segments.len() - 1);
        };
        let extent = layout.output;
        Ok(vec![segment.channels, extent.height, extent.width])
    }

    /// The slot of what a run begins with: unfolded images have one of their own, maps that of their segment.
    fn first_slot(&self, start: Start) -> Slot {
        match start {
            Start::Images => self.segments.len(),
            Start::Map(boundary) => boundary.stages,
        }
    }

    /// Pooled features of an image.
    fn features(&self) -> usize {
        self.segments.last().map_or(0, |segment| segment.channels) * self.global_pool.features_per_channel()
    }

    fn run_team(&self, team: &Team, call: &Call, output: &mut [f32]) {
        let mut workspace = self.take_workspace();
        self.run_in(&mut workspace, team, call, output);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
    }

    fn take_workspace(&self) -> Workspace<S> {
        // A workspace is taken out whole: a thread that panicked left none behind.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn run_in(&self, workspace: &mut Workspace<S>, team: &Team, call: &Call, output: &mut [f32]) {
        let Call { layout, images, ref range, end } = *call;
        workspace.prepare(layout, self.first_slot(layout.start));
        let last = match end {
            End::Features => self.segments.len() - 1,
            End::Map(boundary) => boundary.stages,
        };
        let each = output.len() / range.len();
        let mut run = Run { plan: self, layout, workspace, team, images };
        let mut at = range.start;
        for output in output.chunks_mut(layout.segments[last].at_once * each) {
            let count = output.len() / each;
            run.fill(last, at..at + count, 0);
            match end {
                End::Features => run.pool(last, count, output),
                End::Map(_) => run.refold(last, count, output),
            }
            at += count;
        }
    }
}

/// What a step of a plan cost.
#[derive(Debug, Clone)]
pub struct StepTime {
    /// What it is: `layer1.0.conv1 F(4×4)`.
    pub name: String,
    /// Channels put out.
    pub channels: usize,
    pub(crate) output: Extent,
    /// Multiplications and additions, before an algorithm saves any.
    pub operations: usize,
    /// Wall time.
    pub time: Duration,
}

impl StepTime {
    /// Height and width of the output, in pixels.
    pub fn output(&self) -> (usize, usize) {
        (self.output.height, self.output.width)
    }
}

/// Groups of threads: one image has all of them, many images each have one.
fn teams(images: usize, threads: usize) -> usize {
    let even = images.is_multiple_of(threads) || images > 4 * threads;
    if images >= threads && !even { 1 } else { images.min(threads) }
}

impl<S: Stored> Step<S> {
    fn describe(&self, segment: &str, input: Extent) -> (String, usize) {
        match &self.operation {
            Operation::Convolve { convolution, .. } => {
                let name = format!("{} {}", convolution.name, convolution.algorithm.name());
                (name, convolution.geometry.operations(input))
            }
            Operation::Unfold { .. } => (format!("{segment} unfold"), 0),
            Operation::Pool { window, .. } => (format!("{segment} pool {window:?}"), 0),
            Operation::Attend { .. } => (format!("{segment} attention"), 0),
            Operation::Normalise { .. } => (format!("{segment} group norm"), 0),
            Operation::ShiftChannels { .. } => (format!("{segment} shortcut"), 0),
        }
    }
}

impl<S: Stored> Workspace<S> {
    /// Makes room; `first` is the slot of what a run begins with.
    fn prepare(&mut self, layout: &Layout, first: Slot) {
        if self.layout.as_ref() == Some(layout) {
            return;
        }
        self.slots.resize_with(layout.slots.len(), Buffer::default);
        for (slot, &values) in self.slots.iter_mut().zip(&layout.slots) {
            slot.reserve(values);
        }
        // Lanes and pixels that no image fills must be zero, whatever a layout before had there.
        self.slots[first].as_mut_slice().fill(S::default());
        self.layout = Some(layout.clone());
    }
}

/// A run of one team.
struct Run<'a, S: Stored> {
    plan: &'a Plan<S>,
    layout: &'a Layout,
    workspace: &'a mut Workspace<S>,
    team: &'a Team<'a>,
    images: &'a Images<'a>,
}

impl<S: Stored> Run<'_, S> {
    /// Brings `images` to the end of a segment: there they lie from the `at`-th on.
    fn fill(&mut self, segment: usize, images: Range<usize>, at: usize) {
        if self.layout.start == (Start::Map(Boundary { stages: segment })) {
            return self.lay_out(segment, images, at);
        }
        if let Some(before) = segment.checked_sub(1) {
            let at_once = self.layout.segments[before].at_once;
            for first in images.clone().step_by(at_once) {
                self.fill(before, first..(first + at_once).min(images.end), first - images.start);
            }
        }
        let plan = self.plan;
        for (index, step) in plan.segments[segment].steps.iter().enumerate() {
            let started = Instant::now();
            self.step((segment, index), step, images.clone(), at);
            if let Some(times) = &mut self.workspace.times {
                times[segment][index] += started.elapsed();
            }
        }
    }

    /// Lays maps that the run begins with out as those that the segment puts out.
    fn lay_out(&mut self, segment: usize, images: Range<usize>, at: usize) {
        let each = self.layout.extent.values(blocks_of(self.layout.channels));
        let mut taken = std::mem::take(&mut self.workspace.slots[segment]);
        self.unfold(1, images.clone(), &mut taken.as_mut_slice()[at * each..(at + images.len()) * each]);
        self.workspace.slots[segment] = taken;
    }

    fn step(&mut self, (segment, index): (usize, usize), step: &Step<S>, images: Range<usize>, at: usize) {
        let (input, output) = self.layout.segments[segment].extents[index];
        let each = output.values(blocks_of(step.channels));
        // The output is taken out of the workspace, so that the inputs can be read meanwhile.
        let mut taken = std::mem::take(&mut self.workspace.slots[step.to]);
        let first = if step.to == segment { at * each } else { 0 };
        let to = &mut taken.as_mut_slice()[first..first + images.len() * each];
        match &step.operation {
            Operation::Unfold { factor } => self.unfold(*factor, images, to),
            _ => self.compute(step, (input, output), images.len(), to),
        }
        self.workspace.slots[step.to] = taken;
    }

    fn unfold(&self, factor: usize, images: Range<usize>, to: &mut [S]) {
        let unfolding = Unfolding { channels: self.images.channels, factor, extent: self.images.extent };
        let each = to.len() / images.len();
        for (index, map) in images.zip(to.chunks_exact_mut(each)) {
            unfolding.unfold(self.images.image(index), map);
        }
    }

    fn compute(&mut self, step: &Step<S>, (input, output): (Extent, Extent), images: usize, to: &mut [S]) {
        let Workspace { slots, scratch, channelwise, .. } = &mut *self.workspace;
        let slot = |slot: Slot| slots[slot].as_slice();
        let (from, residual) = (slot(step.from), step.residual.map(slot));
        let team = self.team;
        match &step.operation {
            Operation::Unfold { .. } => {}
            &Operation::Convolve { ref convolution, relu } => {
                convolution.run(team, input, Maps { images, from, residual, relu, to }, scratch);
            }
            &Operation::Pool { window, stride, .. } => team.pool(window, stride, (input, output), from, to),
            &Operation::Attend { ref attention, relu } => {
                let maps = Maps { images, from, residual, relu, to };
                attend(team, attention, (output, step.channels), maps, channelwise, scratch);
            }
            &Operation::Normalise { ref norm, relu } => {
                normalise(team, norm, output, Maps { images, from, residual, relu, to }, channelwise);
            }
            &Operation::ShiftChannels { channels, stride, padding } => {
                to.fill(S::default());
                let of_image = input.values(blocks_of(channels));
                let each = to.len() / images;
                for (from, to) in from.chunks_exact(of_image).zip(to.chunks_exact_mut(each)) {
                    shift_channels(from, channels, input, stride, padding, to);
                }
            }
        }
    }

    /// The last map of `count` images → features.
    fn pool(&mut self, segment: usize, count: usize, features: &mut [f32]) {
        let (extent, channels) = (self.layout.segments[segment].output, self.plan.segments[segment].channels);
        let padded = blocks_of(channels) * LANES;
        let Workspace { slots, channelwise: [means, largest, _], .. } = &mut *self.workspace;
        let map = slots[segment].as_slice();
        let reduced = |reduction: Reduction, to: &mut Buffer| {
            to.reserve(count * padded);
            self.team.reduce(reduction, extent, map, &[], &mut to.as_mut_slice()[..count * padded]);
        };
        let pool = self.plan.global_pool;
        if pool != GlobalPool::Max {
            reduced(Reduction::Mean, means);
        }
        if pool != GlobalPool::Average {
            reduced(Reduction::Max, largest);
        }
        let each = features.len() / count;
        for (image, features) in features.chunks_exact_mut(each).enumerate() {
            let of_image = image * padded..image * padded + channels;
            match pool {
                GlobalPool::Average => features.copy_from_slice(&means.as_slice()[of_image.clone()]),
                GlobalPool::Max => features.copy_from_slice(&largest.as_slice()[of_image.clone()]),
                GlobalPool::AverageMax => {
                    let pairs = means.as_slice()[of_image.clone()].iter().zip(&largest.as_slice()[of_image.clone()]);
                    features.iter_mut().zip(pairs).for_each(|(feature, (mean, max))| *feature = (mean + max) * 0.5);
                }
                GlobalPool::AverageThenMax => {
                    features[..channels].copy_from_slice(&means.as_slice()[of_image.clone()]);
                    features[channels..].copy_from_slice(&largest.as_slice()[of_image.clone()]);
                }
            }
        }
    }

    /// The map at a boundary of `count` images → (N, C, H, W).
    fn refold(&self, segment: usize, count: usize, output: &mut [f32]) {
        let (extent, channels) = (self.layout.segments[segment].output, self.plan.segments[segment].channels);
        let of_image = extent.values(blocks_of(channels));
        let maps = self.workspace.slots[segment].as_slice().chunks_exact(of_image);
        let each = output.len() / count;
        for (map, image) in maps.zip(output.chunks_exact_mut(each)) {
            refold(map, channels, extent, image);
        }
    }
}

/// Weighs channels by what their means say.
fn attend<S: Stored>(
    team: &Team,
    attention: &PackedAttention,
    (extent, channels): (Extent, usize),
    maps: Maps<S>,
    [means, weights, inner]: &mut [Buffer; 3],
    scratch: &mut Scratch,
) {
    let each = blocks_of(channels) * LANES;
    let (images, pixel) = (maps.images, Extent { height: 1, width: 1 });
    means.reserve(images * each);
    weights.reserve(images * each);
    team.reduce(Reduction::Mean, extent, maps.from, &[], &mut means.as_mut_slice()[..images * each]);
    match attention {
        PackedAttention::SqueezeExcite(layers) => {
            let SqueezeExcite { squeeze, excite } = &**layers;
            let squeezed = images * blocks_of(squeeze.geometry.out_channels) * LANES;
            inner.reserve(squeezed);
            let to = &mut inner.as_mut_slice()[..squeezed];
            let dense = Maps { images, from: means.as_slice(), residual: None, relu: true, to };
            squeeze.run(team, pixel, dense, scratch);
            let to = &mut weights.as_mut_slice()[..images * each];
            excite.run(team, pixel, Maps { images, from: inner.as_slice(), residual: None, relu: false, to }, scratch);
        }
        PackedAttention::EfficientChannel(kernel) => {
            let means = means.as_slice().chunks_exact(each);
            for (means, scores) in means.zip(weights.as_mut_slice()[..images * each].chunks_exact_mut(each)) {
                along_channels(&means[..channels], kernel, &mut scores[..channels]);
            }
        }
    }
    let scale = &mut weights.as_mut_slice()[..images * each];
    scale.iter_mut().for_each(|score| *score = 1.0 / (1.0 + (-*score).exp()));
    means.as_mut_slice().fill(0.0);
    let (scale, shift) = (weights.as_slice(), means.as_slice());
    team.affine(extent, &Change { from: maps.from, scale, shift, residual: maps.residual, relu: maps.relu }, maps.to);
}

/// A convolution of one channel, zeros beyond both ends.
fn along_channels(values: &[f32], kernel: &[f32], to: &mut [f32]) {
    let padding = kernel.len() / 2;
    for (centre, to) in to.iter_mut().enumerate() {
        let taps = kernel.iter().enumerate();
        let seen = taps.filter_map(|(tap, weight)| Some(weight * values.get((centre + tap).checked_sub(padding)?)?));
        *to = seen.sum();
    }
}

/// Group norm: statistics of each group of channels of each image.
fn normalise<S: Stored>(
    team: &Team,
    norm: &GroupNorm,
    extent: Extent,
    maps: Maps<S>,
    [means, spreads, scales]: &mut [Buffer; 3],
) {
    let each = blocks_of(norm.channels) * LANES;
    let whole = maps.images * each;
    for buffer in [&mut *means, &mut *spreads, &mut *scales] {
        buffer.reserve(whole);
    }
    let of_group = norm.channels / norm.groups;
    let averaged = |values: &mut [f32]| {
        for values in values.chunks_exact_mut(each) {
            for group in values[..norm.channels].chunks_exact_mut(of_group) {
                let mean = group.iter().sum::<f32>() / of_group as f32;
                group.fill(mean);
            }
        }
    };
    team.reduce(Reduction::Mean, extent, maps.from, &[], &mut means.as_mut_slice()[..whole]);
    averaged(&mut means.as_mut_slice()[..whole]);
    team.reduce(Reduction::Spread, extent, maps.from, means.as_slice(), &mut spreads.as_mut_slice()[..whole]);
    averaged(&mut spreads.as_mut_slice()[..whole]);
    let (weight, bias) = (norm.weight.as_slice(), norm.bias.as_slice());
    for at in 0..whole {
        let scale = weight[at % each] / (spreads.as_slice()[at] + NORM_EPSILON as f32).sqrt();
        scales.as_mut_slice()[at] = scale;
        means.as_mut_slice()[at] = bias[at % each] - means.as_slice()[at] * scale;
    }
    let (scale, shift) = (scales.as_slice(), means.as_slice());
    team.affine(extent, &Change { from: maps.from, scale, shift, residual: maps.residual, relu: maps.relu }, maps.to);
}
