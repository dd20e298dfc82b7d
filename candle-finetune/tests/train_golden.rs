//! Head-only trajectories of PyTorch 2.15 (`scripts/golden/golden_train.py`, case `head`): every loss and the final head.

mod described;
#[path = "../../candle-resnet/tests/device/mod.rs"]
mod device;

use candle_core::Tensor;
use candle_finetune::train::loss::CrossEntropy;
use candle_finetune::train::optimizer::parameters;
use candle_finetune::train::{Gradients, Head};
use candle_resnet::certificate::formula;
use serde::Deserialize;

use self::described::Described;
use self::device::{device, tolerance};

/// Relative, on the CPU; PyTorch and candle sum f32 in different orders.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Golden {
    optimizer: Described,
    label_smoothing: f64,
    class_weights: Option<Vec<f64>>,
    batch: usize,
    features: usize,
    classes: usize,
    losses: Vec<f64>,
    weight_head: Vec<f64>,
    bias: Vec<f64>,
    weight_l2: f64,
}

impl Golden {
    fn loss(&self) -> CrossEntropy {
        let plain = CrossEntropy::new(self.classes).with_smoothing(self.label_smoothing);
        self.class_weights.iter().fold(plain, |loss, weights| loss.with_weights(weights.clone()))
    }

    fn initial_head(&self) -> Head {
        let filled =
            |name: &str, shape: &[usize]| Tensor::from_vec(formula::tensor(name, shape), shape, device()).unwrap();
        let weight = filled("head.weight", &[self.classes, self.features]);
        Head::from_tensors(&weight, &filled("head.bias", &[self.classes])).unwrap()
    }

    /// Features and labels of each step.
    fn batches(&self) -> Vec<(Tensor, Vec<u32>)> {
        let steps = self.losses.len();
        let values = formula::image_batch("head.features", &[steps, self.batch, self.features]);
        let labels = formula::labels("head.labels", steps * self.batch, self.classes);
        let batch = |(values, labels): (&[f32], &[u32])| {
            let shape = (self.batch, self.features);
            (Tensor::from_slice(values, shape, device()).unwrap(), labels.to_vec())
        };
        values.chunks(self.batch * self.features).zip(labels.chunks(self.batch)).map(batch).collect()
    }

    /// Trains as PyTorch did; gives the losses and leaves `head` trained.
    fn train(&self, head: &Head) -> Vec<f64> {
        let parameters = parameters(head.var_map(), self.optimizer.weight_decay());
        let mut optimizer = self.optimizer.settings().build(parameters).unwrap();
        let (loss, lr) = (self.loss(), self.optimizer.lr());
        let mut step = |(features, labels): (Tensor, Vec<u32>)| {
            let loss = loss.loss(&head.forward(&features).unwrap(), &labels).unwrap();
            let gradients = Gradients::of(&loss.backward().unwrap(), head.var_map());
            optimizer.step(&gradients, lr).unwrap();
            f64::from(loss.to_scalar::<f32>().unwrap())
        };
        self.batches().into_iter().map(&mut step).collect()
    }
}

fn rows() -> Vec<Golden> {
    let lines = include_str!("golden/training.jsonl").lines();
    let heads = lines.filter(|line| line.contains("\"case\": \"head\""));
    heads.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn assert_close(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs() / expected.abs();
        assert!(difference < tolerance(TOLERANCE), "{what}, value {index}: {found} instead of {expected}");
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

#[test]
fn head_trajectories_are_those_of_pytorch() {
    let rows = rows();
    assert_eq!(rows.len(), 6);
    for golden in rows {
        let (head, optimizer) = (golden.initial_head(), golden.optimizer.to_string());
        assert_close(&optimizer, &golden.train(&head), &golden.losses);
        let weight = values(head.weight());
        assert_close(&optimizer, &weight[..golden.weight_head.len()], &golden.weight_head);
        assert_close(&optimizer, &values(head.bias()), &golden.bias);
        let length = weight.iter().map(|w| w * w).sum::<f64>().sqrt();
        assert_close(&optimizer, &[length], &[golden.weight_l2]);
    }
}

/// 2²⁴ times the values that `scripts/golden/formula.py` prints, which are multiples of 2⁻²⁴ or rounded to f32.
#[test]
fn formula_gives_the_values_of_its_python_original() {
    let scaled = |values: &[f32]| -> Vec<f64> { values.iter().map(|&v| f64::from(v) * f64::from(1 << 24)).collect() };
    let table = [
        ("labels", formula::unit("head.labels", 4), [12238156.0, 16052111.0]),
        ("weight", formula::tensor("fc.weight", &[2, 3]), [-14059978.0, 14499038.0]),
        ("convolution", formula::tensor("conv1.weight", &[2, 3, 1, 1]), [-6199745.5, 22031206.0]),
        ("variance", formula::tensor("bn1.running_var", &[2]), [19164740.0, 21588140.0]),
        ("norm", formula::tensor("bn1.weight", &[2]), [7215914.0, 11109948.0]),
        ("bias", formula::tensor("fc.bias", &[2]), [-74989.8046875, -64653.40234375]),
        ("image", formula::image_batch("input", &[2]), [-26989956.0, 10224732.0]),
    ];
    assert_eq!(formula::fnv1a64("head.weight"), 0xd2ce_a444_74c6_e4f3);
    for (what, found, expected) in table {
        assert_eq!(scaled(&found[found.len() - 2..]), expected, "{what}");
    }
}
