//! The measured peak of the CPU in fused multiply-adds per second, to which the engine's speed is compared.

use std::time::Instant;

use rayon::prelude::*;

use crate::error::Result;
use crate::simd::{F32x16, Isa, Kernel, LANES, Vector};
use crate::threads;

/// Independent chains: enough to hide the latency of the operation, few enough to stay in registers.
pub(crate) const CHAINS: usize = 7;

/// Fused multiply-adds (product and sum, where the CPU has no fused ones) that all of the engine's threads do per second,
/// counted value by value. It is the best of many short runs, a fifth of a second in all, because threads of other
/// libraries may go on spinning for a while after they have worked.
pub fn vector_rate() -> Result<f64> {
    const ROUNDS: usize = 1 << 20;
    const RUNS: usize = 99;
    let (isa, pool) = (Isa::best()?, threads::pool()?);
    let count = pool.current_num_threads();
    let run = |_| {
        let start = Instant::now();
        pool.install(|| {
            (0..count).into_par_iter().with_max_len(1).for_each(|_| {
                std::hint::black_box(isa.run(Chains { rounds: ROUNDS, factor: &F32x16::splat(0.5) }));
            });
        });
        (count * ROUNDS * CHAINS * LANES) as f64 / start.elapsed().as_secs_f64()
    };
    Ok((0..RUNS).map(run).fold(0.0, f64::max))
}

/// Runs `rounds` steps of every chain.
pub(crate) struct Chains<'a> {
    pub(crate) rounds: usize,
    pub(crate) factor: &'a F32x16,
}

impl Kernel for Chains<'_> {
    type Output = F32x16;

    #[inline(always)]
    fn run<V: Vector>(self) -> F32x16 {
        let Self { rounds, factor } = self;
        let factor = V::load(std::hint::black_box(factor));
        let mut values = [factor; CHAINS];
        for _ in 0..rounds {
            for value in &mut values {
                *value = value.mul_add(factor, factor);
            }
        }
        let mut sum = values[0];
        for value in &values[1..] {
            sum = sum.add(*value);
        }
        let mut out = F32x16::ZERO;
        sum.store(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_compute_what_they_claim_to() {
        // 0.5, 0.75, 0.875, ... towards 1.
        for isa in Isa::available() {
            assert_eq!(isa.run(Chains { rounds: 2, factor: &F32x16::splat(0.5) }).0, [CHAINS as f32 * 0.875; LANES]);
        }
    }
}
