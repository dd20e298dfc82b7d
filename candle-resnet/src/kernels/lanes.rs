//! Sixteen f32 lanes on every instruction set: what the kernels' one source is written in.
//!
//! Knows nothing of layers. A trait's methods cannot carry `target_feature`, so all of them are unsafe and always inlined
//! into a function that does carry it (see [`dispatch`](super::dispatch)).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use half::bf16;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub(super) use neon::Neon;
pub(super) use portable::Portable;

/// Lanes of a vector; also the channels of a block of a [`Map`](super::Map).
pub(crate) const LANES: usize = 16;

/// A vector of sixteen f32. Values that are stored in bf16 become f32 when they are read.
///
/// # Safety
/// Every method requires that the processor has the implementation's instruction set. Pointers need no alignment.
pub(crate) trait Lanes: Copy {
    /// Sixteen pairs of bf16.
    type Pairs: Copy;

    /// Rows that a tile of a matrix product holds in registers, at most.
    const ROWS: usize;
    /// Channel blocks that a tile holds in registers, at most.
    const BLOCKS: usize;

    unsafe fn splat(value: f32) -> Self;
    /// Reads sixteen values.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes sixteen values.
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// The larger of each pair.
    unsafe fn max(self, other: Self) -> Self;
    /// Itself where `other` is above 0, and 0 elsewhere.
    unsafe fn where_positive(self, other: Self) -> Self;
    /// Has the cache line of `address` brought into the first-level cache, where the processor can be told so; any address will do.
    unsafe fn prefetch_first(address: *const f32);
    /// As [`prefetch_first`](Lanes::prefetch_first), into the second-level cache.
    unsafe fn prefetch_second(address: *const f32);
    /// `self * factor + addend`, rounded once where the processor can.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// Lane `l` of each quarter of the lanes becomes what lane `l ^ J` is; `J` below 4.
    unsafe fn exchange<const J: usize>(self) -> Self;
    /// Quarter `q` of the lanes becomes what quarter `q ^ J` is; `J` below 4.
    unsafe fn exchange_quarters<const J: usize>(self) -> Self;

    /// Reads sixteen values.
    unsafe fn load_half(from: *const bf16) -> Self;
    /// Writes sixteen values, rounded to the nearest, and to even where two are.
    unsafe fn store_half(self, to: *mut bf16);
    /// Reads sixteen pairs.
    unsafe fn load_pairs(from: *const bf16) -> Self::Pairs;
    /// Reads one pair, for all lanes.
    unsafe fn splat_pair(from: *const bf16) -> Self::Pairs;
    /// In each lane, the products of firsts and of seconds, and the sum.
    unsafe fn mul_add_pairs(a: Self::Pairs, b: Self::Pairs, sum: Self) -> Self;
}
