//! The new `fc`: a linear layer whose two variables are alone in a `VarMap`.
//!
//! Does not train itself; the optimiser is built from [`Head::var_map`].

use candle_core::{Device, Tensor, Var};
use candle_nn::VarMap;
use rand::Rng;

use super::error::{Result, TrainError};
use super::metrics::{Metrics, Tally};
use crate::random::generator;

/// The stream of the initial weights; epochs take the streams from 0 on.
const INIT_STREAM: u64 = u64::MAX;

/// Rows that go through the head at once when many are asked about.
const CHUNK: usize = 1024;

/// Features (N, D) → logits (N, C).
#[derive(Clone)]
pub struct Head {
    map: VarMap,
    weight: Var,
    bias: Var,
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Head({} → {})", self.dimensions(), self.classes())
    }
}

impl Head {
    /// A head for `classes` classes on `dimensions` features, initialised as `torch.nn.Linear`: U(±1/√D) for both.
    ///
    /// The same `seed` gives the same bits on every device.
    ///
    /// # Errors
    /// Only those of allocating the variables.
    pub fn new(classes: usize, dimensions: usize, seed: u64, device: &Device) -> Result<Self> {
        let mut generator = generator(seed, INIT_STREAM);
        let bound = 1.0 / (dimensions.max(1) as f32).sqrt();
        let mut uniform =
            |count| -> Vec<f32> { (0..count).map(|_| bound * signed_unit(generator.next_u32())).collect() };
        let weight = Tensor::from_vec(uniform(classes * dimensions), (classes, dimensions), device)?;
        let bias = Tensor::from_vec(uniform(classes), classes, device)?;
        Self::from_tensors(&weight, &bias)
    }

    /// A head with a copy of these values: `weight` (C, D), `bias` (C).
    ///
    /// # Errors
    /// [`TrainError::Shape`] if they do not fit together.
    pub fn from_tensors(weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let (classes, _) = weight.dims2()?;
        if bias.dims() != [classes] {
            let expected = format!("one for each of {classes} classes");
            return Err(TrainError::Shape { what: "biases", found: bias.dims().to_vec(), expected });
        }
        let (weight, bias) = (Var::from_tensor(&weight.detach())?, Var::from_tensor(&bias.detach())?);
        let map = VarMap::new();
        let mut variables = map.data().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        variables.extend([("fc.weight".into(), weight.clone()), ("fc.bias".into(), bias.clone())]);
        drop(variables);
        Ok(Self { map, weight, bias })
    }

    /// `fc.weight` and `fc.bias`, and nothing else.
    pub fn var_map(&self) -> &VarMap {
        &self.map
    }

    /// `fc.weight`, (C, D).
    pub fn weight(&self) -> &Var {
        &self.weight
    }

    /// `fc.bias`, (C).
    pub fn bias(&self) -> &Var {
        &self.bias
    }

    /// Number of classes, C.
    pub fn classes(&self) -> usize {
        self.bias.elem_count()
    }

    /// Width of the features, D.
    pub fn dimensions(&self) -> usize {
        self.weight.dim(1).unwrap_or(0)
    }

    /// Logits (N, C) of `features` (N, D), with gradients to the two variables.
    ///
    /// # Errors
    /// Only those of the tensor operations.
    pub fn forward(&self, features: &Tensor) -> candle_core::Result<Tensor> {
        features.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)
    }

    /// Logits (N, C) of `features` (N, D), without a graph.
    ///
    /// # Errors
    /// Only those of the tensor operations.
    pub fn logits(&self, features: &Tensor) -> candle_core::Result<Tensor> {
        features.matmul(&self.weight.as_detached_tensor().t()?)?.broadcast_add(&self.bias.as_detached_tensor())
    }

    /// How well the head does on `features` (N, D) with N `labels`; leaves no graph.
    ///
    /// # Errors
    /// As [`Tally::add`].
    pub fn evaluate(&self, features: &Tensor, labels: &[u32]) -> Result<Metrics> {
        let (images, _) = features.dims2()?;
        if images != labels.len() {
            return Err(TrainError::LabelCount { labels: labels.len(), images });
        }
        let mut tally = Tally::default();
        for (chunk, labels) in labels.chunks(CHUNK).enumerate() {
            let rows = features.narrow(0, chunk * CHUNK, labels.len())?.contiguous()?;
            tally.add(&self.logits(&rows)?, labels)?;
        }
        Ok(tally.metrics())
    }
}

/// 24 random bits as a number in [-1, 1).
fn signed_unit(bits: u32) -> f32 {
    (bits >> 8) as f32 * 2f32.powi(-23) - 1.0
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    #[test]
    fn initial_values_fill_the_range_of_a_linear_layer() {
        let head = Head::new(50, 100, 1, &Device::Cpu).unwrap();
        let values = head.weight().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let square: f32 = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
        assert!(values.iter().all(|v| v.abs() <= 0.1));
        assert!((square - 0.01 / 3.0).abs() < 2e-4, "variance {square} of U(±0.1)");
        assert!(head.bias().to_vec1::<f32>().unwrap().iter().all(|v| v.abs() <= 0.1 && *v != 0.0));
    }

    #[test]
    fn seed_decides_the_initial_values() {
        let weight = |seed| Head::new(3, 4, seed, &Device::Cpu).unwrap().weight().to_vec2::<f32>().unwrap();
        assert_eq!(weight(1), weight(1));
        assert_ne!(weight(1), weight(2));
    }

    #[test]
    fn head_is_the_only_thing_that_learns() {
        let head = Head::new(3, 4, 0, &Device::Cpu).unwrap();
        let mut names: Vec<String> = head.var_map().data().lock().unwrap().keys().cloned().collect();
        names.sort();
        assert_eq!(names, ["fc.bias", "fc.weight"]);

        let features = Tensor::ones((2, 4), DType::F32, &Device::Cpu).unwrap();
        let loss = crate::train::loss::CrossEntropy::new(3).loss(&head.forward(&features).unwrap(), &[0, 1]).unwrap();
        let gradients = loss.backward().unwrap();
        let variables = [head.weight().id(), head.bias().id()];
        let tracked: Vec<_> = loss.sorted_nodes().into_iter().filter(|node| node.is_variable()).collect();
        assert!(tracked.len() == 2 && tracked.iter().all(|node| variables.contains(&node.id())));
        assert!(tracked.iter().all(|node| gradients.get(node).is_some()));
    }

    #[test]
    fn copies_do_not_follow_the_original() {
        let head = Head::new(2, 2, 0, &Device::Cpu).unwrap();
        let copy = Head::from_tensors(head.weight(), head.bias()).unwrap();
        let before = copy.weight().to_vec2::<f32>().unwrap();
        head.weight().set(&Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap()).unwrap();
        assert_eq!(copy.weight().to_vec2::<f32>().unwrap(), before);
        assert!(copy.weight().id() != head.weight().id());
    }

    #[test]
    fn evaluation_in_chunks_is_evaluation_at_once() {
        let head = Head::new(2, 1, 5, &Device::Cpu).unwrap();
        let features = Tensor::arange(0f32, 2500.0, &Device::Cpu).unwrap().unsqueeze(1).unwrap();
        let labels = vec![1; 2500];
        let logits = head.forward(&features).unwrap();
        assert_eq!(
            head.evaluate(&features, &labels).unwrap(),
            crate::train::metrics::metrics(&logits, &labels).unwrap()
        );
        assert!(matches!(head.evaluate(&features, &labels[1..]), Err(TrainError::LabelCount { .. })));
    }

    #[test]
    fn a_bias_of_another_width_is_refused() {
        let (weight, bias) =
            (Tensor::zeros((3, 4), DType::F32, &Device::Cpu), Tensor::zeros(2, DType::F32, &Device::Cpu));
        assert!(matches!(
            Head::from_tensors(&weight.unwrap(), &bias.unwrap()),
            Err(TrainError::Shape { what: "biases", .. })
        ));
    }
}
