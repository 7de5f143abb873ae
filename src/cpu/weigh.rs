//! From energies to posterior weights: the running state of pass 1 and the normalised weights of pass 2.

use super::isa::dispatched;
use super::simd::{Lanes, Vector};

/// Beyond this many powers of two below the running best, an image cannot change a float32 sum that is at least 1.
const INVISIBLE: f32 = 25.0;

/// The state of pass 1, one a window: the least energy seen in each lane and the sum of weights relative to it.
#[derive(Debug, Default)]
pub struct LaneState {
    least: Vec<Lanes>,
    sum: Vec<Lanes>,
}

impl LaneState {
    /// The state before any image, for `count` windows.
    pub fn start(&mut self, count: usize) {
        self.least.clear();
        self.least.resize(count, Lanes::splat(f32::MAX));
        self.sum.clear();
        self.sum.resize(count, Lanes::ZERO);
    }
}

dispatched! {
    /// Adds the energies `[tile][window]` of a group of tiles to the state. Rows of `columns` windows in which no image
    /// comes near the best so far are skipped; that changes no bit.
    pub fn absorb(energies: &[Lanes], rate: f32, columns: usize, state: &mut LaneState) = absorb_body
}

dispatched! {
    /// Writes `(least energy, sum of weights)` of every window over all lanes.
    pub fn fold_lanes(state: &LaneState, rate: f32, least: &mut [f32], sum: &mut [f32]) = fold_lanes_body
}

dispatched! {
    #[allow(clippy::too_many_arguments, reason = "a kernel's arguments are its inputs")]
    /// Turns the energies of a tile into posterior weights `2^(rate (least - energy)) * scale`, in place. Marks in `live`
    /// the rows of `columns` windows that hold any weight above `2^-cutoff` of the best; the others keep their energies
    /// and count as zero. Returns whether any row is live.
    pub fn weigh(
        energies: &mut [Lanes],
        least: &[f32],
        scale: &[f32],
        rate: f32,
        cutoff: f32,
        columns: usize,
        live: &mut [bool],
    ) -> bool = weigh_body
}

#[inline(always)]
fn absorb_body<V: Vector>(energies: &[Lanes], rate: f32, columns: usize, state: &mut LaneState) {
    let count = state.least.len();
    let margin = V::splat(INVISIBLE / rate);
    let rate = V::splat(rate);
    for row in (0..count).step_by(columns) {
        let windows = row..row + columns;
        let near = windows.clone().any(|k| {
            let bound = V::load(&state.least[k]).add(margin);
            best_of_group(energies, count, k, V::splat(f32::MAX)).any_below(bound)
        });
        if !near {
            continue;
        }
        for k in windows {
            let before = V::load(&state.least[k]);
            let least = best_of_group(energies, count, k, before);
            let mut sum = V::load(&state.sum[k]).mul(least.sub(before).mul(rate).exp2());
            for energy in energies[k..].iter().step_by(count) {
                sum = sum.add(least.sub(V::load(energy)).mul(rate).exp2());
            }
            least.store(&mut state.least[k]);
            sum.store(&mut state.sum[k]);
        }
    }
}

#[inline(always)]
fn best_of_group<V: Vector>(energies: &[Lanes], count: usize, k: usize, before: V) -> V {
    energies[k..].iter().step_by(count).fold(before, |best, energy| V::load(energy).min(best))
}

#[inline(always)]
fn fold_lanes_body<V: Vector>(state: &LaneState, rate: f32, least: &mut [f32], sum: &mut [f32]) {
    for (k, (lanes, sums)) in state.least.iter().zip(&state.sum).enumerate() {
        least[k] = lanes.0.iter().copied().fold(f32::MAX, f32::min);
        let share = V::splat(least[k]).sub(V::load(lanes)).mul(V::splat(rate)).exp2();
        sum[k] = V::load(sums).mul(share).sum();
    }
}

#[inline(always)]
fn weigh_body<V: Vector>(
    energies: &mut [Lanes],
    least: &[f32],
    scale: &[f32],
    rate: f32,
    cutoff: f32,
    columns: usize,
    live: &mut [bool],
) -> bool {
    let margin = cutoff / rate;
    let mut any = false;
    let rows = energies.chunks_exact_mut(columns).zip(least.chunks_exact(columns).zip(scale.chunks_exact(columns)));
    for ((energies, (least, scale)), live) in rows.zip(live) {
        let mut near = energies.iter().zip(least);
        *live = near.any(|(energy, &least)| V::load(energy).any_below(V::splat(least + margin)));
        any |= *live;
        if *live {
            for ((energy, &least), &scale) in energies.iter_mut().zip(least).zip(scale) {
                let power = V::splat(least).sub(V::load(energy)).mul(V::splat(rate)).exp2();
                power.mul(V::splat(scale)).store(energy);
            }
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;
    use crate::cpu::simd::LANES;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn state_holds_the_log_sum_of_weights(
            values in proptest::collection::vec(0.0_f32..60.0, 6 * LANES),
            rate in 0.05_f32..3.0,
        ) {
            // Three groups of two tiles, one window.
            let tiles: Vec<Lanes> = values.chunks_exact(LANES).map(|v| Lanes(v.try_into().expect("sized"))).collect();
            let exact: f64 = values.iter().map(|&v| (-f64::from(v) * f64::from(rate)).exp2()).sum();
            for isa in Isa::available() {
                let mut state = LaneState::default();
                state.start(1);
                tiles.chunks_exact(2).for_each(|group| absorb(isa, group, rate, 1, &mut state));
                let (mut least, mut sum) = ([0.0], [0.0]);
                fold_lanes(isa, &state, rate, &mut least, &mut sum);
                let log = f64::from(sum[0]).log2() - f64::from(least[0]) * f64::from(rate);
                prop_assert!((log - exact.log2()).abs() < 2e-6, "{} against {}", log, exact.log2());
            }
        }
    }

    #[test]
    fn rows_far_from_the_best_are_not_live() {
        for isa in Isa::available() {
            let mut energies = [Lanes::splat(3.0), Lanes::splat(200.0)];
            let mut live = [true, true];
            assert!(weigh(isa, &mut energies, &[1.0, 1.0], &[0.5, 0.5], 1.0, 40.0, 1, &mut live));
            assert_eq!(live, [true, false]);
            assert!((energies[0].0[0] - 0.125).abs() < 1e-7);
        }
    }
}
