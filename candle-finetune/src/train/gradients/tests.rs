//! Sums, norms and what is clipped, by hand; many at once on a device.

use candle_core::Device;
use candle_nn::Init;
use rayon::ThreadPoolBuilder;

use super::*;
use crate::train::device::device;

fn gradients<const N: usize>(named: [(&str, &[f32]); N]) -> Gradients {
    let tensor = |values| Tensor::new(values, &Device::Cpu).unwrap();
    named.into_iter().map(|(name, values)| (name.into(), tensor(values))).collect()
}

fn values(gradients: &Gradients) -> Vec<(&str, Vec<f32>)> {
    gradients.iter().map(|(name, gradient)| (name, gradient.to_vec1().unwrap())).collect()
}

#[test]
fn gradients_of_a_map_have_its_names_and_leave_out_what_the_loss_does_not_see() {
    let map = VarMap::new();
    let variable = |name| map.get(1, name, Init::Const(3.0), DType::F32, &Device::Cpu).unwrap();
    let [a, b, _] = ["a", "b", "unseen"].map(variable);
    let loss = (a.sqr().unwrap() + (b * 5.0).unwrap()).unwrap();
    let gradients = Gradients::of(&loss.backward().unwrap(), &map);
    assert_eq!(values(&gradients), [("a", vec![6.0]), ("b", vec![5.0])]);
}

#[test]
fn parts_of_a_batch_add_up() {
    let mut sum = gradients([("a", &[1.0, 2.0]), ("b", &[3.0])]);
    sum.add(&gradients([("a", &[10.0, 20.0]), ("c", &[4.0])])).unwrap();
    sum.scale(0.5).unwrap();
    assert_eq!(values(&sum), [("a", vec![5.5, 11.0]), ("b", vec![1.5]), ("c", vec![2.0])]);
    let error = sum.add(&gradients([("a", &[1.0])])).unwrap_err();
    assert_eq!(error.to_string(), "tensor `a` has shape [1], expected [2]");
}

#[test]
fn a_norm_below_the_highest_changes_nothing() {
    let mut clipped = gradients([("a", &[3.0]), ("b", &[4.0])]);
    assert_eq!(clipped.clip_norm(5.1).unwrap(), 5.0);
    assert_eq!(values(&clipped), [("a", vec![3.0]), ("b", vec![4.0])]);
}

#[test]
fn a_gradient_that_is_not_finite_is_named_and_nothing_is_scaled() {
    for broken in [f32::NAN, f32::INFINITY] {
        let mut clipped = gradients([("a", &[3.0]), ("b", &[4.0, broken])]);
        let error = clipped.clip_norm(1.0).unwrap_err();
        assert_eq!(error.to_string(), "the gradient of `b` is not finite");
        assert_eq!(values(&clipped)[0], ("a", vec![3.0]));
    }
}

#[test]
fn unscaled_gradients_are_divided_and_told_where_they_are_not_finite() {
    let mut scaled = gradients([("a", &[3.0, -8.0]), ("b", &[4.0])]);
    assert!(scaled.unscale(4.0).unwrap());
    assert_eq!(values(&scaled), [("a", vec![0.75, -2.0]), ("b", vec![1.0])]);
    for broken in [f32::NAN, f32::INFINITY] {
        assert!(!gradients([("a", &[3.0]), ("b", &[4.0, broken])]).unscale(4.0).unwrap());
    }
}

#[test]
fn norms_are_summed_in_f64_with_any_number_of_threads() {
    // In f32 the square of 1e30 is infinite.
    assert_eq!(gradients([("a", &[1e30, 0.0])]).norm().unwrap(), f64::from(1e30f32));
    let values: Vec<f32> = (1..100_000).map(|index| 1.0 / index as f32).collect();
    let exact = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    let gradients = gradients([("a", &values)]);
    let with_threads = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| gradients.norm().unwrap())
    };
    assert_eq!(with_threads(1), with_threads(3));
    assert!((with_threads(1) - exact).abs() < 1e-12);
}

/// More tensors than a launch on a GPU takes, some of more numbers than a block does.
fn on_the_device(broken: Option<f32>) -> Gradients {
    let values = |tensor: usize| {
        let length = [1, 1023, 1024, 1025, 2, 5000][tensor % 6];
        let mut values: Vec<f32> = (0..length).map(|index| ((tensor + index) % 7) as f32 - 3.0).collect();
        if let (77, Some(broken)) = (tensor, broken) {
            values[4999] = broken;
        }
        Tensor::new(values, device()).unwrap()
    };
    (0..100).map(|tensor| (format!("{tensor:02}"), values(tensor))).collect()
}

#[test]
fn a_device_sums_the_squares_of_many_gradients_and_names_the_one_that_is_not_finite() {
    let gradients = on_the_device(None);
    let squares = |(_, gradient): (&str, &Tensor)| -> f64 {
        gradient.to_vec1::<f32>().unwrap().into_iter().map(|value| f64::from(value).powi(2)).sum()
    };
    let expected = gradients.iter().map(squares).sum::<f64>().sqrt();
    let relative = if device().is_metal() { 1e-6 } else { 0.0 };
    assert!((gradients.norm().unwrap() - expected).abs() <= relative * expected);
    let error = on_the_device(Some(f32::NAN)).norm().unwrap_err();
    assert_eq!(error.to_string(), "the gradient of `77` is not finite");
}

#[test]
fn a_device_divides_many_gradients_and_tells_where_one_is_not_finite() {
    let (plain, mut scaled) = (on_the_device(None), on_the_device(None));
    assert!(scaled.unscale(4.0).unwrap());
    for ((name, whole), (_, quarter)) in plain.iter().zip(scaled.iter()) {
        let expected: Vec<f32> = whole.to_vec1::<f32>().unwrap().into_iter().map(|value| value / 4.0).collect();
        assert_eq!(quarter.to_vec1::<f32>().unwrap(), expected, "{name}");
    }
    assert!(!on_the_device(Some(f32::INFINITY)).unscale(4.0).unwrap());
}

#[test]
fn other_kinds_of_numbers_have_the_same_norm() {
    let plain = gradients([("a", &[3.0, 0.0, 4.0])]);
    for dtype in [DType::F64, DType::BF16] {
        let gradient = plain.get("a").unwrap().to_dtype(dtype).unwrap();
        assert_eq!(Gradients::from_iter([("a".into(), gradient)]).norm().unwrap(), 5.0);
    }
}
