//! Pinned memory, and a place on the device for what lies in it, used in turn.
//!
//! Copies go on a stream of their own, whoever takes what arrived works on that of its thread: events order the two, and neither waits for
//! the device.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::cudarc::driver::result::stream;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaSlice, CudaStream, DriverError, PinnedHostSlice};
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

/// A stream for copies. That of the thread that reads will not do: it goes with the thread, and the driver was seen to wait for it for ever
/// when memory was pinned afterwards.
struct CopyStream(Arc<CudaStream>);

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
    /// Once there was a slot.
    copies: Option<Arc<CopyStream>>,
}

/// Memory for a batch.
struct Slot {
    pinned: PinnedHostSlice<f32>,
    on_device: CudaSlice<f32>,
    /// The device has what is pinned.
    sent: CudaEvent,
    /// What was on the device has been taken.
    taken: CudaEvent,
    copies: Arc<CopyStream>, // last, as it must outlive the memory
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
            None => self.home.copies(&self.device).and_then(|copies| Slot::new(copies, values)),
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

    fn copies(&self, device: &CudaDevice) -> std::result::Result<Arc<CopyStream>, DriverError> {
        let mut known = self.known();
        let copies = known.copies.take().map_or_else(|| CopyStream::new(device).map(Arc::new), Ok)?;
        Ok(known.copies.insert(copies).clone())
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

impl CopyStream {
    fn new(device: &CudaDevice) -> std::result::Result<CopyStream, DriverError> {
        let own = device.cuda_stream();
        let context = own.context();
        context.bind_to_thread()?;
        let stream = stream::create(stream::StreamKind::NonBlocking)?;
        // SAFETY: it was created in this context, and lives until this is dropped.
        Ok(CopyStream(unsafe { context.wrap_borrowed_stream(stream) }))
    }
}

impl Drop for CopyStream {
    fn drop(&mut self) {
        // SAFETY: whoever had memory on it is gone.
        let destroy = |()| unsafe { stream::destroy(self.0.cu_stream()) };
        if let Err(error) = self.0.context().bind_to_thread().and_then(destroy) {
            tracing::debug!("a stream could not be destroyed: {error}");
        }
    }
}

impl Slot {
    fn new(copies: Arc<CopyStream>, values: usize) -> std::result::Result<Slot, DriverError> {
        let (stream, values) = (copies.0.clone(), values.max(1));
        let context = stream.context();
        // SAFETY: whatever bits are there are numbers, and they are written before anybody reads them.
        let pinned = unsafe { context.alloc_pinned_with_flags(values, 0)? };
        // SAFETY: likewise.
        let on_device = unsafe { stream.alloc(values)? };
        Ok(Slot { pinned, on_device, sent: context.new_event(None)?, taken: context.new_event(None)?, copies })
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
        let Slot { pinned, sent, .. } = self.slot()?;
        sent.synchronize().map_err(Error::wrap)?; // the device has what was there before
        let pinned = pinned.as_mut_slice().map_err(Error::wrap)?;
        Ok(&mut pinned[..values])
    }

    pub(super) fn truncate(&mut self, values: usize) {
        self.values = self.values.min(values);
    }

    pub(super) fn send(&mut self) -> Result<()> {
        let Slot { pinned, on_device, sent, taken, copies } = self.slot()?;
        let mut copy = || {
            copies.0.wait(taken)?;
            copies.0.memcpy_htod(pinned, on_device)?;
            sent.record(&copies.0)
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
