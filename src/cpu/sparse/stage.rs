//! `SideStage`: weighs the images listed for one probe, window by window, or reads them again with weights that are known.

use std::ops::Range;

use ndarray::Array3;

use super::candidates::{ByWindow, Candidates};
use super::lists::Atom;
use super::patches::Patches;
use crate::components::Components;
use crate::cpu::job::Job;
use crate::cpu::probe::Probe;
use crate::cpu::tile::Pixel;

/// Pixels of a window's images that are gathered at once.
const GATHERED_PIXELS: usize = 1 << 16;

/// Images lie anywhere in the data, so each is prefetched this many images ahead of its use.
const PREFETCH_DISTANCE: usize = 6;

/// Working space for the listed images of one probe.
pub(crate) struct SideStage<'a, P> {
    pub(crate) probe: &'a Probe,
    components: &'a Components,
    /// `[channel, row, column]`.
    pub(crate) sums: Array3<f64>,
    runs: Vec<Range<usize>>,
    /// Positions of the listed images.
    images: Vec<u32>,
    /// Their energies, then their weights.
    pub(crate) weights: Vec<f64>,
    patches: Patches<P>,
    patch: Vec<f64>,
}

impl<'a, P: Pixel> SideStage<'a, P> {
    pub(crate) fn new(job: &Job<'a, P>, probe: &'a Probe) -> Self {
        let sums = Array3::zeros(job.bank.image_shape());
        let (runs, images, weights, patch) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let components = job.components_of(probe);
        Self { probe, components, sums, runs, images, weights, patches: Patches::default(), patch }
    }

    /// Moves to window `k`.
    fn start(&mut self, job: &Job<'_, P>, k: usize) {
        self.runs.clear();
        self.runs.extend(self.components.runs(k));
        self.patches.start(job.bank.image_shape()[0] * self.components.pixels(k), job.centre);
        self.images.clear();
        self.weights.clear();
    }

    /// Moves to window `k` and computes the energies of its candidates that may be within `cutoff` powers of two of the best;
    /// returns the least.
    pub(super) fn measure(
        &mut self,
        job: &Job<'_, P>,
        k: usize,
        (candidates, by_window): &(&Candidates, ByWindow),
        cutoff: f64,
    ) -> f64 {
        self.start(job, k);
        let probe = self.probe;
        // Few images are listed for a window, so a cut-off at a larger weight leaves out no more of the sum.
        let of_window = by_window.of(k);
        let bits = job.cutoff.min(cutoff + (of_window.len().max(1) as f64).log2());
        let bound = candidates.error_bound.bound(candidates.least[k], (bits / probe.logit_scale) as f32);
        self.images.extend(of_window.iter().filter(|(_, energy)| *energy < bound).map(|&(image, _)| image));
        self.patches.gather(&probe.z, job.plane(), &self.runs, &mut self.patch);
        for first in (0..self.images.len()).step_by(self.at_once()) {
            self.load(job, first);
            self.patches.distances(job.isa, &self.patch, &mut self.weights);
        }
        if job.sources.has_prior() {
            let per_nat = std::f64::consts::LOG2_E / probe.logit_scale;
            for (energy, &position) in self.weights.iter_mut().zip(&self.images) {
                *energy += per_nat * job.sources.below(position as usize);
            }
        }
        self.weights.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Moves to window `k` and the images that carry weight there.
    pub(crate) fn recall(&mut self, job: &Job<'_, P>, k: usize, atoms: &[Atom]) {
        self.start(job, k);
        self.images.extend(atoms.iter().map(|atom| atom.position));
        self.weights.extend(atoms.iter().map(|atom| atom.weight));
        self.patches.gather(&self.probe.z, job.plane(), &self.runs, &mut self.patch);
    }

    /// Images whose patches are held at once.
    fn at_once(&self) -> usize {
        (GATHERED_PIXELS / self.patch.len()).max(1)
    }

    /// Gathers the patches of the images from `first` on.
    fn load(&mut self, job: &Job<'_, P>, first: usize) {
        self.patches.clear();
        let images = &self.images[first..];
        for (i, &image) in images.iter().enumerate().take(self.at_once()) {
            if let Some(&later) = images.get(i + PREFETCH_DISTANCE) {
                Patches::prefetch(job.image(later as usize), job.plane(), &self.runs);
            }
            self.patches.push(job.image(image as usize), job.plane(), &self.runs);
        }
    }

    /// Turns energies into weights relative to the least energy of both sides, and returns their sum.
    pub(super) fn weigh(&mut self, least: f64) -> f64 {
        let logit_scale = self.probe.logit_scale;
        self.weights.iter_mut().for_each(|weight| *weight = (logit_scale * (least - *weight)).exp2());
        self.weights.iter().sum()
    }

    /// The listed images and their weights times `scale`.
    pub(super) fn weighed(&self, scale: f64) -> impl Iterator<Item = Atom> {
        let atom = move |(&position, weight): (&u32, &f64)| Atom { position, weight: weight * scale };
        self.images.iter().zip(&self.weights).map(atom)
    }

    /// Adds the listed images times their weights times `scale` to the sums.
    pub(crate) fn add(&mut self, job: &Job<'_, P>, scale: f64) {
        self.weights.iter_mut().for_each(|weight| *weight *= scale);
        self.weighted_sum(job);
        let sums = self.sums.as_slice_mut().unwrap_or_default();
        self.patches.scatter_add(&self.patch, sums, job.plane(), &self.runs);
    }

    /// The sums over the window of the listed images times a direction, `[channel][pixel]`.
    pub(crate) fn products(&mut self, job: &Job<'_, P>, direction: &[f64]) -> Vec<f64> {
        let mut patch = Vec::new();
        self.patches.gather(direction, job.plane(), &self.runs, &mut patch);
        patch[self.patches.len()..].fill(0.0);
        let mut products = Vec::with_capacity(self.images.len());
        for first in (0..self.images.len()).step_by(self.at_once()) {
            self.load(job, first);
            self.patches.products(job.isa, &patch, &mut products);
        }
        products
    }

    /// Adds to the sums the squared differences between the listed images and `means`, `[channel][pixel]`, times their
    /// weights.
    pub(crate) fn add_squares(&mut self, job: &Job<'_, P>, means: &[f64]) {
        let mut mean = Vec::new();
        self.patches.gather(means, job.plane(), &self.runs, &mut mean);
        self.patch.fill(0.0);
        let at_once = self.at_once();
        for first in (0..self.images.len()).step_by(at_once) {
            if self.images.len() > at_once || self.patches.count() != self.images.len() {
                self.load(job, first);
            }
            self.patches.add_squares(job.isa, &self.weights[first..], &mean, &mut self.patch);
        }
        let sums = self.sums.as_slice_mut().unwrap_or_default();
        self.patches.scatter_add(&self.patch, sums, job.plane(), &self.runs);
    }

    /// Adds the listed images on the window times their weights to an image, `[channel][pixel]`.
    pub(crate) fn add_mean(&mut self, job: &Job<'_, P>, image: &mut [f64]) {
        self.weighted_sum(job);
        self.patches.scatter_add(&self.patch, image, job.plane(), &self.runs);
    }

    /// The listed images on the window times their weights, as a patch.
    fn weighted_sum(&mut self, job: &Job<'_, P>) {
        self.patch.fill(0.0);
        let at_once = self.at_once();
        for first in (0..self.images.len()).step_by(at_once) {
            // Those of a single load may still be held.
            if self.images.len() > at_once || self.patches.count() != self.images.len() {
                self.load(job, first);
            }
            self.patches.add_weighted(job.isa, &self.weights[first..], &mut self.patch);
        }
    }
}
