//! A group norm (Wu & He 2018) with what follows it: a residual, a ReLU.
//!
//! Channels of a group are normalised together, in each image by itself.

use candle_core::Result;

use super::memory::Memory;
use super::norm::Maps;
use super::variables::Variables;
use crate::blueprint::NORM_EPSILON;
use crate::kernels::{Change, LANES, NormInput, Team, blocks_of, padded};

#[derive(Debug)]
pub(super) struct GroupNorm {
    /// As in the network: `layer1.0.bn1`.
    pub(super) name: String,
    pub(super) channels: usize,
    pub(super) groups: usize,
    pub(super) relu: bool,
    /// The number of the block whose branch ends here.
    pub(super) branch: Option<usize>,
}

/// What a forward pass leaves for the way back.
#[derive(Debug)]
pub(super) struct GroupNormalised {
    /// Of each group of each image.
    groups: Vec<Moments>,
    /// γ.
    weight: Vec<f64>,
    /// What each image's branch counts; `None` where all count once.
    factors: Option<Vec<f32>>,
}

#[derive(Debug, Clone, Copy)]
struct Moments {
    mean: f64,
    /// 1 / √(variance + ε).
    inverse: f64,
}

impl GroupNorm {
    pub(super) fn forward(
        &self,
        (team, memory): (&Team, &mut Memory),
        variables: &Variables,
        factors: Option<Vec<f32>>,
        maps: &Maps,
        to: &mut [f32],
    ) -> Result<GroupNormalised> {
        let of = |suffix: &str| variables.doubles(&format!("{}.{suffix}", self.name));
        let (weight, bias) = (of("weight")?, of("bias")?);
        let groups = self.measure(team, memory, maps);
        let normalised = GroupNormalised { groups, weight, factors };
        let planes = maps.images * blocks_of(self.channels);
        let [scales, shifts] = memory.channelwise([planes * LANES; 2]);
        scales.fill(0.0);
        shifts.fill(0.0);
        for image in 0..maps.images {
            let factor = normalised.factor(image);
            for (channel, (weight, bias)) in normalised.weight.iter().zip(&bias).enumerate() {
                let Moments { mean, inverse } = self.moments(&normalised, image, channel);
                let at = image * blocks_of(self.channels) * LANES + channel;
                scales[at] = (weight * inverse * factor) as f32;
                shifts[at] = ((bias - mean * weight * inverse) * factor) as f32;
            }
        }
        let change = Change { from: maps.from, scale: scales, shift: shifts, residual: maps.residual, relu: self.relu };
        team.affine(maps.extent, &change, to);
        Ok(normalised)
    }

    /// The gradient behind the norm → the gradient before it, and those of weight and bias.
    ///
    /// `gradient` becomes that of the residual.
    pub(super) fn backward(
        &self,
        (team, memory): (&Team, &mut Memory),
        normalised: &GroupNormalised,
        (maps, output): (&Maps, &[f32]),
        gradient: &mut [f32],
        to: &mut [f32],
    ) -> [Vec<f32>; 2] {
        let (images, blocks) = (maps.images, blocks_of(self.channels));
        let centres = self.centres(normalised, images);
        let output = self.relu.then_some(output);
        let norm = NormInput { extent: maps.extent, output, input: maps.from, centres: &centres };
        let [sums, coefficients] = memory.channelwise([2 * images * blocks * LANES, 3 * images * blocks * LANES]);
        team.norm_sums(&norm, gradient, sums);
        let sums = self.sums(normalised, images, (sums, &centres));
        self.coefficients(normalised, maps, &sums, coefficients);
        team.norm_gradient(maps.extent, (gradient, maps.from), coefficients, to);
        let total = |which: usize, channel: usize| sums.chunks_exact(self.channels).map(|of| of[channel][which]).sum();
        let totals =
            |which| (0..self.channels).map(|channel| total(which, channel)).map(|sum: f64| sum as f32).collect();
        [totals(1), totals(0)]
    }

    /// Of each channel of each image: the sum of the gradient, and of it times the normalised input.
    fn sums(&self, normalised: &GroupNormalised, images: usize, (sums, centres): (&[f32], &[f32])) -> Vec<[f64; 2]> {
        let of = |image: usize, channel: usize| {
            let Moments { mean, inverse } = self.moments(normalised, image, channel);
            let at = 2 * (image * blocks_of(self.channels) + channel / LANES) * LANES + channel % LANES;
            let [sum, along] = [sums[at], sums[at + LANES]].map(|sum| f64::from(sum) * normalised.factor(image));
            [sum, (along - (mean - f64::from(centres[channel])) * sum) * inverse]
        };
        (0..images * self.channels).map(|index| of(index / self.channels, index % self.channels)).collect()
    }

    /// Factor, slope and shift of each channel of each image, (images, blocks, 3, 16): the gradient of a group loses its mean and what of it
    /// lies along the normalised input.
    fn coefficients(&self, normalised: &GroupNormalised, maps: &Maps, sums: &[[f64; 2]], to: &mut [f32]) {
        to.fill(0.0);
        for (index, &Moments { mean, inverse }) in normalised.groups.iter().enumerate() {
            let (image, channels) = (index / self.groups, self.channels_of(index % self.groups));
            let values = (channels.len() * maps.extent.pixels()) as f64;
            let weighed =
                |channel: usize| sums[image * self.channels + channel].map(|sum| normalised.weight[channel] * sum);
            let [sum, along] = channels.clone().map(weighed).fold([0.0; 2], |[a, b], [c, d]| [a + c, b + d]);
            let slope = -inverse * inverse * along / values;
            let shift = -inverse * sum / values - slope * mean;
            for channel in channels {
                let at = 3 * (image * blocks_of(self.channels) + channel / LANES) * LANES + channel % LANES;
                to[at] = (normalised.weight[channel] * inverse * normalised.factor(image)) as f32;
                to[at + LANES] = slope as f32;
                to[at + 2 * LANES] = shift as f32;
            }
        }
    }

    /// Of each group of each image.
    fn measure(&self, team: &Team, memory: &mut Memory, maps: &Maps) -> Vec<Moments> {
        let blocks = blocks_of(self.channels);
        let [moments, _] = memory.channelwise([2 * maps.images * blocks * LANES, 0]);
        team.moments(maps.extent, maps.from, moments);
        let of_group = |image: usize, group: usize| {
            let channels = self.channels_of(group);
            let average =
                |value: &dyn Fn(usize) -> f64| channels.clone().map(value).sum::<f64>() / channels.len() as f64;
            let of = |channel: usize, which: usize| {
                f64::from(moments[(2 * (image * blocks + channel / LANES) + which) * LANES + channel % LANES])
            };
            let mean = average(&|channel| of(channel, 0));
            let variance = average(&|channel| of(channel, 1) + (of(channel, 0) - mean).powi(2));
            Moments { mean, inverse: 1.0 / (variance + NORM_EPSILON).sqrt() }
        };
        let groups = (0..maps.images * self.groups).map(|index| of_group(index / self.groups, index % self.groups));
        groups.collect()
    }

    fn channels_of(&self, group: usize) -> std::ops::Range<usize> {
        let width = self.channels / self.groups;
        group * width..(group + 1) * width
    }

    /// Of the group that a channel is in.
    fn moments(&self, normalised: &GroupNormalised, image: usize, channel: usize) -> Moments {
        normalised.groups[image * self.groups + channel / (self.channels / self.groups)]
    }

    /// About where the values of each channel lie, (channel blocks, 16): sums of products with the distance from there lose little.
    fn centres(&self, normalised: &GroupNormalised, images: usize) -> Vec<f32> {
        let mean = |channel| {
            let sum: f64 = (0..images).map(|image| self.moments(normalised, image, channel).mean).sum();
            (sum / images as f64) as f32
        };
        let means: Vec<f32> = (0..self.channels).map(mean).collect();
        padded(&means)
    }
}

impl GroupNormalised {
    fn factor(&self, image: usize) -> f64 {
        self.factors.as_ref().map_or(1.0, |factors| f64::from(factors[image]))
    }
}
