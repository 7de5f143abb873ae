//! `Sources`: the images a call reads, by their position among those that count, and how their priors change energies.

use std::ops::Range;

use crate::atoms::Atoms;
use crate::bank::Bank;
use crate::simd::LANES;

/// Logits of images that do not count, in powers of two, where energies are float32: beyond those of all others
/// ([`MAX_SHIFT_BITS`](crate::regime::MAX_SHIFT_BITS) and the largest prior), and still an integer of `f32`.
const LEFT_OUT_BITS: f64 = 8_388_608.0;

/// The images a call reads.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    /// The image at every position, unless all images count.
    images: Option<&'a [u32]>,
    /// How many there are.
    pub(crate) len: usize,
    /// By how many nats the prior at every position lies below the largest, if there is one.
    below: Option<Vec<f64>>,
    /// The largest log prior, and how far the least lies below it.
    pub(crate) log_prior: f64,
    pub(crate) prior_span: f64,
}

impl<'a> Sources<'a> {
    /// The images of a bank that count.
    pub(crate) fn new(bank: &Bank<'_>, atoms: &'a Atoms) -> Self {
        let (images, len) = (atoms.images(), atoms.images().map_or(bank.len(), <[u32]>::len));
        let of = |log_prior: &[f64]| -> Vec<f64> {
            images.map_or_else(|| log_prior.to_vec(), |images| images.iter().map(|&n| log_prior[n as usize]).collect())
        };
        let mut below = bank.log_prior().map(of);
        let log_prior = below.as_ref().map_or(0.0, |values| values.iter().copied().fold(f64::MIN, f64::max));
        below.iter_mut().flatten().for_each(|value| *value = log_prior - *value);
        let prior_span = below.iter().flatten().copied().fold(0.0, f64::max);
        Self { images, len, below, log_prior, prior_span }
    }

    /// The image at a position.
    pub(crate) fn image(&self, position: usize) -> usize {
        self.images.map_or(position, |images| images[position] as usize)
    }

    /// Whether images have priors.
    pub(crate) fn has_prior(&self) -> bool {
        self.below.is_some()
    }

    /// How far the log prior at a position lies below the largest, in nats.
    pub(crate) fn below(&self, position: usize) -> f64 {
        self.below.as_ref().map_or(0.0, |below| below[position])
    }
}

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
