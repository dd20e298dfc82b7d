//! A graph, forwards and backwards.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cudnn::Cudnn;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{DType, Result, Tensor, bail};

use super::gates::Gates;
use super::launch::{Launcher, Pooling, Rows, Shift};
use super::norms::{
    Coefficients, Incoming, NormTotals, NormVariables, PartialSums, Segments, Statistics as NormStatistics,
};
use super::variables::Variables;
use super::weights::WeightShape;
use super::{Number, averaging};
use crate::backprop::attention::ChannelAttention;
use crate::backprop::convolution::Convolution;
use crate::backprop::graph::{Graph, INPUT, Node, Operation, Value};
use crate::backprop::group_norm::GroupNorm;
use crate::backprop::norm::{BatchNorm, MOMENTUM};
use crate::blueprint::{NORM_EPSILON, Pool};
use crate::cudnn::{TrainableConv, Unfolding, Values, Window, tensor};
use crate::kernels::Extent;
use crate::training::{Statistics, TrainingMode};

/// The convolutions of a graph for maps of one size, by the value that they make.
#[derive(Debug)]
pub(super) struct Convolutions<T: Number> {
    images: usize,
    extents: Vec<Extent>,
    /// Of the images that come in.
    unfolding: Option<Unfolding>,
    prepared: HashMap<Value, TrainableConv<T>>,
}

impl<T: Number> Convolutions<T> {
    pub(super) fn new(
        graph: &Graph,
        cudnn: &Arc<Cudnn>,
        (images, input): (usize, Extent),
        unfolding: Option<Unfolding>,
    ) -> Result<Convolutions<T>> {
        let extents = graph.extents(input)?;
        let dims = |value: Value| [images, extents[value].height, extents[value].width, graph.channels[value]];
        let mut prepared = HashMap::new();
        for Node { operation, from, to, .. } in &graph.nodes {
            if let Operation::Convolve(convolution) = operation {
                let (x, window) = match unfolding.filter(|_| *from == INPUT) {
                    Some(unfolding) => (unfolding.dims(images, input.height, input.width), unfolding.window()),
                    None => (dims(*from), window(convolution)),
                };
                prepared.insert(*to, TrainableConv::new(cudnn, x, dims(*to), window)?);
            }
        }
        Ok(Convolutions { images, extents, unfolding, prepared })
    }

    pub(super) fn fits(&self, images: usize, input: Extent) -> bool {
        self.images == images && self.extents[INPUT] == input
    }
}

/// How the convolution that a network begins with reads images, where it had better not read them as they are; those of f32 it reads so.
pub(super) fn unfolding<T: Number>(graph: &Graph) -> Option<Unfolding> {
    let Operation::Convolve(convolution) = &graph.nodes.first()?.operation else { return None };
    let unfolding = Unfolding::of(graph.channels[INPUT], window(convolution), T::DTYPE);
    unfolding.filter(|_| T::DTYPE != DType::F32)
}

fn window(convolution: &Convolution) -> Window {
    let geometry = convolution.geometry();
    Window {
        size: geometry.kernel,
        stride: geometry.stride,
        padding: geometry.padding,
        dilation: geometry.dilation,
        groups: geometry.groups,
    }
}

/// What a forward pass leaves for the way back.
#[derive(Debug)]
pub(super) struct Tape<T: Number> {
    /// Every map.
    values: Vec<CudaSlice<T>>,
    /// Of convolutions, norms and attentions, attentions, and max-pools, by the value that they made.
    weights: HashMap<Value, CudaSlice<T>>,
    norms: HashMap<Value, Normalised>,
    gates: HashMap<Value, Gates>,
    winners: HashMap<Value, CudaSlice<u8>>,
}

/// What a norm leaves, or an attention, which is one that scales alone.
#[derive(Debug)]
struct Normalised {
    statistics: NormStatistics,
    /// What each image's branch counts; `None` where all count once.
    factors: Option<CudaSlice<f32>>,
}

/// A parameter's name and its gradient.
type Gradient = (String, Tensor);

/// A graph on a device, with variables.
pub(super) struct Pass<'a, T: Number> {
    pub(super) graph: &'a Graph,
    pub(super) launcher: &'a Launcher,
    pub(super) convolutions: &'a Convolutions<T>,
    pub(super) variables: Variables<'a>,
}

impl<T: Number> Pass<'_, T> {
    pub(super) fn forward(&self, input: CudaSlice<T>, mode: &mut TrainingMode) -> Result<Tape<T>> {
        let (norms, gates, winners) = Default::default();
        let mut tape = Tape { values: vec![input], weights: self.weights()?, norms, gates, winners };
        for node in &self.graph.nodes {
            let from = &tape.values[node.from];
            let to = match &node.operation {
                Operation::Convolve(_) => {
                    self.convolution(node)?.forward(&self.launcher.device, from, &tape.weights[&node.to])?
                }
                Operation::Normalise(norm) => {
                    let statistics = self.measure(node, norm, from, mode)?;
                    let left = Normalised { statistics, factors: self.factors(norm.branch, mode)? };
                    self.apply(node, &mut tape, left, norm.relu)?
                }
                Operation::NormaliseGroups(norm) => {
                    let statistics = self.measure_groups(node, norm, from)?;
                    let left = Normalised { statistics, factors: self.factors(norm.branch, mode)? };
                    self.apply(node, &mut tape, left, norm.relu)?
                }
                Operation::Attend(attention) => {
                    let (gates, statistics) = self.gates(node, attention, from)?;
                    let left = Normalised { statistics, factors: self.factors(Some(attention.branch), mode)? };
                    tape.gates.insert(node.to, gates);
                    self.apply(node, &mut tape, left, true)?
                }
                &Operation::Pool(Pool::Max { stride }) => {
                    let (to, winners) = self.launcher.max_pool(from, self.pooling(node), stride)?;
                    tape.winners.insert(node.to, winners);
                    to
                }
                &Operation::Pool(pool) => {
                    let Some(window) = averaging(pool) else { return Err(unknown(pool)) };
                    self.launcher.average(from, self.pooling(node), window)?
                }
                &Operation::ShiftChannels { stride, padding, .. } => {
                    self.launcher.shift_channels(from, self.pooling(node), Shift { stride, padding })?
                }
            };
            tape.values.push(to);
        }
        Ok(tape)
    }

    /// (N, C).
    pub(super) fn features(&self, tape: &Tape<T>) -> Result<CudaSlice<f32>> {
        let output = self.graph.output();
        self.launcher.global_mean(&tape.values[output], self.rows(output))
    }

    /// The gradient of the features → those of the parameters that `wanted` says, by name.
    pub(super) fn backward(
        &self,
        tape: Tape<T>,
        features: &Values<'_>,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Gradient>> {
        let output = self.graph.output();
        let gradient = self.launcher.global_mean_gradient(&features.view()?, self.rows(output))?;
        let mut way = WayBack {
            pass: self,
            gradients: std::iter::repeat_with(|| None).take(tape.values.len()).collect(),
            tape,
            found: Vec::new(),
            packed: Vec::new(),
        };
        way.gradients[output] = Some(Parts { first: gradient, second: None });
        for node in self.graph.nodes.iter().rev() {
            let Some(gradient) = way.gradients[node.to].take() else { continue };
            match &node.operation {
                Operation::Convolve(convolution) => way.convolve(node, convolution, gradient, wanted)?,
                Operation::Normalise(norm) => {
                    let totals =
                        |sums: &_, statistics: &_, rows| self.launcher.norm_gradient_totals(sums, statistics, rows);
                    way.normalise(node, (&norm.name, norm.relu), gradient, wanted, totals)?;
                }
                Operation::NormaliseGroups(norm) => {
                    let totals = |sums: &_, statistics: &_, rows| {
                        self.launcher.group_gradient_totals(sums, statistics, (rows, norm.groups))
                    };
                    way.normalise(node, (&norm.name, norm.relu), gradient, wanted, totals)?;
                }
                Operation::Attend(_) => way.attend(node, gradient, wanted)?,
                &Operation::Pool(pool) => way.pool(node, pool, gradient)?,
                &Operation::ShiftChannels { stride, padding, .. } => {
                    way.shift_channels(node, Shift { stride, padding }, gradient)?;
                }
            }
            way.tape.values.truncate(node.to); // nothing before this node reads it
        }
        way.all()
    }

    fn rows(&self, value: Value) -> Rows {
        let Convolutions { images, extents, .. } = self.convolutions;
        Rows { images: *images, pixels: extents[value].pixels(), channels: self.graph.channels[value] }
    }

    fn pooling(&self, node: &Node) -> Pooling {
        let Convolutions { images, extents, .. } = self.convolutions;
        let (input, output) = (extents[node.from], extents[node.to]);
        Pooling { images: *images, input, output, channels: self.graph.channels[node.from] }
    }

    fn convolution(&self, node: &Node) -> Result<&TrainableConv<T>> {
        let found = self.convolutions.prepared.get(&node.to);
        found.ok_or_else(|| candle_core::Error::msg("a convolution was not prepared"))
    }

    /// Of every convolution, as it reads them, by the value that it makes.
    fn weights(&self) -> Result<HashMap<Value, CudaSlice<T>>> {
        let (mut all, mut others) = (HashMap::new(), Vec::new());
        for node in &self.graph.nodes {
            let Operation::Convolve(convolution) = &node.operation else { continue };
            let values = self.variables.get(&convolution.weight())?;
            match self.unfolding(node) {
                Some(unfolding) => {
                    all.insert(node.to, unfolding.pack_weights(&self.launcher.device, &values.view()?)?);
                }
                None => others.push((node.to, values, weight_shape(convolution))),
            }
        }
        let views = others.iter().map(|(_, values, shape)| Ok((values.view()?, *shape))).collect::<Result<Vec<_>>>()?;
        let packed = self.launcher.pack_weights(&views)?;
        all.extend(others.iter().map(|&(to, ..)| to).zip(packed));
        Ok(all)
    }

    /// How a convolution reads what comes in, where it is unfolded.
    fn unfolding(&self, node: &Node) -> Option<Unfolding> {
        self.convolutions.unfolding.filter(|_| node.from == INPUT)
    }

    /// What a norm normalises by; running statistics move where they follow the batch.
    fn measure(
        &self,
        node: &Node,
        norm: &BatchNorm,
        from: &CudaSlice<T>,
        mode: &mut TrainingMode,
    ) -> Result<NormStatistics> {
        let of = |suffix: &str| self.variables.get(&format!("{}.{suffix}", norm.name));
        let (weight, bias) = (of("weight")?, of("bias")?);
        let (running_mean, running_variance) = (of("running_mean")?, of("running_var")?);
        let variables = NormVariables {
            weight: weight.view()?,
            bias: bias.view()?,
            running_mean: running_mean.view()?,
            running_variance: running_variance.view()?,
        };
        let rows = self.rows(node.from);
        if mode.norms.of(norm.part) != Statistics::Batch {
            return self.launcher.norm_running_statistics(&variables, rows.channels, NORM_EPSILON);
        }
        if rows.count() < 2 {
            bail!("a batch norm cannot normalise by one image whose map has one pixel");
        }
        let sums = self.launcher.norm_moments(from, rows, Segments::Batch)?;
        let constants = (NORM_EPSILON, MOMENTUM);
        self.launcher.norm_batch_statistics(&sums, from, rows, &variables, constants)
    }

    fn measure_groups(&self, node: &Node, norm: &GroupNorm, from: &CudaSlice<T>) -> Result<NormStatistics> {
        let of = |suffix: &str| self.variables.get(&format!("{}.{suffix}", norm.name));
        let (weight, bias) = (of("weight")?, of("bias")?);
        let rows = self.rows(node.from);
        let sums = self.launcher.norm_moments(from, rows, Segments::Images)?;
        let parameters = (&weight.view()?, &bias.view()?);
        self.launcher.group_statistics(&sums, from, (rows, norm.groups), parameters, NORM_EPSILON)
    }

    fn gates(&self, node: &Node, attention: &ChannelAttention, from: &CudaSlice<T>) -> Result<(Gates, NormStatistics)> {
        let rows = self.rows(node.from);
        let sums = self.launcher.norm_moments(from, rows, Segments::Images)?;
        let means = self.launcher.means(&sums, from, rows)?;
        let means = tensor(means, &[rows.images, rows.channels], &self.launcher.device);
        let gates = Gates::new(&attention.attention, self.variables, &means)?;
        let statistics = self.launcher.gate_statistics(&Values::of(&gates.values)?.view()?, rows)?;
        Ok((gates, statistics))
    }

    /// What each image's branch counts, which ends here.
    fn factors(&self, branch: Option<usize>, mode: &mut TrainingMode) -> Result<Option<CudaSlice<f32>>> {
        let images = self.convolutions.images;
        let factors = branch.and_then(|block| mode.depth.factors(images, block, self.graph.blocks));
        factors.map(|factors| self.launcher.device.clone_htod(&factors)).transpose()
    }

    /// What comes out of a norm, which leaves something for the way back.
    fn apply(&self, node: &Node, tape: &mut Tape<T>, left: Normalised, relu: bool) -> Result<CudaSlice<T>> {
        let (from, residual) = (&tape.values[node.from], node.residual.map(|residual| &tape.values[residual]));
        let added = (residual, left.factors.as_ref());
        let to = self.launcher.norm_apply(from, added, &left.statistics, self.rows(node.to), relu)?;
        tape.norms.insert(node.to, left);
        Ok(to)
    }
}

/// Every pool but a max-pool averages.
fn unknown(pool: Pool) -> candle_core::Error {
    candle_core::Error::msg(format!("{pool:?} does not average"))
}

fn weight_shape(convolution: &Convolution) -> WeightShape {
    let [out, inputs, height, width] = convolution.weight_shape();
    [out, inputs, height * width]
}

/// A gradient that is the sum of one map or two.
struct Parts<T> {
    first: CudaSlice<T>,
    second: Option<CudaSlice<T>>,
}

/// The gradient of what came out of a norm, behind its ReLU.
struct Arrived<T> {
    sums: PartialSums,
    /// What passed the ReLU, where that was kept.
    passed: Option<CudaSlice<T>>,
    gradient: Parts<T>,
    /// Whether the input alone says what the ReLU lets pass.
    relu: bool,
}

/// A pass from the last map to the first.
struct WayBack<'a, T: Number> {
    pass: &'a Pass<'a, T>,
    tape: Tape<T>,
    /// Of each value, as far as they are known.
    gradients: Vec<Option<Parts<T>>>,
    found: Vec<Gradient>,
    /// Of convolutions' weights, as cuDNN gives them.
    packed: Vec<(&'a Convolution, CudaSlice<T>)>,
}

impl<'a, T: Number> WayBack<'a, T> {
    fn convolve(
        &mut self,
        node: &Node,
        convolution: &'a Convolution,
        gradient: Parts<T>,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        let (launcher, prepared) = (self.pass.launcher, self.pass.convolution(node)?);
        let gradient = self.sum(gradient)?;
        let name = convolution.weight();
        if wanted(&name) {
            let found = prepared.weight_gradient(&launcher.device, &self.tape.values[node.from], &gradient)?;
            match self.pass.unfolding(node) {
                Some(unfolding) => {
                    let found = unfolding.unpack_weights(&launcher.device, &found)?;
                    self.found.push((name, tensor(found, &convolution.weight_shape(), &launcher.device)));
                }
                None => self.packed.push((convolution, found)),
            }
        }
        if node.from != INPUT {
            let Some(weights) = self.tape.weights.remove(&node.to) else {
                bail!("`{}` left nothing", convolution.name)
            };
            let before = prepared.input_gradient(&launcher.device, &gradient, &weights)?;
            self.add(node.from, before)?;
        }
        Ok(())
    }

    /// Through a norm, whose gradients `totals` makes of sums.
    fn normalise(
        &mut self,
        node: &Node,
        (name, relu): (&str, bool),
        gradient: Parts<T>,
        wanted: &dyn Fn(&str) -> bool,
        totals: impl FnOnce(&PartialSums, &NormStatistics, Rows) -> Result<NormTotals>,
    ) -> Result<()> {
        let left = self.left(node)?;
        let arrived = self.arrive(node, &left, relu, gradient)?;
        let rows = self.pass.rows(node.to);
        let totals = totals(&arrived.sums, &left.statistics, rows)?;
        let coefficients = self.keep_of_norm(name, totals, rows, wanted);
        self.pass_on(node, &left, arrived, &coefficients)
    }

    fn attend(&mut self, node: &Node, gradient: Parts<T>, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
        let left = self.left(node)?;
        let Some(gates) = self.tape.gates.remove(&node.to) else { bail!("an attention left no gates") };
        let arrived = self.arrive(node, &left, true, gradient)?;
        let (launcher, rows) = (self.pass.launcher, self.pass.rows(node.to));
        let of_gates = launcher.gate_gradient(&arrived.sums, rows)?;
        let of_gates = tensor(of_gates, &[rows.images, rows.channels], &launcher.device);
        let (of_means, found) = gates.backward(&of_gates, wanted)?;
        self.found.extend(found);
        let (gates, of_means) = (Values::of(&gates.values)?, Values::of(&of_means)?);
        let coefficients = launcher.gate_coefficients(&gates.view()?, &of_means.view()?, rows)?;
        self.pass_on(node, &left, arrived, &coefficients)
    }

    /// What a norm left.
    fn left(&mut self, node: &Node) -> Result<Normalised> {
        let left = self.tape.norms.remove(&node.to);
        left.ok_or_else(|| candle_core::Error::msg(format!("{:?} left nothing", node.operation)))
    }

    /// Takes a gradient through the ReLU behind a norm.
    fn arrive(&self, node: &Node, left: &Normalised, relu: bool, gradient: Parts<T>) -> Result<Arrived<T>> {
        let has_residual = node.residual.is_some();
        let incoming = Incoming {
            gradient: &gradient.first,
            further: gradient.second.as_ref(),
            output: (relu && has_residual).then(|| &self.tape.values[node.to]),
            relu: relu && !has_residual,
            factors: left.factors.as_ref(),
        };
        let keep = has_residual || gradient.second.is_some();
        let (x, rows) = (&self.tape.values[node.from], self.pass.rows(node.to));
        let (sums, passed) = self.pass.launcher.norm_gradient_sums(&incoming, x, &left.statistics, rows, keep)?;
        Ok(Arrived { sums, passed, gradient, relu: relu && !has_residual })
    }

    /// Keeps the gradients of a norm's weight and bias.
    fn keep_of_norm(
        &mut self,
        name: &str,
        totals: NormTotals,
        rows: Rows,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Coefficients {
        let NormTotals { of_weight, of_bias, coefficients } = totals;
        for (suffix, found) in [("weight", of_weight), ("bias", of_bias)] {
            let name = format!("{name}.{suffix}");
            if wanted(&name) {
                self.found.push((name, tensor(found, &[rows.channels], &self.pass.launcher.device)));
            }
        }
        coefficients
    }

    /// Takes a gradient through a norm, to its input and to its residual.
    fn pass_on(
        &mut self,
        node: &Node,
        left: &Normalised,
        arrived: Arrived<T>,
        coefficients: &Coefficients,
    ) -> Result<()> {
        let Arrived { passed, gradient, relu, .. } = arrived;
        let behind = match &passed {
            Some(passed) => (passed, false),
            None => (&gradient.first, relu),
        };
        let (x, rows) = (&self.tape.values[node.from], self.pass.rows(node.to));
        let computed = (&left.statistics, coefficients);
        let before = self.pass.launcher.norm_gradient(behind, x, computed, left.factors.as_ref(), rows)?;
        self.add(node.from, before)?;
        match (node.residual, passed) {
            (Some(residual), Some(passed)) => self.add(residual, passed),
            _ => Ok(()),
        }
    }

    fn pool(&mut self, node: &Node, pool: Pool, gradient: Parts<T>) -> Result<()> {
        if node.from == INPUT {
            return Ok(());
        }
        let (launcher, pooling) = (self.pass.launcher, self.pass.pooling(node));
        let before = if let Pool::Max { stride } = pool {
            let Some(winners) = self.tape.winners.remove(&node.to) else { bail!("a max-pool left nothing") };
            let parts = (&gradient.first, gradient.second.as_ref());
            launcher.max_pool_gradient(parts, &winners, pooling, stride)?
        } else {
            let Some(window) = averaging(pool) else { return Err(unknown(pool)) };
            launcher.average_gradient(&self.sum(gradient)?, pooling, window)?
        };
        self.add(node.from, before)
    }

    fn shift_channels(&mut self, node: &Node, shift: Shift, gradient: Parts<T>) -> Result<()> {
        if node.from == INPUT {
            return Ok(());
        }
        let gradient = self.sum(gradient)?;
        let before = self.pass.launcher.shift_channels_gradient(&gradient, self.pass.pooling(node), shift)?;
        self.add(node.from, before)
    }

    /// One map of a gradient's parts.
    fn sum(&self, Parts { first, second }: Parts<T>) -> Result<CudaSlice<T>> {
        match second {
            Some(second) => self.pass.launcher.add(&first, &second),
            None => Ok(first),
        }
    }

    /// What was found, in the network's order.
    fn all(self) -> Result<Vec<Gradient>> {
        let (launcher, mut found) = (self.pass.launcher, self.found);
        let (convolutions, packed): (Vec<_>, Vec<_>) = self.packed.into_iter().unzip();
        let packed: Vec<_> = packed.into_iter().zip(convolutions.iter().map(|of| weight_shape(of))).collect();
        let unpacked = launcher.unpack_weights(&packed)?;
        found.extend(convolutions.iter().zip(unpacked).map(|(convolution, found)| {
            (convolution.weight(), tensor(found, &convolution.weight_shape(), &launcher.device))
        }));
        Ok(found)
    }

    /// Adds to what is known of a value's gradient.
    fn add(&mut self, value: Value, gradient: CudaSlice<T>) -> Result<()> {
        if value == INPUT {
            return Ok(());
        }
        self.gradients[value] = Some(match self.gradients[value].take() {
            None => Parts { first: gradient, second: None },
            Some(Parts { first, second: None }) => Parts { first, second: Some(gradient) },
            Some(parts) => Parts { first: self.sum(parts)?, second: Some(gradient) },
        });
        Ok(())
    }
}
