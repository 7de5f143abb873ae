//! From energies to posterior weights: the running state of pass 1 and the normalised weights of pass 2.

use super::isa::dispatched;
use super::simd::{Lanes, Vector};

/// Beyond this many powers of two below the running best, an image cannot change a float32 sum that is at least 1.
const INVISIBLE: f32 = 25.0;

/// An image better than the shift by this many powers of two moves the shift: rows far from the best stay visibly far.
const FAR_BETTER: f32 = 8.0;

/// Weights are taken to be no smaller than this power of two, so that no product with them is subnormal.
const SMALLEST: f32 = -100.0;

/// The state of pass 1, one a window: a shift near the least energy times the rate, and in each lane the sum of
/// `2^(shift - rate energy)`.
#[derive(Debug, Default)]
pub struct LaneState {
    shift: Vec<f32>,
    /// Energies below this one change the sum.
    near: Vec<f32>,
    /// Energies below this one move the shift.
    better: Vec<f32>,
    sum: Vec<Lanes>,
}

impl LaneState {
    /// The state before any image, for `count` windows.
    pub fn start(&mut self, count: usize) {
        for bound in [&mut self.shift, &mut self.near, &mut self.better] {
            bound.clear();
            bound.resize(count, f32::MAX);
        }
        self.sum.clear();
        self.sum.resize(count, Lanes::ZERO);
    }

    /// Moves the shift of window `k` to a new least energy.
    #[cold]
    #[inline(never)]
    fn move_to(&mut self, k: usize, least: f32, rate: f32) {
        let shift = (least * rate).round();
        let share = (shift - self.shift[k]).exp2();
        self.sum[k].0.iter_mut().for_each(|sum| *sum *= share);
        self.shift[k] = shift;
        self.near[k] = (shift + INVISIBLE) / rate;
        self.better[k] = (shift - FAR_BETTER) / rate;
    }
}

dispatched! {
    /// Adds the energies `[tile][window]` of a group of tiles to the state. Rows of `columns` windows in which no image
    /// comes near the best so far are skipped; that changes no bit.
    pub fn absorb(energies: &[Lanes], rate: f32, columns: usize, state: &mut LaneState) = absorb_body
}

dispatched! {
    /// Writes `(shift, sum of weights)` of every window over all lanes.
    pub fn fold_lanes(state: &LaneState, shift: &mut [f32], sum: &mut [f32]) = fold_lanes_body
}

dispatched! {
    #[allow(clippy::too_many_arguments, reason = "a kernel's arguments are its inputs")]
    /// Turns the energies of a tile into posterior weights `2^(shift - rate energy) * scale`, in place. Marks in `live`
    /// the rows of `columns` windows that hold any weight above `2^-cutoff`; the others become zero. Returns whether any
    /// row is live.
    pub fn weigh(
        energies: &mut [Lanes],
        shift: &[f32],
        scale: &[f32],
        rate: f32,
        cutoff: f32,
        columns: usize,
        live: &mut [bool],
    ) -> bool = weigh_body
}

#[inline(always)]
fn absorb_body<V: Vector>(energies: &[Lanes], rate: f32, columns: usize, state: &mut LaneState) {
    let count = state.sum.len();
    let mut tiles = energies.chunks_exact(2 * count);
    for two in tiles.by_ref() {
        let (first, second) = two.split_at(count);
        absorb_tiles::<V, 2>([first, second], rate, columns, state);
    }
    if !tiles.remainder().is_empty() {
        absorb_tiles::<V, 1>([tiles.remainder()], rate, columns, state);
    }
}

#[inline(always)]
fn absorb_tiles<V: Vector, const T: usize>(energies: [&[Lanes]; T], rate: f32, columns: usize, state: &mut LaneState) {
    let count = state.sum.len();
    let factor = V::splat(-rate);
    for start in (0..count).step_by(columns) {
        let row = energies.map(|energies| &energies[start..start + columns]);
        let near = &state.near[start..start + columns];
        if !(0..columns).any(|k| best_of(row.map(|row| V::load(&row[k]))).any_below(V::splat(near[k]))) {
            continue;
        }
        for k in 0..columns {
            let energies: [V; T] = row.map(|row| V::load(&row[k]));
            let best = best_of(energies);
            if best.any_below(V::splat(state.better[start + k])) {
                state.move_to(start + k, best.least(), rate);
            }
            let shift = V::splat(state.shift[start + k]);
            let mut sum = V::load(&state.sum[start + k]);
            for energy in energies {
                sum = sum.add(energy.mul_add(factor, shift).max(V::splat(SMALLEST)).exp2());
            }
            sum.store(&mut state.sum[start + k]);
        }
    }
}

#[inline(always)]
fn best_of<V: Vector, const T: usize>(energies: [V; T]) -> V {
    let mut best = energies[0];
    for energy in &energies[1..] {
        best = best.min(*energy);
    }
    best
}

#[inline(always)]
fn fold_lanes_body<V: Vector>(state: &LaneState, shift: &mut [f32], sum: &mut [f32]) {
    shift.copy_from_slice(&state.shift);
    for (sum, lanes) in sum.iter_mut().zip(&state.sum) {
        *sum = V::load(lanes).sum();
    }
}

#[inline(always)]
fn weigh_body<V: Vector>(
    energies: &mut [Lanes],
    shift: &[f32],
    scale: &[f32],
    rate: f32,
    cutoff: f32,
    columns: usize,
    live: &mut [bool],
) -> bool {
    let (factor, margin) = (V::splat(-rate), V::splat(-cutoff));
    let mut any = false;
    let rows = energies.chunks_exact_mut(columns).zip(shift.chunks_exact(columns).zip(scale.chunks_exact(columns)));
    for ((energies, (shift, scale)), live) in rows.zip(live) {
        let mut near = energies.iter().zip(shift);
        let logit = |energy: &Lanes, shift: f32| V::load(energy).mul_add(factor, V::splat(shift));
        *live = near.any(|(energy, &shift)| margin.any_below(logit(energy, shift)));
        any |= *live;
        if !*live {
            energies.fill(Lanes::ZERO);
            continue;
        }
        for ((energy, &shift), &scale) in energies.iter_mut().zip(shift).zip(scale) {
            logit(energy, shift).max(V::splat(SMALLEST)).exp2().mul(V::splat(scale)).store(energy);
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
            rate in 0.05_f32..30.0,
        ) {
            // Three groups of two tiles, one window.
            let tiles: Vec<Lanes> = values.chunks_exact(LANES).map(|v| Lanes(v.try_into().expect("sized"))).collect();
            let exact: f64 = values.iter().map(|&v| (-f64::from(v) * f64::from(rate)).exp2()).sum();
            for isa in Isa::available() {
                let mut state = LaneState::default();
                state.start(1);
                tiles.chunks_exact(2).for_each(|group| absorb(isa, group, rate, 1, &mut state));
                let (mut shift, mut sum) = ([0.0], [0.0]);
                fold_lanes(isa, &state, &mut shift, &mut sum);
                let log = f64::from(sum[0]).log2() - f64::from(shift[0]);
                prop_assert!((log - exact.log2()).abs() < 1e-6 + 1e-7 * f64::from(rate), "{} against {}", log, exact.log2());
            }
        }
    }

    #[test]
    fn rows_far_from_the_best_are_zero() {
        for isa in Isa::available() {
            let mut energies = [Lanes::splat(3.0), Lanes::splat(200.0)];
            let mut live = [true, true];
            assert!(weigh(isa, &mut energies, &[1.0, 1.0], &[0.5, 0.5], 1.0, 40.0, 1, &mut live));
            assert_eq!(live, [true, false]);
            assert!((energies[0].0[0] - 0.125).abs() < 1e-7);
            assert_eq!(energies[1], Lanes::ZERO);
        }
    }
}
