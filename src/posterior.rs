//! `Posterior`: the state of every window's softmax after pass 1, and how the states of two parts of the data set are
//! merged.

use crate::components::Components;

/// Per window a shift and the sum over images of `2^(shift - logit_scale energy)`. The shift is near the negative of the
/// largest logit, so that the sum is of moderate size.
#[derive(Debug, Clone)]
pub struct Posterior {
    shift: Vec<f32>,
    sum: Vec<f64>,
}

impl Posterior {
    /// The posterior over no images.
    #[must_use]
    pub fn empty(count: usize) -> Self {
        Self { shift: vec![f32::MAX; count], sum: vec![0.0; count] }
    }

    /// Merges a shard of the data by log-sum-exp; the order of the merges fixes the bits.
    pub fn merge(&mut self, shift: &[f32], sum: &[f32]) {
        for (k, (&shift, &sum)) in shift.iter().zip(sum).enumerate() {
            self.merge_one(k, shift, f64::from(sum));
        }
    }

    /// Merges the posterior of the mirrored query over mirrored `components`: the flipped half of the data.
    pub fn merge_mirrored(&mut self, flipped: &Self, components: &Components) {
        for k in 0..self.shift.len() {
            let mirror = components.mirror_index(k);
            self.merge_one(k, flipped.shift[mirror], flipped.sum[mirror]);
        }
    }

    fn merge_one(&mut self, k: usize, shift: f32, sum: f64) {
        let joint = shift.min(self.shift[k]);
        let share = |shift: f32| power_of_two(f64::from(joint) - f64::from(shift));
        self.sum[k] = self.sum[k] * share(self.shift[k]) + sum * share(shift);
        self.shift[k] = joint;
    }

    /// `(shift, scale)` per window: `2^(shift - logit_scale energy) * scale` is the normalised weight, with scale near 1.
    #[must_use]
    pub fn normaliser(&self) -> (Vec<f32>, Vec<f32>) {
        self.shift.iter().zip(&self.sum).map(|(&shift, &sum)| normaliser_of(shift, sum)).unzip()
    }

    /// The normaliser for the windows of the mirrored query.
    #[must_use]
    pub fn mirrored_normaliser(&self, components: &Components) -> (Vec<f32>, Vec<f32>) {
        let mirrored = (0..self.shift.len()).map(|k| components.mirror_index(k));
        mirrored.map(|k| normaliser_of(self.shift[k], self.sum[k])).unzip()
    }
}

/// Two to the power of an integer that is at most zero, as differences of shifts are, without the cost of a library call.
pub(crate) fn power_of_two(exponent: f64) -> f64 {
    const SMALLEST: f64 = -1022.0;
    const BIAS: f64 = 1023.0;
    debug_assert!(exponent <= 0.0 && exponent.fract() == 0.0, "shifts are integers");
    if exponent < SMALLEST { 0.0 } else { f64::from_bits(((exponent + BIAS) as u64) << 52) }
}

fn normaliser_of(shift: f32, sum: f64) -> (f32, f32) {
    // Floats of this size are further apart than integers, and the shift itself is the only integer sure to be near.
    const COARSE_FROM: f32 = 16_777_216.0;
    if shift.abs() >= COARSE_FROM {
        return (shift, (1.0 / sum) as f32);
    }
    let integer = (f64::from(shift) - sum.log2()).round() as f32;
    (integer, ((f64::from(shift) - f64::from(integer)).exp2() / sum) as f32)
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
            let mut posterior = Posterior::empty(1);
            for &shift in &shifts {
                posterior.merge(&[f32::from(shift)], &[1.0]);
            }
            prop_assert_eq!(f64::from(posterior.shift[0]), least);
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
    fn normalisers_of_huge_shifts_are_finite() {
        for shift in [-7e9_f32, 3e8, 1e30] {
            for sum in [2.0_f64.powi(-95), 1.0, 1e6] {
                let mut posterior = Posterior::empty(1);
                posterior.merge(&[shift], &[sum as f32]);
                let (normalised, scale) = posterior.normaliser();
                assert_eq!(normalised[0], shift);
                assert!((f64::from(scale[0]) * sum - 1.0).abs() < 1e-7);
            }
        }
    }

    #[test]
    fn mirrored_windows_share_their_sum() {
        let windows = Components::square(1, 3, 1).expect("fits");
        let mut posterior = Posterior::empty(3);
        posterior.merge(&[0.0, 1.0, 2.0], &[1.0; 3]);
        let mut flipped = Posterior::empty(3);
        flipped.merge(&[2.0, 1.0, 0.0], &[1.0; 3]);
        posterior.merge_mirrored(&flipped, &windows);
        assert_eq!(posterior.sum, vec![2.0; 3]);
        let (shift, scale) = posterior.mirrored_normaliser(&windows);
        assert_eq!((shift, scale), (vec![1.0, 0.0, -1.0], vec![1.0; 3]));
    }
}
