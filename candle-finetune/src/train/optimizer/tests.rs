//! Steps by hand; the two forms of a step against each other; state taken out and put back.

use candle_core::{DType, Device};
use candle_resnet::certificate::formula;
use rayon::ThreadPoolBuilder;

use super::*;
use crate::train::device::device;
use crate::train::elementwise::{self, Memory, Move};

/// A variable at 1.
fn parameter(weight_decay: f64, lr_scale: f64) -> Parameter {
    let var = Var::new(&[1f64], &Device::Cpu).unwrap();
    Parameter { name: "x".into(), var, lr_scale, weight_decay }
}

fn sgd(parameters: Vec<Parameter>, momentum: f64, nesterov: bool) -> Sgd {
    Sgd::new(parameters, momentum, nesterov).unwrap()
}

/// Where steps with gradients `slopes` lead.
fn steps(optimizer: &mut dyn Optimizer, parameter: &Parameter, slopes: &[f64], lr: f64) -> f64 {
    for &slope in slopes {
        let gradient = Tensor::new(&[slope], &Device::Cpu).unwrap();
        optimizer.step(&Gradients::from_iter([(parameter.name.clone(), gradient)]), lr).unwrap();
    }
    parameter.var.to_vec1::<f64>().unwrap()[0]
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12, "{found} != {expected}");
}

#[test]
fn sgd_steps_against_the_gradient() {
    let p = parameter(0.0, 1.0);
    close(steps(&mut sgd(vec![p.clone()], 0.0, false), &p, &[2.0, 1.0], 0.1), 1.0 - 0.2 - 0.1);
}

#[test]
fn sgd_momentum_starts_with_the_gradient_itself() {
    let p = parameter(0.0, 1.0);
    // velocities 2, 0.5 · 2 + 1 = 2
    close(steps(&mut sgd(vec![p.clone()], 0.5, false), &p, &[2.0, 1.0], 0.1), 1.0 - 0.2 - 0.2);
}

#[test]
fn nesterov_looks_ahead() {
    let p = parameter(0.0, 1.0);
    // directions 2 + 0.5 · 2 = 3, 1 + 0.5 · 2 = 2
    close(steps(&mut sgd(vec![p.clone()], 0.5, true), &p, &[2.0, 1.0], 0.1), 1.0 - 0.3 - 0.2);
}

#[test]
fn sgd_decay_is_part_of_the_gradient_and_of_the_velocity() {
    let p = parameter(0.5, 1.0);
    // g = 2 + 0.5 · 1 = 2.5, θ = 0.75; g = 1 + 0.375, v = 0.5 · 2.5 + 1.375 = 2.625
    close(steps(&mut sgd(vec![p.clone()], 0.5, false), &p, &[2.0, 1.0], 0.1), 0.75 - 0.2625);
}

#[test]
fn adamw_first_step_is_the_sign_of_the_gradient() {
    let p = parameter(0.5, 1.0);
    let mut adamw = AdamW::new(vec![p.clone()], [0.9, 0.999], 0.0).unwrap();
    // decoupled decay: 1 · (1 - 0.1 · 0.5), then 0.1 along the sign
    close(steps(&mut adamw, &p, &[3.0], 0.1), 0.95 - 0.1);
}

#[test]
fn adamw_second_step_by_hand() {
    let p = parameter(0.0, 1.0);
    let mut adamw = AdamW::new(vec![p.clone()], [0.5, 0.5], 0.25).unwrap();
    // m: 1, 2.5 (÷ 0.75); v: 2, 9 (÷ 0.75); first step 2 / (2 + 0.25)
    let second = (2.5 / 0.75) / ((9.0f64 / 0.75).sqrt() + 0.25);
    close(steps(&mut adamw, &p, &[2.0, 4.0], 0.1), 1.0 - 0.1 * 2.0 / 2.25 - 0.1 * second);
}

#[test]
fn each_parameter_has_its_own_rate() {
    let p = parameter(0.0, 0.1);
    close(steps(&mut sgd(vec![p.clone()], 0.0, false), &p, &[2.0], 0.1), 0.98);
}

#[test]
fn without_a_gradient_nothing_moves() {
    let (p, other) = (parameter(0.5, 1.0), Parameter { name: "other".into(), ..parameter(0.5, 1.0) });
    let mut sgd = sgd(vec![p.clone(), other.clone()], 0.9, true);
    steps(&mut sgd, &p, &[1.0, 1.0], 0.1);
    assert_eq!(other.var.to_vec1::<f64>().unwrap(), [1.0]);
}

#[test]
fn parameters_are_sorted_by_name() {
    let map = VarMap::new();
    for name in ["fc.weight", "a", "fc.bias", "z", "m"] {
        map.get(1, name, candle_nn::Init::Const(0.0), DType::F32, &Device::Cpu).unwrap();
    }
    let names: Vec<String> = parameters(&map, 0.0).into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["a", "fc.bias", "fc.weight", "m", "z"]);
}

/// Two parameters, of 2×3 and 3 numbers.
fn matrix_and_vector(dtype: DType) -> Vec<Parameter> {
    let parameter = |name: &str, shape: &[usize]| {
        let var = Var::ones(shape, dtype, &Device::Cpu).unwrap();
        Parameter { name: name.into(), var, lr_scale: 1.0, weight_decay: 0.1 }
    };
    vec![parameter("fc.weight", &[2, 3]), parameter("fc.bias", &[3])]
}

/// Gradients that differ from step to step and from number to number.
fn gradients(parameters: &[Parameter], step: usize) -> Gradients {
    let gradient = |parameter: &Parameter| {
        let count = parameter.var.elem_count();
        let values: Vec<f64> = (0..count).map(|index| ((step + 1) * (index + 3)) as f64 % 7.0 - 3.0).collect();
        let gradient = Tensor::from_vec(values, parameter.var.shape(), &Device::Cpu).unwrap();
        (parameter.name.clone(), gradient.to_dtype(parameter.var.dtype()).unwrap())
    };
    parameters.iter().map(gradient).collect()
}

fn values(parameters: &[Parameter]) -> Vec<Vec<f64>> {
    let values = |p: &Parameter| p.var.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    parameters.iter().map(values).collect()
}

type Build = fn(Vec<Parameter>) -> Box<dyn Optimizer>;

const BUILD: [Build; 2] = [
    |parameters| Box::new(Sgd::new(parameters, 0.9, true).unwrap()),
    |parameters| Box::new(AdamW::new(parameters, [0.9, 0.99], 1e-8).unwrap()),
];

#[test]
fn a_run_that_goes_on_from_its_state_has_the_same_bits() {
    for dtype in [DType::F32, DType::F64] {
        for build in BUILD {
            let parameters = matrix_and_vector(dtype);
            let mut optimizer = build(parameters.clone());
            (0..3).for_each(|step| optimizer.step(&gradients(&parameters, step), 0.1).unwrap());
            let copy =
                |p: &Parameter| Parameter { var: Var::from_tensor(&p.var.copy().unwrap()).unwrap(), ..p.clone() };
            let restored: Vec<Parameter> = parameters.iter().map(copy).collect();
            let state = optimizer.state().unwrap();
            (3..6).for_each(|step| optimizer.step(&gradients(&parameters, step), 0.1).unwrap());

            let mut optimizer = build(restored.clone());
            optimizer.load_state(&state).unwrap();
            (3..6).for_each(|step| optimizer.step(&gradients(&restored, step), 0.1).unwrap());
            assert_eq!(values(&restored), values(&parameters));
        }
    }
}

#[test]
fn state_has_pytorchs_names() {
    let names = |build: Build| build(matrix_and_vector(DType::F32)).state().unwrap().into_keys().collect::<Vec<_>>();
    let [sgd, adamw] = BUILD.map(names);
    assert_eq!(sgd, ["fc.bias.momentum_buffer", "fc.bias.step", "fc.weight.momentum_buffer", "fc.weight.step"]);
    assert_eq!(adamw[..3], ["fc.bias.exp_avg", "fc.bias.exp_avg_sq", "fc.bias.step"]);
}

#[test]
fn a_state_that_does_not_fit_is_refused_by_name_and_changes_nothing() {
    let parameters = matrix_and_vector(DType::F32);
    let mut optimizer = BUILD[1](parameters.clone());
    optimizer.step(&gradients(&parameters, 0), 0.1).unwrap();
    let good = optimizer.state().unwrap();
    let with = |change: fn(&mut BTreeMap<String, Tensor>)| {
        let mut state = BUILD[1](parameters.clone()).state().unwrap();
        change(&mut state);
        state
    };
    let scalar = || Tensor::new(1f32, &Device::Cpu).unwrap();
    let table = [
        (with(|state| drop(state.remove("fc.bias.exp_avg"))), "there is no tensor `fc.bias.exp_avg`"),
        (with(|state| drop(state.remove("fc.weight.step"))), "there is no tensor `fc.weight.step`"),
        (
            with(|state| drop(state.insert("fc.weight.exp_avg_sq".into(), state["fc.bias.exp_avg"].clone()))),
            "tensor `fc.weight.exp_avg_sq` has shape [3], expected [2, 3]",
        ),
        (
            good.iter()
                .map(|(name, tensor)| (name.clone(), tensor.clone()))
                .chain([("conv1.step".into(), scalar())])
                .collect(),
            "tensor `conv1.step` belongs to nothing that trains",
        ),
    ];
    for (state, expected) in table {
        assert_eq!(optimizer.load_state(&state).unwrap_err().to_string(), expected);
        let kept = optimizer.state().unwrap();
        assert_eq!(
            kept["fc.bias.exp_avg"].to_vec1::<f32>().unwrap(),
            good["fc.bias.exp_avg"].to_vec1::<f32>().unwrap()
        );
        assert_eq!(kept["fc.bias.step"].to_scalar::<u32>().unwrap(), 1);
    }
}

#[test]
fn a_gradient_of_another_shape_names_its_parameter() {
    let wrong = Tensor::ones((3, 2), DType::F32, &Device::Cpu).unwrap();
    let mut optimizer = BUILD[0](matrix_and_vector(DType::F32));
    let error = optimizer.step(&Gradients::from_iter([("fc.weight".into(), wrong)]), 0.1).unwrap_err();
    assert_eq!(error.to_string(), "tensor `fc.weight` has shape [3, 2], expected [2, 3]");
}

/// More numbers than a thread takes at a time.
const LONG: usize = 40_000;

const SGD: SgdRule = SgdRule { momentum: 0.9, nesterov: true, weight_decay: 0.1, lr: 0.03 };
const ADAMW: AdamWRule = AdamWRule { betas: [0.9, 0.99], eps: 1e-8, shares: [0.1, 0.01], weight_decay: 0.1, lr: 0.03 };

fn tensor(name: &str, shape: [usize; 2]) -> Tensor {
    Tensor::from_vec(formula::image_batch(name, &shape), &shape, &Device::Cpu).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// Value and memory after four steps.
fn after_steps<const N: usize>(shape: [usize; 2], rule: impl Rule<N>, one_pass: bool) -> Vec<Vec<u32>> {
    let var = Var::from_tensor(&tensor("value", shape)).unwrap();
    let zeros = var.as_detached_tensor().zeros_like().unwrap();
    let tensors = Memory::Tensors(std::array::from_fn(|_| zeros.clone()));
    let mut memory = if one_pass { Memory::<N>::zeros(&var).unwrap() } else { tensors };
    assert_eq!(one_pass, matches!(memory, Memory::Numbers(_)));
    for step in 0..4 {
        let other = tensor(&format!("gradient {step}"), shape);
        elementwise::step(vec![Move { var: &var, other: &other, memory: &mut memory, rule }]).unwrap();
    }
    let parts = (0..N).map(|part| bits(&memory.part(part, &var).unwrap()));
    std::iter::once(bits(&var)).chain(parts).collect()
}

#[test]
fn one_pass_gives_the_bits_of_tensor_operations() {
    let (shape, sgd) = ([31, 33], SgdRule { nesterov: false, ..SGD });
    assert_eq!(after_steps(shape, SGD, true), after_steps(shape, SGD, false));
    assert_eq!(after_steps(shape, sgd, true), after_steps(shape, sgd, false));
    assert_eq!(after_steps(shape, ADAMW, true), after_steps(shape, ADAMW, false));
}

/// More tensors than a launch on a GPU takes, some of more numbers than a block does.
const SHAPES: [[usize; 2]; 53] = {
    let mut shapes = [[31, 33]; 53];
    (shapes[0], shapes[7], shapes[48], shapes[52]) = ([1, 1], [2, 512], [3, 5], [1, 1025]);
    shapes
};

/// Values and memories after four steps on the device that tests compute on.
fn on_the_device<const N: usize>(rule: impl Rule<N>) -> Vec<Vec<f32>> {
    let place = |name: &str, shape| tensor(name, shape).to_device(device()).unwrap();
    let vars = SHAPES.map(|shape| Var::from_tensor(&place("value", shape)).unwrap());
    let mut memories: Vec<_> = vars.iter().map(|var| Memory::<N>::zeros(var).unwrap()).collect();
    for step in 0..4 {
        let others = SHAPES.map(|shape| place(&format!("gradient {step}"), shape));
        let moves = vars.iter().zip(&others).zip(&mut memories);
        elementwise::step(moves.map(|((var, other), memory)| Move { var, other, memory, rule }).collect()).unwrap();
    }
    let parts = |(var, memory): (&Var, &Memory<N>)| {
        let parts = (0..N).map(|part| memory.part(part, var).unwrap());
        std::iter::once(var.as_detached_tensor()).chain(parts).collect::<Vec<_>>()
    };
    let all = vars.iter().zip(&memories).flat_map(parts);
    all.map(|tensor| tensor.flatten_all().unwrap().to_vec1().unwrap()).collect()
}

#[test]
fn a_device_takes_the_steps_that_the_cpu_takes() {
    fn compare<const N: usize>(rule: impl Rule<N>) {
        let on_the_cpu = SHAPES.into_iter().flat_map(|shape| after_steps(shape, rule, false));
        for (found, expected) in on_the_device(rule).iter().zip(on_the_cpu) {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected.into_iter().map(f32::from_bits)) {
                assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{found} instead of {expected}");
            }
        }
    }
    compare(SGD);
    compare(SgdRule { nesterov: false, ..SGD });
    compare(ADAMW);
}

#[test]
fn threads_change_no_bit() {
    let with_threads = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| after_steps([3, LONG], ADAMW, true))
    };
    assert_eq!(with_threads(1), with_threads(3));
    assert_eq!(with_threads(1), after_steps([3, LONG], ADAMW, false));
}

#[test]
fn a_gradient_may_lie_in_memory_in_any_order() {
    let turned = tensor("gradient", [5, 7]).t().unwrap();
    let after = |gradient: &Tensor| {
        let var = Var::from_tensor(&tensor("value", [7, 5])).unwrap();
        let memory = &mut Memory::zeros(&var).unwrap();
        elementwise::step(vec![Move { var: &var, other: gradient, memory, rule: SGD }]).unwrap();
        bits(&var)
    };
    assert!(!turned.is_contiguous());
    assert_eq!(after(&turned), after(&turned.contiguous().unwrap()));
}
