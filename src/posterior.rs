//! `Posterior`: what pass 1 knows of every window's softmax, and how two parts of the data set are merged.

use crate::windows::Windows;

/// Per window the least energy and the sum over images of `2^(rate (least - energy))`.
#[derive(Debug, Clone)]
pub struct Posterior {
    least: Vec<f32>,
    sum: Vec<f64>,
    rate: f64,
}

impl Posterior {
    /// The posterior over no images at all; `rate` turns energies into base-2 logits.
    #[must_use]
    pub fn empty(count: usize, rate: f64) -> Self {
        Self { least: vec![f32::MAX; count], sum: vec![0.0; count], rate }
    }

    /// Takes in a shard of the data: the log-sum-exp merge, the order of which fixes the bits.
    pub fn merge(&mut self, least: &[f32], sum: &[f32]) {
        for (k, (&least, &sum)) in least.iter().zip(sum).enumerate() {
            self.merge_one(k, least, f64::from(sum));
        }
    }

    /// Takes in the posterior of the mirrored query over mirrored `windows`: the flipped half of the data.
    pub fn merge_mirrored(&mut self, flipped: &Self, windows: &Windows) {
        for k in 0..self.least.len() {
            let mirror = windows.mirror_index(k);
            self.merge_one(k, flipped.least[mirror], flipped.sum[mirror]);
        }
    }

    fn merge_one(&mut self, k: usize, least: f32, sum: f64) {
        let joint = least.min(self.least[k]);
        let share = |least: f32| (self.rate * (f64::from(joint) - f64::from(least))).exp2();
        self.sum[k] = self.sum[k] * share(self.least[k]) + sum * share(least);
        self.least[k] = joint;
    }

    /// `(least, 1 / sum)` per window: what pass 2 needs to form normalised weights.
    #[must_use]
    pub fn normaliser(&self) -> (Vec<f32>, Vec<f32>) {
        (self.least.clone(), self.sum.iter().map(|&sum| (1.0 / sum) as f32).collect())
    }

    /// The normaliser as the mirrored query's windows see it.
    #[must_use]
    pub fn mirrored_normaliser(&self, windows: &Windows) -> (Vec<f32>, Vec<f32>) {
        let mirror = |k| windows.mirror_index(k);
        let count = self.least.len();
        (
            (0..count).map(|k| self.least[mirror(k)]).collect(),
            (0..count).map(|k| (1.0 / self.sum[mirror(k)]) as f32).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn posterior_of(energies: &[f32], rate: f64) -> Posterior {
        let mut posterior = Posterior::empty(1, rate);
        for &energy in energies {
            posterior.merge(&[energy], &[1.0]);
        }
        posterior
    }

    proptest! {
        #[test]
        fn the_merge_is_the_softmax_normaliser(
            energies in proptest::collection::vec(0.0_f32..500.0, 1..40),
            rate in 0.01_f64..5.0,
        ) {
            let least = energies.iter().copied().fold(f32::MAX, f32::min);
            let exact: f64 =
                energies.iter().map(|&e| (rate * (f64::from(least) - f64::from(e))).exp2()).sum();
            let posterior = posterior_of(&energies, rate);
            prop_assert_eq!(posterior.least[0], least);
            prop_assert!((posterior.sum[0] / exact - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_mirrored_window_joins_its_twin() {
        let windows = Windows::square(1, 3, 1).expect("fits");
        let mut posterior = Posterior::empty(3, 1.0);
        posterior.merge(&[0.0, 1.0, 2.0], &[1.0; 3]);
        let mut flipped = Posterior::empty(3, 1.0);
        flipped.merge(&[2.0, 1.0, 0.0], &[1.0; 3]);
        posterior.merge_mirrored(&flipped, &windows);
        assert_eq!(posterior.sum, vec![2.0; 3]);
        let (least, _) = posterior.mirrored_normaliser(&windows);
        assert_eq!(least, vec![2.0, 1.0, 0.0]);
    }
}
