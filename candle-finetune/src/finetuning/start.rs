//! What a tail starts from: a head, and which images train.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{Rates, Validation};
use crate::error::Result;
use crate::train::state::present;
use crate::train::{EpochRecord, Head};

/// What a tail starts from.
pub(super) struct Start {
    pub(super) head: Head,
    /// How the head was fitted; nothing where it was drawn.
    pub(super) fitted: Option<Fitted>,
    /// Index of each training image that counts.
    pub(super) kept: Vec<usize>,
    /// Those of them that are held out.
    pub(super) held_out: Vec<usize>,
}

/// How a head was fitted on features, and what it was measured to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Fitted {
    pub(super) rates: Rates,
    pub(super) history: Vec<EpochRecord>,
    pub(super) val: Option<Validation>,
    /// Whether someone stopped it.
    pub(super) interrupted: bool,
}

impl Start {
    /// Index of each training image that is trained on.
    pub(super) fn fit(&self) -> Vec<usize> {
        let trained_on = |index: &&usize| self.held_out.binary_search(index).is_err();
        self.kept.iter().filter(trained_on).copied().collect()
    }

    /// All but how the head was fitted.
    pub(super) fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = candle_resnet::weights::tensors(self.head.var_map())?;
        for (name, indices) in [("kept", &self.kept), ("held-out", &self.held_out)] {
            let indices: Vec<u32> = indices.iter().map(|&index| index as u32).collect();
            let count = indices.len();
            tensors.insert(name.into(), Tensor::from_vec(indices, count, &Device::Cpu)?);
        }
        Ok(tensors)
    }

    /// From what [`tensors`](Start::tensors) gave.
    ///
    /// # Errors
    /// If one is missing or of another kind.
    pub(super) fn from_tensors(
        tensors: &BTreeMap<String, Tensor>,
        fitted: Option<Fitted>,
        device: &Device,
    ) -> Result<Start> {
        let tensor = |name| present(tensors, name);
        let indices = |name| -> Result<Vec<usize>> {
            Ok(tensor(name)?.to_vec1::<u32>()?.into_iter().map(|index| index as usize).collect())
        };
        let [weight, bias] = [tensor("fc.weight")?.to_device(device)?, tensor("fc.bias")?.to_device(device)?];
        let head = Head::from_tensors(&weight, &bias)?;
        Ok(Start { head, fitted, kept: indices("kept")?, held_out: indices("held-out")? })
    }
}
