//! A graph, forwards and backwards.

use std::collections::HashMap;

use candle_core::{Result, bail};

use super::attention::{Attended, ChannelAttention};
use super::convolution::{Convolution, Direction, Pass};
use super::graph::{Graph, INPUT, Node, Operation, Value};
use super::group_norm::{GroupNorm, GroupNormalised};
use super::memory::Memory;
use super::norm::{self, Normalised};
use super::variables::Variables;
use crate::blueprint::Pool;
use crate::kernels::{Buffer, Extent, Team, Window, add_shifted_back, blocks_of, shift_channels};
use crate::plan::{PackedConvolution, Packing, pooled, window};
use crate::training::TrainingMode;

/// What a forward pass leaves for the way back.
#[derive(Debug)]
pub(super) struct Tape {
    pub(super) images: usize,
    pub(super) extents: Vec<Extent>,
    /// Every map.
    pub(super) values: Vec<Buffer>,
    /// By the value that they made.
    norms: HashMap<Value, Normalised>,
    group_norms: HashMap<Value, GroupNormalised>,
    attentions: HashMap<Value, Attended>,
}

/// Convolutions whose weights were packed before the pass, by the value that they make.
pub(super) type Prepared = HashMap<Value, PackedConvolution<f32>>;

impl Graph {
    /// Of every value, for an input of that size.
    pub(super) fn extents(&self, input: Extent) -> Result<Vec<Extent>> {
        let mut extents = vec![input; self.channels.len()];
        for Node { operation, from, to, .. } in &self.nodes {
            let extent = extents[*from];
            extents[*to] = match operation {
                Operation::Convolve(convolution) => convolution.output(extent),
                Operation::Normalise(_) | Operation::NormaliseGroups(_) | Operation::Attend(_) => extent,
                &Operation::Pool(pool) => pool_output(pool, extent)?,
                &Operation::ShiftChannels { stride, .. } => {
                    Extent { height: extent.height.div_ceil(stride), width: extent.width.div_ceil(stride) }
                }
            };
            if extents[*to].pixels() == 0 {
                bail!("the image is too small for this network");
            }
        }
        Ok(extents)
    }

    /// Packs what cannot be packed within a pass.
    pub(super) fn prepare(
        &self,
        variables: &Variables,
        (direction, extents): (Direction, &[Extent]),
        packing: &Packing,
    ) -> Result<Prepared> {
        let mut prepared = Prepared::new();
        for Node { operation, from, to, .. } in &self.nodes {
            if let Operation::Convolve(convolution) = operation
                && (direction == Direction::Forward || *from != INPUT)
                && let Some(packed) = convolution.prepare(variables, (direction, extents[*from]), packing)?
            {
                prepared.insert(*to, packed);
            }
        }
        Ok(prepared)
    }

    /// Values of a map.
    fn size(&self, tape: (usize, &[Extent]), value: Value) -> usize {
        tape.0 * tape.1[value].values(blocks_of(self.channels[value]))
    }

    pub(super) fn forward(
        &self,
        (team, memory): (&Team, &mut Memory),
        (variables, prepared): (&Variables, &Prepared),
        (images, extents, input): (usize, Vec<Extent>, Buffer),
        mode: &mut TrainingMode,
    ) -> Result<Tape> {
        let (norms, group_norms, attentions) = Default::default();
        let mut tape = Tape { images, extents, values: vec![input], norms, group_norms, attentions };
        for node in &self.nodes {
            let mut to = memory.take(self.size((images, &tape.extents), node.to));
            let from = tape.values[node.from].as_slice();
            let (extent, channels) = (tape.extents[node.from], self.channels[node.from]);
            match &node.operation {
                Operation::Convolve(convolution) => {
                    let pass = Pass { images, input: extent, from, residual: None, to: to.as_mut_slice() };
                    convolution.forward((team, memory), variables, prepared.get(&node.to), pass)?;
                }
                Operation::Normalise(norm) => {
                    let residual = node.residual.map(|residual| tape.values[residual].as_slice());
                    let branch = norm.branch.and_then(|block| mode.depth.factors(images, block, self.blocks));
                    let pass = (mode.norms.of(norm.part), branch);
                    let maps = norm::Maps { images, extent, from, residual };
                    let left = norm.forward((team, memory), variables, pass, &maps, to.as_mut_slice())?;
                    tape.norms.insert(node.to, left);
                }
                Operation::NormaliseGroups(norm) => {
                    let residual = node.residual.map(|residual| tape.values[residual].as_slice());
                    let branch = norm.branch.and_then(|block| mode.depth.factors(images, block, self.blocks));
                    let maps = norm::Maps { images, extent, from, residual };
                    let left = norm.forward((team, memory), variables, branch, &maps, to.as_mut_slice())?;
                    tape.group_norms.insert(node.to, left);
                }
                Operation::Attend(attention) => {
                    let residual = node.residual.map(|residual| tape.values[residual].as_slice());
                    let branch = mode.depth.factors(images, attention.branch, self.blocks);
                    let maps = norm::Maps { images, extent, from, residual };
                    let left = attention.forward((team, memory), variables, branch, &maps, to.as_mut_slice())?;
                    tape.attentions.insert(node.to, left);
                }
                &Operation::Pool(pool) => {
                    let (window, stride) = window(pool);
                    team.pool(window, stride, (extent, tape.extents[node.to]), from, to.as_mut_slice());
                }
                &Operation::ShiftChannels { stride, padding, .. } => {
                    let of_image = from.len() / images;
                    team.each_image(images, to.as_mut_slice(), |image, to| {
                        to.fill(0.0);
                        let from = &from[image * of_image..][..of_image];
                        shift_channels(from, channels, extent, stride, padding, to);
                    });
                }
            }
            tape.values.push(to);
        }
        Ok(tape)
    }

    /// The gradient of the output → those of the parameters that `wanted` says, by name.
    pub(super) fn backward(
        &self,
        (team, memory): (&Team, &mut Memory),
        (variables, prepared): (&Variables, &Prepared),
        (tape, output): (&Tape, Buffer),
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Gradient>> {
        let mut way = WayBack {
            graph: self,
            tape,
            team,
            memory,
            gradients: std::iter::repeat_with(|| None).take(self.channels.len()).collect(),
            found: Vec::new(),
        };
        way.gradients[self.output()] = Some(output);
        for node in self.nodes.iter().rev() {
            let Some(gradient) = way.gradients[node.to].take() else { continue };
            match &node.operation {
                Operation::Convolve(convolution) => {
                    way.convolve(node, convolution, (variables, prepared), gradient, wanted)?;
                }
                Operation::Normalise(norm) => way.normalise(node, norm, gradient, wanted),
                Operation::NormaliseGroups(norm) => way.normalise_groups(node, norm, gradient, wanted),
                Operation::Attend(attention) => way.attend(node, attention, variables, gradient, wanted)?,
                &Operation::Pool(pool) => way.pool(node, pool, gradient),
                &Operation::ShiftChannels { channels, stride, padding } => {
                    way.shift_channels(node, (channels, stride, padding), gradient)
                }
            }
        }
        let WayBack { memory, gradients, found, .. } = way;
        gradients.into_iter().flatten().for_each(|gradient| memory.give(gradient));
        Ok(found)
    }
}

/// A parameter's name, its shape and its gradient.
pub(super) type Gradient = (String, Vec<usize>, Vec<f32>);

/// A pass from the last map to the first.
struct WayBack<'a> {
    graph: &'a Graph,
    tape: &'a Tape,
    team: &'a Team<'a>,
    memory: &'a mut Memory,
    /// Of each value, as far as they are known.
    gradients: Vec<Option<Buffer>>,
    found: Vec<Gradient>,
}

impl<'a> WayBack<'a> {
    fn take(&mut self, value: Value) -> Buffer {
        self.memory.take(self.graph.size((self.tape.images, &self.tape.extents), value))
    }

    fn convolve(
        &mut self,
        node: &Node,
        convolution: &Convolution,
        (variables, prepared): (&Variables, &Prepared),
        gradient: Buffer,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        let (images, input) = (self.tape.images, self.tape.extents[node.from]);
        let name = convolution.weight();
        if wanted(&name) {
            let maps = (self.tape.values[node.from].as_slice(), gradient.as_slice());
            let found = convolution.weight_gradient((self.team, self.memory), (images, input), maps);
            self.found.push((name, convolution.weight_shape().to_vec(), found));
        }
        if node.from != INPUT {
            let mut to = self.take(node.from);
            let before = self.gradients[node.from].take();
            let residual = before.as_ref().map(Buffer::as_slice);
            let pass = Pass { images, input, from: gradient.as_slice(), residual, to: to.as_mut_slice() };
            convolution.backward((self.team, self.memory), variables, prepared.get(&node.to), pass)?;
            before.into_iter().for_each(|before| self.memory.give(before));
            self.gradients[node.from] = Some(to);
        }
        self.memory.give(gradient);
        Ok(())
    }

    fn normalise(&mut self, node: &Node, norm: &norm::BatchNorm, mut gradient: Buffer, wanted: &dyn Fn(&str) -> bool) {
        let Some(left) = self.tape.norms.get(&node.to) else { return };
        let (mut to, maps) = (self.take(node.from), self.maps(node));
        let context = (self.team, &mut *self.memory);
        let found = norm.backward(context, left, (&maps.0, maps.1), gradient.as_mut_slice(), to.as_mut_slice());
        self.keep_of_norm(&norm.name, found, wanted);
        self.pass_on(node, to, gradient);
    }

    fn normalise_groups(&mut self, node: &Node, norm: &GroupNorm, mut gradient: Buffer, wanted: &dyn Fn(&str) -> bool) {
        let Some(left) = self.tape.group_norms.get(&node.to) else { return };
        let (mut to, maps) = (self.take(node.from), self.maps(node));
        let context = (self.team, &mut *self.memory);
        let found = norm.backward(context, left, (&maps.0, maps.1), gradient.as_mut_slice(), to.as_mut_slice());
        self.keep_of_norm(&norm.name, found, wanted);
        self.pass_on(node, to, gradient);
    }

    fn attend(
        &mut self,
        node: &Node,
        attention: &ChannelAttention,
        variables: &Variables,
        mut gradient: Buffer,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        let Some(left) = self.tape.attentions.get(&node.to) else { return Ok(()) };
        let (mut to, maps) = (self.take(node.from), self.maps(node));
        let context = (self.team, &mut *self.memory, variables);
        let found = attention.backward(context, left, (&maps.0, maps.1), gradient.as_mut_slice(), to.as_mut_slice())?;
        self.found.extend(found.into_iter().filter(|(name, ..)| wanted(name)));
        self.pass_on(node, to, gradient);
        Ok(())
    }

    /// What a norm or an attention was given, and what it put out.
    fn maps(&self, node: &Node) -> (norm::Maps<'a>, &'a [f32]) {
        let Tape { images, extents, values, .. } = self.tape;
        let from = values[node.from].as_slice();
        (norm::Maps { images: *images, extent: extents[node.from], from, residual: None }, values[node.to].as_slice())
    }

    /// Keeps the gradients of a norm's weight and bias.
    fn keep_of_norm(&mut self, name: &str, found: [Vec<f32>; 2], wanted: &dyn Fn(&str) -> bool) {
        for (suffix, found) in ["weight", "bias"].into_iter().zip(found) {
            let name = format!("{name}.{suffix}");
            if wanted(&name) {
                self.found.push((name, vec![found.len()], found));
            }
        }
    }

    /// Of what a node was given the gradient is `to`, of its residual `gradient`.
    fn pass_on(&mut self, node: &Node, to: Buffer, gradient: Buffer) {
        self.gradients[node.from] = Some(to);
        match node.residual {
            Some(residual) => self.add(residual, gradient),
            None => self.memory.give(gradient),
        }
    }

    fn pool(&mut self, node: &Node, pool: Pool, gradient: Buffer) {
        if node.from != INPUT {
            let mut to = self.take(node.from);
            let extents = (self.tape.extents[node.from], self.tape.extents[node.to]);
            let maps = (self.tape.values[node.from].as_slice(), gradient.as_slice());
            self.team.pool_gradient(window(pool), extents, maps, to.as_mut_slice());
            self.add(node.from, to);
        }
        self.memory.give(gradient);
    }

    fn shift_channels(&mut self, node: &Node, (channels, stride, padding): (usize, usize, usize), gradient: Buffer) {
        if node.from != INPUT {
            let (images, extent) = (self.tape.images, self.tape.extents[node.from]);
            let mut to = self.gradients[node.from].take().unwrap_or_else(|| {
                let mut zeros = self.take(node.from);
                zeros.as_mut_slice().fill(0.0);
                zeros
            });
            let of_image = gradient.len() / images;
            self.team.each_image(images, to.as_mut_slice(), |image, to| {
                let from = &gradient.as_slice()[image * of_image..][..of_image];
                add_shifted_back(from, channels, extent, stride, padding, to);
            });
            self.gradients[node.from] = Some(to);
        }
        self.memory.give(gradient);
    }

    /// Adds to what is known of a value's gradient.
    fn add(&mut self, value: Value, gradient: Buffer) {
        let Some(before) = &mut self.gradients[value] else {
            self.gradients[value] = Some(gradient);
            return;
        };
        let other = gradient.as_slice();
        let of_image = other.len() / self.tape.images;
        self.team.each_image(self.tape.images, before.as_mut_slice(), |image, to| {
            let other = &other[image * of_image..][..of_image];
            to.iter_mut().zip(other).for_each(|(to, other)| *to += other);
        });
        self.memory.give(gradient);
    }
}

fn pool_output(pool: Pool, input: Extent) -> Result<Extent> {
    let (window, _) = window(pool);
    if window == Window::Blur && (input.height < 2 || input.width < 2) {
        bail!("a map of one pixel cannot be blurred: the image is too small for this network");
    }
    Ok(pooled(pool, input))
}
