//! Fresh weights as torchvision draws them, from a seed.
//!
//! Convolutions: Kaiming normal over the fan out, gain √2; norms: 1 and 0; `fc`: U(±1/√D) for weight and bias, as
//! `torch.nn.Linear`, and so the biases of a squeeze-excite and the kernel of an efficient channel attention. Each tensor
//! draws from a stream of its own, named by seed and parameter, so that what else is drawn never changes it. The numbers
//! are not PyTorch's, their distribution is.

use candle_core::{Device, Result, Tensor};
use candle_nn::VarMap;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

use crate::architecture::Architecture;
use crate::blueprint::{Blueprint, ParameterSpec, Role};
use crate::weights;

/// Every tensor of the network, freshly drawn.
///
/// # Errors
/// If `device` has no room.
pub fn fresh_weights(architecture: &Architecture, classes: usize, seed: u64, device: &Device) -> Result<VarMap> {
    let fresh = |spec: ParameterSpec| {
        let tensor = Tensor::from_vec(fresh_values(&spec, seed), spec.shape.as_slice(), device)?;
        Ok((spec.name, tensor))
    };
    let tensors = Blueprint::of(architecture).parameters(classes).into_iter().map(fresh).collect::<Result<_>>()?;
    weights::into_var_map(tensors, device)
}

fn fresh_values(spec: &ParameterSpec, seed: u64) -> Vec<f32> {
    let count = spec.elements();
    let random = stream(&spec.name, seed);
    match spec.role {
        Role::Convolution => kaiming_normal(&spec.shape, random),
        Role::NormScale | Role::RunningVariance => vec![1.0; count],
        Role::NormShift | Role::RunningMean => vec![0.0; count],
        Role::Dense { inputs } => linear_uniform(count, inputs, random),
    }
}

/// N(0, √(2 / fan out)), fan out = output channels × kernel area; (C', C / groups, K, K).
fn kaiming_normal(shape: &[usize], random: ChaCha8Rng) -> Vec<f32> {
    let fan_out = (shape[0] * shape[2] * shape[3]) as f32;
    let deviation = (2.0 / fan_out).sqrt();
    let normal = StandardNormal.sample_iter(random).map(|value: f32| value * deviation);
    normal.take(shape.iter().product()).collect()
}

/// U(±1/√`inputs`): what `torch.nn.Linear` gives weight and bias alike.
fn linear_uniform(count: usize, inputs: usize, mut random: ChaCha8Rng) -> Vec<f32> {
    let bound = 1.0 / (inputs as f32).sqrt();
    (0..count).map(|_| bound * (2.0 * random.random::<f32>() - 1.0)).collect()
}

/// The random numbers of one tensor.
fn stream(name: &str, seed: u64) -> ChaCha8Rng {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize();
    ChaCha8Rng::from_seed(digest.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;

    fn values(seed: u64, name: &str) -> Vec<f32> {
        let weights = fresh_weights(Architecture::named("resnet20_cifar").unwrap(), 10, seed, &Device::Cpu).unwrap();
        let variables = weights.data().lock().unwrap();
        variables[name].flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn one_seed_gives_one_network() {
        assert_eq!(values(1, "layer3.0.conv1.weight"), values(1, "layer3.0.conv1.weight"));
        assert_ne!(values(1, "layer3.0.conv1.weight"), values(2, "layer3.0.conv1.weight"));
    }

    #[test]
    fn convolutions_have_the_deviation_of_their_fan_out() {
        let weights = values(0, "layer3.1.conv1.weight");
        let variance = weights.iter().map(|w| (w * w) as f64).sum::<f64>() / weights.len() as f64;
        let expected = 2.0 / (64.0 * 9.0);
        assert!((variance / expected - 1.0).abs() < 0.03, "{variance} is not near {expected}");
    }

    #[test]
    fn biases_of_attention_are_bounded_by_their_inputs() {
        let blueprint = Blueprint::of(Architecture::named("seresnet50").unwrap());
        let parameters = blueprint.trunk_parameters();
        let bias = parameters.iter().find(|spec| spec.name == "layer4.0.se.fc2.bias").unwrap();
        let largest = fresh_values(bias, 0).into_iter().fold(0f32, |largest, b| largest.max(b.abs()));
        let bound = 1.0 / 128f32.sqrt();
        assert!(largest <= bound && largest > 0.98 * bound, "{largest}");
    }

    #[test]
    fn classifier_is_bounded_by_its_inputs() {
        let weights = values(0, "fc.weight");
        let largest = weights.iter().fold(0f32, |largest, w| largest.max(w.abs()));
        assert!(largest <= 0.125 && largest > 0.12, "{largest}");
    }
}
