//! A whole frozen network with its labels: photos in, ranked labels out.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use candle_nn::{Linear, Module};

use crate::architecture::Architecture;
use crate::error::{Error, Result};
use crate::features::FeatureExtractor;
use crate::figure;
use crate::model::Model;
use crate::plan::PlanOptions;
use crate::preprocess::{self, Photo, Preprocessing};
use crate::trunk::Trunk;
use crate::weights;

/// A trunk, its classifier, and what they need to know of photos and labels.
#[derive(Debug, Clone)]
pub struct Classifier {
    architecture: Architecture,
    trunk: Trunk,
    fc: Linear,
    label_names: Vec<String>,
    preprocessing: Preprocessing,
    temperature: f64,
}

/// One label that a photo may have.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Output of the network, from 0.
    pub index: usize,
    /// Name of the class, or `class 3` where nobody named it.
    pub label: String,
    /// Softmax over all classes, of logits divided by the classifier's temperature.
    pub probability: f32,
}

impl Classifier {
    pub(crate) fn new(model: &Model, device: &Device, options: &PlanOptions) -> Result<Classifier> {
        if model.classes == 0 {
            return Err(Error::FeaturesOnly(model.provenance.model.clone()));
        }
        let trunk = model.trunk_with(device, options)?;
        let tensors = weights::tensors(&model.weights)?;
        let classifier = Classifier::with_trunk(model, trunk, &tensors, model.label_names.clone())?;
        Ok(classifier.with_temperature(model.temperature))
    }

    /// The same whose probabilities are those of logits divided by `temperature`, above 0: that of [`Model::temperature`] where the model
    /// made it, else 1.
    pub fn with_temperature(self, temperature: f64) -> Classifier {
        Classifier { temperature, ..self }
    }

    /// A `trunk` that is compiled already, of `model`'s shape and for photos as `model` takes them, under a head of the `fc.weight` (classes, D)
    /// and the `fc.bias` (classes) among `tensors`; `label_names` are those of the classes. Nothing is known of that head's temperature.
    ///
    /// # Errors
    /// If one of the two is missing or of another shape than the trunk's features and the labels ask for, or the trunk's device has no room.
    pub fn with_trunk(
        model: &Model,
        trunk: Trunk,
        tensors: &BTreeMap<String, Tensor>,
        label_names: Vec<String>,
    ) -> Result<Classifier> {
        let place = |name: &str| match tensors.get(name) {
            Some(tensor) => tensor.to_device(trunk.device()),
            None => Err(candle_core::Error::msg(format!("the weights hold no tensor `{name}`"))),
        };
        let (weight, bias) = (place("fc.weight")?, place("fc.bias")?);
        let (classes, width) = (bias.elem_count(), trunk.feature_width());
        if weight.dims() != [classes, width] {
            let found = weight.dims();
            return Err(candle_core::Error::msg(format!(
                "`fc.weight` has shape {found:?}, expected [{classes}, {width}]"
            ))
            .into());
        }
        let fc = Linear::new(weight, Some(bias));
        let (architecture, preprocessing) = (model.architecture, model.preprocessing.clone());
        Ok(Classifier { architecture, trunk, fc, label_names, preprocessing, temperature: 1.0 })
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// (classes, D) on the trunk's device: what each feature counts for each class.
    pub fn class_weights(&self) -> &Tensor {
        self.fc.weight()
    }

    /// The frozen network below the classifier.
    pub fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    /// What happens to a photo before the network sees it.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// (N, C, H, W) → (N, classes), as the network gives them: no temperature divides them.
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.classify(&self.trunk.features(images)?)
    }

    /// (N, C, H, W) maps behind the last stage → (N, D) features, for whoever needs both: the network need not run again.
    ///
    /// # Errors
    /// If these are no maps.
    pub fn pool(&self, maps: &Tensor) -> Result<Tensor> {
        Ok(figure::global_pool(maps, self.architecture.global_pool)?)
    }

    /// (N, D) pooled features → (N, classes).
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn classify(&self, features: &Tensor) -> Result<Tensor> {
        Ok(self.fc.forward(features)?)
    }

    /// The `top` likeliest labels of one photo, likeliest first.
    ///
    /// # Errors
    /// If the photo cannot be read, or as [`predict_photo`](Classifier::predict_photo).
    pub fn predict(&self, path: impl AsRef<Path>, top: usize) -> Result<Vec<Prediction>> {
        self.predict_photo(&preprocess::decode(path.as_ref())?, top)
    }

    /// The `top` likeliest labels of a decoded photo, likeliest first.
    ///
    /// # Errors
    /// If the network takes neither colours nor grey, or the device has no room, and [`Error::NonFiniteOutputs`].
    pub fn predict_photo(&self, photo: &Photo, top: usize) -> Result<Vec<Prediction>> {
        let (side, channels) = (self.preprocessing.crop, self.trunk.in_channels());
        let pixels = self.preprocessing.input(photo, channels)?;
        let image = Tensor::from_vec(pixels, (1, channels, side, side), self.trunk.device())?;
        self.rank(&self.logits(&image)?.squeeze(0)?, top)
    }

    /// The `top` likeliest labels of one image's logits (classes), likeliest first; equal ones in order of index.
    ///
    /// # Errors
    /// [`Error::NonFiniteOutputs`], and if `logits` is not a vector.
    pub fn rank(&self, logits: &Tensor, top: usize) -> Result<Vec<Prediction>> {
        let probabilities: Vec<f32> = candle_nn::ops::softmax(&(logits / self.temperature)?, 0)?.to_vec1()?;
        if probabilities.iter().any(|probability| probability.is_nan()) {
            return Err(Error::NonFiniteOutputs);
        }
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
        let prediction =
            |index: usize| Prediction { index, label: self.label(index), probability: probabilities[index] };
        Ok(order.into_iter().take(top).map(prediction).collect())
    }

    /// Name of an output, or `class 3` where nobody named it.
    pub fn label(&self, index: usize) -> String {
        self.label_names.get(index).cloned().unwrap_or_else(|| format!("class {index}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::GlobalPool;
    use crate::certificate::formula;
    use crate::features::Boundary;
    use crate::initialise::fresh_weights;
    use crate::model::Provenance;

    fn model(classes: usize) -> Model {
        let architecture = Architecture::named("test_resnet").unwrap();
        Model {
            architecture: *architecture,
            classes,
            label_names: Vec::new(),
            synsets: Vec::new(),
            preprocessing: architecture.default_preprocessing(),
            drop_rates: Default::default(),
            temperature: 1.0,
            weights: fresh_weights(architecture, classes, 0, &Device::Cpu).unwrap(),
            provenance: Provenance { model: "test_resnet".into(), ..Provenance::default() },
        }
    }

    #[test]
    fn pooled_maps_are_the_features() {
        let images = Tensor::from_vec(formula::image_batch("pooled", &[2, 3, 64, 64]), (2, 3, 64, 64), &Device::Cpu);
        let images = images.unwrap();
        for (name, global_pool) in GlobalPool::NAMES {
            let architecture = Architecture { global_pool, ..model(3).architecture };
            let weights = fresh_weights(&architecture, 3, 0, &Device::Cpu).unwrap();
            let classifier = Model { architecture, weights, ..model(3) }.classifier(&Device::Cpu).unwrap();
            let maps = classifier.trunk().map_at(&images, Boundary::last(&architecture)).unwrap();
            let (pooled, features) = (classifier.pool(&maps).unwrap(), classifier.trunk().features(&images).unwrap());
            assert_eq!(pooled.dims(), features.dims());
            let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let (pooled, features) = (values(pooled), values(features));
            let largest = features.iter().copied().fold(0.0, f32::max);
            // The mean is summed in another order.
            assert!(pooled.iter().zip(&features).all(|(a, b)| (a - b).abs() <= 1e-6 * largest), "{name}");
            assert!(largest > 0.0);
        }
    }

    #[test]
    fn a_temperature_divides_the_logits_of_probabilities_alone() {
        let image = Tensor::zeros((1, 3, 64, 64), candle_core::DType::F32, &Device::Cpu).unwrap();
        let plain = model(3).classifier(&Device::Cpu).unwrap();
        let warm = Model { temperature: 4.0, ..model(3) }.classifier(&Device::Cpu).unwrap();
        let logits = |classifier: &Classifier| classifier.logits(&image).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(logits(&plain), logits(&warm));
        let logits = Tensor::new(&[4f32, 0.0, 0.0], &Device::Cpu).unwrap();
        let best = |classifier: &Classifier| classifier.rank(&logits, 1).unwrap()[0].probability;
        let expected = |logit: f32| logit.exp() / (logit.exp() + 2.0);
        assert!((best(&plain) - expected(4.0)).abs() < 1e-6 && (best(&warm) - expected(1.0)).abs() < 1e-6);
        assert_eq!(best(&warm.with_temperature(1.0)), best(&plain));
    }

    #[test]
    fn outputs_that_are_no_numbers_are_no_answer() {
        let classifier = model(3).classifier(&Device::Cpu).unwrap();
        for broken in [f32::NAN, f32::INFINITY] {
            let logits = Tensor::new(&[0.0, broken, 1.0], &Device::Cpu).unwrap();
            assert!(matches!(classifier.rank(&logits, 3), Err(Error::NonFiniteOutputs)));
        }
        // One that can never be is as good as any number.
        let logits = Tensor::new(&[0.0, f32::NEG_INFINITY, 1.0], &Device::Cpu).unwrap();
        assert_eq!(classifier.rank(&logits, 3).unwrap()[2].probability, 0.0);
    }

    #[test]
    fn a_classifier_on_a_trunk_needs_its_two_tensors() {
        let model = model(3);
        let trunk = model.trunk(&Device::Cpu).unwrap();
        let mut tensors = weights::tensors(&model.weights).unwrap();
        tensors.remove("fc.bias");
        let error = Classifier::with_trunk(&model, trunk, &tensors, Vec::new()).unwrap_err();
        assert!(error.to_string().starts_with("the weights hold no tensor `fc.bias`"), "{error}");
    }

    #[test]
    fn a_head_on_a_trunk_of_another_width_is_refused() {
        let (model, tensors) = (model(3), weights::tensors(&model(3).weights).unwrap());
        let trunk = Model::fresh("resnet20_cifar", 0).unwrap().trunk(&Device::Cpu).unwrap();
        let error = Classifier::with_trunk(&model, trunk, &tensors, Vec::new()).unwrap_err();
        assert!(error.to_string().starts_with("`fc.weight` has shape [3, 96], expected [3, 64]"), "{error}");
    }

    #[test]
    fn a_model_without_classes_gives_features_but_no_classifier() {
        let image = Tensor::zeros((1, 3, 64, 64), candle_core::DType::F32, &Device::Cpu).unwrap();
        let features = model(0).trunk(&Device::Cpu).unwrap().features(&image).unwrap();
        assert_eq!(features.dims(), [1, 96]);
        let error = model(0).classifier(&Device::Cpu).unwrap_err();
        assert_eq!(error.to_string(), "`test_resnet` has no classifier, only features");
        assert_eq!(model(3).classifier(&Device::Cpu).unwrap().classify(&features).unwrap().dims(), [1, 3]);
    }
}
