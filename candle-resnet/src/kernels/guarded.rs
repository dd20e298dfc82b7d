//! Memory for tests whose last float is followed by a page that nobody may touch.

use std::ops::{Deref, DerefMut};

#[cfg(target_os = "linux")]
pub(super) struct Guarded {
    start: *mut f32,
    floats: usize,
    mapping: *mut libc::c_void,
    bytes: usize,
}

#[cfg(target_os = "linux")]
impl Guarded {
    pub(super) fn zeros(floats: usize) -> Guarded {
        const PAGE: usize = 4096;
        let used = (floats * size_of::<f32>()).next_multiple_of(PAGE);
        let bytes = used + PAGE;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping; its last page is closed, the floats end where it begins.
        unsafe {
            let mapping = libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0);
            assert_ne!(mapping, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(mapping.add(used), PAGE, libc::PROT_NONE), 0);
            let start = mapping.cast::<f32>().add(used / size_of::<f32>() - floats);
            Guarded { start, floats, mapping, bytes }
        }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping of `zeros`.
        unsafe { libc::munmap(self.mapping, self.bytes) };
    }
}

#[cfg(target_os = "linux")]
impl Deref for Guarded {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: that many floats were mapped, zero at first.
        unsafe { std::slice::from_raw_parts(self.start, self.floats) }
    }
}

#[cfg(target_os = "linux")]
impl DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.floats) }
    }
}

/// Elsewhere, ordinary memory.
#[cfg(not(target_os = "linux"))]
pub(super) struct Guarded(Vec<f32>);

#[cfg(not(target_os = "linux"))]
impl Guarded {
    pub(super) fn zeros(floats: usize) -> Guarded {
        Guarded(vec![0.0; floats])
    }
}

#[cfg(not(target_os = "linux"))]
impl Deref for Guarded {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

#[cfg(not(target_os = "linux"))]
impl DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

impl Guarded {
    pub(super) fn of(values: &[f32]) -> Guarded {
        let mut guarded = Guarded::zeros(values.len());
        guarded.copy_from_slice(values);
        guarded
    }
}
