//! Memory for maps and weights: begins at a cache line, since vectors that straddle two lines cost twice, and lies in large pages
//! where the system has them, since whoever streams weights crosses a page every 64 vectors otherwise.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use super::lanes::LANES;

const LINE: usize = 64;
const LARGE_PAGE: usize = 2 << 20;

/// Floats, zero at first; their number is rounded up to sixteens.
pub(crate) struct Buffer {
    start: NonNull<f32>,
    floats: usize,
}

// SAFETY: it owns plain floats.
unsafe impl Send for Buffer {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Buffer {}

impl Buffer {
    pub(crate) fn zeros(floats: usize) -> Buffer {
        let floats = floats.next_multiple_of(LANES);
        if floats == 0 {
            return Buffer { start: NonNull::dangling(), floats };
        }
        let layout = Buffer::layout(floats);
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        ask_for_large_pages(start, layout.size()); // Before anything is written there.
        // SAFETY: the allocation is that long.
        unsafe { start.write_bytes(0, layout.size()) };
        Buffer { start: start.cast(), floats }
    }

    pub(crate) fn of(values: &[f32]) -> Buffer {
        let mut buffer = Buffer::zeros(values.len());
        buffer.as_mut_slice()[..values.len()].copy_from_slice(values);
        buffer
    }

    /// Makes room for `floats`; what was there may be lost.
    pub(crate) fn reserve(&mut self, floats: usize) {
        if self.floats < floats {
            *self = Buffer::zeros(floats);
        }
    }

    fn layout(floats: usize) -> Layout {
        let bytes = floats * size_of::<f32>();
        let alignment = if bytes >= LARGE_PAGE { LARGE_PAGE } else { LINE };
        // The alignment is a power of two; a size that overflows has failed in `Vec`s of the same length before.
        Layout::from_size_align(bytes, alignment).unwrap_or(Layout::new::<f32>())
    }

    pub(crate) fn len(&self) -> usize {
        self.floats
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: the allocation holds that many floats, all of them written.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.floats) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.floats) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.floats > 0 {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.start.as_ptr().cast(), Buffer::layout(self.floats)) }
        }
    }
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer::zeros(0)
    }
}

/// A hint: whatever comes of it, the memory is the same.
#[cfg(target_os = "linux")]
fn ask_for_large_pages(start: NonNull<u8>, bytes: usize) {
    if bytes >= LARGE_PAGE {
        // SAFETY: the range is one of our own allocations; the advice changes no value.
        unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_: NonNull<u8>, _: usize) {}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} floats", self.len())
    }
}
