//! Candidates: the images that can carry weight on a window, found by scanning energies for values near the least.

use super::isa::dispatched;
use super::parts::parts;
use super::simd::{LANES, Lanes, Vector, Word, WordLanes};

/// An image that may carry weight on a window.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Index of the window, as the probe sees it.
    pub window: u32,
    /// Index of the image in the bank.
    pub image: u32,
    /// Its energy, within the rounding of the scan.
    pub energy: f32,
}

/// How a scan reads energies: as floats or, with a unit, in whole numbers of sixteen bits. An energy E is read within
/// `offset + root sqrt(E)`, and the rounding of floats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// What one means.
    pub unit: f32,
    /// In the units of energies.
    pub offset: f32,
    /// In the units of their roots.
    pub root: f32,
    /// Energies read below this are within those bounds, others may be anything from here on.
    pub faithful: f32,
}

impl Reading {
    /// Of floats.
    pub const FLOATS: Self = Self { unit: 0.0, offset: 0.0, root: 0.0, faithful: f32::INFINITY };

    /// Energies within `margin` of the exact least one are read below this bound, where the least reading is `least`.
    #[inline(always)]
    #[must_use]
    pub fn bound(&self, least: f32, margin: f32) -> f32 {
        let Self { offset, root, .. } = self;
        // The largest energy with that reading, then the largest reading of the largest energy that counts.
        let least = ((least + offset + 0.25 * root * root).sqrt() + 0.5 * root).powi(2);
        let most = least + margin;
        most + offset + root * most.sqrt() + 1e-5 * most
    }

    /// The same bound in whole numbers.
    #[inline(always)]
    fn limit(&self, bound: f32) -> u16 {
        ((bound / self.unit) as u16).saturating_add(1)
    }
}

/// The least energies seen and the images near them.
#[derive(Debug)]
pub struct Candidates {
    /// Per window the least energy so far.
    pub least: Vec<f32>,
    /// Per window the bound below which energies are collected, also in whole numbers if energies are read in those.
    bounds: Vec<f32>,
    limits: Vec<u16>,
    /// How far above the least an energy may lie.
    margin: f32,
    /// What energies mean.
    pub reading: Reading,
    /// Images within the margin of the least energy at the time they were seen; those of a window in order.
    pub list: Vec<Candidate>,
    /// More than this many are not collected.
    limit: usize,
    /// Whether merging met too many.
    pub given_up: bool,
}

/// Candidates by window and image.
#[derive(Debug)]
pub struct ByWindow {
    list: Vec<(u32, f32)>,
    /// Those of window `k` are `list[starts[k]..starts[k + 1]]`.
    starts: Vec<usize>,
}

impl Candidates {
    /// None yet; `least` may already bound the least energies from above.
    #[must_use]
    pub fn new(least: Vec<f32>, margin: f32, reading: Reading, limit: usize) -> Self {
        let (bounds, limits, list) = (Vec::new(), Vec::new(), Vec::new());
        let mut new = Self { least, bounds, limits, margin, reading, list, limit, given_up: false };
        new.follow();
        new
    }

    /// Puts the bounds of all windows where their least energies want them.
    fn follow(&mut self) {
        let Self { reading, margin, .. } = *self;
        self.bounds.clear();
        self.bounds.extend(self.least.iter().map(|&least| reading.bound(least, margin)));
        self.limits.clear();
        if reading.unit > 0.0 {
            self.limits.extend(self.bounds.iter().map(|&bound| reading.limit(bound)));
        }
    }

    /// The least energies and what follows from them, without a list.
    #[must_use]
    pub fn without_list(&self) -> Self {
        let mut copy = Self::new(Vec::new(), self.margin, self.reading, self.limit);
        copy.start_from(self, self.limit);
        copy
    }

    /// Starts a new list of up to `limit`, with the least energies of `other`.
    pub fn start_from(&mut self, other: &Self, limit: usize) {
        self.least.clone_from(&other.least);
        self.bounds.clone_from(&other.bounds);
        self.limits.clone_from(&other.limits);
        (self.margin, self.reading, self.limit) = (other.margin, other.reading, limit);
        self.list.clear();
        self.given_up = false;
    }

    /// Whether no energy that counts could lie beyond what was read faithfully.
    #[must_use]
    pub fn trusted(&self) -> bool {
        self.bounds.iter().all(|&bound| bound < self.reading.faithful)
    }

    /// Whether some were not collected, so that the list is of no use.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.list.len() > self.limit
    }

    /// Takes in what the next part of the data holds. A list that overflowed is given up for good, and its memory freed.
    pub fn merge(&mut self, other: &Self) {
        for (least, &theirs) in self.least.iter_mut().zip(&other.least) {
            *least = least.min(theirs);
        }
        self.given_up |= other.overflowed() || self.list.len() + other.list.len() > self.limit;
        if self.given_up {
            self.list = Vec::new();
        } else {
            self.list.extend_from_slice(&other.list);
        }
    }

    /// Takes in the energies of all images on the only window there is; its least energy is known.
    pub fn take(&mut self, energies: &[f32]) {
        let bound = self.reading.bound(self.least[0], self.margin);
        let near = energies.iter().zip(0..).filter(|(energy, _)| **energy < bound);
        self.list.extend(near.map(|(&energy, image)| Candidate { window: 0, image, energy }).take(self.limit + 1));
        self.given_up = self.overflowed();
    }

    /// Drops what the least energies have meanwhile left behind.
    pub fn prune(&mut self) {
        self.follow();
        let bounds = &self.bounds;
        self.list.retain(|candidate| candidate.energy < bounds[candidate.window as usize]);
    }

    /// The images of every window: a counting sort, which keeps their order.
    #[must_use]
    pub fn by_window(&self) -> ByWindow {
        // First where windows start, moved on by one; as they are filled they move to their places.
        let mut starts = vec![0; self.least.len() + 2];
        for candidate in &self.list {
            starts[candidate.window as usize + 2] += 1;
        }
        for k in 2..starts.len() {
            starts[k] += starts[k - 1];
        }
        let mut list = vec![(0, 0.0); self.list.len()];
        for candidate in &self.list {
            let next = &mut starts[candidate.window as usize + 1];
            list[*next] = (candidate.image, candidate.energy);
            *next += 1;
        }
        ByWindow { list, starts }
    }
}

impl ByWindow {
    /// Images and energies of window `k`.
    #[must_use]
    pub fn of(&self, k: usize) -> &[(u32, f32)] {
        &self.list[self.starts[k]..self.starts[k + 1]]
    }
}

dispatched! {
    /// Collects candidates from the energies `[tile][window]`, on `count` windows from `start` on, of a group of tiles whose
    /// first image is `first`.
    pub fn collect(energies: &[Lanes], count: usize, start: usize, first: usize, found: &mut Candidates) = collect_body
}

#[inline(always)]
fn collect_body<V: Vector>(energies: &[Lanes], count: usize, start: usize, first: usize, found: &mut Candidates) {
    let (mut tiles, mut first) = (parts(energies, count), first);
    while let Some(one) = tiles.next() {
        match tiles.next() {
            Some(other) => collect_tiles::<V, 2>([one, other], start, first, found),
            None => collect_tiles::<V, 1>([one], start, first, found),
        }
        first += 2 * LANES;
    }
}

#[inline(always)]
fn collect_tiles<V: Vector, const T: usize>(
    energies: [&[Lanes]; T],
    start: usize,
    first: usize,
    found: &mut Candidates,
) {
    let Candidates { least, bounds, margin, reading, list, limit, .. } = found;
    let count = energies[0].len();
    let (bounds, least) = (&mut bounds[start..][..count], &mut least[start..][..count]);
    for k in 0..count {
        let mut near = V::load(&energies[0][k]);
        for t in 1..T {
            near = near.min(V::load(&energies[t][k]));
        }
        if !near.any_below(V::splat(bounds[k])) {
            continue;
        }
        if near.any_below(V::splat(least[k])) {
            least[k] = near.least();
            bounds[k] = reading.bound(least[k], *margin);
        }
        for t in 0..T {
            let mut below = V::load(&energies[t][k]).below(V::splat(bounds[k]));
            while below != 0 && list.len() <= *limit {
                let lane = below.trailing_zeros() as usize;
                below &= below - 1;
                let image = (first + t * LANES + lane) as u32;
                list.push(Candidate { window: (start + k) as u32, image, energy: energies[t][k].0[lane] });
            }
        }
    }
}

dispatched! {
    /// The same for energies in whole numbers of a row of windows from `start` on.
    pub fn collect_words(energies: &[WordLanes], start: usize, first: usize, found: &mut Candidates) = collect_words_body
}

#[inline(always)]
fn collect_words_body<V: Vector>(energies: &[WordLanes], start: usize, first: usize, found: &mut Candidates) {
    const SOME: usize = 64;
    let mut near = [0; SOME];
    for (i, some) in energies.chunks(SOME).enumerate() {
        let start = start + i * SOME;
        let limits = &found.limits[start..][..some.len()];
        // Windows with a candidate are few and anywhere: noted without a branch, which would often go wrong.
        let mut count = 0;
        for k in 0..some.len() {
            near[count % SOME] = k;
            count += usize::from(V::Word::load(&some[k]).any_below(V::Word::splat(limits[k])));
        }
        for &k in &near[..count] {
            collect_window::<V>(&some[k], start + k, first, found);
        }
    }
}

/// Collects the candidates on window `k`.
#[inline(always)]
fn collect_window<V: Vector>(energies: &WordLanes, k: usize, first: usize, found: &mut Candidates) {
    let Candidates { least, bounds, limits, margin, reading, list, limit, .. } = found;
    let near = V::Word::load(energies);
    if near.any_below(V::Word::splat((least[k] / reading.unit) as u16)) {
        least[k] = reading.unit * f32::from(near.least());
        bounds[k] = reading.bound(least[k], *margin);
        limits[k] = reading.limit(bounds[k]);
    }
    let mut below = near.below(V::Word::splat(limits[k]));
    while below != 0 && list.len() <= *limit {
        let lane = below.trailing_zeros() as usize;
        below &= below - 1;
        let energy = reading.unit * f32::from(energies.0[lane]);
        list.push(Candidate { window: k as u32, image: (first + lane) as u32, energy });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;
    use crate::cpu::simd::WORDS;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_near_the_least_is_missed(
            values in proptest::collection::vec(0.0_f32..100.0, 4 * 2 * LANES), margin in 0.1_f32..30.0,
        ) {
            // Two groups of two tiles, two windows: [group][tile][window][lane].
            let lanes: Vec<Lanes> = values.chunks_exact(LANES).map(|v| Lanes(v.try_into().unwrap())).collect();
            for isa in Isa::available() {
                let mut found = Candidates::new(vec![f32::MAX; 2], margin, Reading::FLOATS, 1000);
                for (group, energies) in lanes.chunks_exact(4).enumerate() {
                    collect(isa, energies, 2, 0, group * 2 * LANES, &mut found);
                }
                found.prune();
                let by_window = found.by_window();
                for window in 0..2 {
                    let energy = |image: usize| lanes[image / LANES * 2 + window].0[image % LANES];
                    let least = (0..4 * LANES).map(energy).fold(f32::MAX, f32::min);
                    prop_assert_eq!(found.least[window], least);
                    let bound = Reading::FLOATS.bound(least, margin);
                    let expected: Vec<usize> = (0..4 * LANES).filter(|&i| energy(i) < bound).collect();
                    let images: Vec<usize> = by_window.of(window).iter().map(|&(image, _)| image as usize).collect();
                    prop_assert_eq!(images, expected);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_of_any_rounding_miss_nothing(
            exact in proptest::collection::vec(0.0_f32..5000.0, 2 * WORDS),
            off in proptest::collection::vec(-1.0_f32..1.0, 2 * WORDS),
            margin in 0.5_f32..500.0, doublings in 0_i32..3, root in 0.0_f32..0.1,
        ) {
            // Two tiles, one window; readings anywhere within their bound, in whole units.
            let unit = 2.0 * 0.25_f32.powi(doublings);
            let reading = Reading { unit, offset: 14.0 * unit, root, faithful: 32_766.0 * unit };
            let read = |i: usize| {
                let error = off[i] * (reading.offset - unit + root * exact[i].sqrt());
                ((exact[i] + error) / unit).round().clamp(0.0, 65_535.0) as u16
            };
            let least = exact.iter().copied().fold(f32::MAX, f32::min);
            for isa in Isa::available() {
                let mut found = Candidates::new(vec![f32::MAX], margin, reading, 1000);
                for tile in 0..2 {
                    let energies = WordLanes(std::array::from_fn(|lane| read(tile * WORDS + lane)));
                    collect_words(isa, &[energies], 0, tile * WORDS, &mut found);
                }
                found.prune();
                let by_window = found.by_window();
                let images: Vec<usize> = by_window.of(0).iter().map(|&(image, _)| image as usize).collect();
                prop_assert!(images.is_sorted());
                let missed = (0..2 * WORDS).find(|&i| exact[i] <= least + margin && !images.contains(&i));
                prop_assert!(missed.is_none() || !found.trusted(), "{:?} of {:?}", missed, images);
                let (low, high) = (found.least[0], (0..2 * WORDS).map(read).min().unwrap());
                prop_assert_eq!(low, unit * f32::from(high));
            }
        }
    }

    #[test]
    fn a_full_list_says_so() {
        let mut found = Candidates::new(vec![f32::MAX], 1.0, Reading::FLOATS, 10);
        collect(Isa::best().unwrap(), &[Lanes::ZERO; 2], 1, 0, 0, &mut found);
        assert!(found.overflowed());
        assert_eq!(found.list.len(), 11);
    }
}
