//! Vectors of sixteen values. Kernels are written once over [`Vector`] and run by an [`Isa`]; this module has one
//! implementation per instruction set, and all unsafe code of the CPU engine.
//!
//! Explicit vectors instead of plain loops over arrays: LLVM's loop vectoriser sees a loop over columns of unrolled
//! lanes, vectorises across columns instead, and fills the loop with shuffles (AVX-512: three times slower than AVX2).

mod doubles;
mod isa;
mod lanes;
mod portable;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
mod x86_f64;
#[cfg(target_arch = "x86_64")]
mod x86_transpose;
#[cfg(target_arch = "x86_64")]
mod x86_u16;

pub(crate) use doubles::VectorF64;
pub(crate) use isa::{Isa, Kernel};
pub(crate) use lanes::{Bf16x16, F32x8, F32x16, F64x16, I32x16, LANES, U16_LANES, U16x32, centred_i16};
pub(crate) use portable::Portable;
#[cfg(any(not(target_arch = "x86_64"), miri))]
pub(crate) use portable::transpose_bytes;
pub(crate) use vector::{Vector, VectorI32, VectorU16, WIDE};
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(crate) use x86_transpose::transpose_bytes;

/// Prefetches a value that will be read soon, where the CPU can.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: SSE is part of x86-64; nothing is read or written.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(value).cast());
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    let _ = value;
}
