//! `Job`: what the work items of a pass share.

use std::ops::Range;

use super::probe::Probe;
use super::tile::Pixel;
use crate::bank::Bank;
use crate::components::{Components, Kind};
use crate::error::Result;
use crate::regime::cutoff_bits;
use crate::simd::Isa;

/// What the work items of a pass share.
pub(crate) struct Job<'a, P> {
    pub(crate) bank: &'a Bank<'a>,
    pub(crate) pixels: &'a [P],
    /// The components, and their mirror images for flipped probes.
    pub(crate) mirrors: &'a [Components; 2],
    pub(crate) probes: &'a [Probe],
    pub(crate) isa: Isa,
    /// Weights below `2^-cutoff` of a window's sum are left out, see [`cutoff_bits`].
    pub(crate) cutoff: f64,
}

impl<'a, P: Pixel> Job<'a, P> {
    /// A job over all of `bank`, whose pixels are `pixels`.
    pub(crate) fn new(
        bank: &'a Bank<'a>,
        pixels: &'a [P],
        mirrors: &'a [Components; 2],
        probes: &'a [Probe],
    ) -> Result<Self> {
        Ok(Self { bank, pixels, mirrors, probes, isa: Isa::best()?, cutoff: cutoff_bits(bank.len()) })
    }

    /// The same job for other probes.
    pub(crate) fn with(&self, probes: &'a [Probe]) -> Self {
        Self { probes, ..*self }
    }

    /// How far above the least energy of a window an image may lie and still carry weight.
    pub(crate) fn margin(&self, probe: &Probe) -> f32 {
        (self.cutoff / probe.logit_scale) as f32
    }

    /// Pixels of a channel.
    pub(crate) fn plane(&self) -> usize {
        self.mirrors[0].height() * self.mirrors[0].width()
    }

    /// The stored pixels of an image, `[channel][pixel]`.
    pub(crate) fn image(&self, index: usize) -> &'a [P] {
        self.images(index..index + 1)
    }

    /// The stored pixels of images, one after the other.
    pub(crate) fn images(&self, range: Range<usize>) -> &'a [P] {
        let len = self.bank.image_len();
        &self.pixels[range.start * len..range.end * len]
    }

    /// The components as a probe sees them.
    pub(crate) fn components_of(&self, probe: &Probe) -> &'a Components {
        &self.mirrors[usize::from(probe.flipped)]
    }

    /// Number of windows whose energies are computed before they are used: a row of squares, or all masks.
    pub(crate) fn windows_at_once(&self) -> usize {
        let (rows, columns) = self.mirrors[0].grid();
        if matches!(self.mirrors[0].kind(), Kind::Masks(_)) { rows } else { columns }
    }
}
