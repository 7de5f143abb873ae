//! The processor's measured peak, against which the engine's own speed is judged: fused multiply-adds a second.

use std::time::Instant;

use rayon::prelude::*;

use super::isa::{Isa, dispatched};
use super::simd::{LANES, Lanes, Vector};
use crate::error::Result;
use crate::threads;

/// Independent chains: enough to hide the latency of the operation, few enough to stay in registers.
const CHAINS: usize = 7;

/// Fused multiply-adds (product and sum, where the processor has no fused ones) that all of the engine's threads can do
/// in a second, counted value by value; the best of many short runs, some fifth of a second in all, because threads of
/// other libraries may go on spinning for a while after they have worked.
pub fn vector_rate() -> Result<f64> {
    const ROUNDS: usize = 1 << 20;
    const RUNS: usize = 99;
    let (isa, pool) = (Isa::best()?, threads::pool()?);
    let count = pool.current_num_threads();
    let run = |_| {
        let start = Instant::now();
        pool.install(|| {
            (0..count).into_par_iter().with_max_len(1).for_each(|_| {
                std::hint::black_box(chains(isa, ROUNDS, &Lanes::splat(0.5)));
            });
        });
        (count * ROUNDS * CHAINS * LANES) as f64 / start.elapsed().as_secs_f64()
    };
    Ok((0..RUNS).map(run).fold(0.0, f64::max))
}

dispatched! {
    /// `rounds` steps of every chain.
    pub fn chains(rounds: usize, factor: &Lanes) -> Lanes = chains_body
}

#[inline(always)]
fn chains_body<V: Vector>(rounds: usize, factor: &Lanes) -> Lanes {
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
    let mut out = Lanes::ZERO;
    sum.store(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_compute_what_they_claim_to() {
        // 0.5, 0.75, 0.875, ... towards 1.
        for isa in Isa::available() {
            assert_eq!(chains(isa, 2, &Lanes::splat(0.5)).0, [CHAINS as f32 * 0.875; LANES]);
        }
    }
}
