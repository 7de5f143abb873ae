//! `Posterior`: the state of every window's softmax after pass 1, and how the states of two parts of the data set are
//! merged.

use crate::components::Components;

/// What a shift counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ShiftUnit {
    /// Logits, in powers of two: shifts are integers, for energies in float32.
    PowersOfTwo,
    /// The energies themselves, of which these many are a power of two: shifts are the least energies, for energies in
    /// float64. Their logits may be too large for an integer to come near them.
    Energies {
        /// Powers of two per unit of energy.
        logit_scale: f64,
    },
}

impl ShiftUnit {
    /// The weight of what lies `below` a shift, which is not negative.
    fn share(self, below: f64) -> f64 {
        match self {
            Self::PowersOfTwo => power_of_two(-below),
            Self::Energies { logit_scale } => (-logit_scale * below).exp2(),
        }
    }

    /// A shift in powers of two.
    fn bits(self, shift: f64) -> f64 {
        match self {
            Self::PowersOfTwo => shift,
            Self::Energies { logit_scale } => logit_scale * shift,
        }
    }
}

/// Per window a shift and the sum over images of weights relative to it. The shift is near the negative of the largest
/// logit, so that the sum is of moderate size.
#[derive(Debug, Clone)]
pub struct Posterior {
    unit: ShiftUnit,
    shift: Vec<f64>,
    sum: Vec<f64>,
}

impl Posterior {
    /// The posterior over no images.
    #[must_use]
    pub fn empty(count: usize, unit: ShiftUnit) -> Self {
        Self { unit, shift: vec![f64::MAX; count], sum: vec![0.0; count] }
    }

    /// Merges a shard of the data by log-sum-exp; the order of the merges fixes the bits.
    pub fn merge<T: Copy + Into<f64>>(&mut self, shift: &[T], sum: &[T]) {
        self.merge_with(shift, sum, |_, _| {});
    }

    /// The same; `scale` is told for every window what sums relative to this shift, and what those relative to the other, have
    /// to be multiplied with before they are added.
    pub(crate) fn merge_with<T: Copy + Into<f64>>(
        &mut self,
        shift: &[T],
        sum: &[T],
        mut scale: impl FnMut(usize, [f64; 2]),
    ) {
        for (k, (&shift, &sum)) in shift.iter().zip(sum).enumerate() {
            scale(k, self.merge_one(k, shift.into(), sum.into()));
        }
    }

    /// Merges the posterior of the mirrored query over mirrored `components`: the flipped half of the data.
    pub fn merge_mirrored(&mut self, flipped: &Self, components: &Components) {
        self.merge_mirrored_with(flipped, components, |_, _| {});
    }

    /// The same; see [`Posterior::merge_with`].
    pub(crate) fn merge_mirrored_with(
        &mut self,
        flipped: &Self,
        components: &Components,
        mut scale: impl FnMut(usize, [f64; 2]),
    ) {
        for k in 0..self.shift.len() {
            let mirror = components.mirror_index(k);
            scale(k, self.merge_one(k, flipped.shift[mirror], flipped.sum[mirror]));
        }
    }

    fn merge_one(&mut self, k: usize, shift: f64, sum: f64) -> [f64; 2] {
        let joint = shift.min(self.shift[k]);
        let shares = [self.unit.share(self.shift[k] - joint), self.unit.share(shift - joint)];
        self.sum[k] = self.sum[k] * shares[0] + sum * shares[1];
        self.shift[k] = joint;
        shares
    }

    /// The posterior of one of several ranks, of all of whose weights the images of this one have a share in every window: its
    /// base-2 logarithm. Normalised weights then sum up to that share.
    #[must_use]
    pub fn shared(&self, log2_shares: &[f64]) -> Self {
        /// A smaller share is none: sums stay finite, and no weight of such a window counts.
        const LEAST: f64 = -900.0;
        let mut shared = self.clone();
        for ((shift, sum), share) in shared.shift.iter_mut().zip(&mut shared.sum).zip(log2_shares) {
            let bits = -share.max(LEAST);
            match self.unit {
                // Shifts stay integers.
                ShiftUnit::PowersOfTwo => {
                    *shift -= bits.floor();
                    *sum *= bits.fract().exp2();
                }
                ShiftUnit::Energies { .. } => *sum *= bits.exp2(),
            }
        }
        shared
    }

    /// The shift of every window.
    pub(crate) fn shifts(&self) -> &[f64] {
        &self.shift
    }

    /// The sums of weights relative to the shift of every window.
    pub(crate) fn sums(&self) -> &[f64] {
        &self.sum
    }

    /// The largest magnitude of a shift, in powers of two: that of the logit of the best image of some window.
    #[must_use]
    pub fn largest_bits(&self) -> f64 {
        self.shift.iter().map(|&shift| self.unit.bits(shift).abs()).fold(0.0, f64::max)
    }

    /// The base-2 logarithm of the sum of `2^(-logit_scale energy)` of every window.
    pub fn log2_sums(&self) -> impl Iterator<Item = f64> {
        self.shift.iter().zip(&self.sum).map(|(&shift, &sum)| sum.log2() - self.unit.bits(shift))
    }

    /// The posterior of the mirrored query.
    #[must_use]
    pub fn mirrored(&self, components: &Components) -> Self {
        let pick = |values: &[f64]| (0..values.len()).map(|k| values[components.mirror_index(k)]).collect();
        Self { unit: self.unit, shift: pick(&self.shift), sum: pick(&self.sum) }
    }

    /// `(shift, scale)` per window, both in float32: `2^(shift - logit_scale energy) * scale` is the normalised weight, with
    /// scale near 1. For shifts that are integers.
    #[must_use]
    pub fn normaliser(&self) -> (Vec<f32>, Vec<f32>) {
        let of_window = |(&shift, &sum): (&f64, &f64)| {
            let integer = (shift - sum.log2()).round();
            (integer as f32, ((shift - integer).exp2() / sum) as f32)
        };
        self.shift.iter().zip(&self.sum).map(of_window).unzip()
    }

    /// `(least, scale)` per window: `2^(logit_scale (least - energy)) * scale` is the normalised weight. For shifts that are
    /// energies.
    #[must_use]
    pub fn least_and_scale(&self) -> (Vec<f64>, Vec<f32>) {
        (self.shift.clone(), self.sum.iter().map(|sum| (1.0 / sum) as f32).collect())
    }
}

/// Two to the power of an integer that is at most zero, as differences of shifts are, without the cost of a library call.
pub(crate) fn power_of_two(exponent: f64) -> f64 {
    const SMALLEST: f64 = -1022.0;
    const BIAS: f64 = 1023.0;
    debug_assert!(exponent <= 0.0 && exponent.fract() == 0.0, "shifts are integers");
    if exponent < SMALLEST { 0.0 } else { f64::from_bits(((exponent + BIAS) as u64) << 52) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_merge_is_the_softmax_normaliser(shifts in proptest::collection::vec(-500_i16..500, 1..40)) {
            let least = f64::from(*shifts.iter().min().expect("not empty"));
            let exact: f64 = shifts.iter().map(|&s| (least - f64::from(s)).exp2()).sum();
            let mut posterior = Posterior::empty(1, ShiftUnit::PowersOfTwo);
            for &shift in &shifts {
                posterior.merge(&[f32::from(shift)], &[1.0]);
            }
            prop_assert_eq!(posterior.shift[0], least);
            prop_assert!((posterior.sum[0] / exact - 1.0).abs() < 1e-12);
            let (shift, scale) = posterior.normaliser();
            prop_assert!((0.7..1.5).contains(&scale[0]));
            let weight = (f64::from(shift[0]) - least).exp2() * f64::from(scale[0]);
            prop_assert!((weight * exact - 1.0).abs() < 1e-7);
        }
    }

    #[test]
    fn powers_of_integers_are_exact() {
        for exponent in [0, -1, -7, -125, -1021, -1022] {
            assert_eq!(power_of_two(f64::from(exponent)), f64::from(exponent).exp2());
        }
        for exponent in [-1023.0, -1e6, -7e38] {
            assert_eq!(power_of_two(exponent), 0.0);
        }
    }

    #[test]
    fn energies_of_any_size_merge_without_loss() {
        for base in [0.0_f64, 1e12, -1e28] {
            let unit = ShiftUnit::Energies { logit_scale: 0.5 };
            let mut posterior = Posterior::empty(1, unit);
            // The second is two powers of two below the first, and of the last nothing is left.
            let step = f64::max(4.0, base.abs() * f64::EPSILON);
            for (shift, sum) in [(base + step, 1.0), (base, 3.0), (base + 1e6 * step, 7.0)] {
                posterior.merge(&[shift], &[sum]);
            }
            let (least, scale) = posterior.least_and_scale();
            assert_eq!(least[0], base);
            let exact = 3.0 + (-0.5 * (base + step - base)).exp2();
            assert!((f64::from(scale[0]) * exact - 1.0).abs() < 1e-7, "{base}");
            assert_eq!(posterior.largest_bits(), 0.5 * base.abs());
        }
    }

    #[test]
    fn normalised_weights_sum_to_the_share() {
        for unit in [ShiftUnit::PowersOfTwo, ShiftUnit::Energies { logit_scale: 2.0 }] {
            let mut posterior = Posterior::empty(4, unit);
            posterior.merge(&[5.0; 4], &[3.0; 4]);
            let log2_shares = [0.0, -0.25, -31.5, f64::NEG_INFINITY];
            let shared = posterior.shared(&log2_shares);
            for k in 0..4 {
                // Three weights of an image at the shift.
                let weight = match unit {
                    ShiftUnit::PowersOfTwo => {
                        let (shift, scale) = shared.normaliser();
                        (f64::from(shift[k]) - 5.0).exp2() * f64::from(scale[k])
                    }
                    ShiftUnit::Energies { .. } => f64::from(shared.least_and_scale().1[k]),
                };
                let share = log2_shares[k].exp2();
                assert!((3.0 * weight - share).abs() < 1e-6 * share + 1e-30, "{weight} of {share}");
            }
        }
    }

    #[test]
    fn mirrored_windows_share_their_sum() {
        let windows = Components::square(1, 3, 1).expect("fits");
        let mut posterior = Posterior::empty(3, ShiftUnit::PowersOfTwo);
        posterior.merge(&[0.0, 1.0, 2.0], &[1.0; 3]);
        let mut flipped = Posterior::empty(3, ShiftUnit::PowersOfTwo);
        flipped.merge(&[2.0, 1.0, 0.0], &[1.0; 3]);
        posterior.merge_mirrored(&flipped, &windows);
        assert_eq!(posterior.sum, vec![2.0; 3]);
        let (shift, scale) = posterior.mirrored(&windows).normaliser();
        assert_eq!((shift, scale), (vec![1.0, 0.0, -1.0], vec![1.0; 3]));
    }
}
