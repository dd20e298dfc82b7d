//! A batch norm with what follows it: a residual, a ReLU.

use candle_core::{Result, Tensor, Var, bail};

use super::memory::Memory;
use super::variables::Variables;
use crate::blueprint::NORM_EPSILON;
use crate::kernels::{Change, Extent, LANES, NormInput, Team, blocks_of, padded};
use crate::part::Part;
use crate::training::Statistics;

/// How far running statistics move towards those of a batch.
pub(super) const MOMENTUM: f64 = 0.1;

#[derive(Debug)]
pub(super) struct BatchNorm {
    /// As in the network: `layer1.0.bn1`.
    pub(super) name: String,
    pub(super) channels: usize,
    pub(super) part: Part,
    pub(super) relu: bool,
    /// The number of the block whose branch ends here.
    pub(super) branch: Option<usize>,
}

/// What a forward pass leaves for the way back.
#[derive(Debug)]
pub(super) struct Normalised {
    statistics: Statistics,
    /// Of each channel.
    mean: Vec<f64>,
    /// 1 / √(variance + ε).
    inverse: Vec<f64>,
    /// γ.
    weight: Vec<f64>,
    /// What each image's branch counts; `None` where all count once.
    factors: Option<Vec<f32>>,
}

/// The maps of a pass.
pub(super) struct Maps<'a> {
    pub(super) images: usize,
    pub(super) extent: Extent,
    pub(super) from: &'a [f32],
    pub(super) residual: Option<&'a [f32]>,
}

impl BatchNorm {
    /// Normalises, and moves running statistics where they follow the batch.
    pub(super) fn forward(
        &self,
        (team, memory): (&Team, &mut Memory),
        variables: &Variables,
        (statistics, factors): (Statistics, Option<Vec<f32>>),
        maps: &Maps,
        to: &mut [f32],
    ) -> Result<Normalised> {
        let of = |suffix: &str| variables.doubles(&format!("{}.{suffix}", self.name));
        let (weight, bias) = (of("weight")?, of("bias")?);
        let (mean, variance) = match statistics {
            Statistics::Running => (of("running_mean")?, of("running_var")?),
            Statistics::Batch => self.measure(team, memory, variables, maps)?,
        };
        let inverse: Vec<f64> = variance.iter().map(|variance| 1.0 / (variance + NORM_EPSILON).sqrt()).collect();
        let scale: Vec<f64> = weight.iter().zip(&inverse).map(|(weight, inverse)| weight * inverse).collect();
        let shift: Vec<f64> =
            (0..self.channels).map(|channel| bias[channel] - mean[channel] * scale[channel]).collect();
        let normalised = Normalised { statistics, mean, inverse, weight, factors };
        let planes = maps.images * blocks_of(self.channels);
        let [scales, shifts] = memory.channelwise([planes * LANES; 2]);
        normalised.fill(&scale, scales);
        normalised.fill(&shift, shifts);
        let change = Change { from: maps.from, scale: scales, shift: shifts, residual: maps.residual, relu: self.relu };
        team.affine(maps.extent, &change, to);
        Ok(normalised)
    }

    /// Mean and variance of the batch; running statistics move towards them.
    fn measure(
        &self,
        team: &Team,
        memory: &mut Memory,
        variables: &Variables,
        maps: &Maps,
    ) -> Result<(Vec<f64>, Vec<f64>)> {
        let (images, values) = (maps.images, maps.images * maps.extent.pixels());
        if values < 2 {
            bail!("a batch norm cannot normalise by one image whose map has one pixel");
        }
        let of_image = 2 * blocks_of(self.channels) * LANES;
        let [moments, _] = memory.channelwise([images * of_image, 0]);
        team.moments(maps.extent, maps.from, moments);
        let of = |image: usize, channel: usize, which: usize| {
            f64::from(moments[image * of_image + (2 * (channel / LANES) + which) * LANES + channel % LANES])
        };
        let average = |of_image: &dyn Fn(usize) -> f64| (0..images).map(of_image).sum::<f64>() / images as f64;
        let mean: Vec<f64> = (0..self.channels).map(|channel| average(&|image| of(image, channel, 0))).collect();
        let variance: Vec<f64> = (0..self.channels)
            .map(|channel| average(&|image| of(image, channel, 1) + (of(image, channel, 0) - mean[channel]).powi(2)))
            .collect();
        let unbiased = values as f64 / (values - 1) as f64;
        self.follow(variables, "running_mean", &mean, 1.0)?;
        self.follow(variables, "running_var", &variance, unbiased)?;
        Ok((mean, variance))
    }

    fn follow(&self, variables: &Variables, suffix: &str, batch: &[f64], scale: f64) -> Result<()> {
        let name = format!("{}.{suffix}", self.name);
        let running = variables.doubles(&name)?;
        let moved = running.iter().zip(batch);
        let moved: Vec<f32> =
            moved.map(|(running, batch)| ((1.0 - MOMENTUM) * running + MOMENTUM * scale * batch) as f32).collect();
        let tensor = variables.tensor(&name)?;
        Var::from_tensor(tensor)?.set(&Tensor::from_vec(moved, tensor.shape(), tensor.device())?)
    }

    /// The gradient behind the norm → the gradient before it, and those of weight and bias.
    ///
    /// `gradient` becomes that of the residual.
    pub(super) fn backward(
        &self,
        (team, memory): (&Team, &mut Memory),
        normalised: &Normalised,
        (maps, output): (&Maps, &[f32]),
        gradient: &mut [f32],
        to: &mut [f32],
    ) -> [Vec<f32>; 2] {
        let (images, blocks) = (maps.images, blocks_of(self.channels));
        let means: Vec<f32> = normalised.mean.iter().map(|&mean| mean as f32).collect();
        let norm = NormInput {
            extent: maps.extent,
            output: self.relu.then_some(output),
            input: maps.from,
            centres: &padded(&means),
        };
        let [sums, coefficients] = memory.channelwise([2 * images * blocks * LANES, 3 * images * blocks * LANES]);
        team.norm_sums(&norm, gradient, sums);
        let totals = normalised.totals(self.channels, images, sums);
        let values = (images * maps.extent.pixels()) as f64;
        normalised.coefficients(&totals, values, coefficients);
        team.norm_gradient(maps.extent, (gradient, maps.from), coefficients, to);
        let of_weight = totals.iter().zip(&normalised.inverse).map(|([_, along], inverse)| (along * inverse) as f32);
        [of_weight.collect(), totals.iter().map(|&[sum, _]| sum as f32).collect()]
    }
}

impl Normalised {
    fn factor(&self, image: usize) -> f32 {
        self.factors.as_ref().map_or(1.0, |factors| factors[image])
    }

    /// One value per channel → (images, blocks, 16), times what the image's branch counts.
    fn fill(&self, values: &[f64], to: &mut [f32]) {
        let of_image = blocks_of(values.len()) * LANES;
        for (image, to) in to.chunks_exact_mut(of_image).enumerate() {
            let factor = self.factor(image);
            to.iter_mut().zip(values).for_each(|(to, &value)| *to = value as f32 * factor);
            to[values.len()..].fill(0.0);
        }
    }

    /// Of each channel, over all images: the sum of the gradient, and of it times the distance from the mean.
    fn totals(&self, channels: usize, images: usize, sums: &[f32]) -> Vec<[f64; 2]> {
        let of_image = 2 * blocks_of(channels) * LANES;
        let total = |channel: usize, which: usize| {
            let at = (2 * (channel / LANES) + which) * LANES + channel % LANES;
            (0..images).map(|image| f64::from(self.factor(image)) * f64::from(sums[image * of_image + at])).sum()
        };
        (0..channels).map(|channel| [total(channel, 0), total(channel, 1)]).collect()
    }

    /// Factor, slope and shift of each channel of each image; (images, blocks, 3, 16).
    ///
    /// Where statistics follow the batch, the gradient loses its mean and what of it lies along the normalised input.
    fn coefficients(&self, totals: &[[f64; 2]], values: f64, to: &mut [f32]) {
        let channels = totals.len();
        let of_image = 3 * blocks_of(channels) * LANES;
        for (image, to) in to.chunks_exact_mut(of_image).enumerate() {
            to.fill(0.0);
            let factor = f64::from(self.factor(image));
            for (channel, &[sum, along]) in totals.iter().enumerate() {
                let scale = self.weight[channel] * self.inverse[channel];
                let (slope, shift) = match self.statistics {
                    Statistics::Running => (0.0, 0.0),
                    Statistics::Batch => {
                        let slope = -scale * self.inverse[channel].powi(2) * along / values;
                        (slope, -scale * sum / values - slope * self.mean[channel])
                    }
                };
                let at = 3 * (channel / LANES) * LANES + channel % LANES;
                to[at] = (scale * factor) as f32;
                to[at + LANES] = slope as f32;
                to[at + 2 * LANES] = shift as f32;
            }
        }
    }
}
