//! `ProbeStatistics`: entropies, sums of weights per image, and the `Heaviest` images of every window, and how those of parts
//! of the data are merged.

use crate::components::Components;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// How many of the heaviest images of every window.
    pub(crate) top: usize,
    /// Whether the sums of weights of every image.
    pub(crate) attribution: bool,
}

/// The statistics of a probe over some images, or of a query over all of them.
#[derive(Debug)]
pub(crate) struct ProbeStatistics {
    /// Per window the entropy, in powers of two, as far as these images go.
    pub(crate) entropy: Vec<f64>,
    /// Per window the heaviest images.
    pub(crate) heaviest: Heaviest,
    /// Per image, the first of which is at position `first`, the sum of its weights over the windows; none if they are not
    /// asked for.
    pub(crate) attribution: Vec<f64>,
    pub(crate) first: usize,
}

impl ProbeStatistics {
    /// Of no image, on `count` windows.
    pub(crate) fn new(count: usize, images: usize, wanted: Wanted) -> Self {
        Self {
            entropy: vec![0.0; count],
            heaviest: Heaviest::new(count, wanted.top),
            attribution: vec![0.0; if wanted.attribution { images } else { 0 }],
            first: 0,
        }
    }

    /// Adds the statistics of later images.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.entropy.iter_mut().zip(&other.entropy).for_each(|(sum, value)| *sum += value);
        for k in 0..other.entropy.len() {
            self.heaviest.merge(k, &other.heaviest, k, 0);
        }
        if !self.attribution.is_empty() {
            let of_images = &mut self.attribution[other.first..];
            of_images.iter_mut().zip(&other.attribution).for_each(|(sum, value)| *sum += value);
        }
    }

    /// Adds those of the mirror image of the query.
    pub(crate) fn merge_mirrored(&mut self, flipped: &Self, components: &Components) {
        for k in 0..self.entropy.len() {
            let mirror = components.mirror_index(k);
            self.entropy[k] += flipped.entropy[mirror];
            self.heaviest.merge(k, &flipped.heaviest, mirror, 1);
        }
        self.attribution.iter_mut().zip(&flipped.attribution).for_each(|(sum, value)| *sum += value);
    }
}

/// An image among the heaviest of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct HeavyAtom {
    /// The base-2 logarithm of its weight.
    pub(crate) log: f64,
    /// Its position.
    pub(crate) position: usize,
    /// Which view of the image; 1 for the mirror image.
    pub(crate) view: u32,
}

/// Per window the images of largest weight, heaviest first; of equal ones the first.
#[derive(Debug)]
pub(crate) struct Heaviest {
    count: usize,
    top: usize,
    /// `top` places per window, of which the first few are taken.
    atoms: Vec<Option<HeavyAtom>>,
}

impl Heaviest {
    fn new(count: usize, top: usize) -> Self {
        Self { count, top, atoms: vec![None; count * top] }
    }

    /// The heaviest images of window `k`.
    pub(crate) fn of(&self, k: usize) -> &[Option<HeavyAtom>] {
        &self.atoms[k * self.top..(k + 1) * self.top]
    }

    /// Per window the logarithm an image must exceed to be among the heaviest, at least `-cutoff`.
    pub(crate) fn thresholds(&self, cutoff: f64) -> Vec<f32> {
        let of_window = |k: usize| {
            let last = self.of(k).last().copied().flatten();
            last.map_or(-cutoff as f32, |atom| atom.log as f32)
        };
        (0..self.count).map(of_window).collect()
    }

    /// Adds an image to window `k` unless others are at least as heavy. Returns the logarithm that the next one must exceed.
    pub(crate) fn insert(&mut self, k: usize, log: f64, position: usize, view: u32) -> f64 {
        let places = &mut self.atoms[k * self.top..(k + 1) * self.top];
        let mut atom = Some(HeavyAtom { log, position, view });
        let from = places.partition_point(|place| place.is_some_and(|place| place.log >= log));
        for place in &mut places[from..] {
            std::mem::swap(place, &mut atom);
        }
        places.last().copied().flatten().map_or(f64::NEG_INFINITY, |last| last.log)
    }

    /// Adds window `other_k` of another, whose images are later ones and whose views `further` ones, to window `k`.
    fn merge(&mut self, k: usize, other: &Self, other_k: usize, further: u32) {
        for atom in other.of(other_k).iter().flatten() {
            self.insert(k, atom.log, atom.position, atom.view + further);
        }
    }
}
