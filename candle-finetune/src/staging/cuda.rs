//! Pinned memory, and a place on the device for what lies in it, used in turn.
//!
//! Whoever fills a slot works on the stream of its thread, whoever takes from it on that of another: events order the two, and neither
//! waits for the device.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaSlice, DriverError, PinnedHostSlice};
use candle_core::cuda_backend::{CudaDevice, CudaStorage};
use candle_core::op::BackpropOp;
use candle_core::{Error, Result, Shape, Storage, Tensor, bail};

/// Slots: one is filled while the other waits to be taken.
const SLOTS: usize = 2;

/// The slots towards a device.
pub(crate) struct Slots {
    device: CudaDevice,
    home: Arc<Home>,
}

/// Where slots are when nobody uses them.
#[derive(Default)]
struct Home {
    slots: Mutex<Known>,
    /// One came back.
    back: Condvar,
}

#[derive(Default)]
struct Known {
    idle: Vec<Slot>,
    /// Slots that there are.
    count: usize,
}

/// Memory for a batch.
struct Slot {
    pinned: PinnedHostSlice<f32>,
    on_device: CudaSlice<f32>,
    /// The device has what is pinned.
    sent: CudaEvent,
    /// What was on the device has been taken.
    taken: CudaEvent,
}

/// A slot in use.
pub(crate) struct Loan {
    slot: Option<Slot>, // until it goes home
    /// Values that count.
    values: usize,
    device: CudaDevice,
    home: Arc<Home>,
}

impl Slots {
    pub(super) fn new(device: &CudaDevice) -> Slots {
        Slots { device: device.clone(), home: Arc::default() }
    }

    /// A slot for so many values, once one is at hand; none where there is no memory to pin.
    pub(super) fn loan(&self, values: usize) -> Option<Loan> {
        let idle = self.home.idle();
        let slot = match idle.filter(|slot| slot.pinned.len() >= values) {
            Some(slot) => Ok(slot),
            None => Slot::new(&self.device, values),
        };
        match slot {
            Ok(slot) => Some(Loan { slot: Some(slot), values, device: self.device.clone(), home: self.home.clone() }),
            Err(error) => {
                tracing::debug!("no memory could be pinned: {error}");
                self.home.forget();
                None
            }
        }
    }
}

impl Home {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot that nobody uses, or none where one more may be made, which then counts as being there.
    fn idle(&self) -> Option<Slot> {
        let full = |known: &mut Known| known.idle.is_empty() && known.count >= SLOTS;
        let mut known = self.back.wait_while(self.known(), full).unwrap_or_else(PoisonError::into_inner);
        let idle = known.idle.pop();
        known.count += usize::from(idle.is_none());
        idle
    }

    fn take_back(&self, slot: Slot) {
        self.known().idle.push(slot);
        self.back.notify_one();
    }

    /// One that counted is not there after all.
    fn forget(&self) {
        self.known().count -= 1;
        self.back.notify_one();
    }
}

impl Slot {
    fn new(device: &CudaDevice, values: usize) -> std::result::Result<Slot, DriverError> {
        let (stream, values) = (device.cuda_stream(), values.max(1));
        let context = stream.context();
        // SAFETY: whatever bits are there are numbers, and they are written before anybody reads them.
        let pinned = unsafe { context.alloc_pinned_with_flags(values, 0)? };
        // SAFETY: likewise.
        let on_device = unsafe { stream.alloc(values)? };
        Ok(Slot { pinned, on_device, sent: context.new_event(None)?, taken: context.new_event(None)? })
    }
}

/// Memory goes when nobody copies to it or from it any more.
impl Drop for Slot {
    fn drop(&mut self) {
        if let Err(error) = self.sent.synchronize().and_then(|()| self.taken.synchronize()) {
            tracing::debug!("a copy to the device did not end: {error}");
        }
    }
}

impl Loan {
    pub(super) fn values_mut(&mut self) -> Result<&mut [f32]> {
        let values = self.values;
        let pinned = self.slot()?.pinned.as_mut_slice().map_err(Error::wrap)?;
        Ok(&mut pinned[..values])
    }

    pub(super) fn truncate(&mut self, values: usize) {
        self.values = self.values.min(values);
    }

    pub(super) fn send(&mut self) -> Result<()> {
        let stream = self.device.cuda_stream();
        let Slot { pinned, on_device, sent, taken } = self.slot()?;
        let mut copy = || {
            stream.wait(taken)?;
            stream.memcpy_htod(pinned, on_device)?;
            sent.record(&stream)
        };
        copy().map_err(Error::wrap)
    }

    pub(super) fn tensor(mut self, shape: &Shape) -> Result<Tensor> {
        if self.values != shape.elem_count() {
            bail!("{} values for a tensor of shape {shape:?}", self.values);
        }
        let (device, values) = (self.device.clone(), self.values);
        let stream = device.cuda_stream();
        let Slot { on_device, sent, taken, .. } = self.slot()?;
        stream.wait(sent).map_err(Error::wrap)?;
        // SAFETY: all of it is written by the copy.
        let mut copy = unsafe { device.alloc::<f32>(values)? };
        device.memcpy_dtod(&on_device.slice(..values), &mut copy)?;
        taken.record(&stream).map_err(Error::wrap)?;
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(copy, device));
        Ok(Tensor::from_storage(storage, shape.clone(), BackpropOp::none(), false))
    }

    fn slot(&mut self) -> Result<&mut Slot> {
        self.slot.as_mut().ok_or_else(|| Error::msg("the memory of a batch went home before the batch was used"))
    }
}

/// The slot goes home.
impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.home.take_back(slot);
        }
    }
}
