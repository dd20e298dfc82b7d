//! In what a training step differs from evaluation: which residual branches and features are left out, what batch norms
//! normalise by.

use std::collections::BTreeSet;

use candle_core::{Result, Tensor};

use crate::drop_path::StochasticDepth;
use crate::dropout::Dropout;
use crate::figure::Pass;
use crate::part::Part;

/// What a batch norm normalises by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistics {
    /// Its running statistics, which stay as they are.
    Running,
    /// Mean and variance of the batch; its running statistics move a tenth of the way to them, to the unbiased variance.
    Batch,
}

/// The parts whose batch norms normalise by the batch in a training step; all others are frozen.
///
/// ```
/// use candle_resnet::part::Part;
/// use candle_resnet::training::{NormPolicy, Statistics};
///
/// let policy: NormPolicy = [Part::Stage(3), Part::Stage(4)].into_iter().collect();
/// assert_eq!(policy.of(Part::Stage(2)), Statistics::Running);
/// assert_eq!(policy.of(Part::Stage(4)), Statistics::Batch);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NormPolicy(BTreeSet<Part>);

impl NormPolicy {
    /// Running statistics everywhere.
    pub fn frozen() -> NormPolicy {
        NormPolicy::default()
    }

    /// What batch norms of `part` normalise by.
    pub fn of(&self, part: Part) -> Statistics {
        if self.0.contains(&part) { Statistics::Batch } else { Statistics::Running }
    }
}

/// The parts that are not frozen.
impl FromIterator<Part> for NormPolicy {
    fn from_iter<T: IntoIterator<Item = Part>>(parts: T) -> NormPolicy {
        NormPolicy(parts.into_iter().collect())
    }
}

/// How a network runs in training steps.
#[derive(Debug, Clone)]
pub struct TrainingMode {
    /// Which residual branches are left out.
    pub depth: StochasticDepth,
    /// Which features are left out.
    pub dropout: Dropout,
    /// What batch norms normalise by.
    pub norms: NormPolicy,
}

impl TrainingMode {
    /// Leaves nothing out.
    pub fn new(norms: NormPolicy) -> TrainingMode {
        TrainingMode { depth: StochasticDepth::none(), dropout: Dropout::none(), norms }
    }

    /// Makes what the next step leaves out depend on the seeds and `step` alone, whatever was left out before.
    pub fn at_step(&mut self, step: u64) {
        self.depth.at_step(step);
        self.dropout.at_step(step);
    }
}

impl Pass for TrainingMode {
    fn branch(&mut self, branch: Tensor, block: usize, blocks: usize) -> Result<Tensor> {
        self.depth.pass(branch, block, blocks)
    }

    fn statistics(&self, part: Part) -> Statistics {
        self.norms.of(part)
    }
}
