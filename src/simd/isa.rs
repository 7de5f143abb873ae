//! Which instruction set kernels run in: detected once and passed to every kernel of a call.
//!
//! [`Isa`] is the token: its values above the portable one are made only after their features were detected. A
//! [`Kernel`] is written once over [`Vector`]; [`Isa::run`] compiles it for every instruction set and runs the one of the
//! token. The vector types of the instruction sets are private to this module, so a kernel can get one only from
//! [`Isa::run`]: code without `unsafe`, in this crate or in another, has no way to run an instruction undetected.
//!
//! AVX2 and AVX-512 agree bit for bit; the others have no fused multiply-add, or another power of two, and agree within
//! rounding.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};
use super::{Portable, Vector};
use crate::error::{Error, Result};

/// A set of vector instructions that this CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Isa(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// A loop that is compiled for every instruction set; its fields are its arguments.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;

    /// Runs with the vectors of one instruction set. Implementations, and everything they call in a loop, are
    /// `#[inline(always)]`, so that they are compiled for it.
    fn run<V: Vector>(self) -> Self::Output;
}

impl Isa {
    /// The best instruction set of this CPU, or the one named by `PSPC_ISA`; a name that is none of
    /// [`Isa::available`] is an error.
    pub(crate) fn best() -> Result<Self> {
        static BEST: OnceLock<Result<Isa>> = OnceLock::new();
        BEST.get_or_init(|| match std::env::var_os("PSPC_ISA") {
            None => Ok(*Self::available().last().unwrap_or(&Self(Level::Portable))),
            Some(wanted) => Self::named(&wanted.to_string_lossy()),
        })
        .clone()
    }

    fn named(wanted: &str) -> Result<Self> {
        let all = Self::available();
        all.iter().find(|isa| isa.name() == wanted).copied().ok_or_else(|| Error::IsaVariable {
            value: wanted.to_owned(),
            allowed: all.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Every instruction set of this CPU, the best last.
    pub(crate) fn available() -> Vec<Self> {
        let mut all = vec![Self(Level::Portable)];
        // Miri can interpret portable code only.
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Self(Level::Avx2));
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                {
                    all.push(Self(Level::Avx512));
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        all.push(Self(Level::Neon));
        all
    }

    /// Its name, as `PSPC_ISA` takes it.
    pub(crate) fn name(self) -> &'static str {
        match self.0 {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "x86-64-v3",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
        }
    }

    /// Runs a kernel in this instruction set.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Level::Portable => kernel.run::<Portable<false>>(),
            // SAFETY: this level is only made after its features were detected.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: this level is only made after its features were detected.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { run_avx512(kernel) },
            #[cfg(target_arch = "aarch64")]
            Level::Neon => kernel.run::<Portable<true>>(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx2>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx512>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_found_by_name_and_others_refused() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()), Ok(isa));
        }
        let error = Isa::named("sse9").unwrap_err().to_string();
        assert!(error.starts_with("PSPC_ISA is \"sse9\"; allowed on this CPU are portable"), "{error}");
    }
}
