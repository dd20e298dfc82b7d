//! Parameters and what an optimiser remembers of each: stepped by a rule, taken out and put back.
//!
//! Knows no optimiser. On the CPU in f32 a step is one pass in place over value, gradient and memory, shared out between
//! threads, which no result depends on; elsewhere it is tensor operations.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Tensor, Var, bail};
use rayon::prelude::*;

use super::Parameter;
use super::number::Number;
use crate::train::error::Result;
use crate::train::gradients::Gradients;
use crate::train::state::{check_known, check_shape, named};

/// Numbers that a thread takes at a time: enough that sharing costs nothing beside them.
const CHUNK: usize = 1 << 15;

/// The last part of a name under which the number of steps is kept.
const STEP: &str = "step";

/// How one step moves a parameter of which `N` numbers are remembered for each of its own.
pub(super) trait Rule<const N: usize>: Copy + Sync {
    /// Value and memory after the step.
    fn next<X: Number>(&self, value: &X, gradient: &X, memory: [&X; N]) -> std::result::Result<(X, [X; N]), X::Error>;
}

/// Parameters, each with its memory.
#[derive(Debug)]
pub(super) struct Slots<const N: usize> {
    /// How the parts of a memory are called.
    names: [&'static str; N],
    slots: Vec<Slot<N>>,
}

#[derive(Debug)]
struct Slot<const N: usize> {
    parameter: Parameter,
    memory: Memory<N>,
    /// Steps taken by this parameter.
    steps: u32,
}

/// `N` numbers for each of a parameter's.
#[derive(Debug)]
enum Memory<const N: usize> {
    /// On the CPU in f32.
    Numbers([Vec<f32>; N]),
    Tensors([Tensor; N]),
}

impl<const N: usize> Slots<N> {
    /// Memories of zeros, whose parts are called `names`.
    pub(super) fn new(parameters: Vec<Parameter>, names: [&'static str; N]) -> candle_core::Result<Self> {
        let slot = |parameter: Parameter| Ok(Slot { memory: Memory::zeros(&parameter.var)?, parameter, steps: 0 });
        Ok(Self { names, slots: parameters.into_iter().map(slot).collect::<candle_core::Result<_>>()? })
    }

    /// Moves every parameter that has a gradient by the rule that `rule` gives for it and its steps, this one included.
    pub(super) fn step<R: Rule<N>>(
        &mut self,
        gradients: &Gradients,
        rule: impl Fn(&Parameter, u32) -> R,
    ) -> Result<()> {
        for Slot { parameter, memory, steps } in &mut self.slots {
            if let Some(gradient) = gradients.get(&parameter.name) {
                check_shape(&parameter.name, gradient, parameter.var.dims())?;
                *steps = steps.saturating_add(1);
                memory.step(&parameter.var, gradient, rule(parameter, *steps))?;
            }
        }
        Ok(())
    }

    /// A copy of all that is remembered, as `parameter.part`; steps as `parameter.step`.
    pub(super) fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for slot in &self.slots {
            state.insert(slot.key(STEP), Tensor::new(slot.steps, slot.parameter.var.device())?);
            for (part, name) in self.names.iter().enumerate() {
                state.insert(slot.key(name), slot.memory.part(part, &slot.parameter.var)?);
            }
        }
        Ok(state)
    }

    /// Goes on from what [`state`](Slots::state) gave; changes nothing if it does not fit.
    pub(super) fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let restored = |slot: &Slot<N>| slot.restored(&self.names, state);
        let slots = self.slots.iter().map(restored).collect::<Result<Vec<_>>>()?;
        let parts = self.names.into_iter().chain([STEP]);
        let keys = parts.flat_map(|part| slots.iter().map(move |slot| slot.key(part)));
        check_known(state, &keys.collect())?;
        self.slots = slots;
        Ok(())
    }
}

impl<const N: usize> Slot<N> {
    fn key(&self, part: &str) -> String {
        format!("{}.{part}", self.parameter.name)
    }

    /// The same parameter with the memory of `state`.
    fn restored(&self, names: &[&str; N], state: &BTreeMap<String, Tensor>) -> Result<Self> {
        let var = &self.parameter.var;
        let part = |name: &&str| named(state, &self.key(name), var.dims());
        let parts = names.iter().map(part).collect::<Result<Vec<_>>>()?;
        let steps = named(state, &self.key(STEP), &[])?.to_dtype(DType::U32)?.to_scalar()?;
        Ok(Slot { parameter: self.parameter.clone(), memory: Memory::of(var, &parts)?, steps })
    }
}

impl<const N: usize> Memory<N> {
    fn zeros(var: &Var) -> candle_core::Result<Self> {
        if in_one_pass(var) {
            return Ok(Memory::Numbers(std::array::from_fn(|_| vec![0.0; var.elem_count()])));
        }
        let zeros = var.as_detached_tensor().zeros_like()?;
        Ok(Memory::Tensors(std::array::from_fn(|_| zeros.clone())))
    }

    /// With these `N` parts, each of the variable's shape.
    fn of(var: &Var, parts: &[&Tensor]) -> candle_core::Result<Self> {
        let fitting = |part: &&Tensor| part.to_dtype(var.dtype())?.to_device(var.device());
        let parts = parts.iter().map(fitting).collect::<candle_core::Result<Vec<_>>>()?;
        if !in_one_pass(var) {
            return Ok(Memory::Tensors(std::array::from_fn(|part| parts[part].clone())));
        }
        let numbers =
            parts.iter().map(|part| part.flatten_all()?.to_vec1()).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Memory::Numbers(std::array::from_fn(|part| numbers[part].clone())))
    }

    /// A copy of one part, of the variable's shape.
    fn part(&self, index: usize, var: &Var) -> candle_core::Result<Tensor> {
        match self {
            Memory::Numbers(numbers) => Tensor::from_vec(numbers[index].clone(), var.shape(), var.device()),
            Memory::Tensors(tensors) => Ok(tensors[index].clone()), // a step makes new ones
        }
    }

    fn step(&mut self, var: &Var, gradient: &Tensor, rule: impl Rule<N>) -> candle_core::Result<()> {
        match self {
            Memory::Numbers(memory) => {
                var.inplace_op2(&gradient.contiguous()?, &OnePass { memory: RefCell::new(memory), rule })
            }
            Memory::Tensors(memory) => {
                let (value, next) = rule.next(&var.as_detached_tensor(), gradient, memory.each_ref())?;
                *memory = next;
                var.set(&value)
            }
        }
    }
}

/// Whether a step on `var` is one pass over its numbers.
fn in_one_pass(var: &Var) -> bool {
    var.device().is_cpu() && var.dtype() == DType::F32
}

/// A rule applied to each number of a variable and of its gradient.
struct OnePass<'a, R, const N: usize> {
    memory: RefCell<&'a mut [Vec<f32>; N]>,
    rule: R,
}

impl<R: Rule<N>, const N: usize> InplaceOp2 for OnePass<'_, R, N> {
    fn name(&self) -> &'static str {
        "optimizer-step"
    }

    fn cpu_fwd(
        &self,
        value: &mut CpuStorage,
        value_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<()> {
        let gradient = &gradient.as_slice::<f32>()?[contiguous(gradient_layout)?];
        let CpuStorage::F32(value) = value else {
            bail!("a parameter in f32 was expected");
        };
        let value = &mut value[contiguous(value_layout)?];
        let mut memory = self.memory.borrow_mut();
        let mut memories = memory.each_mut().map(|part| part.chunks_mut(CHUNK));
        let chunks = value.chunks_mut(CHUNK).zip(gradient.chunks(CHUNK)).map(|(value, gradient)| Chunk {
            value,
            gradient,
            memory: memories.each_mut().map(|chunks| chunks.next().unwrap_or_default()),
        });
        let (chunks, rule) = (chunks.collect::<Vec<_>>(), self.rule);
        chunks.into_par_iter().for_each(|chunk| chunk.step(rule));
        Ok(())
    }
}

fn contiguous(layout: &Layout) -> candle_core::Result<Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => bail!("a contiguous tensor was expected"),
    }
}

/// What one thread takes at a time: as many numbers of each.
struct Chunk<'a, const N: usize> {
    value: &'a mut [f32],
    gradient: &'a [f32],
    memory: [&'a mut [f32]; N],
}

impl<const N: usize> Chunk<'_, N> {
    fn step(self, rule: impl Rule<N>) {
        let count = self.value.len();
        let mut memory = self.memory.map(|part| &mut part[..count]); // so the compiler sees that no index is out of bounds
        for (index, (value, gradient)) in self.value.iter_mut().zip(self.gradient).enumerate() {
            let Ok((next, remembered)) = rule.next(value, gradient, memory.each_ref().map(|part| &part[index]));
            *value = next;
            memory.iter_mut().zip(remembered).for_each(|(part, number)| part[index] = number);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_resnet::certificate::formula;
    use rayon::ThreadPoolBuilder;

    use super::super::{AdamWRule, SgdRule};
    use super::*;

    const SGD: SgdRule = SgdRule { momentum: 0.9, nesterov: true, weight_decay: 0.1, lr: 0.03 };
    const ADAMW: AdamWRule =
        AdamWRule { betas: [0.9, 0.99], eps: 1e-8, shares: [0.1, 0.01], weight_decay: 0.1, lr: 0.03 };

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
            memory.step(&var, &tensor(&format!("gradient {step}"), shape), rule).unwrap();
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

    #[test]
    fn threads_change_no_bit() {
        let with_threads = |threads| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| after_steps([3, CHUNK + 5], ADAMW, true))
        };
        assert_eq!(with_threads(1), with_threads(3));
        assert_eq!(with_threads(1), after_steps([3, CHUNK + 5], ADAMW, false));
    }

    #[test]
    fn a_gradient_may_lie_in_memory_in_any_order() {
        let (turned, straight) = (tensor("gradient", [5, 7]).t().unwrap(), tensor("gradient", [5, 7]).t().unwrap());
        let after = |gradient: &Tensor| {
            let var = Var::from_tensor(&tensor("value", [7, 5])).unwrap();
            Memory::zeros(&var).unwrap().step(&var, gradient, SGD).unwrap();
            bits(&var)
        };
        assert!(!turned.is_contiguous());
        assert_eq!(after(&turned), after(&straight.contiguous().unwrap()));
    }
}
