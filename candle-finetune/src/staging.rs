//! Memory that the pixels of a batch are put together in, on their way to a device.
//!
//! For NVIDIA GPUs it is pinned and used again and again, and whoever reads pixels has the device fetch them while it computes. Elsewhere it
//! is plain memory.

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::{Device, Result, Shape, Tensor};

/// Gives room for one batch after the other.
pub(crate) enum Staging {
    Plain,
    #[cfg(feature = "cuda")]
    Pinned(cuda::Slots),
}

/// Room for the pixels of a batch.
pub(crate) enum Room {
    Plain(Vec<f32>),
    #[cfg(feature = "cuda")]
    Pinned(cuda::Loan),
}

impl Staging {
    /// On the way to `device`.
    pub(crate) fn towards(device: &Device) -> Staging {
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Staging::Pinned(cuda::Slots::new(device)),
            _ => Staging::Plain,
        }
    }

    /// Room for so many values. On a GPU it may wait until an earlier batch has been [used](Room::tensor).
    pub(crate) fn room(&self, values: usize) -> Room {
        match self {
            Staging::Plain => Room::of(values),
            #[cfg(feature = "cuda")]
            Staging::Pinned(slots) => slots.loan(values).map_or_else(|| Room::of(values), Room::Pinned),
        }
    }
}

impl Default for Room {
    fn default() -> Room {
        Room::of(0)
    }
}

impl Room {
    /// Plain memory for so many values.
    pub(crate) fn of(values: usize) -> Room {
        Room::Plain(vec![0.0; values])
    }

    /// The values.
    ///
    /// # Errors
    /// Only the driver's.
    pub(crate) fn values_mut(&mut self) -> Result<&mut [f32]> {
        match self {
            Room::Plain(values) => Ok(values),
            #[cfg(feature = "cuda")]
            Room::Pinned(loan) => loan.values_mut(),
        }
    }

    /// Only the first `values` count.
    pub(crate) fn truncate(&mut self, values: usize) {
        match self {
            Room::Plain(all) => all.truncate(values),
            #[cfg(feature = "cuda")]
            Room::Pinned(loan) => loan.truncate(values),
        }
    }

    /// Has the device fetch the values; nobody waits for it.
    ///
    /// # Errors
    /// Only the driver's.
    pub(crate) fn send(&mut self) -> Result<()> {
        match self {
            Room::Plain(_) => Ok(()),
            #[cfg(feature = "cuda")]
            Room::Pinned(loan) => loan.send(),
        }
    }

    /// The values on `device`, where they were [sent](Room::send) to.
    ///
    /// # Errors
    /// If `shape` has another number of values, or the device no room.
    pub(crate) fn tensor(self, shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
        match self {
            Room::Plain(values) => Tensor::from_vec(values, shape.into(), &Device::Cpu)?.to_device(device),
            #[cfg(feature = "cuda")]
            Room::Pinned(loan) => loan.tensor(&shape.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of a batch; the last has fewer.
    fn values(batch: usize) -> Vec<f32> {
        let count = if batch == 4 { 1 << 20 } else { 1 << 22 };
        (0..count).map(|value| (batch + value) as f32).collect()
    }

    /// Batches that a thread fills, as many as go round twice. Nobody waits for the device before all of them are on their way.
    fn pass_through(staging: &Staging, device: &Device) {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let tensors: Vec<Tensor> = std::thread::scope(|scope| {
            scope.spawn(move || {
                for batch in 0..5 {
                    let values = values(batch);
                    let mut room = staging.room(values.len());
                    room.values_mut().unwrap().copy_from_slice(&values);
                    room.send().unwrap();
                    sender.send((room, values.len())).unwrap();
                }
            });
            receiver.into_iter().map(|(room, count)| room.tensor(count, device).unwrap()).collect()
        });
        for (batch, tensor) in tensors.iter().enumerate() {
            assert!(tensor.to_vec1::<f32>().unwrap() == values(batch), "batch {batch}");
        }
    }

    /// Rooms that nobody takes come back all the same.
    fn leave(staging: &Staging) {
        for _ in 0..5 {
            let mut room = staging.room(1 << 10);
            room.send().unwrap();
        }
    }

    fn pass_through_again_and_again(device: &Device) {
        for _ in 0..2 {
            let staging = Staging::towards(device);
            pass_through(&staging, device);
            leave(&staging);
            pass_through(&staging, device);
        }
    }

    #[test]
    fn every_batch_arrives_whole() {
        pass_through_again_and_again(&Device::Cpu);
        #[cfg(feature = "cuda")]
        if let Ok(device) = Device::new_cuda(0) {
            pass_through_again_and_again(&device);
        }
    }
}
