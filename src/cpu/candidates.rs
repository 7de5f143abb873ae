//! Candidates: the images that can carry weight on a window, found by scanning energies for values near the least.

use std::ops::Range;

use super::isa::dispatched;
use super::simd::{LANES, Lanes, Vector};

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

/// The least energies seen and the images near them.
#[derive(Debug)]
pub struct Candidates {
    /// Per window the least energy so far.
    pub least: Vec<f32>,
    /// Images within the margin of the least energy at the time they were seen.
    pub list: Vec<Candidate>,
    /// More than this many are not collected.
    limit: usize,
    /// Whether merging met too many.
    pub given_up: bool,
}

impl Candidates {
    /// None yet; `least` may already bound the least energies from above.
    #[must_use]
    pub fn new(least: Vec<f32>, limit: usize) -> Self {
        Self { least, list: Vec::new(), limit, given_up: false }
    }

    /// Whether some were not collected, so that the list is of no use.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.list.len() > self.limit
    }

    /// Takes in what another part of the data holds. A list that overflowed is given up for good, and its memory freed.
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

    /// Drops what the least energies have meanwhile left behind.
    pub fn prune(&mut self, margin: f32) {
        let least = &self.least;
        self.list.retain(|candidate| candidate.energy < bound(least[candidate.window as usize], margin));
    }
}

/// Candidates have energies below this one: the margin, and room for the rounding of the energies themselves.
#[inline(always)]
fn bound(least: f32, margin: f32) -> f32 {
    least + (margin + 1e-5 * least.abs())
}

dispatched! {
    /// Collects candidates from the energies `[tile][window]` of some windows of a group whose first image is `first`.
    pub fn collect(
        energies: &[Lanes],
        windows: Range<usize>,
        margin: f32,
        first: usize,
        found: &mut Candidates,
    ) = collect_body
}

#[inline(always)]
fn collect_body<V: Vector>(
    energies: &[Lanes],
    windows: Range<usize>,
    margin: f32,
    first: usize,
    found: &mut Candidates,
) {
    let mut next = windows.start;
    while let Some(near) = next_near::<V>(energies, windows.clone(), next, margin, &found.least) {
        let of_window = &energies[near - windows.start..];
        let mut least = V::splat(f32::MAX);
        for energy in of_window.iter().step_by(windows.len()) {
            least = least.min(V::load(energy));
        }
        found.least[near] = found.least[near].min(least.least());
        collect_window::<V>(of_window, windows.len(), near, margin, first, found);
        next = near + 1;
    }
}

/// The next window from `from` on where some image of the group is a candidate.
#[inline(always)]
fn next_near<V: Vector>(
    energies: &[Lanes],
    windows: Range<usize>,
    from: usize,
    margin: f32,
    least: &[f32],
) -> Option<usize> {
    let count = windows.len();
    let least = &least[windows.clone()];
    for k in from - windows.start..count {
        let mut near = V::splat(f32::MAX);
        for tile in energies.chunks_exact(count) {
            near = near.min(V::load(&tile[k]));
        }
        if near.any_below(V::splat(bound(least[k], margin))) {
            return Some(windows.start + k);
        }
    }
    None
}

/// The rare case: some image of the group is a candidate on window `k`, whose energies are `stride` apart.
#[inline(always)]
fn collect_window<V: Vector>(
    energies: &[Lanes],
    stride: usize,
    k: usize,
    margin: f32,
    first: usize,
    found: &mut Candidates,
) {
    let bound = V::splat(bound(found.least[k], margin));
    for (tile, energy) in energies.iter().step_by(stride).enumerate() {
        let mut below = V::load(energy).below(bound);
        while below != 0 && !found.overflowed() {
            let lane = below.trailing_zeros() as usize;
            below &= below - 1;
            let image = (first + tile * LANES + lane) as u32;
            found.list.push(Candidate { window: k as u32, image, energy: energy.0[lane] });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_near_the_least_is_missed(
            values in proptest::collection::vec(0.0_f32..100.0, 4 * 2 * LANES), margin in 0.1_f32..30.0,
        ) {
            // Two groups of two tiles, two windows: [group][tile][window][lane].
            let lanes: Vec<Lanes> = values.chunks_exact(LANES).map(|v| Lanes(v.try_into().unwrap())).collect();
            for isa in Isa::available() {
                let mut found = Candidates::new(vec![f32::MAX; 2], 1000);
                for (group, energies) in lanes.chunks_exact(4).enumerate() {
                    collect(isa, energies, 0..2, margin, group * 2 * LANES, &mut found);
                }
                found.prune(margin);
                for window in 0..2 {
                    let energy = |image: usize| lanes[image / LANES * 2 + window].0[image % LANES];
                    let least = (0..4 * LANES).map(energy).fold(f32::MAX, f32::min);
                    prop_assert_eq!(found.least[window], least);
                    let expected: Vec<usize> = (0..4 * LANES).filter(|&i| energy(i) < bound(least, margin)).collect();
                    let mut images: Vec<usize> = found
                        .list.iter().filter(|c| c.window as usize == window).map(|c| c.image as usize).collect();
                    images.sort_unstable();
                    prop_assert_eq!(images, expected);
                }
            }
        }
    }

    #[test]
    fn a_full_list_says_so() {
        let mut found = Candidates::new(vec![f32::MAX], 10);
        collect(Isa::best().unwrap(), &[Lanes::ZERO; 2], 0..1, 1.0, 0, &mut found);
        assert!(found.overflowed());
        assert_eq!(found.list.len(), 11);
    }
}
