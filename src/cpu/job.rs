//! `Job`: what the work items of a pass share.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ndarray::Array3;

use super::images::{Images, MOST};
use super::penalties::Penalties;
use super::probe::Probe;
use super::tile::{AnyBeyond, Pixel};
use crate::bank::Bank;
use crate::components::{Components, Kind};
use crate::error::{Error, Result};
use crate::found::MirrorSums;
use crate::regime::{cutoff_bits, dense_cutoff_bits};
use crate::simd::Isa;
use crate::sources::Sources;

/// What the threads of a call tell one another.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Set where the call is to stop: what is in work may be left unfinished, as nobody will read it.
    stop: AtomicBool,
    /// The first image that was found to be changed.
    changed: AtomicUsize,
}

impl Signals {
    pub(crate) fn new() -> Self {
        Self { stop: AtomicBool::new(false), changed: AtomicUsize::new(usize::MAX) }
    }

    /// Whether the call is to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Asks all threads to stop.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What the work items of a pass share. Images are counted by their position among those that count ([`Sources`]).
pub(crate) struct Job<'a, P> {
    pub(crate) bank: &'a Bank<'a>,
    pub(crate) pixels: &'a [P],
    /// The components, and their mirror images for flipped probes.
    pub(crate) mirrors: &'a [Components; 2],
    pub(crate) probes: &'a [Probe],
    pub(crate) isa: Isa,
    /// Images whose weight is below `2^-cutoff` of a window's sum are not listed, see [`cutoff_bits`].
    pub(crate) cutoff: f64,
    /// Weights below `2^-dense_cutoff` of a window's sum are left out in a pass over all images.
    pub(crate) dense_cutoff: f64,
    /// What is taken off every stored pixel.
    pub(crate) centre: f32,
    pub(crate) sources: &'a Sources<'a>,
    signals: &'a Signals,
}

impl<'a, P: Pixel> Job<'a, P> {
    /// A job over the `sources` of `bank`, whose pixels are `pixels`.
    pub(crate) fn new(
        bank: &'a Bank<'a>,
        pixels: &'a [P],
        mirrors: &'a [Components; 2],
        probes: &'a [Probe],
        sources: &'a Sources<'a>,
        signals: &'a Signals,
    ) -> Result<Self> {
        let (isa, centre) = (Isa::best()?, bank.stored_centre());
        let (cutoff, dense_cutoff) = (cutoff_bits(sources.len), dense_cutoff_bits(sources.len));
        Ok(Self { bank, pixels, mirrors, probes, isa, cutoff, dense_cutoff, centre, sources, signals })
    }

    /// Whether the call is to stop, so that the rest of the work is not needed.
    pub(crate) fn is_stopped(&self) -> bool {
        self.signals.is_stopped()
    }

    /// Notes, and stops the call, if an image has changed since the data set was checked: the bounds on the sums of its
    /// pixels would not hold. The images are those of the positions from `first` on.
    pub(crate) fn check_images(&self, images: &[&[P]], first: usize) {
        let (centre, reach) = (self.centre, self.reach());
        let is_changed = |pixels: &&[P]| self.isa.run(AnyBeyond { pixels, centre, reach });
        if let Some(place) = images.iter().position(is_changed) {
            self.signals.changed.fetch_min(first + place, Ordering::Relaxed);
            self.signals.stop();
        }
    }

    /// An error if an image was found to be changed.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        let position = self.signals.changed.load(Ordering::Relaxed);
        if position == usize::MAX {
            return Ok(());
        }
        let (centre, reach) = (self.centre, self.reach());
        let beyond = self.image(position).iter().find(|&&pixel| P::any_beyond(&[pixel], centre, reach));
        let value = beyond.map_or(f64::NAN, |pixel| pixel.number(0.0));
        let (least, most) = (f64::from(centre - reach), f64::from(centre + reach));
        Err(Error::ImageChanged { index: self.sources.image(position), value, least, most })
    }

    /// The largest distance of a stored pixel from the centre.
    fn reach(&self) -> f32 {
        (self.bank.reach() * self.bank.unit()) as f32
    }

    /// The same job for other probes.
    pub(crate) fn with(&self, probes: &'a [Probe]) -> Self {
        Self { probes, ..*self }
    }

    /// Number of queries; their mirror images, if flips count, are probes too.
    pub(crate) fn queries(&self) -> usize {
        self.probes.iter().filter(|probe| !probe.flipped).count()
    }

    /// A query of the job and its mirror image.
    pub(crate) fn sides(&self, query: usize) -> impl Iterator<Item = &'a Probe> {
        self.probes.iter().skip(query).step_by(self.queries())
    }

    /// The probes of some queries of the job; those of their mirror images follow, in the same order.
    pub(crate) fn probes_of(&self, queries: &[usize]) -> Vec<Probe> {
        self.places_of(queries).map(|place| self.probes[place].clone()).collect()
    }

    /// The indices of those probes.
    pub(crate) fn places_of(&self, queries: &[usize]) -> impl Iterator<Item = usize> {
        let starts = (0..self.probes.len()).step_by(self.queries());
        starts.flat_map(move |start| queries.iter().map(move |query| start + query))
    }

    /// How far above the least energy of a window an image may lie and still carry weight.
    pub(crate) fn margin(&self, probe: &Probe) -> f32 {
        (self.cutoff / probe.logit_scale) as f32
    }

    /// Sums `[channel][pixel]` in the shape of an image. As long as one, they always fit.
    pub(crate) fn in_shape(&self, sums: Vec<f64>) -> Array3<f64> {
        Array3::from_shape_vec(self.bank.image_shape(), sums).expect("as long as an image")
    }

    /// The sums of queries' probes, followed by those of their flipped probes if there are any, as pairs.
    pub(crate) fn pair_up(&self, mut sums: Vec<Array3<f64>>) -> Vec<MirrorSums> {
        let mut flipped = sums.split_off(self.queries()).into_iter();
        let zero = || Array3::zeros(self.bank.image_shape());
        sums.into_iter().map(|sums| [sums, flipped.next().unwrap_or_else(zero)]).collect()
    }

    /// Pixels of a channel.
    pub(crate) fn plane(&self) -> usize {
        self.mirrors[0].height() * self.mirrors[0].width()
    }

    /// Number of images that count.
    pub(crate) fn len(&self) -> usize {
        self.sources.len
    }

    /// The stored pixels of the image at a position, `[channel][pixel]`.
    pub(crate) fn image(&self, position: usize) -> &'a [P] {
        let (len, index) = (self.bank.image_len(), self.sources.image(position));
        &self.pixels[index * len..(index + 1) * len]
    }

    /// The stored pixels of the images at `positions`.
    pub(crate) fn images(&self, positions: Range<usize>) -> Images<'a, P> {
        debug_assert!(positions.len() <= MOST, "no more are read together");
        if self.sources.are_all() {
            let len = self.bank.image_len();
            return Images::side_by_side(&self.pixels[positions.start * len..positions.end * len], len);
        }
        positions.map(|position| self.image(position)).collect()
    }

    /// What is added to the energies of the images at `positions`, at most sixteen, for a probe.
    pub(crate) fn penalties(&self, probe: &Probe, positions: Range<usize>) -> Option<Penalties> {
        Penalties::new(self.sources, &probe.left_out, probe.logit_scale, positions)
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
