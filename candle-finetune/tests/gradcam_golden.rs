//! Activation maps against Grad-CAM by PyTorch's autograd in f64 (`scripts/golden/golden_gradcam.py`; PyTorch 2.15, timm 1.0.31):
//! with every global pool, on networks of ImageNet's and of CIFAR's kind.

#[path = "../../candle-resnet/tests/device/mod.rs"]
mod device;

use candle_core::{Device, Tensor};
use candle_finetune::Error;
use candle_finetune::explain::activation_maps;
use candle_resnet::architecture::{Architecture, GlobalPool};
use candle_resnet::blueprint::Blueprint;
use candle_resnet::certificate::formula;
use candle_resnet::{Classifier, Model, weights};
use serde::Deserialize;

use self::device::{device, tolerance};

/// Of the largest value of a map, on the CPU. A pixel is a sum of up to 2048 products that cancel, of maps that are themselves within
/// 1e-5 of the reference's (`candle-resnet/tests/stages.rs`); the largest difference measured is 3.7e-6.
const TOLERANCE: f64 = 2e-5;

/// Outputs of the networks.
const CLASSES: usize = 10;

#[derive(Deserialize)]
struct Row {
    model: String,
    input: Vec<usize>,
    output_stride: Option<usize>,
    global_pool: Option<String>,
    classes: Vec<usize>,
    height: usize,
    width: usize,
    maps: Vec<Vec<f64>>,
}

fn rows() -> Vec<Row> {
    include_str!("golden/gradcam.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Row {
    fn architecture(&self) -> Architecture {
        let named = *Architecture::named(&self.model).unwrap();
        Architecture {
            output_stride: self.output_stride.unwrap_or(named.output_stride),
            global_pool: self.global_pool.as_ref().map_or(named.global_pool, |name| GlobalPool::named(name).unwrap()),
            ..named
        }
    }

    fn classifier(&self) -> Classifier {
        let architecture = self.architecture();
        let tensors = Blueprint::of(&architecture).parameters(CLASSES).into_iter().map(|spec| {
            let values = formula::tensor(&spec.name, &spec.shape);
            (spec.name, Tensor::from_vec(values, spec.shape, &Device::Cpu).unwrap())
        });
        let model = Model {
            weights: weights::into_var_map(tensors.collect(), &Device::Cpu).unwrap(),
            architecture,
            classes: CLASSES,
            ..Model::fresh(&self.model, 0).unwrap()
        };
        model.classifier(device()).unwrap()
    }

    fn images(&self) -> Tensor {
        let values = formula::image_batch("input", &self.input);
        Tensor::from_vec(values, self.input.as_slice(), device()).unwrap()
    }
}

#[test]
fn maps_are_those_of_autograd() {
    for row in rows() {
        let found = activation_maps(&row.classifier(), &row.images(), &row.classes).unwrap();
        assert_eq!(found.len(), row.maps.len());
        for (found, expected) in found.iter().zip(&row.maps) {
            assert_eq!((found.width, found.height), (row.width, row.height), "{}", row.model);
            let differences = found.values.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
            let difference = differences.fold(0.0, f64::max);
            assert!(difference <= tolerance(TOLERANCE), "{} {:?}: {difference:.1e}", row.model, row.global_pool);
        }
    }
}

#[test]
fn a_class_that_is_not_there_is_an_error() {
    let row = rows().into_iter().find(|row| row.model == "resnet20_cifar").unwrap();
    let result = activation_maps(&row.classifier(), &row.images(), &[3, CLASSES]);
    assert!(matches!(result, Err(Error::ExplainedClass { class: CLASSES, known: CLASSES })), "{result:?}");
    assert!(activation_maps(&row.classifier(), &row.images(), &[3]).is_err(), "one class for two images");
}
