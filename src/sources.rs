//! `Sources`: the images a call reads, by their position among those that count, and their priors.

use crate::atoms::Atoms;
use crate::bank::Bank;

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

    /// Whether all images count, so that positions are those in the bank.
    pub(crate) fn are_all(&self) -> bool {
        self.images.is_none()
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
