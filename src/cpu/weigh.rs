//! From energies to posterior weights: the running state of pass 1 and the normalised weights of pass 2.

use super::isa::dispatched;
use super::parts::{parts, parts_mut};
use super::simd::{HalfLanes, Lanes, Vector};
use crate::posterior::power_of_whole;

/// Beyond this many powers of two below the running best, an image cannot change a float32 sum that is at least 1.
const INVISIBLE: f32 = 25.0;

/// An image better than the shift by this many powers of two moves the shift: rows far from the best stay visibly far.
const FAR_BETTER: f32 = 8.0;

/// Weights are taken to be no smaller than this power of two, so that no product with them is subnormal.
const SMALLEST: f32 = -100.0;

/// The shift of a window that has seen no image.
const NO_SHIFT: f32 = f32::MAX;

/// The state of pass 1, one a window: a shift near the least energy times the rate, and the sum of
/// `2^(shift - rate energy)`, spread over the lanes of a register. Small, because the states of all probes of an item
/// share the second-level cache with the tiles.
#[derive(Debug, Default)]
pub struct LaneState {
    shift: Vec<f32>,
    sum: Vec<HalfLanes>,
}

impl LaneState {
    /// The state before any image, for `count` windows.
    pub fn start(&mut self, count: usize) {
        self.shift.clear();
        self.shift.resize(count, NO_SHIFT);
        self.sum.clear();
        self.sum.resize(count, HalfLanes::ZERO);
    }

    /// Moves the shift of window `k` to a new least energy.
    #[cold]
    #[inline(never)]
    fn move_to(&mut self, k: usize, least: f32, rate: f32) {
        let shift = shift_of(least, rate);
        let share = power_of_whole(f64::from(shift) - f64::from(self.shift[k])) as f32;
        self.sum[k].0.iter_mut().for_each(|sum| *sum *= share);
        self.shift[k] = shift;
    }
}

/// The shift for a least energy: the whole number at or below it times the rate. No float above it will do, or images
/// would lie so far above a shift of 2^28 and more that it had to move, and move again.
fn shift_of(least: f32, rate: f32) -> f32 {
    let exact = f64::from(least) * f64::from(rate);
    let shift = exact.floor() as f32;
    if f64::from(shift) > exact { shift.next_down() } else { shift }
}

dispatched! {
    /// Adds the energies `[tile][window]` of a group of tiles, on `count` windows from `first` on, to the state. Rows of
    /// `columns` windows in which no image comes near the best so far are skipped; that changes no bit.
    pub fn absorb(
        energies: &[Lanes],
        count: usize,
        first: usize,
        rate: f32,
        columns: usize,
        state: &mut LaneState,
    ) = absorb_body
}

/// Writes `(shift, sum of weights)` of every window over all lanes.
pub fn fold_lanes(state: &LaneState, shift: &mut [f32], sum: &mut [f32]) {
    shift.copy_from_slice(&state.shift);
    for (sum, lanes) in sum.iter_mut().zip(&state.sum) {
        *sum = lanes.sum();
    }
}

dispatched! {
    /// Writes the posterior weights of a tile's energies. Marks in `live` the rows of `columns` windows that hold any
    /// weight above `2^-cutoff`; the others are not written. Returns whether any row is live.
    pub fn weigh(
        energies: &[Lanes],
        softmax: &Softmax<'_>,
        columns: usize,
        live: &mut [bool],
        weights: &mut [Lanes],
    ) -> bool = weigh_body
}

/// What makes posterior weights of energies on some windows: `2^(shift - rate energy) * scale`.
#[derive(Debug, Clone, Copy)]
pub struct Softmax<'a> {
    /// One a window.
    pub shift: &'a [f32],
    /// One a window.
    pub scale: &'a [f32],
    /// The same for all.
    pub rate: f32,
    /// Weights below `2^-cutoff` may be left out.
    pub cutoff: f32,
}

impl Softmax<'_> {
    /// For the windows from `start` on.
    #[inline(always)]
    fn part(&self, start: usize, count: usize) -> Self {
        Self { shift: &self.shift[start..][..count], scale: &self.scale[start..][..count], ..*self }
    }

    #[inline(always)]
    fn logit<V: Vector>(&self, energy: &Lanes, k: usize) -> V {
        V::load(energy).mul_add(V::splat(-self.rate), V::splat(self.shift[k]))
    }
}

#[inline(always)]
fn absorb_body<V: Vector>(
    energies: &[Lanes],
    count: usize,
    first: usize,
    rate: f32,
    columns: usize,
    state: &mut LaneState,
) {
    let mut tiles = parts(energies, count);
    while let Some(one) = tiles.next() {
        match tiles.next() {
            Some(other) => absorb_tiles::<V, 2>([one, other], first, rate, columns, state),
            None => absorb_tiles::<V, 1>([one], first, rate, columns, state),
        }
    }
}

#[inline(always)]
fn absorb_tiles<V: Vector, const T: usize>(
    energies: [&[Lanes]; T],
    first: usize,
    rate: f32,
    columns: usize,
    state: &mut LaneState,
) {
    let mut end = 0;
    while end < energies[0].len() {
        let start = end;
        end += columns;
        let windows = first + start..first + start + columns;
        if state.shift[windows.start] >= NO_SHIFT {
            start_row::<V, T>(part_of(energies, start, columns), rate, windows.start, state);
        }
        if !any_near::<V, T>(part_of(energies, start, columns), &state.shift[windows.clone()], rate) {
            continue;
        }
        let mut k = 0;
        loop {
            let rest = part_of(energies, start + k, columns - k);
            k += add_weights::<V, T>(rest, rate, state, windows.start + k);
            if k == columns {
                break;
            }
            let best = best_of::<V, T>(energies, start + k);
            state.move_to(windows.start + k, best.least(), rate);
        }
    }
}

/// Puts the shifts of a row of windows, from window `first` on, at the first energies seen.
#[inline(always)]
fn start_row<V: Vector, const T: usize>(energies: [&[Lanes]; T], rate: f32, first: usize, state: &mut LaneState) {
    let shift = &mut state.shift[first..][..energies[0].len()];
    for k in 0..shift.len() {
        shift[k] = shift_of(best_of::<V, T>(energies, k).least(), rate);
    }
}

/// `count` windows of every tile, from `start` on.
#[inline(always)]
fn part_of<const T: usize>(energies: [&[Lanes]; T], start: usize, count: usize) -> [&[Lanes]; T] {
    let mut part: [&[Lanes]; T] = [&[]; T];
    for t in 0..T {
        part[t] = &energies[t][start..][..count];
    }
    part
}

/// Whether any image comes near the best so far on a row of windows.
#[inline(always)]
fn any_near<V: Vector, const T: usize>(energies: [&[Lanes]; T], shift: &[f32], rate: f32) -> bool {
    let energies = part_of(energies, 0, shift.len());
    for k in 0..shift.len() {
        let logit = best_of::<V, T>(energies, k).mul_add(V::splat(-rate), V::splat(shift[k]));
        if V::splat(-INVISIBLE).any_below(logit) {
            return true;
        }
    }
    false
}

/// Adds the weights on a row of windows from window `first` on; stops before the first window whose shift has to move,
/// because a call inside the loop would cost all its constants their registers. Returns how many windows it did.
#[inline(always)]
fn add_weights<V: Vector, const T: usize>(
    energies: [&[Lanes]; T],
    rate: f32,
    state: &mut LaneState,
    first: usize,
) -> usize {
    let count = energies[0].len();
    let energies = part_of(energies, 0, count);
    let shift = &state.shift[first..][..count];
    let sum = &mut state.sum[first..][..count];
    let factor = V::splat(-rate);
    for k in 0..count {
        let shift = V::splat(shift[k]);
        if V::splat(FAR_BETTER).any_below(best_of::<V, T>(energies, k).mul_add(factor, shift)) {
            return k;
        }
        let mut total = V::splat(0.0);
        for t in 0..T {
            let logit = V::load(&energies[t][k]).mul_add(factor, shift);
            let weight = logit.max(V::splat(SMALLEST)).exp2();
            total = if t == 0 { weight } else { total.add(weight) };
        }
        total.add_to(&mut sum[k]);
    }
    count
}

/// The least energies on window `k` of a row.
#[inline(always)]
fn best_of<V: Vector, const T: usize>(energies: [&[Lanes]; T], k: usize) -> V {
    let mut best = V::load(&energies[0][k]);
    for t in 1..T {
        best = best.min(V::load(&energies[t][k]));
    }
    best
}

#[inline(always)]
fn weigh_body<V: Vector>(
    energies: &[Lanes],
    softmax: &Softmax<'_>,
    columns: usize,
    live: &mut [bool],
    weights: &mut [Lanes],
) -> bool {
    let rows = parts(energies, columns).zip(parts_mut(weights, columns));
    let mut any = false;
    for (i, ((energies, weights), live)) in rows.zip(live).enumerate() {
        let softmax = softmax.part(i * columns, columns);
        *live = any_weight::<V>(energies, &softmax);
        any |= *live;
        if *live {
            weigh_row::<V>(energies, &softmax, weights);
        }
    }
    any
}

/// Whether any weight of a row may count.
#[inline(always)]
fn any_weight<V: Vector>(energies: &[Lanes], softmax: &Softmax<'_>) -> bool {
    let softmax = softmax.part(0, energies.len());
    for k in 0..energies.len() {
        if V::splat(-softmax.cutoff).any_below(softmax.logit(&energies[k], k)) {
            return true;
        }
    }
    false
}

#[inline(always)]
fn weigh_row<V: Vector>(energies: &[Lanes], softmax: &Softmax<'_>, weights: &mut [Lanes]) {
    let count = weights.len();
    let (energies, softmax) = (&energies[..count], softmax.part(0, count));
    for k in 0..count {
        let logit: V = softmax.logit(&energies[k], k);
        logit.max(V::splat(SMALLEST)).exp2().mul(V::splat(softmax.scale[k])).store(&mut weights[k]);
    }
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
                tiles.chunks_exact(2).for_each(|group| absorb(isa, group, 1, 0, rate, 1, &mut state));
                let (mut shift, mut sum) = ([0.0], [0.0]);
                fold_lanes(&state, &mut shift, &mut sum);
                let log = f64::from(sum[0]).log2() - f64::from(shift[0]);
                // The portable set rounds the product before it subtracts.
                let bound = 1e-6 + 1e-7 * exact.log2().abs();
                prop_assert!((log - exact.log2()).abs() < bound, "{} against {}", log, exact.log2());
            }
        }
    }

    #[test]
    fn shifts_of_any_size_settle() {
        for isa in Isa::available() {
            for size in [1e3, 1e8, 3e9, 1e20, 1e30] {
                let mut state = LaneState::default();
                state.start(1);
                for step in 0..20_u8 {
                    let energies = [Lanes::splat(size * (1.0 - 1e-3 * f32::from(step)))];
                    absorb(isa, &energies, 1, 0, 0.731, 1, &mut state);
                }
                let (mut shift, mut sum) = ([0.0], [0.0]);
                fold_lanes(&state, &mut shift, &mut sum);
                assert!(sum[0] > 0.0 && sum[0].is_finite() && shift[0].is_finite());
            }
        }
    }

    #[test]
    fn rows_far_from_the_best_are_left_out() {
        for isa in Isa::available() {
            let energies = [Lanes::splat(3.0), Lanes::splat(200.0)];
            let (mut live, mut weights) = ([false, true], [Lanes::ZERO; 2]);
            let softmax = Softmax { shift: &[1.0, 1.0], scale: &[0.5, 0.5], rate: 1.0, cutoff: 40.0 };
            assert!(weigh(isa, &energies, &softmax, 1, &mut live, &mut weights));
            assert_eq!(live, [true, false]);
            assert!((weights[0].0[0] - 0.125).abs() < 1e-7);
            assert_eq!(weights[1], Lanes::ZERO);
        }
    }
}
