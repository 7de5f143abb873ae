//! `Penalties`: what is added to the energies of images for their priors, and which images are left out.

use std::ops::Range;

use crate::simd::LANES;
use crate::sources::Sources;

/// Logits of images that do not count, in powers of two, where energies are float32: beyond those of all others
/// ([`MAX_SHIFT_BITS`](crate::regime::MAX_SHIFT_BITS) and the largest prior), and still an integer of `f32`.
const LEFT_OUT_BITS: f64 = 8_388_608.0;

/// What is added to the energies of the images of a tile for a probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Penalties {
    /// For their priors, in the units of energies; none is negative.
    pub(crate) bias: [f64; LANES],
    /// The images that do not count, a bit each.
    left_out: u16,
}

impl Penalties {
    /// Those of `positions`, at most sixteen, for a probe of this logit scale; `left_out` are all positions that do not count
    /// for it. None if nothing is added.
    pub(crate) fn new(
        sources: &Sources<'_>,
        left_out: &[u32],
        logit_scale: f64,
        positions: Range<usize>,
    ) -> Option<Self> {
        let from = left_out.partition_point(|&position| (position as usize) < positions.start);
        let here = left_out[from..].iter().take_while(|&&position| (position as usize) < positions.end);
        let lanes = here.fold(0, |lanes, &position| lanes | 1 << (position as usize - positions.start));
        if lanes == 0 && !sources.has_prior() {
            return None;
        }
        let mut bias = [0.0; LANES];
        if sources.has_prior() {
            let per_nat = std::f64::consts::LOG2_E / logit_scale;
            bias.iter_mut().zip(positions).for_each(|(bias, position)| *bias = per_nat * sources.below(position));
        }
        Some(Self { bias, left_out: lanes })
    }

    /// The lanes of images that do not count.
    pub(crate) fn lanes_left_out(&self) -> impl Iterator<Item = usize> + use<> {
        let lanes = self.left_out;
        (0..LANES).filter(move |lane| lanes >> lane & 1 == 1)
    }

    /// The energy in float32 of images that do not count, for a probe of this logit scale.
    pub(crate) fn energy_left_out(logit_scale: f64) -> f32 {
        (LEFT_OUT_BITS / logit_scale) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atoms::Atoms;
    use crate::bank::Bank;
    use ndarray::Array4;

    #[test]
    fn penalties_are_of_images_left_out_and_of_priors() {
        let images = Array4::<u8>::zeros((40, 1, 1, 1));
        let bank = Bank::from_u8(images.view()).unwrap();
        let all = Atoms::all();
        let sources = Sources::new(&bank, &all);
        let lanes = |left_out: &[u32]| {
            Penalties::new(&sources, left_out, 1.0, 16..32).map(|p| p.lanes_left_out().collect::<Vec<_>>())
        };
        assert_eq!(lanes(&[3, 15, 32]), None);
        assert_eq!(lanes(&[3, 16, 31, 39]), Some(vec![0, 15]));
        let log_prior: Vec<f64> = (0..40).map(|n| 2.0 - f64::from(n)).collect();
        let bank = bank.with_log_prior(&log_prior).unwrap();
        let atoms = Atoms::new(&bank, 1, Some((4..40).collect()), Vec::new()).unwrap();
        let sources = Sources::new(&bank, &atoms);
        assert_eq!(sources.log_prior, -2.0);
        let bias = Penalties::new(&sources, &[], std::f64::consts::LOG2_E, 0..16).unwrap().bias;
        assert_eq!(bias, std::array::from_fn(|lane| lane as f64));
    }
}
