//! What is frozen gets no gradient and keeps its bits.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use candle_finetune::augment::Augmentation;
use candle_finetune::images::ImageError;
use candle_finetune::train::Head;
use candle_finetune::train::loss::CrossEntropy;
use candle_finetune::{LabelledImages, Settings, Splits, fine_tune};
use candle_nn::VarBuilder;
use candle_resnet::catalogue::Catalogue;
use candle_resnet::hub::{Hub, HubSettings};
use candle_resnet::model::{Loader, Model, ModelRequest, WeightsChoice};
use candle_resnet::network::Network;
use candle_resnet::preprocess::Photo;
use candle_resnet::{FeatureExtractor, weights};

const LABELS: [u32; 4] = [0, 1, 2, 0];

fn model(name: &str) -> Model {
    let hub = Hub::new(HubSettings::from_lookup(|_| None)).unwrap();
    let request = ModelRequest { name: name.into(), weights: WeightsChoice::Fresh { seed: 5 }, in_channels: None };
    Loader { hub: &hub, catalogue: &Catalogue::built_in(), progress: &() }.load(&request).unwrap()
}

fn images() -> Tensor {
    let values: Vec<f32> = (0..4 * 3 * 32 * 32).map(|index| ((index * 37 % 101) as f32) / 50.0 - 1.0).collect();
    Tensor::from_vec(values, (4, 3, 32, 32), &Device::Cpu).unwrap()
}

fn loss(head: &Head, features: &Tensor) -> Tensor {
    CrossEntropy::new(3).loss(&head.forward(features).unwrap(), &LABELS).unwrap()
}

/// Names of the model's variables that a backward pass reaches.
fn reached(model: &Model, loss: &Tensor) -> Vec<String> {
    let gradients = loss.backward().unwrap();
    let variables = model.weights.data().lock().unwrap();
    let mut names: Vec<String> = variables
        .iter()
        .filter(|(_, variable)| gradients.get(variable).is_some())
        .map(|(name, _)| name.clone())
        .collect();
    names.sort();
    names
}

#[test]
fn gradients_exist_for_the_new_head_and_nothing_else() {
    let model = model("resnet20_cifar");
    let trunk = model.trunk(&Device::Cpu).unwrap();
    let features = trunk.features(&images()).unwrap();
    assert!(!features.track_op() && !features.is_variable(), "features are tracked");
    let head = Head::new(3, trunk.feature_width(), 1, &Device::Cpu).unwrap();
    let loss = loss(&head, &features);
    assert_eq!(reached(&model, &loss), [""; 0]);

    let gradients = loss.backward().unwrap();
    let variables = head.var_map().data().lock().unwrap();
    let mut names: Vec<&String> = variables.keys().collect();
    names.sort();
    assert_eq!(names, ["fc.bias", "fc.weight"]);
    for (name, variable) in variables.iter() {
        let gradient = gradients.get(variable).unwrap_or_else(|| panic!("`{name}` has no gradient"));
        assert_eq!(gradient.dims(), variable.dims(), "{name}");
        let largest: f32 = gradient.abs().unwrap().max_all().unwrap().to_scalar().unwrap();
        assert!(largest > 0.0, "the gradient of `{name}` is 0");
    }
}

/// Shows that the test above could fail.
#[test]
fn the_trainable_network_would_be_reached_by_gradients() {
    let model = model("resnet20_cifar");
    let variables = VarBuilder::from_varmap(&model.weights, candle_core::DType::F32, &Device::Cpu);
    let network = Network::new(&model.architecture, model.classes, variables).unwrap();
    let head = Head::new(3, 64, 1, &Device::Cpu).unwrap();
    let reached = reached(&model, &loss(&head, &network.features(&images()).unwrap()));
    assert!(reached.contains(&"conv1.weight".to_string()), "{reached:?}");
    assert!(!reached.contains(&"fc.weight".to_string()), "the old head takes no part: {reached:?}");
}

/// Pictures of three shades, one for each class.
struct Shades;

impl LabelledImages for Shades {
    fn len(&self) -> usize {
        12
    }

    fn label(&self, index: usize) -> usize {
        index % 3
    }

    fn photo(&self, index: usize) -> Result<Photo, ImageError> {
        let value = 20 + 90 * (index % 3) + index;
        Photo::from_rgb8(32, 32, vec![value as u8; 32 * 32 * 3]).ok_or_else(|| "wrong size".into())
    }

    fn name(&self, index: usize) -> String {
        format!("shade {index}")
    }
}

fn bits(model: &Model) -> BTreeMap<String, Vec<u32>> {
    let bits = |tensor: Tensor| -> Vec<u32> {
        tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    };
    weights::tensors(&model.weights).unwrap().into_iter().map(|(name, tensor)| (name, bits(tensor))).collect()
}

#[test]
fn fine_tuning_leaves_every_pretrained_tensor_bit_for_bit() {
    let model = model("resnet20_cifar");
    let before = bits(&model);
    let classes = ["dark", "grey", "light"].map(String::from).to_vec();
    let splits = Splits { classes, train: &Shades, val: None, test: Some(&Shades) };
    let augmentation = Some(Augmentation::mirror());
    let settings = Settings { val_fraction: 0.25, augmentation, ..Settings::default() };
    let trunk = model.trunk(&Device::Cpu).unwrap();
    let tuned = fine_tune(&trunk, &model.preprocessing, &splits, &settings, &mut ()).unwrap();
    assert_eq!(tuned.test.unwrap().top1, 1.0, "something was learned");
    assert_eq!(bits(&model), before);
}
