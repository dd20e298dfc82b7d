//! Parameters and what an optimiser remembers of each: stepped by a rule, taken out and put back.
//!
//! Knows no optimiser.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::Parameter;
use crate::train::elementwise::{self, Memory, Move, Rule};
use crate::train::error::Result;
use crate::train::gradients::Gradients;
use crate::train::state::{check_known, check_shape, named};

/// The last part of a name under which the number of steps is kept.
const STEP: &str = "step";

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
        let mut moves = Vec::new();
        for Slot { parameter, memory, steps } in &mut self.slots {
            if let Some(gradient) = gradients.get(&parameter.name) {
                check_shape(&parameter.name, gradient, parameter.var.dims())?;
                *steps = steps.saturating_add(1);
                moves.push(Move { var: &parameter.var, other: gradient, memory, rule: rule(parameter, *steps) });
            }
        }
        Ok(elementwise::step(moves)?)
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
