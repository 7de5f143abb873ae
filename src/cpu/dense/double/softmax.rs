//! The online softmax of pass 1 and the normalised weights of pass 2, with logits formed in float64: `logit_scale (least -
//! energy)` is exactly zero for the best image, whatever the size of the energies.

use crate::cpu::chunks::{exact_chunks, exact_chunks_mut};
use crate::simd::{F32x16, F64x16, Kernel, LANES, Vector};

/// Smaller weights are raised to two to this power, so that no product with them is subnormal.
const MIN_EXPONENT: f32 = -100.0;

/// The state of pass 1: per window the least energy and the sum of weights relative to it.
#[derive(Debug, Default)]
pub(crate) struct DoubleSoftmax {
    least: Vec<f64>,
    sum: Vec<f64>,
    negligible: f64,
}

impl DoubleSoftmax {
    /// Starts over with no image, at the least energies of other images, or the largest number; images `negligible` powers of two
    /// below the best so far are passed over.
    pub(super) fn start(&mut self, least: &[f64], negligible: f64) {
        self.least.clear();
        self.least.extend_from_slice(least);
        self.sum.clear();
        self.sum.resize(least.len(), 0.0);
        self.negligible = negligible;
    }

    /// `(least energy, sum of weights)` of every window.
    pub(super) fn least_and_sum(&self) -> (Vec<f64>, Vec<f64>) {
        (self.least.clone(), self.sum.clone())
    }
}

/// Updates the state with the energies `[tile][window]` of a group of tiles, on `count` windows, the first of which is
/// window `first`.
pub(super) struct Update<'a> {
    pub(super) energies: &'a [F64x16],
    pub(super) count: usize,
    pub(super) first: usize,
    pub(super) logit_scale: f64,
    pub(super) state: &'a mut DoubleSoftmax,
}

impl Kernel for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { energies, count, first, logit_scale, state } = self;
        let (least, sum) = (&mut state.least[first..][..count], &mut state.sum[first..][..count]);
        for tile in exact_chunks(energies, count) {
            for k in 0..count {
                let best = tile[k].least();
                if best < least[k] {
                    sum[k] *= (logit_scale * (best - least[k])).exp2();
                    least[k] = best;
                }
                if logit_scale * (least[k] - best) >= -state.negligible {
                    sum[k] += f64::from(weights::<V>(&tile[k], least[k], logit_scale).sum());
                }
            }
        }
    }
}

/// The same, and writes the weights, see [`Arithmetic`](crate::cpu::dense::arithmetic::Arithmetic).
pub(super) struct UpdateAndWeigh<'a> {
    pub(super) update: Update<'a>,
    pub(super) weights: &'a mut [F32x16],
    pub(super) rescaled: &'a mut Vec<(usize, f64)>,
}

impl Kernel for UpdateAndWeigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { update: Update { energies, count, first, logit_scale, state }, weights: out, rescaled } = self;
        let (least, sum) = (&mut state.least[first..][..count], &mut state.sum[first..][..count]);
        for k in 0..count {
            let tiles = || exact_chunks(energies, count).map(|tile| &tile[k]);
            let best = tiles().map(F64x16::least).fold(f64::MAX, f64::min);
            if best < least[k] {
                let share = (logit_scale * (best - least[k])).exp2();
                sum[k] *= share;
                least[k] = best;
                rescaled.push((first + k, share));
            }
            let is_near = logit_scale * (least[k] - best) >= -state.negligible;
            for (energies, out) in tiles().zip(exact_chunks_mut(out, count)) {
                let weights = if is_near { weights::<V>(energies, least[k], logit_scale) } else { V::splat(0.0) };
                sum[k] += f64::from(weights.sum());
                weights.store(&mut out[k]);
            }
        }
    }
}

/// Writes the posterior weights of a tile's energies; see [`Arithmetic`](crate::cpu::dense::arithmetic::Arithmetic).
pub(super) struct Normalise<'a> {
    pub(super) energies: &'a [F64x16],
    /// Per window.
    pub(super) least: &'a [f64],
    /// Per window.
    pub(super) scale: &'a [f32],
    pub(super) logit_scale: f64,
    /// Weights below `2^-cutoff` may be left out.
    pub(super) cutoff: f64,
    pub(super) columns: usize,
    pub(super) active: &'a mut [bool],
    pub(super) weights: &'a mut [F32x16],
}

impl Kernel for Normalise<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<V: Vector>(self) -> bool {
        let Self { energies, least, scale, logit_scale, cutoff, columns, active, weights: out } = self;
        let rows = exact_chunks(energies, columns).zip(exact_chunks_mut(out, columns));
        let references = exact_chunks(least, columns).zip(exact_chunks(scale, columns));
        let mut any = false;
        for (((energies, out), (least, scale)), active) in rows.zip(references).zip(active) {
            *active = (0..columns).any(|k| logit_scale * (least[k] - energies[k].least()) >= -cutoff);
            any |= *active;
            for k in if *active { 0..columns } else { 0..0 } {
                weights::<V>(&energies[k], least[k], logit_scale).mul(V::splat(scale[k])).store(&mut out[k]);
            }
        }
        any
    }
}

/// The weights of sixteen images relative to one of energy `least`.
#[inline(always)]
fn weights<V: Vector>(energies: &F64x16, least: f64, logit_scale: f64) -> V {
    let mut logits = F32x16::ZERO;
    for i in 0..LANES {
        logits.0[i] = (logit_scale * (least - energies.0[i])) as f32;
    }
    V::load(&logits).max(V::splat(MIN_EXPONENT)).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn weights_are_the_softmax_whatever_the_size_of_energies(
            values in proptest::collection::vec(0.0_f64..60.0, 4 * LANES),
            base in prop_oneof![Just(0.0), Just(-1e3), Just(1e12)], logit_scale in 0.05_f64..30.0,
        ) {
            // Four groups of one tile, one window.
            let tiles: Vec<F64x16> =
                values.chunks_exact(LANES).map(|v| F64x16(std::array::from_fn(|i| base + v[i]))).collect();
            let energies: Vec<f64> = tiles.iter().flat_map(|tile| tile.0).collect();
            let best = energies.iter().copied().fold(f64::MAX, f64::min);
            let exact: f64 = energies.iter().map(|energy| (logit_scale * (best - energy)).exp2()).sum();
            for isa in Isa::available() {
                let mut state = DoubleSoftmax::default();
                state.start(&[f64::MAX], 40.0);
                for tile in &tiles {
                    let energies = std::slice::from_ref(tile);
                    isa.run(Update { energies, count: 1, first: 0, logit_scale, state: &mut state });
                }
                let (least, sum) = state.least_and_sum();
                prop_assert_eq!(least[0], best);
                prop_assert!((sum[0] / exact - 1.0).abs() < 1e-6, "{} against {}", sum[0], exact);
                let (mut total, scale) = (0.0, [(1.0 / sum[0]) as f32]);
                for tile in &tiles {
                    let (energies, least) = (std::slice::from_ref(tile), &least[..]);
                    let (mut active, mut out) = ([false], [F32x16::ZERO]);
                    let (active, weights, scale) = (&mut active[..], &mut out[..], &scale[..]);
                    let normalise =
                        Normalise { energies, least, scale, logit_scale, cutoff: 40.0, columns: 1, active, weights };
                    isa.run(normalise);
                    total += out[0].0.iter().map(|&weight| f64::from(weight)).sum::<f64>();
                }
                prop_assert!((total - 1.0).abs() < 1e-6, "weights sum to {}", total);
            }
        }
    }

    #[test]
    fn one_image_has_the_weight_one_at_any_distance() {
        for isa in Isa::available() {
            for energy in [0.0, 1e10, 1e26, -1e30] {
                let mut state = DoubleSoftmax::default();
                state.start(&[f64::MAX], 22.0);
                let mut lanes = [f64::MAX; LANES];
                lanes[0] = energy;
                let energies = &[F64x16(lanes)];
                isa.run(Update { energies, count: 1, first: 0, logit_scale: 1e8, state: &mut state });
                assert_eq!(state.least_and_sum().0, [energy]);
                assert!((state.sum[0] - 1.0).abs() < 1e-6);
            }
        }
    }
}
