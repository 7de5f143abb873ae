//! What this CPU offers: its instruction sets and its measured peak.

pub use crate::cpu::peak::vector_rate;
use crate::error::Result;
use crate::simd::Isa;

/// The name of the instruction set that kernels run in: the best one, or the one named by `PSPC_ISA`.
pub fn instruction_set() -> Result<&'static str> {
    Ok(Isa::best()?.name())
}

/// The names of all instruction sets of this CPU that kernels are compiled for, the best last.
#[must_use]
pub fn instruction_sets() -> Vec<&'static str> {
    Isa::available().into_iter().map(Isa::name).collect()
}
