//! How activations lie in memory: `(images, channels / 16, height × width, 16)`.
//!
//! Sixteen channels of a pixel are one vector. Channels that fill up the last block are zero, in and out of every kernel.

use std::marker::PhantomData;

use super::lanes::LANES;

/// Height and width of a map, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Extent {
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Extent {
    pub(crate) fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Values of one image with `blocks` channel blocks.
    pub(crate) fn values(self, blocks: usize) -> usize {
        blocks * self.pixels() * LANES
    }
}

/// Blocks that hold `channels`.
pub(crate) fn blocks_of(channels: usize) -> usize {
    channels.div_ceil(LANES)
}

/// A buffer that several threads write at once, each its own part.
#[derive(Clone, Copy)]
pub(crate) struct Writable<'a, S = f32> {
    pointer: *mut S,
    length: usize,
    buffer: PhantomData<&'a mut [S]>,
}

// SAFETY: it is a pointer into a buffer that outlives it; whoever writes through it promises that parts are disjoint.
unsafe impl<S: Send> Send for Writable<'_, S> {}
// SAFETY: as above.
unsafe impl<S: Send> Sync for Writable<'_, S> {}

impl<'a, S> Writable<'a, S> {
    pub(crate) fn new(buffer: &'a mut [S]) -> Writable<'a, S> {
        Writable { pointer: buffer.as_mut_ptr(), length: buffer.len(), buffer: PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// A pointer to the value at `offset`.
    ///
    /// # Safety
    /// `offset` is within the buffer, or one past its end.
    #[inline(always)]
    pub(super) unsafe fn at(&self, offset: usize) -> *mut S {
        debug_assert!(offset <= self.length);
        // SAFETY: the caller's.
        unsafe { self.pointer.add(offset) }
    }
}
