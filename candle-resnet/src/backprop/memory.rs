//! Memory that outlives a step: maps and gradients come from it and go back to it.

use std::collections::HashMap;

use crate::kernels::{Buffer, Scratch};

#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) scratch: Scratch,
    /// Weights in the order of a kernel.
    pub(super) packed: Buffer,
    /// Weights in Winograd's domain.
    pub(super) transformed: Buffer,
    /// Values per channel of every image.
    channelwise: [Buffer; 2],
    /// Nothing but zeros.
    zeros: Buffer,
    /// By their number of values.
    free: HashMap<usize, Vec<Buffer>>,
}

impl Memory {
    /// A buffer for `values` values; what lies there is left over.
    pub(super) fn take(&mut self, values: usize) -> Buffer {
        self.free.get_mut(&values).and_then(Vec::pop).unwrap_or_else(|| Buffer::zeros(values))
    }

    /// Gives a buffer back.
    pub(super) fn give(&mut self, buffer: Buffer) {
        self.free.entry(buffer.len()).or_default().push(buffer);
    }

    /// At least `values` zeros, to be [given back](Memory::give_zeros).
    pub(super) fn zeros(&mut self, values: usize) -> Buffer {
        let mut zeros = std::mem::take(&mut self.zeros);
        zeros.reserve(values);
        zeros
    }

    pub(super) fn give_zeros(&mut self, zeros: Buffer) {
        self.zeros = zeros;
    }

    /// Two slices of so many values.
    pub(super) fn channelwise(&mut self, values: [usize; 2]) -> [&mut [f32]; 2] {
        let [first, second] = &mut self.channelwise;
        first.reserve(values[0]);
        second.reserve(values[1]);
        [&mut first.as_mut_slice()[..values[0]], &mut second.as_mut_slice()[..values[1]]]
    }
}
