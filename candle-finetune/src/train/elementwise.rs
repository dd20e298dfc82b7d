//! A formula applied to every number of a variable: in one pass in place where that is possible, else by tensor operations.
//!
//! On the CPU in f32 it is one pass over the variable, another tensor and what is remembered, shared out between threads, on
//! which no result depends; in f32 both ways round alike. On NVIDIA GPUs in f32 it is one pass of a kernel over all variables. Knows no formula.

#[cfg(feature = "cuda")]
pub(super) mod cuda;
mod number;

use std::cell::RefCell;
use std::ops::Range;

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;

#[cfg(feature = "cuda")]
pub(super) use self::cuda::Kernel;
pub(super) use self::number::Number;

/// Numbers that a thread takes at a time: enough that sharing costs nothing beside them.
const CHUNK: usize = 1 << 15;

/// How a number moves, given another and `N` that are remembered of it.
pub(super) trait Rule<const N: usize>: Copy + Sync {
    /// Value and memory after the step.
    fn next<X: Number>(&self, value: &X, other: &X, memory: [&X; N]) -> std::result::Result<(X, [X; N]), X::Error>;

    /// The same as a kernel for NVIDIA GPUs.
    #[cfg(feature = "cuda")]
    fn kernel(&self) -> Kernel;
}

/// `N` numbers for each of a variable's.
#[derive(Debug)]
pub(super) enum Memory<const N: usize> {
    /// On the CPU in f32.
    Numbers([Vec<f32>; N]),
    Tensors([Tensor; N]),
}

impl<const N: usize> Memory<N> {
    /// All zero.
    pub(super) fn zeros(var: &Var) -> Result<Self> {
        if in_one_pass(var) {
            return Ok(Memory::Numbers(std::array::from_fn(|_| vec![0.0; var.elem_count()])));
        }
        Ok(Memory::Tensors(tensors(|_| var.as_detached_tensor().zeros_like())?))
    }

    /// With these `N` parts, each of the variable's shape.
    pub(super) fn of(var: &Var, parts: &[&Tensor]) -> Result<Self> {
        let fitting = |part: &&Tensor| part.to_dtype(var.dtype())?.to_device(var.device());
        let parts = parts.iter().map(fitting).collect::<Result<Vec<_>>>()?;
        if !in_one_pass(var) {
            return Ok(Memory::Tensors(tensors(|part| parts[part].copy())?));
        }
        let numbers = parts.iter().map(|part| part.flatten_all()?.to_vec1()).collect::<Result<Vec<_>>>()?;
        Ok(Memory::Numbers(std::array::from_fn(|part| numbers[part].clone())))
    }

    /// A copy of one part, of the variable's shape.
    pub(super) fn part(&self, index: usize, var: &Var) -> Result<Tensor> {
        match self {
            Memory::Numbers(numbers) => Tensor::from_vec(numbers[index].clone(), var.shape(), var.device()),
            Memory::Tensors(tensors) => tensors[index].copy(),
        }
    }

    /// Moves every number of `var` by `rule`, given that of `other`, of the same shape.
    fn step(&mut self, var: &Var, other: &Tensor, rule: impl Rule<N>) -> Result<()> {
        match self {
            Memory::Numbers(memory) => {
                var.inplace_op2(&other.contiguous()?, &OnePass { memory: RefCell::new(memory), rule })
            }
            Memory::Tensors(memory) => {
                let (value, next) = rule.next(&var.as_detached_tensor(), other, memory.each_ref())?;
                *memory = next;
                var.set(&value)
            }
        }
    }
}

/// A variable that a rule moves, given another tensor of its shape.
pub(super) struct Move<'a, R, const N: usize> {
    pub(super) var: &'a Var,
    pub(super) other: &'a Tensor,
    pub(super) memory: &'a mut Memory<N>,
    pub(super) rule: R,
}

/// Moves every number of the variables.
pub(super) fn step<R: Rule<N>, const N: usize>(moves: Vec<Move<'_, R, N>>) -> Result<()> {
    #[cfg(feature = "cuda")]
    let moves = cuda::step(moves)?;
    moves.into_iter().try_for_each(|Move { var, other, memory, rule }| memory.step(var, other, rule))
}

/// Of each of `N` parts its own.
fn tensors<const N: usize>(part: impl FnMut(usize) -> Result<Tensor>) -> Result<[Tensor; N]> {
    let parts = (0..N).map(part).collect::<Result<Vec<_>>>()?;
    parts.try_into().map_err(|_| candle_core::Error::msg("another number of parts"))
}

/// Whether a step on `var` is one pass over its numbers on the CPU.
fn in_one_pass(var: &Var) -> bool {
    var.device().is_cpu() && var.dtype() == DType::F32
}

/// A rule applied to each number of a variable and of another tensor.
struct OnePass<'a, R, const N: usize> {
    memory: RefCell<&'a mut [Vec<f32>; N]>,
    rule: R,
}

impl<R: Rule<N>, const N: usize> InplaceOp2 for OnePass<'_, R, N> {
    fn name(&self) -> &'static str {
        "elementwise"
    }

    fn cpu_fwd(
        &self,
        value: &mut CpuStorage,
        value_layout: &Layout,
        other: &CpuStorage,
        other_layout: &Layout,
    ) -> Result<()> {
        let other = &other.as_slice::<f32>()?[contiguous(other_layout)?];
        let CpuStorage::F32(value) = value else {
            bail!("a variable in f32 was expected");
        };
        let value = &mut value[contiguous(value_layout)?];
        let mut memory = self.memory.borrow_mut();
        let mut memories = memory.each_mut().map(|part| part.chunks_mut(CHUNK));
        let chunks = value.chunks_mut(CHUNK).zip(other.chunks(CHUNK)).map(|(value, other)| Chunk {
            value,
            other,
            memory: memories.each_mut().map(|chunks| chunks.next().unwrap_or_default()),
        });
        let (chunks, rule) = (chunks.collect::<Vec<_>>(), self.rule);
        chunks.into_par_iter().for_each(|chunk| chunk.step(rule));
        Ok(())
    }
}

fn contiguous(layout: &Layout) -> Result<Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => bail!("a contiguous tensor was expected"),
    }
}

/// What one thread takes at a time: as many numbers of each.
struct Chunk<'a, const N: usize> {
    value: &'a mut [f32],
    other: &'a [f32],
    memory: [&'a mut [f32]; N],
}

impl<const N: usize> Chunk<'_, N> {
    fn step(self, rule: impl Rule<N>) {
        let count = self.value.len();
        let mut memory = self.memory.map(|part| &mut part[..count]); // so the compiler sees that no index is out of bounds
        for (index, (value, other)) in self.value.iter_mut().zip(self.other).enumerate() {
            let Ok((next, remembered)) = rule.next(value, other, memory.each_ref().map(|part| &part[index]));
            *value = next;
            memory.iter_mut().zip(remembered).for_each(|(part, number)| part[index] = number);
        }
    }
}
