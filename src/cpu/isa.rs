//! Which instruction set the loops run in: detected once, carried along, used by every kernel of a call.
//!
//! A kernel is written once as a generic function `body::<V: Vector, ..>`; `dispatched!` compiles it for every
//! instruction set and picks by [`Isa`]. AVX2 and AVX-512 agree with each other bit for bit; the others have no fused
//! multiply-add, or another power of two, and agree within rounding.

use std::sync::OnceLock;

use crate::error::{Error, Result};

/// A set of vector instructions. Values above the portable one exist only where this processor has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    V3,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Isa {
    /// The best instruction set of this processor, or the one named by `PSPC_ISA`; a name that is none of
    /// [`Isa::available`] is an error.
    pub fn best() -> Result<Self> {
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

    /// Every instruction set of this processor, the best last.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self(Level::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Self(Level::V3));
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

    pub(super) fn level(self) -> Level {
        self.0
    }

    /// Its name, as `PSPC_ISA` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::V3 => "x86-64-v3",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
        }
    }
}

/// Defines `$name(isa, ..)`, which runs `$body::<V, ..>(..)` with the vectors of `isa`, compiled for it.
macro_rules! dispatched {
    ($(#[$doc:meta])* $vis:vis fn $name:ident $(<$generic:ident: $bound:path>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$doc])*
        $vis fn $name $(<$generic: $bound>)? (isa: $crate::cpu::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            use $crate::cpu::isa::Level;
            use $crate::cpu::simd;

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
            fn avx512 $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                $body::<simd::Avx512, $($generic)?>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn v3 $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                $body::<simd::Avx2, $($generic)?>($($arg),*)
            }
            match isa.level() {
                Level::Portable => $body::<simd::Portable<false>, $($generic)?>($($arg),*),
                // SAFETY: this level is only constructed after its features were detected.
                #[cfg(target_arch = "x86_64")]
                Level::V3 => unsafe { v3($($arg),*) },
                // SAFETY: this level is only constructed after its features were detected.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                Level::Neon => $body::<simd::Portable<true>, $($generic)?>($($arg),*),
            }
        }
    };
}
pub(super) use dispatched;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_found_by_name_and_others_refused() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()), Ok(isa));
        }
        let error = Isa::named("sse9").unwrap_err().to_string();
        assert!(error.starts_with("PSPC_ISA is \"sse9\", allowed on this processor are portable"), "{error}");
    }
}
