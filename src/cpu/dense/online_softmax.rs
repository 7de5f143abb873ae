//! From energies to posterior weights: the online softmax of pass 1 and the normalised weights of pass 2.
//!
//! The logit of an image on a window is `-logit_scale energy`, in powers of two. A *shift* is the negative of the largest
//! logit seen, rounded to an integer: weights are `2^(shift - logit_scale energy)`.

use crate::cpu::chunks::{exact_chunks, exact_chunks_mut};
use crate::posterior::power_of_two;
use crate::simd::{F32x8, F32x16, Isa, Kernel, LANES, Vector};

/// An image whose weight relative to the shift exceeds two to this power moves the shift. So the shift stays near the best
/// image, and rows of windows far from it can be recognised and skipped.
pub(crate) const RESCALE_BITS: f32 = 8.0;

/// Smaller weights are raised to two to this power, so that no product with them is subnormal.
pub(crate) const MIN_EXPONENT: f32 = -100.0;

/// The shift of a window that has seen no image.
pub(crate) const NO_SHIFT: f32 = f32::MAX;

/// The state of pass 1: per window a shift and the sum of weights relative to it, spread over the lanes of a register. It
/// is small, because the states of all probes of a work item share the second-level cache with the tiles.
#[derive(Debug, Default)]
pub(crate) struct OnlineSoftmax {
    shift: Vec<f32>,
    sum: Vec<F32x8>,
    /// Sums of earlier images, see [`OnlineSoftmax::settle`].
    settled: Vec<F32x8>,
    negligible: f32,
}

impl OnlineSoftmax {
    /// Starts over with no image, at the shifts of other images, or [`NO_SHIFT`] and more; rows of windows on which every image
    /// is `negligible` powers of two below the shift are passed over ([`negligible_bits`](crate::regime::negligible_bits)).
    pub(crate) fn start(&mut self, shifts: &[f64], negligible: f32) {
        self.negligible = negligible;
        self.shift.clear();
        self.shift.extend(shifts.iter().map(|&shift| shift.min(f64::from(NO_SHIFT)) as f32));
        self.sum.clear();
        self.sum.resize(shifts.len(), F32x8::ZERO);
        self.settled.clear();
    }

    /// Moves the sums to those of earlier images. Sums of a few hundred images, summed up, round less than one of thousands,
    /// to which each image adds a little less than it should.
    pub(crate) fn settle(&mut self, isa: Isa) {
        self.settled.resize(self.sum.len(), F32x8::ZERO);
        isa.run(Settle { state: self });
    }

    /// `(shift, sum of weights)` of every window, summed over the lanes.
    pub(crate) fn sums_over_lanes(&self) -> (Vec<f32>, Vec<f32>) {
        let mut sums: Vec<f32> = self.sum.iter().map(F32x8::sum).collect();
        for (sum, settled) in sums.iter_mut().zip(&self.settled) {
            *sum += settled.sum();
        }
        (self.shift.clone(), sums)
    }

    /// Moves the shift of window `k` to a new least energy.
    #[cold]
    #[inline(never)]
    fn rescale(&mut self, k: usize, least: f32, logit_scale: f32) {
        // It never rises, even where energies are NaN.
        let shift = shift_of(least, logit_scale).min(self.shift[k]);
        let share = power_of_two(f64::from(shift) - f64::from(self.shift[k])) as f32;
        for sums in [Some(&mut self.sum[k]), self.settled.get_mut(k)].into_iter().flatten() {
            sums.0.iter_mut().for_each(|sum| *sum *= share);
        }
        self.shift[k] = shift;
    }
}

/// Adds the sums to those of earlier images, and starts them over.
struct Settle<'a> {
    state: &'a mut OnlineSoftmax,
}

impl Kernel for Settle<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let OnlineSoftmax { sum, settled, .. } = self.state;
        for (settled, sum) in settled.iter_mut().zip(sum) {
            for i in 0..LANES / 2 {
                settled.0[i] += sum.0[i];
            }
            *sum = F32x8::ZERO;
        }
    }
}

/// The shift for a least energy: the largest integer up to `logit_scale least`. Larger logits than float32 has integers are
/// computed in float64 ([`MAX_SHIFT_BITS`](crate::regime::MAX_SHIFT_BITS)).
pub(crate) fn shift_of(least: f32, logit_scale: f32) -> f32 {
    (f64::from(least) * f64::from(logit_scale)).floor() as f32
}

/// Updates the state with the energies `[tile][window]` of a group of tiles, on `count` windows, the first of which is
/// window `first`. Rows of `columns` windows in which no image comes near the best so far are skipped: all that is
/// skipped is a negligible part of the sum.
pub(crate) struct Update<'a> {
    pub(crate) energies: &'a [F32x16],
    pub(crate) count: usize,
    pub(crate) first: usize,
    pub(crate) logit_scale: f32,
    pub(crate) columns: usize,
    pub(crate) state: &'a mut OnlineSoftmax,
}

impl Kernel for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { energies, count, first, logit_scale, columns, state } = self;
        let mut tiles = exact_chunks(energies, count);
        while let Some(tile) = tiles.next() {
            match tiles.next() {
                Some(next) => update_tiles::<V, 2>([tile, next], first, logit_scale, columns, state),
                None => update_tiles::<V, 1>([tile], first, logit_scale, columns, state),
            }
        }
    }
}

/// The same, and writes the weights, see [`Arithmetic`](super::arithmetic::Arithmetic).
pub(crate) struct UpdateAndWeigh<'a> {
    pub(crate) update: Update<'a>,
    /// Per row of windows.
    pub(crate) active: &'a mut [bool],
    /// `[tile][window]`.
    pub(crate) weights: &'a mut [F32x16],
    pub(crate) rescaled: &'a mut Vec<(usize, f64)>,
}

impl Kernel for UpdateAndWeigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { update: Update { energies, count, first, logit_scale, columns, state }, active, weights, rescaled } =
            self;
        let out = Weights { first, logit_scale, columns, active, rescaled };
        let (energies, weights) = (exact_chunks(energies, count), exact_chunks_mut(weights, count));
        let mut tiles = energies.zip(weights);
        match (tiles.next(), tiles.next()) {
            (Some((a, to_a)), Some((b, to_b))) => weigh_tiles::<V, 2>([a, b], [to_a, to_b], state, out),
            (Some((a, to_a)), None) => weigh_tiles::<V, 1>([a], [to_a], state, out),
            (None, _) => {}
        }
    }
}

/// Where the weights of a group of one or two tiles go, and what they are computed with.
struct Weights<'a> {
    first: usize,
    logit_scale: f32,
    columns: usize,
    active: &'a mut [bool],
    rescaled: &'a mut Vec<(usize, f64)>,
}

#[inline(always)]
fn weigh_tiles<V: Vector, const T: usize>(
    energies: [&[F32x16]; T],
    weights: [&mut [F32x16]; T],
    state: &mut OnlineSoftmax,
    Weights { first, logit_scale, columns, active, rescaled }: Weights<'_>,
) {
    let factor = V::splat(-logit_scale);
    for (row, active) in active.iter_mut().enumerate() {
        let (start, window) = (row * columns, first + row * columns);
        let of_row = part_of(energies, start, columns);
        if state.shift[window] >= NO_SHIFT {
            start_row::<V, T>(of_row, logit_scale, window, state);
        }
        *active = any_near::<V, T>(of_row, &state.shift[window..][..columns], state.negligible, logit_scale);
        for k in if *active { 0..columns } else { 0..0 } {
            let best = best_of::<V, T>(of_row, k);
            let before = state.shift[window + k];
            if V::splat(RESCALE_BITS).any_below(best.mul_add(factor, V::splat(before))) {
                state.rescale(window + k, best.least(), logit_scale);
                let share = power_of_two(f64::from(state.shift[window + k]) - f64::from(before));
                rescaled.push((window + k, share));
            }
            let shift = V::splat(state.shift[window + k]);
            let mut total = V::splat(0.0);
            for t in 0..T {
                let logit = V::load(&of_row[t][k]).mul_add(factor, shift);
                let weight = logit.max(V::splat(MIN_EXPONENT)).exp2();
                weight.store(&mut weights[t][start + k]);
                total = total.add(weight);
            }
            total.add_to(&mut state.sum[window + k]);
        }
    }
}

/// Writes the posterior weights of a tile's energies. Marks in `active` the rows of `columns` windows that hold any
/// weight above `2^-cutoff`; the others are not written. Returns whether any row is active.
pub(crate) struct Normalise<'a> {
    pub(crate) energies: &'a [F32x16],
    pub(crate) softmax: Softmax<'a>,
    pub(crate) columns: usize,
    pub(crate) active: &'a mut [bool],
    pub(crate) weights: &'a mut [F32x16],
}

impl Kernel for Normalise<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<V: Vector>(self) -> bool {
        let Self { energies, softmax, columns, active, weights } = self;
        let rows = exact_chunks(energies, columns).zip(exact_chunks_mut(weights, columns));
        let mut any = false;
        for (i, ((energies, weights), active)) in rows.zip(active).enumerate() {
            let softmax = softmax.part(i * columns, columns);
            *active = has_weight::<V>(energies, &softmax);
            any |= *active;
            if *active {
                normalise_row::<V>(energies, &softmax, weights);
            }
        }
        any
    }
}

/// Writes the base-2 logarithms of the posterior weights of a tile's energies.
pub(crate) struct LogWeights<'a> {
    pub(crate) energies: &'a [F32x16],
    /// Per window.
    pub(crate) shift: &'a [f32],
    /// Per window.
    pub(crate) log_scale: &'a [f32],
    pub(crate) logit_scale: f32,
    pub(crate) out: &'a mut [F32x16],
}

impl Kernel for LogWeights<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { energies, shift, log_scale, logit_scale, out } = self;
        let factor = V::splat(-logit_scale);
        for (((energy, shift), log_scale), out) in energies.iter().zip(shift).zip(log_scale).zip(out) {
            V::load(energy).mul_add(factor, V::splat(*shift)).add(V::splat(*log_scale)).store(out);
        }
    }
}

/// What turns energies on some windows into posterior weights: `2^(shift - logit_scale energy) * scale`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Softmax<'a> {
    /// Per window.
    pub(crate) shift: &'a [f32],
    /// Per window.
    pub(crate) scale: &'a [f32],
    /// The same for all.
    pub(crate) logit_scale: f32,
    /// Weights below `2^-cutoff` may be left out.
    pub(crate) cutoff: f32,
}

impl Softmax<'_> {
    /// For `count` windows, the first of which is window `start`.
    #[inline(always)]
    fn part(&self, start: usize, count: usize) -> Self {
        Self { shift: &self.shift[start..][..count], scale: &self.scale[start..][..count], ..*self }
    }

    #[inline(always)]
    fn logit<V: Vector>(&self, energy: &F32x16, k: usize) -> V {
        V::load(energy).mul_add(V::splat(-self.logit_scale), V::splat(self.shift[k]))
    }
}

#[inline(always)]
fn update_tiles<V: Vector, const T: usize>(
    energies: [&[F32x16]; T],
    first: usize,
    logit_scale: f32,
    columns: usize,
    state: &mut OnlineSoftmax,
) {
    let mut end = 0;
    while end < energies[0].len() {
        let start = end;
        end += columns;
        let windows = first + start..first + start + columns;
        if state.shift[windows.start] >= NO_SHIFT {
            start_row::<V, T>(part_of(energies, start, columns), logit_scale, windows.start, state);
        }
        if !any_near::<V, T>(
            part_of(energies, start, columns),
            &state.shift[windows.clone()],
            state.negligible,
            logit_scale,
        ) {
            continue;
        }
        let mut k = 0;
        loop {
            let rest = part_of(energies, start + k, columns - k);
            k += add_weights::<V, T>(rest, logit_scale, state, windows.start + k);
            if k == columns {
                break;
            }
            let best = best_of::<V, T>(energies, start + k);
            state.rescale(windows.start + k, best.least(), logit_scale);
            // The window is added in any case, so that every round comes further, even if its energies are NaN.
            let shift = V::splat(state.shift[windows.start + k]);
            let total = weights_of::<V, T>(energies, start + k, V::splat(-logit_scale), shift);
            total.add_to(&mut state.sum[windows.start + k]);
            k += 1;
        }
    }
}

/// Sets the shifts of a row of windows, the first of which is window `first`, by the first energies seen.
#[inline(always)]
fn start_row<V: Vector, const T: usize>(
    energies: [&[F32x16]; T],
    logit_scale: f32,
    first: usize,
    state: &mut OnlineSoftmax,
) {
    let shift = &mut state.shift[first..][..energies[0].len()];
    for k in 0..shift.len() {
        shift[k] = shift_of(best_of::<V, T>(energies, k).least(), logit_scale);
    }
}

/// `count` windows of every tile, the first of which is window `start`.
#[inline(always)]
pub(crate) fn part_of<const T: usize>(energies: [&[F32x16]; T], start: usize, count: usize) -> [&[F32x16]; T] {
    let mut part: [&[F32x16]; T] = [&[]; T];
    for t in 0..T {
        part[t] = &energies[t][start..][..count];
    }
    part
}

/// Whether any image comes near the best so far, which the shifts tell, on a row of windows.
#[inline(always)]
pub(crate) fn any_near<V: Vector, const T: usize>(
    energies: [&[F32x16]; T],
    shift: &[f32],
    negligible: f32,
    logit_scale: f32,
) -> bool {
    let bound = V::splat(-negligible);
    let energies = part_of(energies, 0, shift.len());
    for k in 0..shift.len() {
        let logit = best_of::<V, T>(energies, k).mul_add(V::splat(-logit_scale), V::splat(shift[k]));
        if bound.any_below(logit) {
            return true;
        }
    }
    false
}

/// Adds the weights on a row of windows, the first of which is window `first`. Stops before a window whose shift has to
/// move, because a call inside the loop would evict its constants from their registers. Returns how many windows it
/// added.
#[inline(always)]
fn add_weights<V: Vector, const T: usize>(
    energies: [&[F32x16]; T],
    logit_scale: f32,
    state: &mut OnlineSoftmax,
    first: usize,
) -> usize {
    let count = energies[0].len();
    let energies = part_of(energies, 0, count);
    let shift = &state.shift[first..][..count];
    let sum = &mut state.sum[first..][..count];
    let factor = V::splat(-logit_scale);
    for k in 0..count {
        let shift = V::splat(shift[k]);
        if V::splat(RESCALE_BITS).any_below(best_of::<V, T>(energies, k).mul_add(factor, shift)) {
            return k;
        }
        weights_of::<V, T>(energies, k, factor, shift).add_to(&mut sum[k]);
    }
    count
}

/// The weights on window `k` of a row, summed over the tiles.
#[inline(always)]
fn weights_of<V: Vector, const T: usize>(energies: [&[F32x16]; T], k: usize, factor: V, shift: V) -> V {
    let mut total = V::splat(0.0);
    for t in 0..T {
        let logit = V::load(&energies[t][k]).mul_add(factor, shift);
        let weight = logit.max(V::splat(MIN_EXPONENT)).exp2();
        total = if t == 0 { weight } else { total.add(weight) };
    }
    total
}

/// The least energies on window `k` of a row.
#[inline(always)]
pub(crate) fn best_of<V: Vector, const T: usize>(energies: [&[F32x16]; T], k: usize) -> V {
    let mut best = V::load(&energies[0][k]);
    for t in 1..T {
        best = best.min(V::load(&energies[t][k]));
    }
    best
}

/// Whether any weight of a row may count.
#[inline(always)]
fn has_weight<V: Vector>(energies: &[F32x16], softmax: &Softmax<'_>) -> bool {
    let softmax = softmax.part(0, energies.len());
    for k in 0..energies.len() {
        if V::splat(-softmax.cutoff).any_below(softmax.logit(&energies[k], k)) {
            return true;
        }
    }
    false
}

#[inline(always)]
fn normalise_row<V: Vector>(energies: &[F32x16], softmax: &Softmax<'_>, weights: &mut [F32x16]) {
    let count = weights.len();
    let (energies, softmax) = (&energies[..count], softmax.part(0, count));
    for k in 0..count {
        let logit: V = softmax.logit(&energies[k], k);
        logit.max(V::splat(MIN_EXPONENT)).exp2().mul(V::splat(softmax.scale[k])).store(&mut weights[k]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn state_holds_the_log_sum_of_weights(
            values in proptest::collection::vec(0.0_f32..60.0, 6 * LANES),
            logit_scale in 0.05_f32..30.0,
        ) {
            // Three groups of two tiles, one window.
            let tiles: Vec<F32x16> = values.chunks_exact(LANES).map(|v| F32x16(v.try_into().expect("sized"))).collect();
            let exact: f64 = values.iter().map(|&v| (-f64::from(v) * f64::from(logit_scale)).exp2()).sum();
            for isa in Isa::available() {
                let mut state = OnlineSoftmax::default();
                state.start(&[f64::MAX], 30.0);
                for energies in tiles.chunks_exact(2) {
                    isa.run(Update { energies, count: 1, first: 0, logit_scale, columns: 1, state: &mut state });
                }
                let (shift, sum) = state.sums_over_lanes();
                let log = f64::from(sum[0]).log2() - f64::from(shift[0]);
                // The portable instruction set rounds the product before it subtracts.
                let bound = 1e-6 + 1e-7 * exact.log2().abs();
                prop_assert!((log - exact.log2()).abs() < bound, "{} against {}", log, exact.log2());
            }
        }
    }

    #[test]
    fn energies_that_are_not_numbers_end() {
        for isa in Isa::available() {
            for lane in 0..LANES {
                let mut lanes = [5.0; LANES];
                lanes[lane] = f32::NAN;
                lanes[(lane + LANES / 2) % LANES] = -1e4;
                let energies = &[F32x16([30.0; LANES]), F32x16(lanes)];
                let mut state = OnlineSoftmax::default();
                state.start(&[f64::MAX], 30.0);
                for energies in energies {
                    let (energies, state) = (std::slice::from_ref(energies), &mut state);
                    isa.run(Update { energies, count: 1, first: 0, logit_scale: 0.7, columns: 1, state });
                }
            }
        }
    }

    #[test]
    fn rows_far_from_the_best_are_left_out() {
        for isa in Isa::available() {
            let energies = [F32x16::splat(3.0), F32x16::splat(200.0)];
            let (mut active, mut weights) = ([false, true], [F32x16::ZERO; 2]);
            let softmax = Softmax { shift: &[1.0, 1.0], scale: &[0.5, 0.5], logit_scale: 1.0, cutoff: 40.0 };
            let (active, weights) = (&mut active, &mut weights);
            assert!(isa.run(Normalise { energies: &energies, softmax, columns: 1, active, weights }));
            assert_eq!(*active, [true, false]);
            assert!((weights[0].0[0] - 0.125).abs() < 1e-7);
            assert_eq!(weights[1], F32x16::ZERO);
        }
    }
}
