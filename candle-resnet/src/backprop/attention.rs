//! Attention over channels, with what follows it: a branch that may be left out, the residual, a ReLU.
//!
//! The means of a map's channels become a gate for each channel, by two dense layers (squeeze and excitation, Hu et al. 2018) or by a
//! convolution along the channels (ECA, Wang et al. 2020).

use candle_core::Result;

use super::dense::{Dense, row};
use super::memory::Memory;
use super::norm::Maps;
use super::variables::Variables;
use crate::blueprint::Attention;
use crate::kernels::{Change, LANES, NormInput, Reduction, Team, blocks_of};

#[derive(Debug)]
pub(super) struct ChannelAttention {
    pub(super) attention: Attention,
    pub(super) channels: usize,
    /// The number of the block whose branch ends here.
    pub(super) branch: usize,
}

/// What a forward pass leaves for the way back.
#[derive(Debug)]
pub(super) struct Attended {
    /// (N, C): of each channel over its pixels.
    means: Vec<f32>,
    /// (N, inner): between the dense layers, behind their ReLU; nothing where there are none.
    hidden: Vec<f32>,
    /// (N, C), from 0 to 1.
    gates: Vec<f32>,
    /// What each image's branch counts; `None` where all count once.
    factors: Option<Vec<f32>>,
}

/// The gradients of an attention's parameters by name, with their shapes.
type Gradients = Vec<(String, Vec<usize>, Vec<f32>)>;

impl ChannelAttention {
    /// Weighs every channel by its gate, adds the residual and takes the ReLU.
    pub(super) fn forward(
        &self,
        (team, memory): (&Team, &mut Memory),
        variables: &Variables,
        factors: Option<Vec<f32>>,
        maps: &Maps,
        to: &mut [f32],
    ) -> Result<Attended> {
        let &Maps { images, extent, from, residual } = maps;
        let planes = images * blocks_of(self.channels);
        let [values, shifts] = memory.channelwise([planes * LANES; 2]);
        team.reduce(Reduction::Mean, extent, from, &[], values);
        let means: Vec<f32> =
            (0..images).flat_map(|image| row(values, image, images)[..self.channels].iter().copied()).collect();
        let (hidden, scores) = self.scores(team, variables, images, &means)?;
        let gates = scores.into_iter().map(|score| 1.0 / (1.0 + (-score).exp())).collect();
        let attended = Attended { means, hidden, gates, factors };
        for (image, scales) in values.chunks_exact_mut(values.len() / images).enumerate() {
            let factor = attended.factor(image);
            scales.fill(0.0);
            scales.iter_mut().zip(row(&attended.gates, image, images)).for_each(|(scale, gate)| *scale = gate * factor);
        }
        shifts.fill(0.0);
        let change = Change { from, scale: values, shift: shifts, residual, relu: true };
        team.affine(extent, &change, to);
        Ok(attended)
    }

    /// The gradient behind the ReLU → the gradient of the map, and those of the parameters.
    ///
    /// `gradient` becomes that of the residual.
    pub(super) fn backward(
        &self,
        (team, memory, variables): (&Team, &mut Memory, &Variables),
        attended: &Attended,
        (maps, output): (&Maps, &[f32]),
        gradient: &mut [f32],
        to: &mut [f32],
    ) -> Result<Gradients> {
        let &Maps { images, extent, from, .. } = maps;
        let blocks = blocks_of(self.channels);
        let [sums, coefficients] = memory.channelwise([2 * images * blocks * LANES, 3 * images * blocks * LANES]);
        let centres = vec![0.0; blocks * LANES];
        let input = NormInput { extent, output: Some(output), input: from, centres: &centres };
        team.norm_sums(&input, gradient, sums);
        let scores = attended.scores_gradient(images, sums);
        let (means, found) = self.means_gradient(team, variables, attended, images, &scores)?;
        attended.coefficients(self.channels, images, (&means, extent.pixels()), coefficients);
        team.norm_gradient(extent, (gradient, from), coefficients, to);
        Ok(found)
    }

    /// (N, C) → (N, inner) and (N, C).
    fn scores(&self, team: &Team, variables: &Variables, images: usize, means: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
        match &self.attention {
            Attention::SqueezeExcite { name, .. } => {
                let mut hidden = dense(variables, name, "fc1")?.forward(team, images, means);
                hidden.iter_mut().for_each(|value| *value = value.max(0.0));
                let scores = dense(variables, name, "fc2")?.forward(team, images, &hidden);
                Ok((hidden, scores))
            }
            Attention::EfficientChannel { name, .. } => {
                let kernel = variables.singles(&along(name))?;
                let of_image = |image| {
                    let means = row(means, image, images);
                    let score =
                        |(channel, _)| taps(&kernel, channel, means).map(|(tap, mean)| kernel[tap] * mean).sum();
                    means.iter().enumerate().map(score).collect::<Vec<f32>>()
                };
                Ok((Vec::new(), (0..images).flat_map(of_image).collect()))
            }
        }
    }

    /// The gradient of the scores → that of the means, both (N, C), and those of the parameters.
    fn means_gradient(
        &self,
        team: &Team,
        variables: &Variables,
        attended: &Attended,
        images: usize,
        scores: &[f32],
    ) -> Result<(Vec<f32>, Gradients)> {
        let Attended { means, hidden, .. } = attended;
        match &self.attention {
            &Attention::SqueezeExcite { ref name, channels, inner } => {
                let [fc1, fc2] = ["fc1", "fc2"].map(|layer| dense(variables, name, layer));
                let (fc1, fc2) = (fc1?, fc2?);
                let mut before = fc2.input_gradient(team, images, scores);
                before
                    .iter_mut()
                    .zip(hidden)
                    .filter(|(_, hidden)| **hidden <= 0.0)
                    .for_each(|(before, _)| *before = 0.0);
                let named = |layer: &str, shape: [usize; 2], [weight, bias]: [Vec<f32>; 2]| {
                    let weight = (format!("{name}.{layer}.weight"), vec![shape[0], shape[1], 1, 1], weight);
                    [weight, (format!("{name}.{layer}.bias"), vec![shape[0]], bias)]
                };
                let of_first = named("fc1", [inner, channels], fc1.gradients(team, images, &before, means));
                let of_second = named("fc2", [channels, inner], fc2.gradients(team, images, scores, hidden));
                Ok((fc1.input_gradient(team, images, &before), of_first.into_iter().chain(of_second).collect()))
            }
            Attention::EfficientChannel { name, .. } => {
                let kernel = variables.singles(&along(name))?;
                let (mut of_means, mut of_kernel) = (vec![0.0; means.len()], vec![0.0; kernel.len()]);
                for (image, of_means) in of_means.chunks_exact_mut(self.channels).enumerate() {
                    let means = row(means, image, images);
                    for (channel, score) in row(scores, image, images).iter().enumerate() {
                        for (tap, mean) in taps(&kernel, channel, means) {
                            of_kernel[tap] += score * mean;
                            of_means[channel + tap - kernel.len() / 2] += score * kernel[tap];
                        }
                    }
                }
                Ok((of_means, vec![(along(name), vec![1, 1, kernel.len()], of_kernel)]))
            }
        }
    }
}

impl Attended {
    fn factor(&self, image: usize) -> f32 {
        self.factors.as_ref().map_or(1.0, |factors| factors[image])
    }

    /// Of each channel of each image, (N, C): from the sum of the gradient times the map, second of the two in `sums`.
    fn scores_gradient(&self, images: usize, sums: &[f32]) -> Vec<f32> {
        let of_image = |image| {
            let (sums, factor) = (row(sums, image, images), self.factor(image));
            let along = move |channel: usize| sums[(2 * (channel / LANES) + 1) * LANES + channel % LANES];
            let gates = row(&self.gates, image, images).iter().enumerate();
            gates.map(move |(channel, gate)| along(channel) * factor * gate * (1.0 - gate))
        };
        (0..images).flat_map(of_image).collect()
    }

    /// What each pixel's gradient is made of, (images, blocks, 3, 16): its factor, nothing of the map, and the mean's part.
    fn coefficients(&self, channels: usize, images: usize, (means, pixels): (&[f32], usize), to: &mut [f32]) {
        to.fill(0.0);
        for (image, to) in to.chunks_exact_mut(3 * blocks_of(channels) * LANES).enumerate() {
            let factor = self.factor(image);
            let of_channel = row(&self.gates, image, images).iter().zip(row(means, image, images));
            for (channel, (gate, mean)) in of_channel.enumerate() {
                let at = 3 * (channel / LANES) * LANES + channel % LANES;
                to[at] = gate * factor;
                to[at + 2 * LANES] = mean / pixels as f32;
            }
        }
    }
}

/// The parameter of a convolution along the channels.
fn along(name: &str) -> String {
    format!("{name}.conv.weight")
}

fn dense(variables: &Variables, name: &str, layer: &str) -> Result<Dense> {
    let of = |suffix: &str| variables.singles(&format!("{name}.{layer}.{suffix}"));
    Ok(Dense { weight: of("weight")?, bias: of("bias")? })
}

/// The taps of `kernel` about a channel that lie on channels, with the means there.
fn taps<'a>(kernel: &[f32], channel: usize, means: &'a [f32]) -> impl Iterator<Item = (usize, f32)> + use<'a> {
    let half = kernel.len() / 2;
    (0..kernel.len()).filter_map(move |tap| Some((tap, *means.get((channel + tap).checked_sub(half)?)?)))
}
